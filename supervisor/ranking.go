package supervisor

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A Place is one candidate's place in the ranking for a vacant role.
type Place struct {
	Candidate
	Eligible bool   // it may lead, as far as its own record tells
	Why      string // why it may not, or what put it here
}

// Ranking orders the candidates of a state: who may lead first, those who sit
// out last, then by priority, then by name. What only a plugin's Rank can tell
// (who has more data) is not in it. The verdict of one that was lost as primary is
// that, in place of its last word.
func Ranking(s State) []Place {
	places := make([]Place, 0, len(s.Candidates))
	for _, c := range s.Candidates {
		p := Place{Candidate: c}
		was := lost(s, c)
		if was != "" {
			p.Verdict = was
		}
		switch {
		case c.Priority == 0:
			p.Why = "priority 0 never leads"
		case s.Barred(c.Name) != "":
			p.Why = s.Barred(c.Name)
		case s.Unclean && c.Name == s.Term.Node:
			p.Why = "was lost as primary"
		case s.Primary != nil && !s.Vacant && c.Name == s.Primary.Node:
			p.Why = "is primary"
		case was != "":
			p.Why = was
		case c.Role != sdk.RoleCandidate:
			p.Why = c.Verdict
			if p.Why == "" {
				p.Why = "role is " + string(c.Role)
			}
		case !c.Fit:
			p.Why = "not fit: " + c.Health
		case c.Held:
			p.Eligible, p.Why = true, "sits out, everybody else first"
		default:
			p.Eligible, p.Why = true, fmt.Sprintf("fit, priority %d", c.Priority)
		}
		places = append(places, p)
	}
	slices.SortStableFunc(places, func(a, b Place) int {
		return cmp.Or(-cmpBool(a.Eligible, b.Eligible), order(a.Candidate, b.Candidate))
	})
	return places
}

func cmpBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// A verdict is what a candidate makes of a state.
type verdict struct {
	lead bool        // take the role
	at   sdk.Instant // not before; also when to think again, if set without lead
	why  string
}

// A ballot is what a candidate knows beyond the records.
type ballot struct {
	self   Candidate
	orders map[string]sdk.Order // how this node's data compares with each other's; nil: no plugin ranks
	held   sdk.Instant          // this node sits out until then
	asked  sdk.Instant          // the reservation was first seen
	again  sdk.Instant          // this node could not fence who was lost, and tries not before
	owing  string               // why not
	policy OnBehind
	timing Timing
	now    sdk.Instant
	wall   time.Time
}

// judge decides whether this candidate takes the role, and when. It never
// leaves a role vacant for longer than a TTL that only the order of
// candidates keeps it from taking: not their data, nor a node that it could not
// fence.
func judge(s State, b ballot) verdict {
	r := s.Reservation
	mine := r.Binds() && r.To == b.self.Name
	switch {
	case s.Frozen != "":
		return verdict{why: s.Frozen}
	case s.Unreachable != "":
		return verdict{why: s.Unreachable}
	case s.Primary != nil && !s.Vacant:
		return verdict{why: "primary is " + s.Primary.Node}
	case !s.Vacant:
		return verdict{why: fmt.Sprintf("waits until the lease of %s has run out", s.Term.Node)}
	case mine && r.State == Accepted:
		if r.Force || r.Reason != sdk.ReasonFailover {
			return verdict{lead: true, at: b.now, why: fmt.Sprintf("%s to this node", r.Reason)}
		}
	case r.Binds() && !mine:
		// The target needs no more than a round trip. After half a TTL it is
		// taken for lost; who sits out leaves that to the others.
		wait := b.timing.TTL / 2
		if b.held > b.now {
			wait = b.timing.TTL
		}
		return verdict{at: max(s.VacantAt, b.asked).Add(wait), why: "reserved for " + r.To}
	case s.Pause.active(b.wall):
		return verdict{why: "paused: " + s.Pause.String()}
	}

	for _, name := range slices.Sorted(maps.Keys(b.orders)) {
		switch b.orders[name] {
		case sdk.Incomparable:
			return verdict{why: fmt.Sprintf("cannot tell whether %s has more data: `deputy failover %s --to NODE` decides", name, s.Service)}
		case sdk.Behind:
			if b.policy != BehindPromote {
				return verdict{why: fmt.Sprintf("lacks data that %s has: waits for it, or `deputy failover %s --to %s`", name, s.Service, b.self.Name)}
			}
			return verdict{lead: true, at: s.VacantAt.Add(b.timing.TTL), why: "lacks data that " + name + " has, and on_behind is promote"}
		}
	}
	place := 0
	for _, c := range Ranking(withSelf(s, b.self)) {
		if c.Eligible && c.Name != b.self.Name && b.orders[c.Name] != sdk.Ahead && order(c.Candidate, b.self) < 0 {
			place++
		}
	}
	wait := time.Duration(place) * b.timing.Step
	why := fmt.Sprintf("vacant, place %d", place+1)
	if b.held > b.now {
		if out := min(b.held.Sub(s.VacantAt), b.timing.TTL); out > wait {
			wait, why = out, "vacant, sits out unless nobody else comes"
		}
	}
	if b.owing != "" {
		why = b.owing
	}
	return verdict{lead: true, at: max(s.VacantAt.Add(wait), b.again), why: why}
}

// order compares the places of a and b where their data is equal.
func order(a, b Candidate) int {
	return cmp.Or(cmpBool(a.Held, b.Held), cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Name, b.Name))
}

// withSelf returns s with this node's own candidacy as it is now, whatever of
// it has arrived in the records.
func withSelf(s State, self Candidate) State {
	cs := slices.DeleteFunc(slices.Clone(s.Candidates), func(c Candidate) bool { return c.Name == self.Name })
	s.Candidates = append(cs, self)
	return s
}

// active reports whether the pause is in force.
func (p *Pause) active(now time.Time) bool {
	return p != nil && (p.Until.IsZero() || now.Before(p.Until))
}

// String tells until or since when it is paused, by whom and why.
func (p *Pause) String() string {
	s := holds(p.Since, p.Until, p.By, p.Reason)
	if p.Until.IsZero() {
		s = " until resumed" + s
	}
	return s[1:]
}

// combine is how two nodes compare when each of several plugins has its say:
// behind in one is behind, unless ahead in another, which nobody can weigh.
func combine(a, b sdk.Order) sdk.Order {
	switch {
	case a == "" || a == sdk.Equal:
		return b
	case b == "" || b == sdk.Equal || a == b:
		return a
	}
	return sdk.Incomparable
}
