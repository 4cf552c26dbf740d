package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// spared reports whether a connection is never ended: the server's own, the
// replicas', deputy's, and those of exempt accounts.
func (l *link) spared(t *thread, exempt []string) bool {
	return t.system() || t.user == l.user || t.id == l.id || slices.Contains(exempt, t.user)
}

// ended reports whether a connection has been killed: it may still roll back,
// and cannot commit any more.
func (t *thread) ended() bool { return t.command == "Killed" || t.state == "Killed" }

// endAll ends the connections that are not spared, and returns those that it
// found.
func (l *link) endAll(ctx context.Context, exempt []string) (found []thread, err error) {
	all, err := l.threads(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range all {
		if l.spared(&t, exempt) || t.ended() {
			continue
		}
		if err := l.kill(ctx, t.id); number(err) == errNotOwner {
			continue // of an account above deputy's: see README.md, "Limits"
		} else if err != nil {
			return found, err
		}
		found = append(found, t)
	}
	return found, nil
}

// endPresent ends the connections that there are, and returns when they are
// gone. Those that clients make meanwhile find a server that is read-only.
func (l *link) endPresent(ctx context.Context, exempt []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, killBound, fmt.Errorf("not within %s", killBound))
	defer cancel()
	present, err := l.endAll(ctx, exempt)
	for err == nil && len(present) > 0 {
		var all []thread
		if all, err = l.threads(ctx); err != nil {
			break
		}
		present = slices.DeleteFunc(present, func(t thread) bool {
			i := slices.IndexFunc(all, func(now thread) bool { return now.id == t.id })
			return i < 0 || all[i].ended()
		})
		if len(present) > 0 && sleep(ctx, pollEvery) != nil {
			err = fmt.Errorf("%w: there still is %s", context.Cause(ctx), names(present))
		}
	}
	if err != nil {
		return fmt.Errorf("end connections: %w", err)
	}
	return nil
}

// endWriters ends the connections whose open transactions have written, until
// none is left. Those of exempt accounts can only roll back once the server is
// read-only.
func (l *link) endWriters(ctx context.Context, exempt []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, killBound, fmt.Errorf("not within %s", killBound))
	defer cancel()
	for {
		writers, err := l.writers(ctx, exempt)
		if err != nil {
			return err
		}
		if len(writers) == 0 {
			return nil
		}
		for _, t := range writers {
			if err := l.kill(ctx, t.id); err != nil && number(err) != errNotOwner {
				return fmt.Errorf("end writers: %w", err)
			}
		}
		if err := sleep(ctx, pollEvery); err != nil {
			return fmt.Errorf("end writers: %w: there still is %s", err, names(writers))
		}
	}
}

// writers are the connections with an open transaction that has written, but
// those that are spared or have ended.
func (l *link) writers(ctx context.Context, exempt []string) ([]thread, error) {
	ids, err := l.texts(ctx, l.listWriters())
	if err != nil {
		return nil, fmt.Errorf("look for writers: %w", err)
	}
	all, err := l.threads(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for writers: %w", err)
	}
	var writers []thread
	for _, t := range all {
		if slices.Contains(ids, strconv.FormatUint(t.id, 10)) && !l.spared(&t, exempt) && !t.ended() {
			writers = append(writers, t)
		}
	}
	return writers, nil
}

// names lists connections for people.
func names(all []thread) string {
	var parts []string
	for i, t := range all {
		if i == 5 {
			parts = append(parts, fmt.Sprintf("%d more", len(all)-i))
			break
		}
		parts = append(parts, t.String())
	}
	return strings.Join(parts, "; ")
}

// shutKilling makes the server read-only while a second connection ends whatever
// stands in the way. Once the server has begun to wait it lets no new write
// begin, so that what stands in the way only gets less. It returns within about
// the given time.
func (m *mysql) shutKilling(ctx context.Context, killer *link, within time.Duration, exempt []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %s", within))
	defer cancel()
	if _, err := killer.endAll(ctx, exempt); err != nil { // a full server has no place for a second connection
		return err
	}
	setter, err := m.server.connect(ctx)
	for saturated(err) && sleep(ctx, pollEvery) == nil {
		if _, err := killer.endAll(ctx, exempt); err != nil {
			return err
		}
		setter, err = m.server.connect(ctx)
	}
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- setter.set(ctx, within, setter.shut()) }()
	semiSyncAt := time.Now().Add(within / 4)
	var back []string // what was set aside for the moment
	for {
		select {
		case err := <-done:
			setter.close()
			if len(back) > 0 {
				err = errors.Join(err, killer.execAll(context.WithoutCancel(ctx), min(abandonBound, within/4), back))
			}
			if err != nil && ctx.Err() != nil {
				err = errors.Join(err, m.abandon(ctx, killer, min(abandonBound, within/4)))
			}
			return err
		case <-time.After(pollEvery):
		}
		_, err := killer.endAll(ctx, exempt)
		if err == nil && back == nil && time.Now().After(semiSyncAt) {
			back, err = killer.stopWaiting(ctx)
		}
		if err != nil {
			cancel()
			err = errors.Join(err, <-done)
			setter.close()
			return err
		}
	}
}

// stopWaiting ends the wait of commits for semi-synchronous replicas. Their
// clients are gone by then, so that none takes such a commit for replicated. It
// returns what puts it back.
func (l *link) stopWaiting(ctx context.Context) (back []string, err error) {
	f, err := l.look(ctx, l)
	if err != nil {
		return nil, err
	}
	back = []string{}
	for name, value := range f.variable {
		if isOn(value) && (name == "rpl_semi_sync_master_enabled" || name == "rpl_semi_sync_source_enabled") {
			if err := l.exec(ctx, time.Second, "SET GLOBAL "+name+" = OFF"); err != nil {
				return back, err
			}
			back = append(back, "SET GLOBAL "+name+" = ON")
		}
	}
	return back, nil
}
