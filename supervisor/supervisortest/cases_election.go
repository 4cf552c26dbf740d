package supervisortest

import (
	"errors"
	"fmt"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

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
