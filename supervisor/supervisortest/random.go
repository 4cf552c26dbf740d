package supervisortest

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

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
			if err := next.adopt(*t); err != nil {
				s.Logf("not adopted: %v", err)
			}
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
