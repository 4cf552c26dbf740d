package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// tries is how often a forced demotion is tried under a lease, each time with
// a fresh process, before on_demote_failure decides.
const tries = 3

// demoting demotes the parts in reverse and only then resigns. The lease is
// renewed all the while. A hand-over that cannot finish in time is undone;
// whatever else cannot be demoted gently is demoted by force; what cannot be
// demoted at all blocks the role, or, with the lease lost, has failed.
func (m *Member) demoting(lease Lease, e ending, end func()) stateFn {
	return func(ctx context.Context) stateFn {
		m.become(sdk.RoleDemoting, lease.Term(), e.cause)
		m.think("demotes")
		m.scribe.announce(sdk.RoleDemoting)
		m.note(sdk.RoleDemoting, lease, e.cause)
		m.mu.Lock()
		m.stepDown, m.clear = nil, false
		m.mu.Unlock()

		if !isClosed(lease.Lost()) {
			err := m.leave(ctx, lease, e, m.budget(e))
			if err == nil {
				return m.resign(lease, e, end)
			}
			if undoable(e.reason) && ctx.Err() == nil && !isClosed(lease.Lost()) {
				leave := m.undo(ctx, lease, err)
				if leave == nil {
					return m.primary(lease, ending{sdk.ReasonUndo, fmt.Errorf("%s undone: %w", e.reason, err)}, end)
				}
				e = *leave
			}
		}
		if err := m.force(lease, e); err != nil {
			return m.stuck(lease, fmt.Errorf("%w: %w", e.cause, err), end)
		}
		return m.resign(lease, e, end)
	}
}

// undoable reports whether a node may stay primary if it cannot leave.
func undoable(r sdk.Reason) bool {
	return r == sdk.ReasonSwitchover || r == sdk.ReasonPreempt
}

// budget is how long a planned demotion may take as a whole; zero has no bound
// but those of its hooks.
func (m *Member) budget(e ending) time.Duration {
	s, _ := m.election()
	if undoable(e.reason) && s.Reservation.Binds() {
		return s.Reservation.For
	}
	return 0
}

// leave demotes the parts one after the other, in reverse, with their
// configured timeouts. It stops at the first that cannot, or when the lease is
// lost. A nil lease is none to lose.
func (m *Member) leave(ctx context.Context, lease Lease, e ending, budget time.Duration) error {
	ctx = context.WithoutCancel(ctx)
	began := m.clock.Now()
	held := lease
	if lease == nil {
		held = noLease{term: m.predecessor().Term}
	}
	for _, p := range slices.Backward(m.parts) {
		if !p.promoted || !p.def().plugin.Describe().Can(sdk.CanDemote) {
			continue
		}
		policy := p.def().Demote
		if budget > 0 {
			left := budget - m.clock.Now().Sub(began)
			if left <= 0 {
				return fmt.Errorf("demote %s: no time left of %s", p.Name, budget)
			}
			policy.Timeout = min(policy.Timeout, left)
		}
		r := m.try(ctx, held, p, m.transition(sdk.Demote, p, held.Term(), e), policy)
		if isClosed(held.Lost()) {
			return fmt.Errorf("demote %s: %w: %w", p.Name, ErrLost, held.Cause())
		}
		if err := r.Err(); err != nil {
			return fmt.Errorf("demote %s: %w", p.Name, err)
		}
		m.mark(p, false)
		m.note(m.current(), lease, e.cause)
	}
	return nil
}

// undo takes a demotion back under the same lease and frees the reservation.
// It returns why the role must be left after all, or nil.
func (m *Member) undo(ctx context.Context, lease Lease, why error) *ending {
	e := ending{sdk.ReasonUndo, why}
	s, _ := m.election()
	if r := s.Reservation; r.Binds() {
		m.reply(ctx, *r, Undone, why.Error())
		m.mu.Lock()
		if m.state.Reservation != nil && m.state.Reservation.ID == r.ID {
			m.state.Reservation = nil // whether or not the records tell so yet
		}
		m.mu.Unlock()
	}
	if leave := m.promote(ctx, lease, e); leave != nil {
		leave.cause = fmt.Errorf("%w; undo: %w", why, leave.cause)
		return leave
	}
	return nil
}

