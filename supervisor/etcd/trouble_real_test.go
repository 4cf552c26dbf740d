package etcd

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
)

// Each trouble of etcd that deputy-operations(7) tells of, on a real etcd: what
// becomes of the role, and what an operator is told.

// A patient is a node that takes part in one election, with what it tells.
type patient struct {
	*realNode
	t      *testing.T
	name   string
	log    *lines
	e      supervisor.Elector
	states *newest
}

// admit starts a node with a seat in the election of db.
func admit(t *testing.T, c *etcdtest.Cluster, name string, ttl time.Duration, edit ...func(*Config)) *patient {
	t.Helper()
	p := &patient{t: t, name: name, log: &lines{}}
	p.realNode = startReal(t, c, name, append([]func(*Config){func(cfg *Config) {
		cfg.Log = slog.New(slog.NewTextHandler(p.log, nil))
	}}, edit...)...)
	p.e = p.Elector("db", ttl)
	p.states = keepNewest(t, p.e)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s said:\n%s", name, p.log)
		}
	})
	return p
}

// primary takes the role.
func (p *patient) primary() supervisor.Lease {
	p.t.Helper()
	for {
		st := p.sees("vacant", isVacant)
		if l, err := p.e.Take(p.t.Context(), st); err == nil {
			return l
		}
	}
}

// patience is how long a test waits for what should take a moment.
const patience = time.Minute

// sees waits for a State.
func (p *patient) sees(what string, want func(supervisor.State) bool) supervisor.State {
	p.t.Helper()
	st, ok := p.states.await(want, patience)
	if !ok {
		p.t.Fatalf("%s sees no State that is %s; the last was %+v", p.name, what, st)
	}
	return st
}

// says waits for a line of the log that has all of this.
func (p *patient) says(want ...string) {
	p.t.Helper()
	p.saysAgain(0, want...)
}

// saysAgain waits for one more line than so many that have all of this.
func (p *patient) saysAgain(n int, want ...string) {
	p.t.Helper()
	for end := time.Now().Add(patience); p.count(want...) <= n; time.Sleep(20 * time.Millisecond) {
		poke(p.care.wake) // a look a second, and not a minute
		if time.Now().After(end) {
			p.t.Fatalf("%s does not say %q", p.name, want)
		}
	}
}

// count is how many lines of the log have all of this.
func (p *patient) count(what ...string) (n int) {
	for line := range strings.Lines(p.log.String()) {
		if hasAll(line, what) {
			n++
		}
	}
	return n
}

func hasAll(s string, want []string) bool {
	for _, w := range want {
		if !strings.Contains(s, w) {
			return false
		}
	}
	return true
}

// A newest keeps the newest State, and whether some were ever seen.
type newest struct {
	ask chan func(supervisor.State)
}

// keepNewest observes until the test ends.
func keepNewest(t *testing.T, e supervisor.Elector) *newest {
	ctx, cancel := context.WithCancelCause(context.Background())
	n := &newest{ask: make(chan func(supervisor.State))}
	states, done := observe(ctx, e), make(chan struct{})
	go func() {
		defer close(done)
		var last supervisor.State
		for {
			select {
			case st, ok := <-states:
				if !ok {
					return
				}
				last = st
			case f := <-n.ask:
				f(last)
			}
		}
	}()
	t.Cleanup(func() {
		cancel(errReleased)
		<-done
	})
	return n
}

func (n *newest) get() supervisor.State {
	got := make(chan supervisor.State, 1)
	n.ask <- func(st supervisor.State) { got <- st }
	return <-got
}

func (n *newest) await(want func(supervisor.State) bool, d time.Duration) (st supervisor.State, ok bool) {
	for end := time.Now().Add(d); ; time.Sleep(5 * time.Millisecond) {
		if st = n.get(); want(st) {
			return st, true
		}
		if time.Now().After(end) {
			return st, false
		}
	}
}

// keeps holds that a lease is not lost, for so long. A machine that stood still
// may lose any.
func (p *patient) keeps(l supervisor.Lease, d time.Duration) {
	p.t.Helper()
	select {
	case <-l.Lost():
		if strings.Contains(p.log.String(), "the process was stopped, or the machine asleep") {
			p.t.Skipf("this machine is too busy to keep any lease: %v", l.Cause())
		}
		p.t.Errorf("%s has lost the role: %v", p.name, l.Cause())
	case <-time.After(d):
	}
}

// loses waits for the loss of a lease, and holds that it comes at its deadline:
// not after it, so that there is time to demote.
func loses(t *testing.T, l supervisor.Lease) {
	t.Helper()
	select {
	case <-l.Lost():
	case <-time.After(patience):
		t.Fatal("the role is not lost")
	}
	if until := l.Until(); until != 0 && (bootClock{}).Now() > until {
		t.Errorf("told of the loss at %v, when the lease was over since %v", (bootClock{}).Now(), until)
	}
}

// tuned is an etcd that elects soon, and can be cut.
var tuned = etcdtest.Options{Heartbeat: 50 * time.Millisecond, Election: 500 * time.Millisecond, NoFsync: true}

// direct is the same without proxies, so that what is down refuses.
func direct() etcdtest.Options {
	o := tuned
	o.Direct = true
	return o
}

func isReachable(st supervisor.State) bool { return st.Unreachable == "" && st.Service != "" }

