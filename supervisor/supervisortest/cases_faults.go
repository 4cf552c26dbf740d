package supervisortest

import (
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

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

func primaryGone(a *actor) { a.lab.DeletePrimary(a.service) }
func pulseGone(a *actor)   { a.DeletePulse() }

// deletedUnderHolder deletes what a holder cannot see go: it believes in its
// lease until its end, and so everybody else has to.
func deletedUnderHolder(del func(*actor)) func(*stage) {
	return func(s *stage) {
		p, other := pair(s)
		deletedUnder(s, p, other, del)
	}
}

// deletedUnderAdopter does so when the lease hangs on another pulse than the
// one that began it, which has been silent for long.
func deletedUnderAdopter(del func(*actor)) func(*stage) {
	return func(s *stage) {
		p, other := pair(s)
		t := p.holds().Tenure()
		p.kill()
		next := s.actor(p.name, false)
		if err := next.adopt(t); err != nil {
			s.Fatalf("adopt: %v", err)
		}
		s.wait(2*s.ttl, nil)
		deletedUnder(s, next, other, del)
	}
}

func deletedUnder(s *stage, p, other *actor, del func(*actor)) {
	l := p.holds()
	if l == nil {
		s.Fatalf("%s does not hold the role\n%s", p.name, s.tell())
	}
	p.Inflict(CutOff)
	del(p)
	s.loses(1, l)
	s.holder(10, other)
	p.Relieve(CutOff)
	s.eventually(5, p.name+" has resigned what it lost", func() bool { return p.lease == nil })
	s.wait(s.ttl, nil)
}

// server has a fault of those who keep the records last for so many TTLs.
func server(f Fault, ttls int) func(*stage) {
	return func(s *stage) {
		all := s.cast(3)
		s.holder(5, all...)
		s.lab.Inflict(f)
		s.wait(time.Duration(ttls)*s.ttl, nil)
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
