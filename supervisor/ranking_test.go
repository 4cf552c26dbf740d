package supervisor

import (
	"strings"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

func fit(name string, priority int) Candidate {
	return Candidate{Node: Node{Name: name}, Priority: priority, Role: sdk.RoleCandidate, Fit: true, Ballot: 8}
}

// vacant is a service whose last primary, of term 7, resigned at 100 s.
func vacant(cs ...Candidate) State {
	return State{
		Service: "db", Candidates: cs, Vacant: true, VacantAt: sdk.Instant(100 * time.Second),
		Term: TermRecord{Term: 7, Node: "old", Resigned: true},
	}
}

func TestJudge(t *testing.T) {
	const ttl = 3 * time.Second
	at := sdk.Instant(100 * time.Second)
	step := NewTiming(ttl).Step
	lost := vacant(fit("a", 100), fit("b", 100))
	lost.Unclean, lost.Term = true, TermRecord{Term: 7, Node: "a"}
	with := func(s State, f func(*State)) State { f(&s); return s }
	reserved := func(to string, state ReservationState, reason sdk.Reason, force bool) State {
		return with(vacant(fit("a", 100), fit("b", 100)), func(s *State) {
			s.Reservation = &Reservation{ID: "r", To: to, State: state, Reason: reason, Force: force}
		})
	}
	paused := func(until time.Time) State {
		return with(vacant(fit("b", 100)), func(s *State) { s.Pause = &Pause{Until: until, By: "ann", Reason: "upgrade"} })
	}
	wall := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

	for _, test := range []struct {
		name   string
		state  State
		orders map[string]sdk.Order
		held   sdk.Instant
		policy OnBehind
		lead   bool
		after  time.Duration // since the vacancy
		why    string
	}{
		{name: "alone, so at once", state: vacant(fit("b", 100)), lead: true, why: "place 1"},
		{name: "a name before it, so one step later", state: vacant(fit("a", 100), fit("b", 100)), lead: true, after: step, why: "place 2"},
		{name: "higher priority comes before the name", state: vacant(fit("a", 50), fit("b", 100)), lead: true, why: "place 1"},
		{name: "the lost primary is not waited for", state: lost, lead: true, why: "place 1"},
		{name: "who is not fit is not waited for", state: vacant(Candidate{Node: Node{Name: "a"}, Role: sdk.RoleStandby}, fit("b", 100)), lead: true},
		{name: "who never leads is not waited for", state: vacant(fit("a", 0), fit("b", 100)), lead: true},
		{name: "who is drained is not waited for", state: with(vacant(fit("a", 100), fit("b", 100)), func(s *State) { s.Drained = []Drain{{Node: "a"}} }), lead: true},
		{name: "who sits out comes later", state: vacant(Candidate{Node: Node{Name: "a"}, Priority: 200, Role: sdk.RoleCandidate, Fit: true, Held: true}, fit("b", 100)), lead: true},
		{name: "sitting out ends when it ends", state: vacant(fit("b", 100)), held: at.Add(time.Second), lead: true, after: time.Second, why: "sits out"},
		{name: "sitting out leaves no role vacant for longer than a ttl", state: vacant(fit("b", 100)), held: at.Add(time.Minute), lead: true, after: ttl},
		{name: "a primary lives", state: with(vacant(fit("b", 100)), func(s *State) { s.Vacant, s.Primary = false, &Primary{Node: "a"} }), why: "primary is a"},
		{name: "a lease still runs", state: with(vacant(fit("b", 100)), func(s *State) { s.Vacant = false }), why: "lease of old"},
		{name: "frozen", state: with(vacant(fit("b", 100)), func(s *State) { s.Frozen = "records went back in time" }), why: "went back"},
		{name: "unreachable", state: with(vacant(fit("b", 100)), func(s *State) { s.Unreachable = "no route" }), why: "no route"},
		{name: "paused", state: paused(time.Time{}), why: "until resumed by ann (upgrade)"},
		{name: "a pause ends by itself", state: paused(wall.Add(-time.Second)), lead: true},
		{name: "reserved for another", state: reserved("a", Accepted, sdk.ReasonSwitchover, false), after: ttl / 2, why: "reserved for a"},
		{name: "reserved for this node", state: reserved("b", Accepted, sdk.ReasonSwitchover, false), lead: true, why: "switchover to this node"},
		{name: "declined, so everybody is free", state: reserved("a", Declined, sdk.ReasonSwitchover, false), lead: true, after: step},
		{name: "forced though behind", state: reserved("b", Accepted, sdk.ReasonFailover, true), orders: map[string]sdk.Order{"a": sdk.Behind}, lead: true},
		{name: "ahead of a preferred one", state: vacant(fit("a", 200), fit("b", 100)), orders: map[string]sdk.Order{"a": sdk.Ahead}, lead: true},
		{name: "equal, so priority decides", state: vacant(fit("a", 200), fit("b", 100)), orders: map[string]sdk.Order{"a": sdk.Equal}, lead: true, after: step},
		{name: "behind refuses", state: vacant(fit("a", 100), fit("b", 100)), orders: map[string]sdk.Order{"a": sdk.Behind}, policy: BehindRefuse, why: "lacks data that a has"},
		{name: "behind promotes where told to, late", state: vacant(fit("a", 100), fit("b", 100)), orders: map[string]sdk.Order{"a": sdk.Behind}, policy: BehindPromote, lead: true, after: ttl},
		{name: "not comparable waits for a person", state: vacant(fit("a", 100), fit("b", 100)), orders: map[string]sdk.Order{"a": sdk.Incomparable}, why: "deputy failover db --to"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := judge(test.state, ballot{
				self: fit("b", 100), orders: test.orders, held: test.held, policy: test.policy,
				timing: NewTiming(ttl), now: at, wall: wall,
			})
			if got.lead != test.lead {
				t.Fatalf("lead = %v (%s), want %v", got.lead, got.why, test.lead)
			}
			if (got.lead || test.after != 0) && got.at.Sub(at) != test.after {
				t.Errorf("takes it %s after the vacancy, want %s", got.at.Sub(at), test.after)
			}
			if !strings.Contains(got.why, test.why) {
				t.Errorf("why = %q, want it to tell %q", got.why, test.why)
			}
		})
	}
}

