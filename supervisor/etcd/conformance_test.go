package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
	"github.com/deputy-ha/deputy/supervisor/supervisortest"
)

// A conformer is a process of supervisortest on a Client of this package.
type conformer struct {
	*Client
	lab   *conformanceLab
	node  supervisor.Node
	clock supervisor.Clock
	gate  *gate
	lines []*line
	end   func()
}

func (p *conformer) Node() supervisor.Node   { return p.node }
func (p *conformer) Clock() supervisor.Clock { return p.clock }

func (p *conformer) Inflict(f supervisortest.Fault) {
	for _, l := range p.lines {
		switch f {
		case supervisortest.Killed:
			l.setFaults(faults{refuse: 1})
		case supervisortest.CutOff:
			l.setCut(true)
		case supervisortest.WritesLate:
			l.setFaults(faults{late: 1})
		case supervisortest.ReplyLost:
			l.setDeaf()
		}
	}
	switch f {
	case supervisortest.Killed:
		p.gate.lift()
		p.end()
	case supervisortest.Frozen:
		p.gate.shut()
	}
}

func (p *conformer) Relieve(f supervisortest.Fault) {
	switch f {
	case supervisortest.Frozen:
		p.gate.lift()
	case supervisortest.CutOff:
		for _, l := range p.lines {
			l.setCut(false)
		}
	case supervisortest.WritesLate:
		for _, l := range p.lines {
			l.setFaults(faults{})
		}
	}
}

func (p *conformer) DeletePulse() {
	p.Client.mu.Lock()
	var t txn
	for _, pulse := range p.Client.pulses {
		t.Then = append(t.Then, remove(one(pulse.key)))
	}
	p.Client.mu.Unlock()
	op := p.lab.Operator().(*Client)
	if _, err := op.txn(context.Background(), t); err != nil {
		p.lab.t.Errorf("delete pulses: %v", err)
	}
}

// A conformanceLab is where they run.
type conformanceLab struct {
	t      *testing.T
	prefix string
	clock  func(node string, g *gate) supervisor.Clock
	ways   func() []kv // to the endpoints, for a process of its own
	fault  func(f supervisortest.Fault, on bool)
	backup func() func()

	mu        sync.Mutex
	witnesses map[string]*witness
	procs     []*conformer
	op        *Client
}

func (l *conformanceLab) config(node supervisor.Node, clock supervisor.Clock) Config {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.witnesses == nil {
		l.witnesses = make(map[string]*witness)
	}
	w := l.witnesses[node.Name]
	if w == nil {
		w = &witness{}
		l.witnesses[node.Name] = w
	}
	return Config{Prefix: l.prefix, Node: node, Clock: clock, Witness: w}
}

func (l *conformanceLab) Start(name string) supervisortest.Process {
	node := supervisor.Node{Name: name, Address: name + ".example", Boot: "boot-" + name, Machine: "machine-" + name, Version: "test"}
	g := &gate{}
	p := &conformer{lab: l, node: node, gate: g, clock: l.clock(name, g)}
	var ways []kv
	for i, way := range l.ways() {
		line := newLine(way, fmt.Sprintf("%s-%d", name, i), g, uint64(i))
		p.lines = append(p.lines, line)
		ways = append(ways, line)
	}
	p.Client = newClient(l.config(node, p.clock), ways)
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.Run(ctx); err != nil {
			l.t.Errorf("run: %v", err)
		}
	}()
	p.end = sync.OnceFunc(func() {
		cancel(errors.New("killed"))
		<-done
		if err := p.Close(); err != nil {
			l.t.Errorf("close: %v", err)
		}
	})
	l.mu.Lock()
	l.procs = append(l.procs, p)
	l.mu.Unlock()
	return p
}

func (l *conformanceLab) Operator() supervisor.Cluster {
	l.mu.Lock()
	known := l.op
	l.mu.Unlock()
	if known != nil {
		return known
	}
	g := &gate{}
	c := newClient(l.config(supervisor.Node{Name: "operator"}, l.clock("operator", g)), l.ways())
	l.mu.Lock()
	l.op = c
	l.mu.Unlock()
	return c
}

func (l *conformanceLab) Inflict(f supervisortest.Fault) { l.fault(f, true) }
func (l *conformanceLab) Relieve(f supervisortest.Fault) { l.fault(f, false) }
func (l *conformanceLab) Snapshot() func()               { return l.backup() }

func (l *conformanceLab) DeletePrimary(service string) {
	c := l.Operator().(*Client)
	if _, err := c.txn(context.Background(), txn{Then: []op{remove(one(c.keys.primary(service)))}}); err != nil {
		l.t.Errorf("delete primary: %v", err)
	}
}

func (l *conformanceLab) cut(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.procs {
		for _, line := range p.lines {
			line.setCut(on)
		}
	}
}

func (l *conformanceLab) close() {
	l.mu.Lock()
	procs, op := l.procs, l.op
	l.mu.Unlock()
	for _, p := range procs {
		p.gate.lift()
		for _, line := range p.lines {
			line.setCut(false)
		}
		p.end()
	}
	if op != nil {
		if err := op.Close(); err != nil {
			l.t.Errorf("close: %v", err)
		}
	}
}

