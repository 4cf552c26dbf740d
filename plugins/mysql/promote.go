package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// Promote applies what was received, forgets whom the server followed, and opens
// it for writes.
func (m *mysql) Promote(ctx context.Context, t *sdk.Transition) error {
	l, err := m.begin(ctx)
	if err != nil {
		return sdk.Unchanged(err)
	}
	defer l.close()
	if err := m.granted(ctx, l); err != nil {
		return refusal(err)
	}
	f, err := l.look(ctx, l)
	if err != nil {
		return sdk.Unchanged(err)
	}
	channels, err := l.channels(ctx)
	if err != nil {
		return sdk.Unchanged(err)
	}
	if !f.readOnly && !f.some && !f.offline && len(channels) == 0 {
		return fmt.Errorf("it is writable at %s: %w", f.position, sdk.ErrAlready)
	}
	if err := m.unsuited(ctx, l, f, channels); err != nil {
		return sdk.Refuse(err)
	}
	if m.ReadOnly == "warn" {
		if err := m.startsWritable(ctx, l); err != nil {
			m.log.Warn("a crash would make two primaries", "cause", err)
		}
	}
	if len(channels) > 0 {
		if err := m.applyReceived(ctx, l, f, t); err != nil {
			return err
		}
		if err := l.set(ctx, statementBound, l.forget()...); err != nil {
			return fmt.Errorf("forget whom it followed: %w", err)
		}
	}
	if err := m.sides(ctx, l, f, true); err != nil {
		return err
	}
	if f, err = m.open(ctx, l, t); err != nil {
		if ctx.Err() != nil {
			err = errors.Join(err, m.abandon(ctx, l, abandonBound))
		}
		return err
	}
	m.diverge("")
	sdk.Note(ctx, "it is writable at %s", f.position)
	return nil
}

// refusal is for the case that an account lacks something, or that this could
// not be found out.
func refusal(err error) error {
	var lacks *notGranted
	if errors.As(err, &lacks) {
		return sdk.Refuse(err)
	}
	return sdk.Unchanged(err)
}

// statementBound is how long the server may take for a statement of replication.
const statementBound = 10 * time.Second

// sides puts semi-synchronous replication and events to what a primary or a
// standby has, where that is this plugin's to do.
func (m *mysql) sides(ctx context.Context, l *link, f facts, primary bool) error {
	var statements []string
	if m.Promotion.SemiSync == "manage" {
		statements = l.semiSync(f, primary, !primary)
	}
	if m.Promotion.EventScheduler == "manage" && f.events != "DISABLED" && (f.events == "ON") != primary {
		statements = append(statements, "SET GLOBAL event_scheduler = "+onOff(primary))
	}
	if len(statements) == 0 {
		return nil
	}
	return l.set(ctx, statementBound, statements...)
}

// stopReceiving has the server receive no more.
func (l *link) stopReceiving(ctx context.Context, f facts) error {
	before, after := l.aroundStop(f)
	err := l.set(ctx, statementBound, append(before, l.receive(false))...)
	if len(after) > 0 {
		err = errors.Join(err, l.set(context.WithoutCancel(ctx), abandonBound, after...))
	}
	return err
}

// applyReceived stops receiving and waits until what was received is applied.
// If that is not to be had, the server follows as before.
func (m *mysql) applyReceived(ctx context.Context, l *link, f facts, t *sdk.Transition) error {
	if err := l.stopReceiving(ctx, f); err != nil {
		return fmt.Errorf("stop receiving: %w", err)
	}
	missing, err := m.awaitReceived(ctx, l, t)
	switch {
	case err == nil:
		return nil
	case missing != "" && m.Promotion.OnUnapplied == "force" && ctx.Err() == nil:
		m.log.Warn("received transactions are given up", "transactions", missing, "cause", err)
		return nil
	}
	err = fmt.Errorf("wait for received transactions: %w; not applied: %s (on_unapplied = \"force\" would lose them)", err, brief(missing))
	if again := l.set(context.WithoutCancel(ctx), abandonBound, l.receive(true)); again != nil {
		return errors.Join(err, fmt.Errorf("follow as before: %w", again))
	}
	return sdk.Unchanged(err)
}

// reserve is what is kept of an act's time for what comes after a wait.
const reserve = time.Second

// awaitReceived returns what of the received is not applied, and why.
func (m *mysql) awaitReceived(ctx context.Context, l *link, t *sdk.Transition) (missing string, err error) {
	within := m.Promotion.ApplyTimeout
	if deadline, ok := ctx.Deadline(); ok {
		within = max(0, min(within, time.Until(deadline)-reserve))
	}
	end, moved, was := time.Now().Add(within), time.Now(), ""
	for {
		f, err := l.look(ctx, l)
		if err != nil {
			return missing, err
		}
		channels, err := l.channels(ctx)
		if err != nil {
			return missing, err
		}
		all := f.received(channels)
		if missing = all.without(f.applied); missing == "" {
			return "", nil
		}
		if len(channels) > 0 {
			if c := channels[0]; c.applies == "No" && c.applyFault != "" {
				return missing, fmt.Errorf("the applier has stopped: %s", c.applyFault)
			} else if c.applies == "No" {
				if err := l.set(ctx, statementBound, l.apply(true)); err != nil {
					return missing, fmt.Errorf("start the applier: %w", err)
				}
			}
		}
		if f.position != was {
			moved, was = time.Now(), f.position
		}
		switch now := time.Now(); {
		case !now.Before(end):
			return missing, fmt.Errorf("not done within %s", within.Round(time.Millisecond))
		case now.Sub(moved) > m.Promotion.StallTimeout:
			return missing, fmt.Errorf("the applier has not moved for %s", m.Promotion.StallTimeout)
		}
		sdk.Progress(ctx, -1, "applies what was received, still %s", brief(missing))
		rest := min(time.Until(end), m.Promotion.StallTimeout, time.Second)
		if _, err := l.one(ctx, l.awaitApplied(all, max(rest, pollEvery))); err != nil {
			return missing, err
		}
	}
}

// brief shortens a list of transactions for people.
func brief(s string) string {
	if parts := strings.Split(s, ","); len(parts) > 5 {
		return strings.Join(parts[:5], ",") + fmt.Sprintf(" and %d more", len(parts)-5)
	}
	return s
}
