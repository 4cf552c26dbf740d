package supervisortest

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// presence is how long a node that is gone is still shown as present.
const presence = 2 * time.Second

// A Cluster is the records of all elections in memory, under the rules of
// deputy: roles are held by pulses and taken from silent ones, every write
// compares what it replaces, and each node trusts only its own clock. It runs
// on timers alone, so a synctest bubble can end at any time.
type Cluster struct {
	// Trip is how long a request is under way that its caller waits for. With
	// it, what follows from something else has a later time in the journal.
	Trip time.Duration

	journal *Journal

	mu       sync.Mutex
	records  records
	rev      int64 // of the newest write
	restores int
	down     bool
	machines map[string]*machine
	nodes    []*Node // every process there ever was
	broken   broken
}

// broken are ways to break the rules, for testing those who test.
type broken struct {
	blind bool          // Take compares nothing
	late  time.Duration // the holder believes in so much more than it has
	hasty bool          // a pulse is taken for dead after half its TTL
	terms bool          // terms do not grow
	rash  bool          // a pulse that is gone is taken for dead at once
	stray bool          // the record term keeps the pulse that an adoption left behind
}

// A machine outlives its processes.
type machine struct {
	number int
	clock  *Clock
	memory *Memory
	boot   string
	terms  map[string]sdk.Term // highest seen of each service
	starts int
}

// records are what the store holds. Each carries the revision of its last write.
type records struct {
	pulses   map[string]pulse
	services map[string]*service
	drains   map[string]supervisor.Drain
}

type pulse struct {
	rev   int64
	count int
	ttl   time.Duration
}

type service struct {
	primary     *supervisor.Primary
	primaryRev  int64
	term        supervisor.TermRecord
	before      supervisor.TermRecord // the tenure before term's
	termRev     int64
	candidates  map[string]supervisor.Candidate
	reservation *supervisor.Reservation
	reservedRev int64
	heir        *heir                   // who has accepted it, and can be given the role
	given       *supervisor.Reservation // for which primary was given the role, and has not taken it up
	pause       *supervisor.Pause
	bans        map[string]supervisor.Ban
	history     []supervisor.Change
}

// An heir is what a primary knows of the one who gets the role.
type heir struct {
	pulse string
	top   sdk.Term // the highest term that its machine has seen
}

// NewCluster returns records that are empty. The journal, where one is given,
// tells each lease that is taken, lost, given back or moved, and each fault.
func NewCluster(j *Journal) *Cluster {
	return &Cluster{
		journal:  j,
		machines: map[string]*machine{},
		records:  records{pulses: map[string]pulse{}, services: map[string]*service{}, drains: map[string]supervisor.Drain{}},
	}
}

func (r records) clone() records {
	c := records{pulses: maps.Clone(r.pulses), drains: maps.Clone(r.drains), services: map[string]*service{}}
	for name, s := range r.services {
		d := *s
		d.candidates, d.bans = maps.Clone(s.candidates), maps.Clone(s.bans)
		d.history = slices.Clone(s.history)
		c.services[name] = &d
	}
	return c
}

func (r records) service(name string) *service {
	if r.services[name] == nil {
		r.services[name] = &service{candidates: map[string]supervisor.Candidate{}, bans: map[string]supervisor.Ban{}}
	}
	return r.services[name]
}

// write returns the revision of a new write.
func (c *Cluster) write() int64 {
	c.rev++
	return c.rev
}

// notify shows the records to all who can see them. The caller holds mu, and
// calls it after each write but that of a pulse, which needs no telling.
func (c *Cluster) notify() {
	for _, n := range c.nodes {
		n.look()
	}
}

// remove deletes a pulse.
func (c *Cluster) remove(id string) {
	if _, ok := c.records.pulses[id]; ok {
		delete(c.records.pulses, id)
		c.write()
		for _, n := range c.nodes {
			n.bury(id)
		}
	}
}

// UseClock gives a machine its clock. It must be called before the machine's
// first Node.
func (c *Cluster) UseClock(name string, clock *Clock) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.machine(name).clock = clock
}

func (c *Cluster) machine(name string) *machine {
	m := c.machines[name]
	if m == nil {
		// Each machine was booted at another time: an instant of one means nothing on another.
		boot := 1000*time.Second + time.Duration(len(c.machines))*100*time.Second
		m = &machine{number: len(c.machines), clock: NewSkewedClock(boot, 1), memory: &Memory{}, boot: "boot-" + name, terms: map[string]sdk.Term{}}
		c.machines[name] = m
	}
	return m
}

// Node returns the living process on the named machine, and starts one where
// there is none.
func (c *Cluster) Node(name string) *Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range slices.Backward(c.nodes) {
		if n.Name == name && !n.dead {
			return n
		}
	}
	return c.start(name)
}

// Another starts one more process on the named machine, whether or not there
// is one already.
func (c *Cluster) Another(name string) *Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.start(name)
}

func (c *Cluster) start(name string) *Node {
	m := c.machine(name)
	m.starts++
	n := &Node{
		Name: name, cluster: c, machine: m, clock: m.clock,
		pulses: map[time.Duration]*held{}, seen: map[string]sighting{},
		changed: make(chan struct{}), died: make(chan struct{}),
		restores: c.restores,
	}
	n.id = fmt.Sprintf("%s-%d", name, m.starts)
	if c.down {
		n.lose()
	}
	c.nodes = append(c.nodes, n)
	return n
}

// Down makes the records unreachable for everybody.
func (c *Cluster) Down() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.journal.Add("etcd", "down")
	c.down = true
	for _, n := range c.nodes {
		n.lose()
	}
}

// Up ends Down.
func (c *Cluster) Up() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.journal.Add("etcd", "up")
	c.down = false
	for _, n := range c.nodes {
		n.find()
	}
}

// DeletePrimary deletes the record as an operator would by hand.
func (c *Cluster) DeletePrimary(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.journal.Add("etcd", "primary of %s deleted by hand", name)
	s := c.records.service(name)
	s.primary, s.primaryRev = nil, 0
	c.write()
	c.notify()
}

// DeletePulse deletes the records of this process's pulses, by hand.
func (n *Node) DeletePulse() {
	c := n.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	c.journal.Add("etcd", "pulse of %s deleted by hand", n.Name)
	for _, h := range n.pulses {
		c.remove(h.id)
	}
	c.notify()
}

// A Snapshot is the records as they were.
type Snapshot struct{ records records }

// Snapshot copies the records.
func (c *Cluster) Snapshot() Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Snapshot{c.records.clone()}
}

// Restore puts the records back to what they were. Every node notices and
// waits before it campaigns again.
func (c *Cluster) Restore(s Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.journal.Add("etcd", "restored from a snapshot")
	c.records = s.records.clone()
	c.restores++
	c.notify()
}

// Close ends every process.
func (c *Cluster) Close() {
	c.mu.Lock()
	nodes := slices.Clone(c.nodes)
	c.mu.Unlock()
	for _, n := range nodes {
		n.end()
	}
}
