package supervisortest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// TestElector proves that an Elector keeps its contract, whatever happens to
// nodes, network and records: of two nodes that might act for one service,
// judged by their Until, never two at one time; terms that grow; and a role
// that does not stay vacant. Bounds on time are wide.
func TestElector(t *testing.T, h Harness) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			for _, f := range c.needs {
				if why := h.Lacks(f); why != "" {
					t.Skipf("needs that %s: %s", f, why)
				}
			}
			h.Run(t, c.needs, func(t *testing.T, lab Lab) {
				s, end := newStage(t, lab, h.TTL())
				defer end()
				c.play(s)
			})
		})
	}
}

// TestFaults plays random faults, two at a time at most, for so long, and then
// none until somebody holds the role again. The seed tells which ones.
func TestFaults(t *testing.T, h Harness, seed uint64, d time.Duration) {
	var can []Fault
	for _, f := range []Fault{Killed, Frozen, CutOff, WritesLate, ReplyLost, ServerKilled, ServerStopped, ServerCut, QuorumLost, PrimaryDeleted, PulseDeleted} {
		if h.Lacks(f) == "" {
			can = append(can, f)
		}
	}
	if len(can) == 0 {
		t.Skip("the harness can do no fault")
	}
	h.Run(t, can, func(t *testing.T, lab Lab) {
		t.Logf("seed %d", seed)
		s, end := newStage(t, lab, h.TTL())
		defer end()
		s.faults(rand.New(rand.NewPCG(seed, 0)), can, d)
	})
}

// A testCase is one story of the suite.
type testCase struct {
	name  string
	needs []Fault
	play  func(*stage)
}

func cases() []testCase {
	return []testCase{
		{"first election", nil, firstElection},
		{"second waits", nil, secondWaits},
		{"clean resign hands over at once", nil, cleanResign},
		{"renewal on demand", nil, renewal},
		{"role is announced", nil, announced},
		{"stale state is refused", nil, staleState},
		{"reservation keeps others away", nil, reservation4},
		{"reservation ends", nil, reservationEnds},
		{"answer compares", nil, answers},
		{"request is busy", nil, busy},
		{"candidates are visible", nil, candidates},
		{"orders and history are visible", nil, orders},
		{"kept role is adopted", nil, keptRole},
		{"role let go of comes back", nil, abandoned},
		{"holder killed", []Fault{Killed}, holderKilled},
		{"presence ends", []Fault{Killed}, presenceEnds},
		{"adoption in time", []Fault{Killed}, adoption},
		{"adoption too late", []Fault{Killed}, adoptionLate},
		{"two processes adopt", []Fault{Killed}, adoptionTwice},
		{"many services on one pulse", []Fault{Killed}, manyServices},
		{"holder frozen and thawed", []Fault{Frozen}, interrupted(Frozen)},
		{"holder cut off and healed", []Fault{CutOff}, interrupted(CutOff)},
		{"candidate cut off", []Fault{CutOff}, candidateCut},
		{"late writes", []Fault{WritesLate}, lateWrites},
		{"late writes of a node cut off", []Fault{WritesLate, CutOff}, lateWritesCut},
		{"unknown outcome of take", []Fault{ReplyLost}, unknownTake},
		{"unknown outcome of resign", []Fault{ReplyLost}, unknownResign},
		{"primary deleted by hand", []Fault{PrimaryDeleted}, primaryDeleted},
		{"pulse deleted by hand", []Fault{PulseDeleted}, pulseDeleted},
		{"deciding server killed", []Fault{ServerKilled}, server(ServerKilled, 4)},
		{"deciding server stopped and continued", []Fault{ServerStopped}, server(ServerStopped, 3)},
		{"one server cut off", []Fault{ServerCut}, server(ServerCut, 3)},
		{"quorum lost and back", []Fault{QuorumLost}, quorumLost},
		{"restored snapshot", []Fault{Restored}, restored},
	}
}

