package supervisortest_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/supervisortest"
)

// A pair is members on a few nodes, each with one part.
type pair struct {
	t       *testing.T
	journal *supervisortest.Journal
	cluster *supervisortest.Cluster
	parts   map[string]*supervisortest.Plugin
	running sync.WaitGroup
	stops   []context.CancelCauseFunc
}

func newPair(t *testing.T, nodes ...string) *pair {
	j := supervisortest.NewJournal()
	p := &pair{t: t, journal: j, cluster: supervisortest.NewCluster(j), parts: map[string]*supervisortest.Plugin{}}
	p.cluster.Trip = time.Millisecond
	for _, name := range nodes {
		p.parts[name] = supervisortest.NewPlugin(j, name, "vip")
		p.parts[name].Quiet = true
		p.run(name)
		time.Sleep(100 * time.Millisecond)
	}
	return p
}

func (p *pair) run(name string) {
	n := p.cluster.Node(name)
	s := n.Setup()
	s.Service = supervisor.Service{
		Name: "db", TTL: 3 * time.Second, Priority: 100,
		Parts: []supervisor.Part{{
			Use: "vip", Name: "vip",
			Promote: supervisor.ActPolicy{Timeout: 10 * time.Second}, Demote: supervisor.ActPolicy{Timeout: 10 * time.Second},
			Check: supervisor.CheckPolicy{Interval: time.Second, Timeout: time.Second, Fall: 3, Rise: 2},
		}},
	}
	s.Elector = n.Elector("db", 3*time.Second)
	s.Plugins = []supervisor.Plugin{n.Plugin(p.parts[name])}
	m, err := supervisor.NewMember(s)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, stop := n.Context(p.t.Context())
	p.stops = append(p.stops, stop)
	p.running.Go(func() {
		if err := m.Run(ctx); err != nil {
			p.t.Errorf("run %s: %v", name, err)
		}
	})
}

// end stops all members. Their stories are told in package supervisor; here
// the journal needs to hold these lines, in this order.
func (p *pair) end(want ...string) {
	for _, stop := range p.stops {
		stop(supervisor.ErrStop)
	}
	p.running.Wait()
	p.cluster.Close()
	p.journal.NeverTwo(p.t)
	rest := p.journal.String()
	for _, w := range want {
		_, after, ok := strings.Cut(rest, w)
		if !ok {
			p.t.Errorf("not in the journal, or not in this order: %q\n%s", w, p.journal)
			return
		}
		rest = after
	}
}

func TestMembersOnTheCluster(t *testing.T) {
	supervisortest.Bubble(t, func(t *testing.T) {
		p := newPair(t, "db1", "db2")
		time.Sleep(time.Second)
		p.parts["db2"].Next(sdk.Promote, supervisortest.Behaviour{Takes: 2 * time.Second})
		p.cluster.Node("db1").Cut()
		time.Sleep(10 * time.Second)
		p.cluster.Node("db1").Heal()
		time.Sleep(10 * time.Second)
		p.cluster.Node("db2").Kill()
		p.parts["db2"].Break(false, "the machine is off")
		time.Sleep(10 * time.Second)
		p.run("db2")
		time.Sleep(10 * time.Second)
		p.end(
			"db1  lease taken term=1", "db1  -> primary term=1",
			"db1  CUT OFF", "db1  lease lost term=1: no pulse acknowledged for 2.25s", "vip demote forced term=1 done",
			"db2  lease taken term=2", "db2  vip promote term=2 done (2s)", "db1  HEALED",
			"db2  KILLED", "db1  lease taken term=3", "db2  -> candidate",
			"db1  vip demote planned term=3 done", "db1  lease resigned term=3",
		)
	})
}
