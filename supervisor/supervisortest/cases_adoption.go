package supervisortest

import (
	"errors"

	"github.com/deputy-ha/deputy/supervisor"
)

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