func firstElection(s *stage) {
	all := s.cast(3)
	p := s.holder(5, all...)
	l := p.holds()
	if l.Term() != 1 || l.Follows().Term != 0 {
		s.Errorf("term %d follows %+v, want 1 after nothing", l.Term(), l.Follows())
	}
	if left := l.Until().Sub(p.Clock().Now()); left > s.ttl*95/100 {
		s.Errorf("%s of the lease is left, more than 0.95 of a TTL", left)
	}
	if tenure := l.Tenure(); tenure.Service != testService || tenure.Term != 1 || tenure.Node != p.name || tenure.Pulse == "" {
		s.Errorf("tenure is %+v", tenure)
	}
	for _, a := range all {
		st := a.sees(5, "the primary", func(st supervisor.State) bool { return st.Primary != nil && !st.Vacant })
		if st.Primary.Node != p.name || st.Primary.Term != 1 || st.Primary.Pulse != l.Tenure().Pulse || st.Mine {
			s.Errorf("%s sees %+v, mine=%t", a.name, st.Primary, st.Mine)
		}
	}
}

func secondWaits(s *stage) {
	all := s.cast(2)
	p := s.holder(5, all...)
	l := p.holds()
	s.wait(3*s.ttl, nil)
	if now := p.holds(); now != l || isClosed(l.Lost()) {
		s.Errorf("%s has not kept its lease: %v", p.name, l.Cause())
	}
}

// pair is a holder and a willing other.
func pair(s *stage) (p, other *actor) {
	all := s.cast(2)
	p = s.holder(5, all...)
	other = all[0]
	if p == other {
		other = all[1]
	}
	// Else the vacancy before could pass for the one that a case waits for.
	other.sees(5, "the primary", func(st supervisor.State) bool { return st.Primary != nil })
	return p, other
}

func cleanResign(s *stage) {
	p, other := pair(s)
	other.want(false)
	term := p.holds().Term()
	p.leave()
	st := other.sees(0.5, "a vacancy", func(st supervisor.State) bool { return st.Vacant && st.Term.Term == term })
	if st.Unclean || !st.Term.Resigned || st.Primary != nil {
		s.Errorf("unclean=%t primary=%+v term=%+v after a clean resign", st.Unclean, st.Primary, st.Term)
	}
	other.want(true)
	l := s.holder(5, other).holds()
	if f := l.Follows(); l.Term() != term+1 || f.Term != term || f.Node != p.name || !f.Resigned {
		s.Errorf("term %d follows %+v, want %d after %d of %s, resigned", l.Term(), f, term+1, term, p.name)
	}
}

func renewal(s *stage) {
	a := s.cast(1)[0]
	l := s.holder(5, a).holds()
	before := l.Until()
	if err := l.Renew(s.ctx); err != nil {
		s.Errorf("renew: %v", err)
	}
	if after := l.Until(); after < before {
		s.Errorf("until went from %d to %d", before, after)
	}
	s.wait(3*s.ttl, nil)
	if isClosed(l.Lost()) || l.Until() <= before.Add(2*s.ttl) {
		s.Errorf("not renewed for three TTLs: until went from %d to %d, %v", before, l.Until(), l.Cause())
	}
}

func announced(s *stage) {
	p, other := pair(s)
	if err := p.holds().Announce(s.ctx, sdk.RolePrimary); err != nil {
		s.Errorf("announce: %v", err)
	}
	other.sees(5, "the role announced", func(st supervisor.State) bool {
		return st.Primary != nil && st.Primary.State == sdk.RolePrimary
	})
	s.wait(s.ttl, nil)
	if p.holds() == nil {
		s.Errorf("the lease did not survive its own announcement")
	}
}

func staleState(s *stage) {
	all := []*actor{s.actor("n1", false), s.actor("n2", false)}
	old := all[1].sees(5, "a vacancy", func(st supervisor.State) bool { return st.Vacant })
	all[0].want(true)
	s.holder(5, all[0])
	if _, err := all[1].take(old); !errors.Is(err, supervisor.ErrRefused) {
		s.Errorf("take by a state of before: %v, want ErrRefused", err)
	}
	all[1].sees(5, "the primary", func(st supervisor.State) bool { return !st.Vacant && st.Primary != nil })
}

func (s *stage) reserve(a *actor, r supervisor.Reservation) {
	s.Helper()
	if err := a.elector.Request(s.ctx, r); err != nil {
		s.Fatalf("request: %v", err)
	}
}

