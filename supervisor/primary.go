package supervisor

import (
	"context"
	"errors"
	"fmt"

	"github.com/deputy-ha/deputy/sdk"
)

// primary lasts until the tenure ends.
func (m *Member) primary(lease Lease, e ending, end func()) stateFn {
	return func(ctx context.Context) stateFn {
		m.become(sdk.RolePrimary, lease.Term(), e.cause)
		m.think("is primary")
		m.note(sdk.RolePrimary, lease, e.cause)
		m.scribe.announce(sdk.RolePrimary)
		m.history()
		for {
			if ctx.Err() != nil && !isClosed(lease.Lost()) && errors.Is(context.Cause(ctx), ErrRestart) {
				return m.keep(lease, e, end)
			}
			if leave := m.reason(ctx, lease); leave != nil {
				return m.demoting(lease, *leave, end)
			}
			if p := m.altered(); p != nil {
				if leave := m.promoteAgain(ctx, lease, p); leave != nil {
					return m.demoting(lease, *leave, end)
				}
				continue
			}
			m.await(ctx, 0, lease.Lost())
		}
	}
}

// altered returns the first part that is promoted with other settings than it
// has now, or nil.
func (m *Member) altered() *part {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.parts {
		if p.altered && p.promoted {
			p.altered = false
			return p
		}
	}
	return nil
}

// promoteAgain puts a part's new settings in force. It returns why the role is
// to be left when that fails, or nil.
func (m *Member) promoteAgain(ctx context.Context, lease Lease, p *part) *ending {
	if !p.def().plugin.Describe().Can(sdk.CanPromote) {
		return nil
	}
	e := ending{sdk.ReasonReload, errors.New("its settings have changed")}
	r := m.try(ctx, lease, p, m.transition(sdk.Promote, p, lease.Term(), e), p.def().Promote)
	m.history()
	if err := r.Err(); err != nil && ctx.Err() == nil && !isClosed(lease.Lost()) {
		return &ending{sdk.ReasonUnfit, fmt.Errorf("promote %s with its new settings: %w", p.Name, err)}
	}
	return nil
}

// reason tells why a primary has to leave its role, or nil.
func (m *Member) reason(ctx context.Context, lease Lease) *ending {
	if leave := m.leaving(ctx, lease); leave != nil {
		return leave
	}
	m.mu.Lock()
	order, s, away := m.stepDown, m.state, m.away
	m.stepDown = nil
	m.mu.Unlock()
	switch r := s.Reservation; {
	case order != nil:
		return order
	case away != nil:
		return &ending{sdk.ReasonDrain, away}
	case s.IsDrained(m.node.Name):
		return &ending{sdk.ReasonDrain, errors.New("this node is drained")}
	case s.IsBanned(m.node.Name):
		return &ending{sdk.ReasonDrain, errors.New("this node is banned from the service")}
	case r.Binds() && r.State == Accepted && r.To != m.node.Name:
		return &ending{r.Reason, fmt.Errorf("%s to %s", r.Reason, r.To)}
	}
	if err := m.unfit(); err != nil {
		return &ending{sdk.ReasonUnfit, fmt.Errorf("not fit: %w", err)}
	}
	return nil
}

// keep ends the process but not the role: the next process adopts it.
func (m *Member) keep(lease Lease, e ending, end func()) stateFn {
	// The next process has the more time. Without an answer it has what is left.
	ctx, cancel := context.WithTimeoutCause(context.Background(), m.timing.Renew, errors.New("etcd does not answer"))
	_ = lease.Renew(ctx)
	cancel()
	end()
	t := lease.Tenure()
	note := Note{Role: sdk.RolePrimary, Cause: e.cause.Error(), Tenure: &t, Last: m.noted(), Keep: true}
	for _, p := range m.parts {
		if p.promoted {
			note.Promoted = append(note.Promoted, p.Name)
		}
	}
	if err := m.memory.Save(note); err != nil {
		m.log.Warn("run directory not written", "cause", err)
	}
	lease.Abandon()
	m.log.Info("role kept for the next process", "role", string(sdk.RolePrimary), "term", uint64(lease.Term()), "cause", ErrRestart)
	return nil
}

// history has the tenure written as it is now.
func (m *Member) history() {
	m.mu.Lock()
	c := m.change
	c.Steps, c.EndSteps = append([]Step(nil), c.Steps...), append([]Step(nil), c.EndSteps...)
	m.mu.Unlock()
	m.scribe.record(c)
}
