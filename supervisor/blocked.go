package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// stuck is where a demotion ends that nobody could prove: blocked while the
// lease is held, failed when it is not.
func (m *Member) stuck(lease Lease, cause error, end func()) stateFn {
	if lease != nil && lease.Until() > m.clock.Now() {
		return m.blocked(lease, cause, end)
	}
	return m.failed(lease, cause, end)
}

// blocked keeps the lease, and renews it, because a part may still be primary:
// nobody else starts. It waits for an operator's clear. A stop does not end it,
// but has the demotion tried again.
func (m *Member) blocked(lease Lease, cause error, end func()) stateFn {
	return func(ctx context.Context) stateFn {
		m.become(sdk.RoleBlocked, lease.Term(), cause)
		m.think(fmt.Sprintf("blocked: put it right, then `deputy clear %s`", m.definition().Name))
		m.scribe.announce(sdk.RoleBlocked)
		m.note(sdk.RoleBlocked, lease, cause)
		m.reboot(cause)
		lost, at := lease.Lost(), sdk.Instant(0)
		if isClosed(lost) {
			lost = nil // known already: what counts now is until when the records protect us
		}
		for {
			if lost == nil {
				at = lease.Until()
			}
			switch e := m.retry(ctx); {
			case e != nil:
				return m.demoting(lease, *e, end)
			case isClosed(lost), lost == nil && at <= m.clock.Now():
				return m.demoting(lease, ending{sdk.ReasonLost, fmt.Errorf("%w: %w", ErrLost, lease.Cause())}, end)
			}
			m.await(context.WithoutCancel(ctx), m.next(ctx, at), lost)
		}
	}
}

// failed has no lease that protects it, and a part may still be primary. It
// goes on demoting: what succeeds late is still better. A lease that it had is
// renewed, in case nobody has taken the role.
func (m *Member) failed(lease Lease, cause error, end func()) stateFn {
	return func(ctx context.Context) stateFn {
		term := m.predecessor().Term
		if lease != nil {
			term = lease.Term()
		}
		m.become(sdk.RoleFailed, term, cause)
		m.think(fmt.Sprintf("failed: put it right, then `deputy clear %s`", m.definition().Name))
		m.note(sdk.RoleFailed, lease, cause)
		m.reboot(cause)
		at := m.clock.Now().Add(m.timing.TTL)
		for {
			e := m.retry(ctx)
			if e == nil && m.clock.Now() >= at {
				e = &ending{sdk.ReasonLost, cause}
			}
			switch {
			case e == nil:
				m.await(context.WithoutCancel(ctx), at, nil)
			case lease != nil:
				return m.demoting(lease, *e, end)
			default:
				return m.again(*e)
			}
		}
	}
}

// again demotes once more what was never under a lease of this process.
func (m *Member) again(e ending) stateFn {
	return func(context.Context) stateFn {
		m.become(sdk.RoleDemoting, m.predecessor().Term, e.cause)
		if err := m.force(nil, e); err != nil {
			return m.failed(nil, err, nil)
		}
		m.note(sdk.RoleStandby, nil, e.cause)
		return m.standby(e.cause)
	}
}

// retry tells why to demote once more, or nil.
func (m *Member) retry(ctx context.Context) *ending {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.clear {
		m.clear = false
		return &ending{sdk.ReasonClear, errors.New("cleared by an operator")}
	}
	if ctx.Err() != nil && time.Since(m.since) >= m.timing.TTL {
		return &ending{sdk.ReasonStop, context.Cause(ctx)}
	}
	return nil
}

// next is when a member that is stuck has to look again: at the instant given,
// and, when it is told to stop, a TTL from now.
func (m *Member) next(ctx context.Context, at sdk.Instant) sdk.Instant {
	if ctx.Err() == nil {
		return at
	}
	if again := m.clock.Now().Add(m.timing.TTL); at == 0 || again < at {
		return again
	}
	return at
}

// reboot forces the node down where the definition says so.
func (m *Member) reboot(cause error) {
	if m.escalator != nil && m.definition().OnDemoteFailure == Reboot {
		m.escalator.Reboot(cause)
	}
}
