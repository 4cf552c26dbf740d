package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// patience is the most that a forced demotion takes, where there is more time than
// it needs: a server that is busy is better asked for longer than killed.
const patience = 2 * time.Second

// force makes the server stop to accept writes, whatever that takes: half of
// the time is for the server to obey, the other half for its end.
func (m *mysql) force(ctx context.Context, t *sdk.Transition) error {
	within := forcedBound
	if t.Timeout > 0 {
		within = min(patience, t.Timeout)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, within*9/10, errors.New("no time is left"))
	defer cancel()
	half, enough := context.WithTimeoutCause(ctx, within/2, fmt.Errorf("not within %s", within/2))
	defer enough()
	err := m.cut(half, within/2)
	switch {
	case err == nil, errors.Is(err, sdk.ErrAlready):
		return err
	}
	return m.unanswered(ctx, true, err)
}

// cut ends all that writes and makes the server read-only within the given time.
// One that does not greet in three quarters of it is frozen.
func (m *mysql) cut(ctx context.Context, within time.Duration) error {
	greet := within * 3 / 4
	greeting, cancel := context.WithTimeoutCause(ctx, greet, fmt.Errorf("not within %s", greet))
	defer cancel()
	l, err := m.begin(greeting)
	if err != nil {
		return err
	}
	defer l.close()
	lacks := m.granted(ctx, l)
	f, err := l.look(ctx, l)
	if err != nil {
		return err
	}
	if f.readOnly {
		if err := l.endWriters(ctx, nil); err != nil {
			return err
		}
		if lacks != nil {
			return unproven(lacks)
		}
		return fmt.Errorf("it is read-only: %w", sdk.ErrAlready)
	}
	if offline := l.offline(true); offline != "" {
		if err := l.set(ctx, within, offline); err != nil {
			return err
		}
	}
	if err := m.shutKilling(ctx, l, within, nil); err != nil {
		return fmt.Errorf("make it read-only: %w", err)
	}
	if err := l.endPresent(ctx, nil); err != nil {
		return err
	}
	if f, err = m.isShut(ctx, l); err != nil {
		return err
	}
	if lacks != nil {
		return unproven(lacks)
	}
	sdk.Note(ctx, "it is read-only at %s", brief(f.position))
	return nil
}