// The loss of etcd's leader costs no role at deputy's and etcd's defaults.
func TestEtcdLeaderLost(t *testing.T) {
	t.Parallel()
	for _, l := range losses() {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			const ttl = 4 * time.Second // deputy's default
			c := etcdtest.StartT(t, etcdtest.Options{Direct: true, NoFsync: true})
			a, b := admit(t, c, "a", ttl), admit(t, c, "b", ttl)
			lease := a.primary()
			b.sees("held", isHeld)
			victim := c.Leader(t.Context())
			m, began := c.Member(victim), time.Now()
			if err := l.lose(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			c.Leader(t.Context())
			elected := time.Since(began)
			if elected < 2*time.Second { // or no lease of that ttl could outlast it
				a.keeps(lease, ttl-elected)
			}
			if st := b.states.get(); st.Vacant {
				t.Errorf("b may take the role: %+v", st)
			}
			why := "no etcd listens there"
			if l.name == "stopped" {
				why = cureSilent
			}
			a.says(saidCare, "endpoint="+m.Endpoint(), "this member does not answer, and others do", why)
			if n := a.count(saidCare, m.Endpoint(), "does not answer"); n != 1 {
				t.Errorf("said %d times, want once", n)
			}
			if err := l.bring(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			a.says(saidCured, "endpoint="+m.Endpoint(), "about=silence")
		})
	}
}

func TestEtcdQuorumLost(t *testing.T) {
	t.Parallel()
	const ttl = 2 * time.Second
	c := etcdtest.StartT(t, direct())
	a, b := admit(t, c, "a", ttl), admit(t, c, "b", ttl)
	lease := a.primary()
	b.sees("held", isHeld)
	left := c.Leader(t.Context())
	down := []int{(left + 1) % 3, (left + 2) % 3}
	for _, i := range down {
		c.Member(i).Kill()
	}
	loses(t, lease)
	// Whether etcd's silence is known by then as well depends on the machine.
	if cause := lease.Cause().Error(); !strings.Contains(cause, "could not be renewed in time") {
		t.Errorf("lost because %q", cause)
	}
	for _, p := range []*patient{a, b} {
		st := p.sees("unreachable", func(st supervisor.State) bool {
			return hasAll(st.Unreachable, []string{c.Endpoints()[down[0]], c.Endpoints()[down[1]], "no etcd listens there"})
		})
		if !strings.Contains(st.Unreachable, "etcd has lost its majority: "+cureMajority) {
			p.sees("unreachable with its cure", func(st supervisor.State) bool {
				return strings.Contains(st.Unreachable, "etcd has lost its majority: "+cureMajority)
			})
		}
		if st.Vacant {
			t.Errorf("%s takes the role for free: %+v", p.name, st)
		}
		p.says(saidCare, "endpoint="+c.Endpoints()[left], "this member sees no leader: etcd has lost its majority, or is electing: "+cureMajority)
	}
	began := time.Now()
	done := make(chan error)
	for _, i := range down {
		go func() { done <- c.Member(i).Restart(t.Context()) }()
	}
	for range down {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	served := time.Since(began)
	for _, p := range []*patient{a, b} {
		p.sees("reachable again", isReachable)
	}
	t.Logf("etcd served again after %v, and both nodes knew after %v", served, time.Since(began))
	if err := lease.Resign(t.Context()); err != nil {
		t.Fatal(err)
	}
	if next := b.primary(); next.Term() != 2 {
		t.Errorf("term %d, want 2", next.Term())
	}
}

func TestEtcdMemberCutOff(t *testing.T) {
	t.Parallel()
	const ttl = 8 * time.Second
	c := etcdtest.StartT(t, tuned)
	a, b := admit(t, c, "a", ttl), admit(t, c, "b", ttl)
	lease := a.primary()
	b.sees("held", isHeld)
	for _, from := range []struct {
		name string
		cut  func(*etcdtest.Cluster, int)
		says string
	}{
		{"its clients", (*etcdtest.Cluster).CutClients, "this member does not answer, and others do"},
		{"the other members", (*etcdtest.Cluster).Cut, "this member is cut off from the others: " + cureCut},
	} {
		for _, whom := range []string{"leader", "follower"} {
			t.Run(whom+" from "+from.name, func(t *testing.T) {
				victim := c.Leader(t.Context())
				if whom == "follower" {
					victim = (victim + 1) % 3
				}
				end := c.Endpoints()[victim]
				said := a.count(saidCare, "endpoint="+end, from.says)
				from.cut(c, victim)
				defer c.Heal(victim)
				a.saysAgain(said, saidCare, "endpoint="+end, from.says)
				a.keeps(lease, time.Second)
				if st := b.states.get(); st.Vacant {
					t.Errorf("b may take the role: %+v", st)
				}
				if n := a.count(saidCare, "endpoint="+end, from.says); n != said+1 {
					t.Errorf("said %d times", n-said)
				}
				cured := a.count(saidCured, "endpoint="+end, "about=silence")
				c.Heal(victim)
				a.saysAgain(cured, saidCured, "endpoint="+end, "about=silence")
			})
		}
	}
	if err := lease.Announce(t.Context(), sdk.RolePrimary); err != nil {
		t.Errorf("announce: %v", err)
	}
}
