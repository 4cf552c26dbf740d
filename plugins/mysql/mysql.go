package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A mysql is the server of this node with one set of settings. What counts is
// what the server says, which outlives this process.
type mysql struct {
	settings
	log     *slog.Logger
	server  *server
	cgroups string // where control groups are mounted

	mu       sync.Mutex
	renewed  sdk.Instant
	diverged string    // the server has what its primary lacks: why it does not follow
	sound    time.Time // when it was last seen not to start writable
}

// diverge notes why the server has to be made anew; "" where it has not.
func (m *mysql) diverge(why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.diverged = why
}

// divergence tells why the server has to be made anew; "" where it has not.
func (m *mysql) divergence() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.diverged
}

func newMySQL(_ context.Context, s settings, h sdk.Host) (*mysql, error) {
	at, err := s.endpoint()
	if err != nil {
		key := "tls"
		if s.DefaultsFile != "" {
			key = "defaults_file"
		}
		return nil, &sdk.KeyError{Key: key, Err: err}
	}
	return &mysql{settings: s, log: h.Log, server: newServer(at, s.ConnectTimeout), cgroups: "/sys/fs/cgroup"}, nil
}

// Renew notes how long the lease holds: the server is not opened for writes
// after that.
func (m *mysql) Renew(_ context.Context, until sdk.Instant) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.renewed = until
	return nil
}

// leased is for how long the lease holds, as far as is known.
func (m *mysql) leased(t *sdk.Transition) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(t.LeaseUntil, m.renewed).Sub(sdk.Now())
}

// Rank compares positions that Check has told.
func (m *mysql) Rank(_ context.Context, mine string, others map[string]string) (map[string]sdk.Order, error) {
	return rank(mine, others)
}

// begin connects for an act and sees to it that no act of before is still going
// on at the server. It waits for a place at a server that is full.
func (m *mysql) begin(ctx context.Context) (*link, error) {
	for {
		l, err := m.server.connect(ctx)
		if saturated(err) && sleep(ctx, pollEvery) == nil {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err = l.endOthers(ctx); err != nil {
			l.close()
			return nil, err
		}
		return l, nil
	}
}

// abandonBound is how long may be spent on the end of an act that was
// interrupted, where nothing asks for less.
const abandonBound = 700 * time.Millisecond

// abandon ends an act's connection for good: what it has asked for does not
// happen any more once abandon has returned nil.
func (m *mysql) abandon(ctx context.Context, l *link, within time.Duration) error {
	l.close()
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), within, fmt.Errorf("not within %s", within))
	defer cancel()
	k, err := m.begin(ctx)
	if err != nil {
		return fmt.Errorf("see to it that nothing comes late: %w", err)
	}
	k.close()
	return nil
}

// openBound is how long the server may take to open for writes; the lease has to
// hold at least that long.
const openBound = time.Second

// open makes the server writable, and returns what it says once it is.
func (m *mysql) open(ctx context.Context, l *link, t *sdk.Transition) (f facts, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, openBound, fmt.Errorf("not within %s", openBound))
	defer cancel()
	if left := m.leased(t); left < openBound {
		return f, sdk.Unchanged(fmt.Errorf("open for writes: the lease holds for %s more, and that may take %s", left, openBound))
	}
	if err = l.set(ctx, openBound, l.openUp()...); err == nil {
		f, err = l.look(ctx, l)
	}
	if err == nil && (f.readOnly || f.some || f.offline) {
		err = errors.New("it says that it is read-only still")
	}
	if err != nil {
		return f, fmt.Errorf("open for writes: %w", err)
	}
	return f, nil
}

// setLockWait bounds, at the server, how long statements of a connection wait
// for others. The server counts whole seconds.
func setLockWait(d time.Duration) string {
	return fmt.Sprintf("SET SESSION lock_wait_timeout = %d", max(1, int((d+time.Second-1)/time.Second)))
}

// set has the server do statements that are bounded there, too.
func (l *link) set(ctx context.Context, within time.Duration, statements ...string) error {
	if bound := setLockWait(within); bound != l.bound {
		statements, l.bound = append([]string{bound}, statements...), bound
	}
	return l.execAll(ctx, within+time.Second, statements)
}
