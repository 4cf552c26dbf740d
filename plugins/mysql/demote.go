package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// Demote makes the server read-only. There is time for that when it is planned:
// statements may end, and the successor gets all there is.
func (m *mysql) Demote(ctx context.Context, t *sdk.Transition) error {
	if t.Mode == sdk.Forced {
		return m.force(ctx, t)
	}
	l, err := m.begin(ctx)
	if err != nil {
		return m.unanswered(ctx, false, err)
	}
	defer l.close()
	lacks := m.granted(ctx, l)
	f, err := l.look(ctx, l)
	if err != nil {
		return err
	}
	if f.readOnly {
		if err := l.endWriters(ctx, m.Exempt); err != nil {
			return err
		}
		if lacks != nil {
			return unproven(lacks)
		}
		return fmt.Errorf("it is read-only at %s: %w", f.position, sdk.ErrAlready)
	}
	heirs := m.reach(ctx, t)
	defer hangUp(heirs)
	if len(heirs) == 1 && heirs[0].err != nil && mayStay(t) {
		return sdk.Unchanged(fmt.Errorf("reach the successor %s: %w", heirs[0].Node, heirs[0].err))
	}
	if m.Promotion.EventScheduler == "manage" && f.events == "ON" {
		if err := l.set(ctx, statementBound, "SET GLOBAL event_scheduler = OFF"); err != nil {
			return err
		}
	}
	if err := m.shutGently(ctx, l, t); err != nil {
		if ctx.Err() != nil {
			err = errors.Join(err, m.abandon(ctx, l, abandonBound))
		}
		return err
	}
	if f, err = m.isShut(ctx, l); err != nil {
		return err
	}
	end := l.endPresent
	if m.Demotion.Disconnect == "writers" {
		end = l.endWriters
	}
	gone := make(chan error, 1)
	go func() { gone <- end(ctx, m.Exempt) }()
	who, late := m.handOver(ctx, t, f, heirs)
	switch err := <-gone; {
	case err != nil:
		return err
	case lacks != nil:
		return unproven(lacks)
	case late == nil:
		late = m.prepared(ctx, l, t)
	}
	if late != nil {
		return m.takeBack(ctx, l, t, f, late)
	}
	sdk.Note(ctx, "it is read-only at %s, %s", brief(f.position), who)
	return nil
}

// shutGently makes the server read-only once what runs has ended by itself, or,
// where it may, has been ended.
func (m *mysql) shutGently(ctx context.Context, l *link, t *sdk.Transition) error {
	var err error
	if m.Demotion.LockWait > 0 {
		// The server counts whole seconds, so the end of the wait is here.
		err = m.shutWaiting(ctx, l)
		if err == nil {
			return nil
		}
		if number(err) != errLockWait && number(err) != errInterrupted {
			return fmt.Errorf("make it read-only: %w", err)
		}
	}
	if m.Demotion.OnBlockers == "undo" {
		blockers, seen := l.busy(ctx, m.Exempt)
		why := fmt.Errorf("make it read-only: not within %s, for there is %s", m.Demotion.LockWait, names(blockers))
		f, looked := l.look(ctx, l)
		if err := errors.Join(seen, looked); err != nil {
			return errors.Join(why, err)
		}
		return m.takeBack(ctx, l, t, f, why)
	}
	blockers, err := l.busy(ctx, m.Exempt)
	if err != nil {
		return err
	}
	m.log.Warn("connections are ended that stand in the way", "connections", names(blockers))
	if err := m.shutKilling(ctx, l, shutBound, m.Exempt); err != nil {
		return fmt.Errorf("make it read-only: %w", err)
	}
	return nil
}

// shutBound is how long a server may take to become read-only while all that
// stands in the way is ended.
const shutBound = 5 * time.Second

// shutWaiting asks the server to become read-only, and takes that back when it
// is not within the time that statements have to end by themselves.
func (m *mysql) shutWaiting(ctx context.Context, killer *link) error {
	setter, err := m.server.connect(ctx)
	if err != nil {
		return err
	}
	defer setter.close()
	done := make(chan error, 1)
	go func() { done <- setter.set(ctx, m.Demotion.LockWait, setter.shut()) }()
	timer := time.NewTimer(m.Demotion.LockWait)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
	}
	interrupt := killer.exec(context.WithoutCancel(ctx), time.Second, fmt.Sprintf("KILL QUERY %d", setter.id))
	err = <-done
	if err == nil || interrupt == nil || number(interrupt) == errNoSuchThread {
		return err
	}
	return errors.Join(err, interrupt)
}

// busy are the connections that may stand in the way: those that run something
// or have written.
func (l *link) busy(ctx context.Context, exempt []string) ([]thread, error) {
	writers, err := l.writers(ctx, exempt)
	if err != nil {
		return nil, err
	}
	all, err := l.threads(ctx)
	if err != nil {
		return nil, err
	}
	seen := map[uint64]bool{}
	for _, t := range writers {
		seen[t.id] = true
	}
	for _, t := range all {
		if t.command != "Sleep" && !seen[t.id] && !l.spared(&t, exempt) {
			writers = append(writers, t)
		}
	}
	return writers, nil
}

// prepared tells of XA transactions that somebody could still commit here. A
// server that leaves all the same keeps everybody out: see offline.
func (m *mysql) prepared(ctx context.Context, l *link, t *sdk.Transition) error {
	query := l.listPrepared()
	if query == "" {
		return nil
	}
	found, err := l.texts(ctx, query)
	if err != nil || len(found) == 0 {
		return err
	}
	if !mayStay(t) {
		if err := l.set(ctx, statementBound, l.offline(true)); err != nil {
			return err
		}
	}
	return fmt.Errorf("%d XA transactions are prepared, which may be committed even while it is read-only: XA RECOVER lists them, XA COMMIT or XA ROLLBACK ends them", len(found))
}

// isShut looks whether the server is read-only.
func (m *mysql) isShut(ctx context.Context, l *link) (facts, error) {
	f, err := l.look(ctx, l)
	if err == nil && !f.readOnly {
		err = errors.New("make it read-only: it says that it is writable still")
	}
	return f, err
}

// mayStay reports whether a node stays primary that cannot hand over: somebody
// wanted it elsewhere, and nothing is wrong with it.
func mayStay(t *sdk.Transition) bool {
	return t.Reason == sdk.ReasonSwitchover || t.Reason == sdk.ReasonPreempt
}

// takeBack makes the server writable again when it could not be handed over and
// may stay primary; why tells what was in the way. Where it may not stay it is
// demoted: what the successor lacks, its rank tells.
func (m *mysql) takeBack(ctx context.Context, l *link, t *sdk.Transition, f facts, why error) error {
	if !mayStay(t) {
		if !f.readOnly {
			return why
		}
		m.log.Warn("the successor lacks transactions", "cause", why)
		sdk.Note(ctx, "it is read-only at %s; %s", brief(f.position), why)
		return nil
	}
	if ctx.Err() != nil {
		return why
	}
	if m.Promotion.EventScheduler == "manage" && f.events != "DISABLED" {
		if err := l.set(ctx, openBound, "SET GLOBAL event_scheduler = ON"); err != nil {
			return errors.Join(why, err)
		}
	}
	if f.readOnly {
		if _, err := m.open(ctx, l, t); err != nil {
			return fmt.Errorf("%w; take it back: %w", why, err)
		}
	}
	return sdk.Unchanged(fmt.Errorf("%w; it is writable again", why))
}