func reservation4(s *stage) {
	all := s.cast(3)
	p := s.holder(5, all...)
	var others []*actor
	for _, a := range all {
		if a != p {
			others = append(others, a)
		}
	}
	target, other := others[0], others[1]
	target.want(false)
	other.want(false)
	s.reserve(p, supervisor.Reservation{ID: "a", To: target.name, Reason: sdk.ReasonSwitchover, For: 20 * s.ttl, State: supervisor.Accepted})
	other.sees(5, "the reservation", func(st supervisor.State) bool { return st.Reservation.Binds() && st.Reservation.ID == "a" })
	p.leave()
	st := other.sees(5, "a vacancy", func(st supervisor.State) bool { return st.Vacant && st.Term.Term != 0 })
	if _, err := other.take(st); !errors.Is(err, supervisor.ErrRefused) {
		s.Errorf("take of what is reserved for another: %v, want ErrRefused", err)
	}
	target.want(true)
	s.holder(5, target)
	st = other.sees(5, "the reservation used up", func(st supervisor.State) bool { return st.Primary != nil && st.Reservation == nil })
	if !st.Term.Moved {
		s.Errorf("term %+v does not say that it was moved", st.Term)
	}
}

func reservationEnds(s *stage) {
	all := []*actor{s.actor("n1", false), s.actor("n2", false)}
	all[0].sees(5, "a vacancy", func(st supervisor.State) bool { return st.Vacant })
	s.reserve(all[0], supervisor.Reservation{ID: "a", To: "n9", Reason: sdk.ReasonSwitchover, For: 2 * s.ttl, State: supervisor.Accepted})
	all[0].sees(5, "the reservation", func(st supervisor.State) bool { return st.Reservation.Binds() })
	began := time.Now()
	all[0].want(true)
	s.holder(5, all[0])
	if d := time.Since(began); d < s.ttl {
		s.Errorf("taken after %s by one for whom it was not reserved", d)
	}
}

func answers(s *stage) {
	a := s.actor("n1", false)
	a.sees(5, "a vacancy", func(st supervisor.State) bool { return st.Vacant })
	r := supervisor.Reservation{ID: "a", To: "n1", Reason: sdk.ReasonSwitchover, For: 20 * s.ttl, State: supervisor.Asked}
	s.reserve(a, r)
	if err := a.elector.Answer(s.ctx, supervisor.Reservation{ID: "b", State: supervisor.Accepted}); !errors.Is(err, supervisor.ErrRefused) {
		s.Errorf("answer to another reservation: %v, want ErrRefused", err)
	}
	r.State, r.Why = supervisor.Declined, "not today"
	if err := a.elector.Answer(s.ctx, r); err != nil {
		s.Errorf("answer: %v", err)
	}
	a.sees(5, "the answer", func(st supervisor.State) bool {
		return st.Reservation != nil && st.Reservation.State == supervisor.Declined && st.Reservation.Why == "not today"
	})
	a.want(true)
	s.holder(5, a)
}

func busy(s *stage) {
	a := s.actor("n1", false)
	r := supervisor.Reservation{ID: "a", To: "n1", Reason: sdk.ReasonSwitchover, For: 20 * s.ttl, State: supervisor.Asked}
	s.reserve(a, r)
	r.ID = "b"
	if err := a.elector.Request(s.ctx, r); !errors.Is(err, supervisor.ErrBusy) {
		s.Errorf("second request: %v, want ErrBusy", err)
	}
	if err := s.lab.Operator().Request(s.ctx, testService, r); !errors.Is(err, supervisor.ErrBusy) {
		s.Errorf("second request by an operator: %v, want ErrBusy", err)
	}
	if err := s.lab.Operator().Cancel(s.ctx, testService, "a"); err != nil {
		s.Errorf("cancel: %v", err)
	}
	a.sees(5, "no reservation", func(st supervisor.State) bool { return st.Reservation == nil })
	s.reserve(a, r)
}

func (a *actor) publish(c supervisor.Candidate) {
	a.Helper()
	c.Node = a.Node()
	if err := a.elector.Publish(a.ctx, c); err != nil {
		a.Errorf("publish %s: %v", a.name, err)
	}
}

