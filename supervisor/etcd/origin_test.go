package etcd

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// at has a host's lines lead to these stores, one each.
func (h *host) at(stores ...*store) {
	h.lines = nil
	for i, s := range stores {
		h.lines = append(h.lines, newLine(s, fmt.Sprintf("%s-%d", h.name, i), h.gate, uint64(i)))
	}
}

// other is another etcd, which is empty.
func (l *lab) other() *store {
	s := newStore()
	s.cluster = 8
	l.Cleanup(s.stop)
	return s
}

// resigned is a process that has been primary, given the role back, and kept that
// it was.
func (l *lab) resigned(name string) *player {
	l.Helper()
	p := l.join(name, 3*second)
	if err := l.primary(p).Resign(l.Context()); err != nil {
		l.Error(err)
	}
	l.sees(p, "vacant", isVacant)
	time.Sleep(second)
	return p
}

// neverVacant looks for so long whether the role may be taken.
func (l *lab) neverVacant(p *player, d time.Duration) {
	l.Helper()
	for end := time.After(d); ; {
		select {
		case st := <-p.states:
			if isVacant(st) {
				l.Errorf("%s may take the role: %+v", p.host.name, st)
			}
		case <-end:
			return
		}
	}
}

func frozenBy(what string) func(supervisor.State) bool {
	return func(st supervisor.State) bool { return strings.Contains(st.Frozen, what) }
}

// The one that b knows is elsewhere, and a is primary there for as long as it
// likes: no time of waiting makes it safe to take the role in another etcd.
func TestAnotherEtcdByMistake(t *testing.T) {
	story(t, func(l *lab) {
		a, b := l.join("a", 3*second), l.join("b", 3*second)
		lease := l.primary(a)
		l.sees(b, "held", isHeld)
		time.Sleep(second)
		b.stop()
		b.host.at(l.other(), l.other(), l.other())
		b = l.join("b", 3*second)
		st := l.sees(b, "frozen", frozenBy("etcd is another cluster than before: 8, was 7 in "))
		if !strings.Contains(st.Frozen, cureStrange) {
			l.Errorf("frozen without a cure: %s", st.Frozen)
		}
		l.neverVacant(b, time.Minute)
		if lease.Until() < a.clock.Now() {
			l.Error("a has lost the role meanwhile")
		}
		// Set right: b is a standby again, and may follow.
		b.stop()
		b.host.at(l.store, l.store, l.store)
		b = l.join("b", 3*second)
		l.sees(b, "held", func(st supervisor.State) bool { return isHeld(st) && st.Frozen == "" })
	})
}

// All members are replaced under a process: it must not go over to them.
func TestAnotherEtcdUnderARunningProcess(t *testing.T) {
	story(t, func(l *lab) {
		b := l.resigned("b")
		other := l.other()
		for _, line := range b.host.lines {
			line.mu.Lock()
			line.way = other
			line.mu.Unlock()
		}
		l.sees(b, "frozen", frozenBy("etcd is another cluster than before"))
		l.neverVacant(b, time.Minute)
	})
}

func TestAnotherPrefixByMistake(t *testing.T) {
	story(t, func(l *lab) {
		a := l.resigned("a")
		a.stop()
		a.host.prefix = "/tset"
		a = l.join("a", 3*second)
		l.sees(a, "frozen", frozenBy("the prefix is another than before: /tset, was /test in "))
		l.neverVacant(a, time.Minute)
	})
}

// A copy of the records has their mark: whoever restores a backup elsewhere
// need not tell each node.
func TestACopyOfTheRecordsIsWaitedFor(t *testing.T) {
	story(t, func(l *lab) {
		a := l.resigned("a")
		a.stop()
		other := l.other()
		other.restore(l.store.backup())
		a.host.at(other, other, other)
		began := time.Now()
		a = l.join("a", 3*second)
		l.sees(a, "frozen", frozenBy("nobody here campaigns for 3s"))
		st := l.sees(a, "vacant", isVacant)
		if waited := time.Since(began); waited < 3*second || waited > 4*second {
			l.Errorf("waited %v, want the TTL", waited)
		}
		if lease := take(l.T, a.e, st); lease.Term() != 2 {
			l.Errorf("term %d, want 2", lease.Term())
		}
	})
}

func TestEndpointsOfTwoEtcds(t *testing.T) {
	for _, c := range []struct {
		name   string
		stores func(ours, theirs *store) []*store
		known  bool   // the node knows which is ours
		want   string // why nobody campaigns; empty when one may
	}{
		{"half of them, at first", func(o, t *store) []*store { return []*store{o, t} }, false, "the endpoints belong to 2 etcd clusters, a-0 to 7, a-1 to 8: " + cureForeign},
		{"half of them, later", func(o, t *store) []*store { return []*store{o, t} }, true, ""},
		{"one of three, at first", func(o, t *store) []*store { return []*store{o, t, o} }, false, ""},
		{"one of three, later", func(o, t *store) []*store { return []*store{t, o, o} }, true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			story(t, func(l *lab) {
				h := l.host("a")
				if c.known {
					a := l.join("a", 3*second)
					if err := l.primary(a).Resign(l.Context()); err != nil {
						l.Error(err)
					}
					l.sees(a, "vacant", isVacant)
					time.Sleep(second)
					a.stop()
				}
				theirs := l.other()
				h.at(c.stores(l.store, theirs)...)
				a := l.join("a", 3*second)
				if c.want != "" {
					l.sees(a, "frozen", frozenBy(c.want))
					l.neverVacant(a, time.Minute)
					return
				}
				l.primary(a)
				time.Sleep(10 * second)
				// But for what was sent before it was known whose it is.
				for key := range theirs.recs {
					if !a.keys.pulses().has(key) {
						l.Errorf("%s was written to the other etcd", key)
					}
				}
				if id, _, breaks := a.past.now(); id != l.store.cluster || breaks != 0 {
					l.Errorf("cluster %x after %d breaks, want %x", id, breaks, l.store.cluster)
				}
			})
		})
	}
}

// An etcd that has lost its last writes has made as many new ones by the time it
// is asked: its revision tells nothing, but what is known contradicts it.
func TestAnEtcdThatLostLittleIsNotTrusted(t *testing.T) {
	story(t, func(l *lab) {
		a, b := l.join("a", 3*second), l.join("b", 3*second)
		if err := l.primary(a).Resign(l.Context()); err != nil {
			l.Error(err)
		}
		l.sees(b, "resigned", func(st supervisor.State) bool { return isVacant(st) && st.Term.Term == 1 })
		old := l.store.backup()
		lease := l.primary(a)
		l.sees(b, "held", isHeld)
		end := lease.Until()
		_, lost, _ := b.past.now()
		a.host.cut(true)
		b.host.cut(true)
		l.store.restore(old)
		for rev := int64(0); rev < lost+5; {
			r, err := l.store.Txn(l.Context(), txn{Then: []op{put("/elsewhere", nil)}})
			if err != nil {
				l.Fatal(err)
			}
			rev = r.Rev
		}
		b.host.cut(false)
		l.sees(b, "frozen", frozenBy("has lost what it had written"))
		if next := take(l.T, b.e, l.neverBefore(b, lease, end)); next.Term() != 3 {
			l.Errorf("term %d, want one above the highest seen", next.Term())
		}
	})
}
