package supervisortest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// A Node is one process of deputy on one machine, with what a member there
// needs. Frozen, it stands still at its next use of any of these. Killed, it
// is a ghost: whatever it does succeeds at once and has no effect, so that a
// member in it comes to its end.
type Node struct {
	Name    string
	cluster *Cluster
	machine *machine
	clock   *Clock
	id      string

	// guarded by cluster.mu
	dead, frozen, cut bool
	changed           chan struct{} // closed and replaced whenever something below changes
	died              chan struct{}
	ending            []func() // called when the process is killed
	pulses            map[time.Duration]*held
	seen              map[string]sighting
	electors          []*elector
	lag               time.Duration // how long pulses are under way
	loseReply         bool
	view              *records    // what was last known; nil: the records can be reached
	lost              sdk.Instant // since when they cannot
	restores          int
	still             sdk.Instant // no campaign before: the records went back
	left              *time.Timer // ends the presence
}

// A held is this process's own pulse of one TTL.
type held struct {
	node    *Node
	timing  supervisor.Timing
	id      string
	rev     int64 // 0: not written yet
	count   int
	sent    map[int]sdk.Instant // when each value not known to be committed was first sent
	s       sdk.Instant         // the sending of the last acknowledged value
	serial  int                 // of the pulses of this TTL
	ticking bool
}

// A sighting is what is known of a pulse of another process.
type sighting struct {
	rev  int64
	at   sdk.Instant // when it was last seen to change
	ttl  time.Duration
	gone bool
	dead bool // deleted by this process, after its whole TTL
}

var errDead = errors.New("the process is dead")

// Clock returns the machine's clock. Its timers stand still while the node is
// frozen.
func (n *Node) Clock() *Clock { return n.clock }

// Setup returns what is on this machine of a member's Setup; Service, Plugins
// and, where wanted, Escalator are the caller's.
func (n *Node) Setup() supervisor.Setup {
	return supervisor.Setup{
		Node:   supervisor.Node{Name: n.Name, Address: n.Name + ".test", Boot: n.machine.boot, Machine: "machine-" + n.Name, Version: "test"},
		Clock:  n.clock,
		Memory: memory{n},
		Log:    slog.New(n.Handler()),
	}
}

// Disk returns the machine's memory itself.
func (n *Node) Disk() *Memory { return n.machine.memory }

// Handler writes the log of this process into the cluster's journal.
func (n *Node) Handler() slog.Handler {
	if n.cluster.journal == nil {
		return slog.DiscardHandler
	}
	h := n.cluster.journal.Handler(n.Name).(*logHandler)
	h.muted = n.isDead
	return h
}

// Context returns a context that ends, with its cause, when the process is killed.
func (n *Node) Context(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	n.onEnd(func() { cancel(errDead) })
	return ctx, cancel
}

func (n *Node) onEnd(f func()) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	if n.dead {
		f()
		return
	}
	n.ending = append(n.ending, f)
}

func (n *Node) isDead() bool {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	return n.dead
}

// wait returns once the process runs, and whether it lives.
func (n *Node) wait() bool {
	for {
		n.cluster.mu.Lock()
		dead, frozen, changed := n.dead, n.frozen, n.changed
		n.cluster.mu.Unlock()
		if dead || !frozen {
			return !dead
		}
		<-changed
	}
}

// tell wakes all who wait for something of this node. The caller holds mu.
func (n *Node) tell() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// Kill ends the process at once. Its parts stay as they are; what runs of them
// is killed with it. Its records stay until their time is over.
func (n *Node) Kill() {
	n.cluster.journal.Add(n.Name, "KILLED")
	n.end()
}

func (n *Node) end() {
	n.cluster.mu.Lock()
	if n.dead {
		n.cluster.mu.Unlock()
		return
	}
	n.dead, n.frozen = true, false
	for _, e := range n.electors {
		if e.lease != nil {
			e.lease.deadline.Stop()
		}
	}
	ending := n.ending
	n.leave()
	close(n.died)
	n.tell()
	n.cluster.mu.Unlock()
	n.clock.thaw()
	for _, f := range ending {
		f()
	}
}

// Freeze stops the process, as SIGSTOP does. Its parts go on.
func (n *Node) Freeze() {
	n.cluster.journal.Add(n.Name, "FROZEN")
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	if n.dead {
		return // the clock is the machine's, and serves the next process
	}
	n.frozen = true
	n.clock.freeze()
	n.leave()
}

// Thaw ends Freeze: first what came due meanwhile happens, late.
func (n *Node) Thaw() {
	n.cluster.journal.Add(n.Name, "THAWED")
	n.cluster.mu.Lock()
	n.frozen = false
	n.cluster.mu.Unlock()
	n.clock.thaw()
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.look()
	n.stay()
	n.tell()
}

// Cut keeps the node from reaching the records.
func (n *Node) Cut() {
	n.cluster.journal.Add(n.Name, "CUT OFF")
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.cut = true
	n.lose()
	n.leave()
}

