package supervisor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A renewing is how the renewals of the lease arrive at a part.
type renewing struct {
	until chan sdk.Instant // the newest one that is to be delivered; nil when none are
	since sdk.Instant      // of the first failure in a row; zero when there is none
	err   error            // undeliverable for so long that the part is unfit
}

// hold begins what goes on for as long as a lease is held, whatever the role:
// it passes renewals on to the parts that may be primary, keeps the end of the
// lease in the run directory and writes role and history into the records.
// The returned function ends all of it and waits.
func (m *Member) hold(lease Lease) func() {
	ctx, cancel := context.WithCancelCause(context.Background())
	var running sync.WaitGroup
	m.mu.Lock()
	m.lease, m.forfeited = lease, 0
	for _, p := range m.parts {
		p.renewing = renewing{}
		if p.def().plugin.Describe().Can(sdk.CanRenew) {
			p.renewing.until = make(chan sdk.Instant, 1)
			running.Go(func() { m.renew(ctx, lease, p) })
		}
	}
	m.tell()
	m.mu.Unlock()
	m.extend(lease) // what the process before has promoted; a promotion brings its own
	m.scribe = newScribe()
	running.Go(func() { m.deliver(ctx, lease) })
	running.Go(func() { m.scribe.write(ctx, m, lease) })
	return func() {
		m.scribe.finish(m.timing.TTL)
		cancel(errors.New("the tenure is over"))
		running.Wait()
		m.mu.Lock()
		m.lease = nil
		for _, p := range m.parts {
			p.renewing = renewing{}
		}
		m.tell()
		m.mu.Unlock()
	}
}

// deliver hands each renewal on. After the lease is lost nothing is extended
// any more: the guards may close.
func (m *Member) deliver(ctx context.Context, lease Lease) {
	for !isClosed(lease.Lost()) {
		if err := m.memory.SaveUntil(lease.Until()); err != nil {
			m.log.Warn("end of the lease not written", "term", uint64(lease.Term()), "cause", err)
		}
		select {
		case <-lease.Renewed():
			m.extend(lease)
		case <-lease.Lost():
		case <-ctx.Done():
			return
		}
	}
}

// extend has what expires by itself extended in the parts that may be primary.
func (m *Member) extend(lease Lease) {
	until := lease.Until()
	if isClosed(lease.Lost()) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.parts {
		if p.renewing.until == nil || !p.promoted {
			continue
		}
		select {
		case <-p.renewing.until: // replaced by the newer one
		default:
		}
		p.renewing.until <- until
	}
}

// renew extends what expires by itself in one part.
func (m *Member) renew(ctx context.Context, lease Lease, p *part) {
	m.mu.Lock()
	inbox := p.renewing.until
	m.mu.Unlock()
	for {
		var until sdk.Instant
		select {
		case until = <-inbox:
		case <-ctx.Done():
			return
		}
		m.mu.Lock()
		primary := m.role == sdk.RolePrimary
		m.mu.Unlock()
		plugin := p.def().plugin
		bounded, cancel := context.WithTimeoutCause(ctx, m.timing.Renew, fmt.Errorf("no answer within %s", m.timing.Renew))
		err := plugin.Renew(bounded, until)
		if err != nil && ctx.Err() == nil && bounded.Err() != nil {
			err = context.Cause(bounded)
		}
		cancel()
		if ctx.Err() != nil {
			return
		}
		now := m.clock.Now()
		m.mu.Lock()
		switch {
		case errors.Is(p.renewing.err, sdk.ErrExpired): // what has expired does not come back
		case err == nil:
			p.renewing.since, p.renewing.err = 0, nil
		case errors.Is(err, sdk.ErrExpired) && primary && m.role == sdk.RolePrimary:
			// It acts as primary no more, so there is nothing to be patient for. What
			// was asked before the promotion may tell of before.
			p.renewing.err = err
			m.tell()
			m.ring()
		case p.renewing.since == 0:
			p.renewing.since = now
			m.log.Warn("renewal not delivered", "plugin", p.Name, "term", uint64(lease.Term()), "cause", err)
		case now.Sub(p.renewing.since) >= m.timing.Lost && p.renewing.err == nil:
			// What was extended last ends about now: it holds as long as the
			// lease did by then.
			p.renewing.err = fmt.Errorf("renewals do not arrive: %w", err)
			m.tell()
			m.ring()
		}
		m.mu.Unlock()
	}
}