// Whoever is asked, exactly one candidate is first.
func TestJudgeAgreesOnTheFirst(t *testing.T) {
	s := vacant(fit("a", 100), fit("b", 300), fit("c", 300), Candidate{Node: Node{Name: "d"}, Priority: 900, Role: sdk.RoleCandidate, Fit: true, Held: true})
	var first []string
	for _, c := range s.Candidates {
		b := ballot{self: c, timing: NewTiming(time.Second), now: s.VacantAt}
		if c.Held {
			b.held = s.VacantAt.Add(time.Hour)
		}
		if v := judge(s, b); v.lead && v.at == s.VacantAt {
			first = append(first, c.Name)
		}
	}
	if len(first) != 1 || first[0] != "b" {
		t.Errorf("first are %q, want only b", first)
	}
}

func TestRanking(t *testing.T) {
	s := vacant(fit("a", 0), fit("b", 100), fit("c", 200))
	var got []string
	for _, p := range Ranking(s) {
		got = append(got, p.Name)
		if p.Why == "" {
			t.Errorf("%s: no reason is given", p.Name)
		}
	}
	if s := strings.Join(got, " "); s != "c b a" {
		t.Errorf("order is %q, want %q", s, "c b a")
	}
}

// Who was lost stays in the records for a while as it was: primary, by its word.
func TestRankingBelievesNoLostPrimary(t *testing.T) {
	lost := fit("a", 100)
	lost.Role, lost.Term, lost.Verdict = sdk.RolePrimary, 1, "is primary"
	s := vacant(lost, fit("b", 100))
	s.Primary = &Primary{Node: "b", Term: 2, State: sdk.RolePrimary}
	s.Vacant, s.Unclean = false, false
	s.Term = TermRecord{Term: 2, Node: "b"}
	for _, p := range Ranking(s) {
		want := "is primary"
		if p.Name == "a" {
			want = "was lost as primary in term 1, and silent since"
			if p.Verdict != want {
				t.Errorf("a's verdict is %q, want %q", p.Verdict, want)
			}
		}
		if p.Eligible || p.Why != want {
			t.Errorf("%s: eligible %t, %q, want false, %q", p.Name, p.Eligible, p.Why, want)
		}
	}
}

func TestCombine(t *testing.T) {
	for _, test := range []struct{ a, b, want sdk.Order }{
		{"", sdk.Behind, sdk.Behind},
		{sdk.Equal, sdk.Ahead, sdk.Ahead},
		{sdk.Ahead, sdk.Ahead, sdk.Ahead},
		{sdk.Ahead, sdk.Behind, sdk.Incomparable},
		{sdk.Equal, sdk.Equal, sdk.Equal},
		{sdk.Incomparable, sdk.Equal, sdk.Incomparable},
	} {
		if got := combine(test.a, test.b); got != test.want {
			t.Errorf("combine(%q, %q) = %q, want %q", test.a, test.b, got, test.want)
		}
	}
}
