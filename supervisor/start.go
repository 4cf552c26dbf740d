package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// start finds out what the process before this one left behind: it takes over
// a lease that is still this node's, and adopts the role where every part
// proves to be primary already, or demotes under that lease. Without a lease
// it takes down whatever this node should not hold.
func (m *Member) start(ctx context.Context) stateFn {
	note, err := m.memory.Load()
	if err != nil {
		m.log.Error("run directory not read, so everything is demoted", "cause", err)
		note = Note{}
	}
	m.mu.Lock()
	m.last = note.Last
	if t := note.Tenure; t != nil && t.Term > m.last.Term {
		m.last = TermRecord{Term: t.Term, Node: t.Node, Pulse: t.Pulse}
	}
	clean := err == nil && note.Role != "" && note.Tenure == nil && len(note.Promoted) == 0
	for _, p := range m.parts {
		// Whatever the process before knew, somebody else may have promoted since.
		// That is no reason for a clean-up behind that process to kill this one.
		p.promoted, p.demoted = p.def().plugin.Describe().Can(sdk.CanDemote), clean
	}
	m.mu.Unlock()

	if t := note.Tenure; t != nil && t.Boot == m.node.Boot {
		lease, err := m.adopt(ctx, *t)
		switch {
		case err == nil:
			return m.resume(note, lease)
		case errors.Is(err, ErrRefused):
			m.log.Warn("lease of the process before not taken over", "term", uint64(t.Term), "cause", err)
		default:
			m.log.Warn("lease of the process before not taken over in time", "term", uint64(t.Term), "cause", err)
		}
		return m.takeDown(ending{sdk.ReasonStart, fmt.Errorf("started after a crash, and the lease is not ours: %w", err)}, true)
	}
	return m.takeDown(ending{sdk.ReasonStart, errors.New("started")}, false)
}

// adopt asks for the lease that the note names until it is granted, refused,
// or too late: at s + 0.75 T the rest is needed to demote.
func (m *Member) adopt(ctx context.Context, t Tenure) (Lease, error) {
	late := t.Until.Add(m.timing.Lost - m.timing.Until)
	for {
		left := late.Sub(m.clock.Now())
		if left <= 0 {
			// It may have run out long ago; then only the records can tell that it is still ours.
			left = m.timing.Renew
		}
		asking, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), left, errors.New("etcd does not answer"))
		lease, err := m.elector.Adopt(asking, t)
		if err != nil && asking.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(asking), err)
		}
		cancel()
		if err == nil || errors.Is(err, ErrRefused) || m.clock.Now() >= late {
			return lease, err
		}
		m.pause(ctx, min(m.timing.Renew, 100*time.Millisecond), nil)
	}
}

// resume goes on with a lease taken over.
func (m *Member) resume(note Note, lease Lease) stateFn {
	m.mu.Lock()
	m.last = lease.Follows()
	m.change = Change{Term: lease.Term(), Node: m.node.Name, From: m.last.Node, At: time.Now(), Reason: sdk.ReasonStart, Cause: "taken over from the process before", Adopted: true}
	m.mu.Unlock()
	return func(ctx context.Context) stateFn {
		end := m.hold(lease)
		if note.Role != sdk.RolePrimary {
			e := ending{sdk.ReasonStart, fmt.Errorf("the process before ended as %s: %s", note.Role, note.Cause)}
			return m.demoting(lease, e, end)
		}
		e := ending{sdk.ReasonStart, errors.New("taken over from the process before")}
		for _, p := range m.parts {
			if !p.def().plugin.Describe().Can(sdk.CanPromote) {
				continue
			}
			t := m.transition(sdk.Promote, p, lease.Term(), e)
			t.Timeout, t.LeaseUntil = p.def().Promote.Timeout, lease.Until()
			r := m.do(ctx, p, t, lease.Lost())
			if r.Outcome != sdk.OutcomeAlready {
				e.cause = fmt.Errorf("adopt: %s is not primary as the process before left it: %s %s", p.Name, r.Outcome, r.Detail)
				return m.demoting(lease, e, end)
			}
		}
		return m.primary(lease, e, end)
	}
}

// takeDown demotes everything without a lease. With the lease of the past
// lost, somebody else may be primary, so there is no time to be gentle.
func (m *Member) takeDown(e ending, urgent bool) stateFn {
	return func(ctx context.Context) stateFn {
		if !urgent {
			urgent = m.leave(ctx, nil, e, 0) != nil
		}
		if urgent {
			if err := m.force(nil, e); err != nil {
				return m.stuck(nil, err, nil)
			}
		}
		m.note(sdk.RoleStandby, nil, e.cause)
		return m.standby(e.cause)
	}
}
