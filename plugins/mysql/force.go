package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// force makes the server stop to accept writes, whatever that takes: half of
// the time is for the server to obey, the other half for its end.
func (m *mysql) force(ctx context.Context, t *sdk.Transition) error {
	within := forcedBound
	if t.Timeout > 0 {
		within = min(within, t.Timeout)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, within*9/10, errors.New("no time is left"))
	defer cancel()
	half, enough := context.WithTimeoutCause(ctx, within/2, fmt.Errorf("not within %s", within/2))
	defer enough()
	err := m.cut(half, within*3/8)
	switch {
	case err == nil, errors.Is(err, sdk.ErrAlready):
		return err
	}
	return m.unanswered(ctx, true, err)
}

// cut ends all that writes and makes the server read-only. One that does not
// greet in the given time is frozen.
func (m *mysql) cut(ctx context.Context, greet time.Duration) error {
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
		if err := l.set(ctx, forcedBound, offline); err != nil {
			return err
		}
	}
	if err := m.shutKilling(ctx, l, forcedBound, nil); err != nil {
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