func candidates(s *stage) {
	a, b := s.actor("n1", false), s.actor("n2", false)
	a.publish(supervisor.Candidate{Priority: 7, Role: sdk.RoleStandby})
	b.publish(supervisor.Candidate{Priority: 8, Role: sdk.RoleStandby})
	a.publish(supervisor.Candidate{Priority: 7, Role: sdk.RoleCandidate, Fit: true, Positions: map[string]string{"disk": "42"}})
	st := b.sees(5, "both candidates", func(st supervisor.State) bool {
		c := st.Candidate("n1")
		return len(st.Candidates) == 2 && c != nil && c.Role == sdk.RoleCandidate
	})
	if c := st.Candidate("n1"); c.Priority != 7 || !c.Fit || c.Positions["disk"] != "42" {
		s.Errorf("n1 is seen as %+v", c)
	}
	s.wait(3*s.ttl, nil)
	b.sees(1, "both still", func(st supervisor.State) bool { return len(st.Candidates) == 2 })
}

func orders(s *stage) {
	a := s.cast(1)[0]
	s.holder(5, a)
	op := s.lab.Operator()
	now := time.Now().Truncate(time.Second)
	must := func(what string, err error) {
		if err != nil {
			s.Errorf("%s: %v", what, err)
		}
	}
	must("pause", op.Pause(s.ctx, testService, supervisor.Pause{Since: now, By: "ann", Reason: "work"}))
	must("drain", op.Drain(s.ctx, supervisor.Drain{Node: "n1", Since: now, By: "ann"}))
	st := a.sees(5, "pause and drain", func(st supervisor.State) bool { return st.Pause != nil && st.IsDrained("n1") })
	if st.Pause.By != "ann" || st.Pause.Reason != "work" {
		s.Errorf("pause is %+v", st.Pause)
	}
	must("resume", op.Resume(s.ctx, testService))
	must("undrain", op.Undrain(s.ctx, "n1"))
	a.sees(5, "neither", func(st supervisor.State) bool { return st.Pause == nil && !st.IsDrained("n1") })

	for _, c := range []supervisor.Change{{Term: 1, Node: "n1", Cause: "first"}, {Term: 2, Node: "n2"}, {Term: 1, Node: "n1", Cause: "again"}} {
		must("record", a.elector.Record(s.ctx, c))
	}
	h, err := op.History(s.ctx, testService)
	must("history", err)
	last := map[sdk.Term]string{}
	for _, c := range h {
		last[c.Term] = c.Cause
	}
	if len(h) != 2 || last[1] != "again" {
		s.Errorf("history is %+v", h)
	}
	if st, err := op.State(s.ctx, testService); err != nil || st.Primary == nil || st.Primary.Node != "n1" {
		s.Errorf("an operator sees %+v, %v", st.Primary, err)
	}
	if _, err := op.State(s.ctx, "nothing"); !errors.Is(err, supervisor.ErrNoService) {
		s.Errorf("state of a service that is none: %v, want ErrNoService", err)
	}
	if err := op.Remove(s.ctx, testService); !errors.Is(err, supervisor.ErrBusy) {
		s.Errorf("remove under a primary: %v, want ErrBusy", err)
	}
	if names, err := op.Services(s.ctx); err != nil || len(names) != 1 || names[0] != testService {
		s.Errorf("services are %q, %v", names, err)
	}
}

// keptRole is a restart of the process: the old one lets go of the lease
// without giving it back.
func keptRole(s *stage) {
	p, other := pair(s)
	l := p.holds()
	t := l.Tenure()
	l.Abandon()
	p.update(func() { p.dead = true })
	next := s.actor(p.name, false)
	if err := next.adopt(t); err != nil {
		s.Fatalf("adopt: %v", err)
	}
	if got := next.holds().Term(); got != t.Term {
		s.Errorf("adopted term %d, want %d", got, t.Term)
	}
	s.wait(3*s.ttl, nil)
	if next.holds() == nil || other.holds() != nil {
		s.Errorf("the adopted lease was not kept\n%s", s.tell())
	}
}