// A scribe writes a tenure's role and history into the records, behind the
// role machine's back: nothing waits for it but the end of the tenure.
type scribe struct {
	mu     sync.Mutex
	role   sdk.Role // to be announced; empty when it is
	ready  []string // with the role: the parts that may be followed
	change *Change  // to be recorded; nil when it is
	work   chan struct{}
	idle   chan struct{} // closed when nothing is to be written; replaced when something is
}

func newScribe() *scribe {
	idle := make(chan struct{})
	close(idle)
	return &scribe{work: make(chan struct{}, 1), idle: idle}
}

// announce has the role written, with the parts that may be followed before all
// of it is promoted, unless a newer one comes first.
func (s *scribe) announce(r sdk.Role, ready ...string) {
	s.order(func() { s.role, s.ready = r, ready })
}

// record has the change written, unless a newer one comes first. With the
// tenure over, its role is of no interest any more.
func (s *scribe) record(c Change) {
	s.order(func() {
		s.change = &c
		if !c.Ended.IsZero() {
			s.role = ""
		}
	})
}

func (s *scribe) order(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	if isClosed(s.idle) {
		s.idle = make(chan struct{})
	}
	select {
	case s.work <- struct{}{}:
	default:
	}
}

// finish waits until all is written, but no longer than d.
func (s *scribe) finish(d time.Duration) {
	s.mu.Lock()
	idle := s.idle
	s.mu.Unlock()
	select {
	case <-idle:
	case <-time.After(d):
	}
}

func (s *scribe) write(ctx context.Context, m *Member, lease Lease) {
	for {
		select {
		case <-s.work:
		case <-ctx.Done():
			return
		}
		for ctx.Err() == nil {
			s.mu.Lock()
			role, ready, change := s.role, s.ready, s.change
			if role == "" && change == nil && !isClosed(s.idle) {
				close(s.idle)
			}
			s.mu.Unlock()
			if role == "" && change == nil {
				break
			}
			if role == sdk.RoleDemoting && change == nil && s.brief(ctx, m) {
				continue
			}
			err := s.attempt(ctx, m, lease, role, ready, change)
			if err != nil {
				m.log.Debug("record not written", "term", uint64(lease.Term()), "cause", err)
				if errors.Is(err, ErrRefused) || isClosed(lease.Lost()) {
					err = nil // it is not ours any more, or may not be: do not insist
				}
			}
			s.mu.Lock()
			if err == nil {
				if s.role == role && len(s.ready) == len(ready) { // they only become more
					s.role = ""
				}
				if s.change == change {
					s.change = nil
				}
			}
			s.mu.Unlock()
			if err != nil {
				m.pause(ctx, m.timing.Renew, nil)
			}
		}
	}
}

// brief reports whether there is something else to write before a demotion has
// taken long enough to be worth telling. It would hold up the end of it.
func (s *scribe) brief(ctx context.Context, m *Member) bool {
	timer := m.clock.Timer(m.clock.Now().Add(calm))
	defer timer.Stop()
	select {
	case <-s.work:
		return true
	case <-ctx.Done():
		return true
	case <-timer.C():
		return false
	}
}

func (s *scribe) attempt(ctx context.Context, m *Member, lease Lease, role sdk.Role, ready []string, change *Change) error {
	ctx, cancel := context.WithTimeout(ctx, m.timing.TTL)
	defer cancel()
	if role != "" {
		// A role that is over needs no announcement, but its history a record.
		if err := lease.Announce(ctx, role, ready...); err != nil && (change == nil || !errors.Is(err, ErrRefused)) {
			return err
		}
	}
	if change != nil {
		return m.elector.Record(ctx, *change)
	}
	return nil
}
