package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// promoting holds the lease and promotes the parts in order.
func (m *Member) promoting(lease Lease, seen State) stateFn {
	return func(ctx context.Context) stateFn {
		e := m.begin(lease, seen)
		end := m.hold(lease)
		m.become(sdk.RolePromoting, lease.Term(), e.cause)
		m.think("promotes")

		if err := m.worthwhile(ctx, lease); err != nil {
			return m.demoting(lease, ending{sdk.ReasonUnfit, err}, end)
		}
		if leave := m.fence(ctx, lease, seen, e); leave != nil {
			return m.demoting(lease, *leave, end)
		}
		if leave := m.promote(ctx, lease, e); leave != nil {
			return m.demoting(lease, *leave, end)
		}
		return m.primary(lease, e, end)
	}
}

// worthwhile gives a win back when too little of the lease is left, and one
// renewal does not mend it.
func (m *Member) worthwhile(ctx context.Context, lease Lease) error {
	if lease.Until().Sub(m.clock.Now()) >= m.timing.TTL/2 {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, m.timing.Renew, errors.New("not renewed in time"))
	defer cancel()
	err := lease.Renew(ctx)
	if left := lease.Until().Sub(m.clock.Now()); left < m.timing.TTL/2 {
		if err == nil {
			err = errors.New("a renewal did not mend it")
		}
		return fmt.Errorf("only %s of the lease is left: %w", left.Round(time.Millisecond), err)
	}
	return nil
}

// promote promotes the parts in order. It returns why the role is to be left
// again, or nil.
func (m *Member) promote(ctx context.Context, lease Lease, e ending) *ending {
	early := peaceful(lease, e)
	var ready []string
	for _, p := range m.parts {
		says := p.def().plugin.Describe()
		if !says.Can(sdk.CanPromote) {
			continue
		}
		if leave := m.leaving(ctx, lease); leave != nil {
			return leave
		}
		m.mark(p, true)
		// What the run directory does not know of must not happen.
		if err := m.remember(sdk.RolePromoting, lease, e.cause); err != nil {
			m.mark(p, false)
			return &ending{sdk.ReasonUnfit, fmt.Errorf("run directory not written: %w", err)}
		}
		r := m.try(ctx, lease, p, m.transition(sdk.Promote, p, lease.Term(), e), p.def().Promote)
		if leave := m.leaving(ctx, lease); leave != nil {
			return leave
		}
		if err := r.Err(); err != nil {
			return &ending{sdk.ReasonUnfit, fmt.Errorf("promote %s: %w", p.Name, err)}
		}
		if early && says.Can(sdk.CanFollow) {
			ready = append(ready, p.Name)
			m.scribe.announce(sdk.RolePromoting, slices.Clone(ready)...)
		}
	}
	return nil
}

// peaceful reports whether the primary before has left its role by itself, so
// that others may follow each part as soon as it is promoted: what it has is
// what there is. After a loss, or where an operator has chosen, a promotion that
// fails must not have cost those who know better their place.
func peaceful(lease Lease, e ending) bool {
	last := lease.Follows()
	return e.reason != sdk.ReasonFailover && last.Resigned && len(last.Lost()) == 0
}

// leaving tells why a role has to be left at once, or nil.
func (m *Member) leaving(ctx context.Context, lease Lease) *ending {
	if isClosed(lease.Lost()) {
		return &ending{sdk.ReasonLost, fmt.Errorf("%w: %w", ErrLost, lease.Cause())}
	}
	if ctx.Err() != nil {
		return &ending{sdk.ReasonStop, context.Cause(ctx)}
	}
	return nil
}

// mark notes whether a part may act as primary.
func (m *Member) mark(p *part, promoted bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p.promoted, p.demoted, p.altered = promoted, false, false
	m.tell()
}