// abandoned lets go of a lease in a process that goes on.
func abandoned(s *stage) {
	a := s.cast(1)[0]
	l := s.holder(5, a).holds()
	term := l.Term()
	a.update(func() { a.letGo = true })
	s.eventually(5, "it lets go", func() bool { return !a.letGo })
	l = s.holder(5, a).holds()
	if l.Term() < term {
		s.Errorf("term %d came back as %d", term, l.Term())
	}
	s.wait(3*s.ttl, nil)
	if a.holds() != l || isClosed(l.Lost()) {
		s.Errorf("the lease was not kept: %v", l.Cause())
	}
}

func holderKilled(s *stage) {
	p, other := pair(s)
	term := p.holds().Term()
	other.want(false)
	p.kill()
	st := other.sees(5, "a vacancy", func(st supervisor.State) bool { return st.Vacant && st.Term.Term == term })
	if !st.Unclean || st.Term.Resigned {
		s.Errorf("unclean=%t term=%+v after a kill", st.Unclean, st.Term)
	}
	other.want(true)
	l := s.holder(5, other).holds()
	if f := l.Follows(); l.Term() != term+1 || f.Node != p.name || f.Resigned {
		s.Errorf("term %d follows %+v, want %d after %s that did not resign", l.Term(), f, term+1, p.name)
	}
}

func presenceEnds(s *stage) {
	a, b := s.actor("n1", false), s.actor("n2", false)
	a.publish(supervisor.Candidate{Role: sdk.RoleStandby})
	b.publish(supervisor.Candidate{Role: sdk.RoleStandby})
	b.sees(5, "both candidates", func(st supervisor.State) bool { return len(st.Candidates) == 2 })
	a.kill()
	// Presence may last a good deal longer than a lease: it decides nothing.
	b.sees(20, "itself alone", func(st supervisor.State) bool { return len(st.Candidates) == 1 && st.Candidate("n2") != nil })
}

func adoption(s *stage) {
	p, other := pair(s)
	t := p.holds().Tenure()
	p.kill()
	next := s.actor(p.name, false)
	if err := next.adopt(t); err != nil {
		s.Fatalf("adopt: %v", err)
	}
	l := next.holds()
	if l.Term() != t.Term {
		s.Errorf("adopted term %d, want %d", l.Term(), t.Term)
	}
	s.wait(3*s.ttl, nil)
	if next.holds() != l || isClosed(l.Lost()) || other.holds() != nil {
		s.Errorf("the adopted lease was not kept: %v\n%s", l.Cause(), s.tell())
	}
	next.leave()
	if got := s.holder(5, other).holds().Term(); got != t.Term+1 {
		s.Errorf("the term after is %d, want %d", got, t.Term+1)
	}
}

func adoptionLate(s *stage) {
	p, other := pair(s)
	t := p.holds().Tenure()
	p.kill()
	s.holder(5, other)
	next := s.actor(p.name, false)
	if err := next.adopt(t); !errors.Is(err, supervisor.ErrRefused) {
		s.Errorf("adopt what another has taken: %v, want ErrRefused", err)
	}
}

func adoptionTwice(s *stage) {
	p := s.holder(5, s.cast(1)...)
	t := p.holds().Tenure()
	p.kill()
	twins := []*actor{s.actor(p.name, false), s.actor(p.name, false)}
	errs := make(chan error, len(twins))
	for _, a := range twins {
		s.running.Go(func() { errs <- a.adopt(t) })
	}
	won, refused := 0, 0
	for range twins {
		switch err := <-errs; {
		case err == nil:
			won++
		case errors.Is(err, supervisor.ErrRefused):
			refused++
		default:
			s.Errorf("adopt: %v", err)
		}
	}
	// The second may also find its twin's tenure to adopt, which then loses it.
	if won < 1 || won+refused != 2 {
		s.Errorf("%d adopted and %d were refused", won, refused)
	}
	s.wait(s.ttl, nil)
	held := 0
	for _, a := range twins {
		if l := a.holds(); l != nil && !isClosed(l.Lost()) {
			held++
		}
	}
	if held != 1 {
		s.Errorf("%d of them hold the lease", held)
	}
}

