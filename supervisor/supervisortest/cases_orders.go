package supervisortest

import (
	"errors"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

func (s *stage) reserve(a *actor, r supervisor.Reservation) {
	s.Helper()
	if err := a.elector.Request(s.ctx, r); err != nil {
		s.Fatalf("request: %v", err)
	}
}

func reserved(s *stage) {
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
	must("ban", op.Ban(s.ctx, testService, supervisor.Ban{Node: "n1", Since: now, Until: now.Add(time.Hour), By: "ann", Reason: "noisy"}))
	must("ban for a while", op.Ban(s.ctx, testService, supervisor.Ban{Node: "n2", Since: now, Until: time.Now().Add(2 * s.ttl)}))
	must("drain for a while", op.Drain(s.ctx, supervisor.Drain{Node: "n3", Since: now, Until: time.Now().Add(2 * s.ttl)}))
	st = a.sees(5, "two bans and a drain", func(st supervisor.State) bool {
		return st.IsBanned("n1") && st.IsBanned("n2") && st.IsDrained("n3")
	})
	if b := st.Banned[0]; b.Node != "n1" || b.By != "ann" || b.Reason != "noisy" || !b.Until.Equal(now.Add(time.Hour)) {
		s.Errorf("ban is %+v", b)
	}
	a.sees(5, "what has ended by itself", func(st supervisor.State) bool {
		return st.IsBanned("n1") && !st.IsBanned("n2") && !st.IsDrained("n3")
	})
	for range 2 { // the second time it is not banned
		must("unban", op.Unban(s.ctx, testService, "n1"))
	}
	a.sees(5, "no ban", func(st supervisor.State) bool { return len(st.Banned) == 0 })
	if err := op.Ban(s.ctx, "nothing", supervisor.Ban{Node: "n1"}); !errors.Is(err, supervisor.ErrNoService) {
		s.Errorf("ban from a service that is none: %v, want ErrNoService", err)
	}

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

func presenceEnds(s *stage) {
	a, b := s.actor("n1", false), s.actor("n2", false)
	a.publish(supervisor.Candidate{Role: sdk.RoleStandby})
	b.publish(supervisor.Candidate{Role: sdk.RoleStandby})
	b.sees(5, "both candidates", func(st supervisor.State) bool { return len(st.Candidates) == 2 })
	a.kill()
	// Presence may last a good deal longer than a lease: it decides nothing.
	b.sees(20, "itself alone", func(st supervisor.State) bool { return len(st.Candidates) == 1 && st.Candidate("n2") != nil })
}