// simulated runs the suite on the store in memory and on virtual time.
type simulated struct{ skewed bool }

func (simulated) TTL() time.Duration { return 3 * time.Second }

func (simulated) Lacks(f supervisortest.Fault) string {
	switch f {
	case supervisortest.ServerKilled, supervisortest.ServerStopped, supervisortest.ServerCut:
		return "the store in memory is no cluster"
	}
	return ""
}

func (h simulated) Run(t *testing.T, _ []supervisortest.Fault, play func(*testing.T, supervisortest.Lab)) {
	supervisortest.Bubble(t, func(t *testing.T) {
		s := newStore()
		rates := map[string]float64{}
		if h.skewed {
			rates = map[string]float64{"n1": 1.005, "n2": 0.995}
		}
		base := time.Now()
		lab := &conformanceLab{
			t: t, prefix: "/test",
			clock: func(node string, g *gate) supervisor.Clock {
				rate := 1.0
				if r, ok := rates[node]; ok {
					rate = r
				}
				return &clock{base: base, boot: 1000 * 1e9, rate: rate, gate: g}
			},
			ways: func() []kv { return []kv{s, s, s} },
			backup: func() func() {
				b := s.backup()
				return func() { s.restore(b) }
			},
		}
		lab.fault = func(_ supervisortest.Fault, on bool) { lab.cut(on) }
		defer s.stop()
		defer lab.close()
		play(t, lab)
	})
}

func TestElectorSimulated(t *testing.T) { supervisortest.TestElector(t, simulated{}) }

func TestElectorOnSkewedClocks(t *testing.T) { supervisortest.TestElector(t, simulated{skewed: true}) }

func TestElectorFaultsSimulated(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			supervisortest.TestFaults(t, simulated{skewed: seed%2 == 0}, seed, 5*time.Minute)
		})
	}
}

// actual runs the suite on a real etcd: on three members what harms etcd
// itself, the rest on a shared one, which has one member and so loses no
// leader because the machine is busy.
type actual struct{ shared *etcdtest.Cluster }

// TTL is long enough for a machine that is busy with other tests as well.
func (*actual) TTL() time.Duration { return 4 * time.Second }

func (*actual) Lacks(supervisortest.Fault) string { return "" }

func (h *actual) Run(t *testing.T, needs []supervisortest.Fault, play func(*testing.T, supervisortest.Lab)) {
	t.Parallel()
	harm := []supervisortest.Fault{
		supervisortest.ServerKilled, supervisortest.ServerStopped, supervisortest.ServerCut,
		supervisortest.QuorumLost, supervisortest.Restored,
	}
	cluster := h.shared
	if slices.ContainsFunc(needs, func(f supervisortest.Fault) bool { return slices.Contains(harm, f) }) {
		cluster = etcdtest.StartT(t, etcdtest.Options{NoFsync: true})
	}
	lab := &conformanceLab{
		t: t, prefix: "/" + t.Name(),
		clock: func(string, *gate) supervisor.Clock { return bootClock{} },
		ways: func() (ways []kv) {
			for i := range 3 {
				ways = append(ways, &endpoint{url: cluster.Endpoints()[i%cluster.Size()]})
			}
			return ways
		},
	}
	serverFaults(t, cluster, lab)
	defer lab.close()
	play(t, lab)
}

// serverFaults lets the lab harm the members.
func serverFaults(t *testing.T, cluster *etcdtest.Cluster, lab *conformanceLab) {
	within := func(what string, do func(context.Context) error) {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := do(ctx); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	victim := 0
	lab.fault = func(f supervisortest.Fault, on bool) {
		if on {
			within("find the leader", func(ctx context.Context) error {
				victim = max(cluster.Leader(ctx), 0)
				return nil
			})
		}
		next := (victim + 1) % cluster.Size()
		m := cluster.Member(victim)
		switch {
		case f == supervisortest.ServerKilled && on:
			m.Kill()
		case f == supervisortest.ServerKilled:
			within("restart", m.Restart)
		case f == supervisortest.ServerStopped && on:
			within("stop", func(context.Context) error { return m.Stop() })
		case f == supervisortest.ServerStopped:
			within("continue", func(context.Context) error { return m.Continue() })
		case f == supervisortest.ServerCut && on:
			cluster.Cut(victim)
		case f == supervisortest.ServerCut:
			cluster.Heal(victim)
		case f == supervisortest.QuorumLost && on:
			m.Kill()
			cluster.Member(next).Kill()
		case f == supervisortest.QuorumLost:
			var wg sync.WaitGroup
			wg.Go(func() { within("restart", m.Restart) })
			wg.Go(func() { within("restart", cluster.Member(next).Restart) })
			wg.Wait()
		}
	}
	lab.backup = func() (restore func()) {
		var file string
		within("snapshot", func(ctx context.Context) (err error) {
			file, err = cluster.Snapshot(ctx)
			return err
		})
		return func() {
			within("restore", func(ctx context.Context) error { return cluster.Restore(ctx, file) })
		}
	}
}

func TestElectorOnEtcd(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes on a real etcd")
	}
	t.Parallel()
	shared := etcdtest.StartT(t, etcdtest.Options{Members: 1, NoFsync: true})
	supervisortest.TestElector(t, &actual{shared})
}