func manyServices(s *stage) {
	const many = 20
	first, second := s.lab.Start("n1"), s.lab.Start("n2")
	var mine, theirs []*actor
	for i := range many {
		mine = append(mine, s.seat(first, "n1", fmt.Sprintf("db%d", i), true))
	}
	all := func(of []*actor) func() bool {
		return func() bool {
			for _, a := range of {
				if a.lease == nil {
					return false
				}
			}
			return true
		}
	}
	s.eventually(10, "the first holds all roles", all(mine))
	for i := range many {
		a := s.seat(second, "n2", fmt.Sprintf("db%d", i), true)
		a.turn = 0
		theirs = append(theirs, a)
	}
	s.wait(s.ttl, nil)
	first.Inflict(Killed)
	for _, a := range mine {
		a.update(func() { a.dead = true })
	}
	s.eventually(10, "the second holds all roles", all(theirs))
}

// interrupted has the holder lose what it cannot renew, and come back.
func interrupted(f Fault) func(*stage) {
	return func(s *stage) {
		p, other := pair(s)
		l := p.holds()
		p.Inflict(f)
		next := s.holder(5, other).holds()
		if f != Frozen && !isClosed(l.Lost()) {
			s.Errorf("another holds the role, and Lost is not closed")
		}
		p.Relieve(f)
		s.loses(1, l)
		s.eventually(5, p.name+" has resigned what it lost", func() bool { return p.lease == nil })
		if until := l.Until(); until > p.Clock().Now() {
			s.Errorf("until is %s from now, and another holds the role", until.Sub(p.Clock().Now()))
		}
		s.wait(2*s.ttl, nil)
		if other.holds() != next || isClosed(next.Lost()) {
			s.Errorf("who came back cost the other its lease: %v", next.Cause())
		}
	}
}

func candidateCut(s *stage) {
	p, other := pair(s)
	l := p.holds()
	other.Inflict(CutOff)
	other.sees(5, "that it sees nothing", func(st supervisor.State) bool { return st.Unreachable != "" })
	s.wait(2*s.ttl, nil)
	other.Relieve(CutOff)
	other.sees(5, "the records again", func(st supervisor.State) bool { return st.Unreachable == "" && !st.Vacant })
	s.wait(2*s.ttl, nil)
	if p.holds() != l || isClosed(l.Lost()) {
		s.Errorf("the holder was disturbed: %v", l.Cause())
	}
}

func lateWrites(s *stage) {
	p, other := pair(s)
	p.Inflict(WritesLate)
	s.wait(4*s.ttl, nil)
	p.Relieve(WritesLate)
	s.holder(10, p, other)
	s.wait(2*s.ttl, nil)
	s.holder(10, p, other)
}

func lateWritesCut(s *stage) {
	p, other := pair(s)
	p.Inflict(WritesLate)
	s.wait(s.ttl/2, nil)
	p.Inflict(CutOff)
	s.holder(10, other)
	p.Relieve(WritesLate)
	p.Relieve(CutOff)
	s.wait(2*s.ttl, nil)
	s.holder(10, p, other)
}

func unknownTake(s *stage) {
	a := s.actor("n1", false)
	a.sees(5, "a vacancy", func(st supervisor.State) bool { return st.Vacant })
	a.Inflict(ReplyLost)
	a.want(true)
	l := s.holder(10, a).holds()
	if l.Term() != 1 {
		s.Errorf("term %d, want 1: what was committed counts", l.Term())
	}
	s.wait(2*s.ttl, nil)
	if a.holds() != l || isClosed(l.Lost()) {
		s.Errorf("the lease was not kept: %v", l.Cause())
	}
}

func unknownResign(s *stage) {
	p, other := pair(s)
	other.want(false)
	p.Inflict(ReplyLost)
	p.leave()
	st := other.sees(10, "a vacancy", func(st supervisor.State) bool { return st.Vacant && st.Term.Term != 0 })
	if st.Unclean || !st.Term.Resigned {
		s.Errorf("unclean=%t term=%+v", st.Unclean, st.Term)
	}
	s.eventually(10, "the resign returned", func() bool { return p.lease == nil })
}

func primaryDeleted(s *stage) {
	p, other := pair(s)
	l := p.holds()
	s.lab.DeletePrimary(testService)
	s.loses(1, l)
	if until := l.Until(); until != 0 {
		s.Errorf("until is %d after the role proved not ours, want 0", until)
	}
	s.holder(10, p, other)
}

func pulseDeleted(s *stage) {
	p, other := pair(s)
	l := p.holds()
	p.DeletePulse()
	s.loses(1, l)
	s.holder(10, p, other)
}