// Heal ends Cut.
func (n *Node) Heal() {
	n.cluster.journal.Add(n.Name, "HEALED")
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.cut = false
	n.find()
	n.stay()
}

// Lag has each pulse take so long on its way to the records, also when the
// node is cut off, frozen or dead meanwhile.
func (n *Node) Lag(d time.Duration) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.lag = d
}

// LoseReply has the next Take or Resign be committed and its reply be lost.
func (n *Node) LoseReply() {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.loseReply = true
}

// lose remembers what is known, since no more will be. The caller holds mu.
func (n *Node) lose() {
	if n.view == nil {
		v := n.cluster.records.clone()
		n.view, n.lost = &v, n.clock.Now()
	}
	n.tell()
}

// find reads anew what can be read again. The caller holds mu.
func (n *Node) find() {
	if !n.cut && !n.cluster.down {
		n.view = nil
		n.look()
	}
}

// leave has the presence end after a while; stay prevents it, or brings it back.
func (n *Node) leave() {
	if n.left == nil {
		n.left = time.AfterFunc(presence, n.vanish)
	}
}

func (n *Node) vanish() {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	for _, e := range n.electors {
		s := n.cluster.records.service(e.service)
		if e.published == nil {
			continue
		}
		if e.published.Boot == s.candidates[n.Name].Boot && !n.cluster.replaced(n) {
			delete(s.candidates, n.Name)
		}
	}
	n.cluster.write()
	n.cluster.notify()
}

// replaced reports whether another process on n's machine has taken its place.
func (c *Cluster) replaced(n *Node) bool {
	for _, o := range c.nodes {
		if o != n && o.Name == n.Name && !o.dead && !o.frozen && !o.cut {
			return true
		}
	}
	return false
}

func (n *Node) stay() {
	if n.left == nil || n.dead || n.frozen || n.cut {
		return
	}
	n.left.Stop()
	n.left = nil
	for _, e := range n.electors {
		if e.published != nil {
			n.cluster.records.service(e.service).candidates[n.Name] = *e.published
		}
	}
	n.cluster.write()
	n.cluster.notify()
}

// look takes in what the records say now. The caller holds mu.
func (n *Node) look() {
	if n.dead || n.frozen {
		return
	}
	if n.view == nil {
		now := n.clock.Now()
		for id, p := range n.cluster.records.pulses {
			if s, ok := n.seen[id]; !ok || s.rev != p.rev || s.gone {
				n.seen[id] = sighting{rev: p.rev, at: now, ttl: p.ttl}
			}
		}
		if n.restores != n.cluster.restores {
			n.restores, n.still = n.cluster.restores, now
			for _, e := range n.electors {
				n.still = max(n.still, now.Add(e.timing.TTL))
			}
			for _, h := range n.pulses {
				h.refused("the records went back in time")
			}
		}
		for _, e := range n.electors {
			e.look()
		}
	}
	n.tell()
}

// watch takes in a single pulse. While it can be seen, it is seen to go.
func (n *Node) watch(id string) {
	if n.dead || n.frozen || n.view != nil {
		return
	}
	p := n.cluster.records.pulses[id]
	n.seen[id] = sighting{rev: p.rev, at: n.clock.Now(), ttl: p.ttl}
}

// bury takes in that a pulse was deleted. Who sees it go knows its last
// revision: its silence counts from there.
func (n *Node) bury(id string) {
	if n.dead || n.frozen || n.view != nil {
		return
	}
	if s, ok := n.seen[id]; ok {
		s.gone = true
		n.seen[id] = s
	}
}

// trip is the way of a request that its caller waits for. What is written
// behind its back takes no time, and each machine is as far away as no other:
// so the journal depends on no scheduler.
func (n *Node) trip(ctx context.Context) {
	if n.cluster.Trip > 0 {
		select {
		case <-time.After(n.cluster.Trip + time.Duration(n.machine.number)*10*time.Microsecond):
		case <-ctx.Done():
		}
	}
}

// request runs f on the records, once the process runs and reaches them. It
// gives up after one attempt's time, unless patient, and when ctx ends.
func (n *Node) request(ctx context.Context, patience time.Duration, f func() error) error {
	var timer supervisor.Timer
	for {
		if !n.wait() {
			return errDead
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", supervisor.ErrUnreachable, context.Cause(ctx))
		}
		n.cluster.mu.Lock()
		if n.view == nil && !n.frozen && !n.dead {
			defer n.cluster.mu.Unlock()
			return f()
		}
		changed := n.changed
		n.cluster.mu.Unlock()
		var late <-chan struct{}
		if patience > 0 {
			if timer == nil {
				timer = n.clock.Timer(n.clock.Now().Add(patience))
				defer timer.Stop()
			}
			late = timer.C()
		}
		select {
		case <-changed:
			n.trip(ctx) // it may have been held up, and is on its way only now
		case <-ctx.Done():
		case <-late:
			return fmt.Errorf("%w: no answer within %s", supervisor.ErrUnreachable, patience)
		}
	}
}
