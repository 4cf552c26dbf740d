package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/deputy-ha/deputy/sdk"
)

// An unfenced is why this node could not become primary: it could not fence who
// was lost before.
type unfenced struct {
	cause error
	times int         // in a row
	again sdk.Instant // not before
}

// fence makes sure that whoever was lost as primary is down, where the service
// wants that. The lease is renewed all the while, however long it takes. It
// returns why the role is to be left again, or nil.
//
// Not fenced is who resigned, for that proves a demotion; this node itself, which
// demoted before it became a candidate; and of whom an operator says that it is
// down for certain. One that has come back in the meantime is fenced all the
// same: what it says of itself is no proof, and it may take the role itself.
func (m *Member) fence(ctx context.Context, lease Lease, seen State, e ending) *ending {
	if m.definition().OnUnclean != UncleanFence {
		return nil
	}
	for _, victim := range lease.Follows().Lost() {
		if victim.Node == m.node.Name {
			continue
		}
		if r := seen.Reservation; r != nil && r.To == m.node.Name && slices.Contains(r.Fenced, victim.Node) {
			m.log.Warn("not fenced: an operator says that it is down", "victim", victim.Node, "by", r.By, "term", uint64(lease.Term()))
			continue
		}
		m.think("fences " + victim.Node)
		err := m.fenceOne(ctx, lease, victim, e)
		if leave := m.leaving(ctx, lease); leave != nil {
			return leave
		}
		if err != nil {
			m.outOfReach(err)
			return &ending{sdk.ReasonUnfit, err}
		}
	}
	m.unfenced = nil
	m.think("promotes")
	return nil
}

// fenceOne fences one node. One plugin that manages it is enough.
func (m *Member) fenceOne(ctx context.Context, lease Lease, victim sdk.Peer, e ending) error {
	var errs []error
	for _, p := range m.parts {
		if !p.def().plugin.Describe().Can(sdk.CanFence) {
			continue
		}
		t := m.transition(sdk.Fence, p, lease.Term(), e)
		t.Primary, t.Previous = victim, victim
		r := m.try(ctx, lease, p, t, p.def().Fence)
		if r.Outcome.OK() {
			args := []any{"victim", victim.Node, "plugin", p.Name, "term", uint64(lease.Term())}
			if r.Detail != "" {
				args = append(args, "detail", r.Detail)
			}
			m.log.Info("fenced", args...)
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", p.Name, r.Err()))
		if m.leaving(ctx, lease) != nil {
			break
		}
	}
	if errs == nil {
		errs = []error{errors.New("no plugin of this service can fence")}
	}
	return fmt.Errorf("fence %s: %w", victim.Node, errors.Join(errs...))
}

// outOfReach notes that who was lost could not be fenced from here. Others try at
// once; this node again after a ttl, then later and later, up to ten ttls: what
// fails will mostly go on failing, and each try is a term.
func (m *Member) outOfReach(cause error) {
	u := &unfenced{cause: cause, times: 1}
	if m.unfenced != nil {
		u.times = m.unfenced.times + 1
	}
	ttl := m.timing.TTL
	u.again = m.clock.Now().Add(min(ttl<<min(u.times-1, 4), 10*ttl))
	m.unfenced = u
}

// owing tells who could not be fenced from here before, until somebody is
// primary or nobody has to be fenced any more, and what is to be done about it.
func (m *Member) owing(s State) (again sdk.Instant, why string) {
	primary := s.Primary != nil && !s.Vacant && s.Primary.State == sdk.RolePrimary
	var lost []string
	for _, v := range s.Term.Lost() {
		if v.Node != m.node.Name {
			lost = append(lost, v.Node)
		}
	}
	if primary || len(lost) == 0 || m.definition().OnUnclean != UncleanFence {
		m.unfenced = nil
	}
	if m.unfenced == nil {
		return 0, ""
	}
	return m.unfenced.again, fmt.Sprintf("%v; tries again by itself, or, when that is down for certain, `deputy failover %s --to %s --fenced %s`",
		m.unfenced.cause, m.definition().Name, m.node.Name, strings.Join(lost, ","))
}