// server has a fault of those who keep the records last for so many TTLs.
func server(f Fault, ttls time.Duration) func(*stage) {
	return func(s *stage) {
		all := s.cast(3)
		s.holder(5, all...)
		s.lab.Inflict(f)
		s.wait(ttls*s.ttl, nil)
		s.lab.Relieve(f)
		s.wait(s.ttl, nil)
		s.holder(15, all...)
		s.wait(s.ttl, nil)
	}
}

func quorumLost(s *stage) {
	all := s.cast(2)
	l := s.holder(5, all...).holds()
	s.lab.Inflict(QuorumLost)
	s.loses(1, l)
	for _, a := range all {
		a.sees(5, "that it sees nothing", func(st supervisor.State) bool { return st.Unreachable != "" })
	}
	s.lab.Relieve(QuorumLost)
	s.holder(15, all...)
}

func restored(s *stage) {
	all := s.cast(3)
	s.holder(5, all...)
	restore := s.lab.Snapshot()
	highest := sdk.Term(0)
	for range 2 {
		p := s.holder(5, all...)
		p.leave()
		s.eventually(5, "it has resigned", func() bool { return p.lease == nil })
		highest = s.holder(5, all...).holds().Term()
		p.want(true)
	}
	for _, a := range all {
		a.sees(5, "the newest term", func(st supervisor.State) bool { return st.Term.Term == highest })
	}
	restore()
	s.eventually(15, "a role is held in a term above all seen", func() bool {
		for _, a := range all {
			if a.lease != nil && a.lease.Term() > highest {
				return true
			}
		}
		return false
	})
}

// A woe is a fault that goes on.
type woe struct {
	relieve func()
	of      any
}

func (s *stage) faults(r *rand.Rand, can []Fault, d time.Duration) {
	all := s.cast(3)
	var woes []woe
	said := []string{}
	end := time.Now().Add(d)
	for time.Now().Before(end) {
		s.wait(s.ttl/10+rand64(r, 2*s.ttl), nil)
		if len(woes) == 2 || len(woes) > 0 && r.IntN(2) == 0 {
			i := r.IntN(len(woes))
			woes[i].relieve()
			woes = append(woes[:i], woes[i+1:]...)
			continue
		}
		f, i := can[r.IntN(len(can))], r.IntN(len(all))
		said = append(said, fmt.Sprintf("%s n%d: %s", time.Since(s.began).Round(time.Millisecond), i+1, f))
		if w, lasts := s.inflict(f, all, i, woes); lasts {
			woes = append(woes, w)
		}
	}
	for _, w := range woes {
		w.relieve()
	}
	s.holder(20, all...)
	s.wait(2*s.ttl, nil)
	s.Cleanup(func() {
		if s.Failed() {
			s.Logf("faults: %q", said)
		}
	})
}

func rand64(r *rand.Rand, d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }

// inflict does one fault to the records or to a node, unless that has one.
func (s *stage) inflict(f Fault, all []*actor, i int, woes []woe) (woe, bool) {
	a := all[i]
	for _, w := range woes {
		if w.of == any(a) {
			return woe{}, false
		}
	}
	switch f {
	case Killed:
		var t *supervisor.Tenure
		if l := a.holds(); l != nil {
			tenure := l.Tenure()
			t = &tenure
		}
		a.kill()
		next := s.actor(a.name, t == nil)
		if t != nil {
			// As a member does: what it cannot adopt it does not want back at once.
			next.adopt(*t)
			next.want(true)
		}
		all[i] = next
		return woe{}, false
	case ReplyLost:
		a.Inflict(f)
		return woe{}, false
	case Frozen, CutOff, WritesLate:
		a.Inflict(f)
		return woe{func() { a.Relieve(f) }, a}, true
	case PrimaryDeleted:
		s.lab.DeletePrimary(testService)
		return woe{}, false
	case PulseDeleted:
		a.DeletePulse()
		return woe{}, false
	}
	for _, w := range woes {
		if w.of == any(s.lab) {
			return woe{}, false // one fault of the servers at a time
		}
	}
	s.lab.Inflict(f)
	return woe{func() { s.lab.Relieve(f) }, s.lab}, true
}
