package supervisortest

import (
	"testing"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// simulated is the Cluster of this package under the suite.
type simulated struct {
	broken broken
	fast   bool // one node's clock runs one percent fast, another's as slow
}

func (simulated) TTL() time.Duration { return 3 * time.Second }

func (simulated) Lacks(f Fault) string {
	switch f {
	case ServerKilled, ServerStopped, ServerCut:
		return "the records in memory are kept by no servers"
	}
	return ""
}

func (h simulated) Run(t *testing.T, _ []Fault, play func(*testing.T, Lab)) {
	Bubble(t, func(t *testing.T) {
		c := NewCluster(nil)
		c.broken = h.broken
		if h.fast {
			c.UseClock("n1", NewSkewedClock(500*time.Second, 1.01))
			c.UseClock("n2", NewSkewedClock(900*time.Second, 0.99))
		}
		defer c.Close()
		play(t, memoryLab{c})
	})
}

type memoryLab struct{ *Cluster }

func (l memoryLab) Start(name string) Process { return memoryProcess{l.Another(name)} }

func (l memoryLab) Inflict(Fault) { l.Down() }
func (l memoryLab) Relieve(Fault) { l.Up() }

func (l memoryLab) Snapshot() func() {
	s := l.Cluster.Snapshot()
	return func() { l.Restore(s) }
}

type memoryProcess struct{ node *Node }

func (p memoryProcess) Node() supervisor.Node   { return p.node.Setup().Node }
func (p memoryProcess) Clock() supervisor.Clock { return p.node.Clock() }
func (p memoryProcess) DeletePulse()            { p.node.DeletePulse() }

func (p memoryProcess) Elector(service string, ttl time.Duration) supervisor.Elector {
	return p.node.Elector(service, ttl)
}

func (p memoryProcess) Inflict(f Fault) {
	switch f {
	case Killed:
		p.node.Kill()
	case Frozen:
		p.node.Freeze()
	case CutOff:
		p.node.Cut()
	case WritesLate:
		p.node.Lag(2 * time.Second)
	case ReplyLost:
		p.node.LoseReply()
	}
}

func (p memoryProcess) Relieve(f Fault) {
	switch f {
	case Frozen:
		p.node.Thaw()
	case CutOff:
		p.node.Heal()
	case WritesLate:
		p.node.Lag(0)
	}
}

func TestMemoryElector(t *testing.T) { TestElector(t, simulated{}) }

func TestMemoryElectorOnSkewedClocks(t *testing.T) { TestElector(t, simulated{fast: true}) }

func TestMemoryElectorFaults(t *testing.T) {
	for seed := range uint64(50) {
		TestFaults(t, simulated{fast: seed%2 == 0}, seed, 10*time.Minute)
	}
}