// force demotes all parts at once, by any means, and returns nil only when
// each has proven it: nothing of its past runs any more, and a fresh process
// says that it is demoted. Under a lease it tries a few times; without one it
// goes on until the lease has run out, and calls for force from outside when
// that comes near.
func (m *Member) force(lease Lease, e ending) error {
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(errors.New("the demotion is over"))
	held := lease
	if lease == nil {
		held = noLease{term: m.predecessor().Term}
	}
	lost := held.Lost()

	var running sync.WaitGroup
	errs := make([]error, len(m.parts))
	for i, p := range m.parts {
		if p.promoted && p.def().plugin.Describe().Can(sdk.CanDemote) {
			t := m.transition(sdk.Demote, p, held.Term(), e)
			t.Mode = sdk.Forced
			running.Go(func() { errs[i] = m.forceOne(ctx, held, p, t) })
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		running.Wait()
	}()
	m.escalate(held, e, lost, done)
	<-done
	for i, p := range m.parts {
		if errs[i] == nil {
			m.mark(p, false)
			continue
		}
		m.mu.Lock()
		p.demoted = false // whoever said so
		m.mu.Unlock()
	}
	m.note(m.current(), lease, e.cause)
	return errors.Join(errs...)
}

// escalate waits for done. With the lease lost it calls for force from outside
// at s + 0.9 T.
func (m *Member) escalate(lease Lease, e ending, lost, done <-chan struct{}) {
	select {
	case <-done:
		return
	case <-lost:
	}
	for {
		at := m.trigger(lease)
		timer := m.clock.Timer(at)
		select {
		case <-done:
			timer.Stop()
			return
		case <-timer.C():
		}
		if m.trigger(lease) > at {
			continue // a pulse came through: there is more time
		}
		if m.escalator != nil {
			m.escalator.Trigger(e.cause)
		}
		m.log.Error("not proven demoted in time", "term", uint64(lease.Term()), "cause", e.cause)
		<-done
		return
	}
}

// trigger is s + 0.9 T; for a role that proved not ours, as long after now as
// a forced demotion may take.
func (m *Member) trigger(lease Lease) sdk.Instant {
	if until := lease.Until(); until != 0 {
		return until.Add(m.timing.Trigger - m.timing.Until)
	}
	return m.clock.Now().Add(m.timing.Forced())
}

// forceOne demotes one part by force. It ends what is left of its past first,
// so that nothing of it can come after the proof.
func (m *Member) forceOne(ctx context.Context, lease Lease, p *part, t sdk.Transition) error {
	var err error
	for ; ; t.Attempt++ {
		lost := isClosed(lease.Lost())
		t.Timeout, t.LeaseUntil = p.def().Demote.Timeout, lease.Until()
		if lost {
			t.Timeout = max(t.LeaseUntil.Sub(m.clock.Now()), m.timing.Forced())
		}
		err = m.kill(ctx, p.def().plugin)
		if err != nil {
			err = fmt.Errorf("end what runs of %s: %w", p.Name, err)
		} else {
			var abort <-chan struct{}
			if !lost {
				abort = lease.Lost() // then each second counts
			}
			if err = m.do(ctx, p, t, abort).Err(); err == nil {
				return nil
			}
			err = fmt.Errorf("demote %s by force: %w", p.Name, err)
		}
		over := t.Attempt >= tries
		if isClosed(lease.Lost()) {
			over = m.clock.Now() >= lease.Until() && t.Attempt >= tries
		}
		if over {
			return err
		}
		m.pause(ctx, backoff(t.Attempt), nil)
	}
}

// resign gives the lease back: everything is proven demoted.
func (m *Member) resign(lease Lease, e ending, end func()) stateFn {
	m.mu.Lock()
	m.change.Ended, m.change.EndReason, m.change.EndCause = time.Now(), e.reason, e.cause.Error()
	m.mu.Unlock()
	m.sitOut(m.holdOff(e.reason))
	m.bowOut()
	for {
		// Once the lease has run out, others notice by themselves.
		left := max(lease.Until().Add(m.timing.TTL-m.timing.Until).Sub(m.clock.Now()), m.timing.Renew)
		ctx, cancel := context.WithTimeoutCause(context.Background(), left, errors.New("etcd does not answer"))
		err := lease.Resign(ctx)
		cancel()
		if err == nil {
			break
		}
		if m.clock.Now() >= lease.Until() {
			m.log.Warn("lease not given back", "term", uint64(lease.Term()), "cause", err)
			lease.Abandon()
			break
		}
		m.pause(context.Background(), m.timing.Renew, nil)
	}
	m.history()
	end()
	m.note(sdk.RoleStandby, nil, e.cause)
	m.mu.Lock()
	m.last = TermRecord{Term: lease.Term(), Node: m.node.Name, Address: m.node.Address, Resigned: true}
	m.mu.Unlock()
	return m.standby(e.cause)
}

// bowOut publishes, before the role is free, that nobody has to wait for the data
// of a node that ends.
func (m *Member) bowOut() {
	m.mu.Lock()
	c, ends := m.candidacy(), m.ends
	compared, _ := m.positions()
	m.mu.Unlock()
	if !ends || compared == nil {
		return
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), m.timing.Renew, errors.New("etcd does not answer"))
	defer cancel()
	if err := m.elector.Publish(ctx, c); err != nil {
		m.log.Debug("presence not published", "cause", err) // the others wait a little, then
	}
}

// holdOff is how long a node goes last after it left the role.
func (m *Member) holdOff(r sdk.Reason) time.Duration {
	switch r {
	case sdk.ReasonSwitchover, sdk.ReasonPreempt, sdk.ReasonDrain, sdk.ReasonStart, sdk.ReasonClear, sdk.ReasonLost:
		return 2 * m.timing.TTL
	case sdk.ReasonUnfit:
		return 10 * m.timing.TTL
	}
	return 0
}

// current returns the role.
func (m *Member) current() sdk.Role {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.role
}

// predecessor returns the last tenure heard of.
func (m *Member) predecessor() TermRecord {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// noted is the predecessor as notes have it: without victims, which the records
// have, however many.
func (m *Member) noted() TermRecord {
	last := m.predecessor()
	last.Victims = nil
	return last
}

// A noLease is held by a node that demotes without a lease: it is never lost,
// since it never was there.
type noLease struct {
	Lease
	term sdk.Term
}

func (l noLease) Term() sdk.Term        { return l.term }
func (l noLease) Lost() <-chan struct{} { return nil }
func (l noLease) Until() sdk.Instant    { return 0 }
