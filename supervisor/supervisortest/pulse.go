package supervisortest

import (
	"errors"
	"fmt"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// pulse returns this process's pulse of a TTL, which beats from then on. The
// caller holds mu.
func (n *Node) pulse(ttl time.Duration) *held {
	h := n.pulses[ttl]
	if h == nil {
		h = &held{node: n, timing: supervisor.NewTiming(ttl)}
		h.renew()
		n.pulses[ttl] = h
	}
	if !h.ticking {
		h.ticking = true
		h.beat()
		n.clock.after(n.clock.Now().Add(h.timing.Renew), h.tick)
	}
	return h
}

// renew begins a pulse with an ID of its own: the one before is no more.
func (h *held) renew() {
	h.serial++
	h.id = fmt.Sprintf("%s-%s-%d", h.node.id, h.timing.TTL, h.serial)
	h.rev, h.sent, h.s = 0, map[int]sdk.Instant{}, 0
}

func (h *held) tick() {
	n := h.node
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	if n.dead || h.idle() {
		h.ticking = false
		return
	}
	h.beat()
	n.clock.after(n.clock.Now().Add(h.timing.Renew), h.tick)
}

// idle reports whether all that the pulse was for has been abandoned.
func (h *held) idle() bool {
	all := false
	for _, e := range h.node.electors {
		if e.timing == h.timing {
			if !e.abandoned {
				return false
			}
			all = true
		}
	}
	return all
}

// beat sends a pulse. The caller holds mu.
func (h *held) beat() {
	n := h.node
	if n.view != nil {
		return
	}
	h.count++
	id, rev, count := h.id, h.rev, h.count
	h.sent[count] = n.clock.Now()
	if n.lag == 0 {
		h.commit(id, rev, count)
		return
	}
	time.AfterFunc(n.lag, func() {
		n.cluster.mu.Lock()
		defer n.cluster.mu.Unlock()
		if !n.cluster.down {
			h.commit(id, rev, count)
		}
	})
}

// commit is what the store makes of a pulse that arrives, and what the process
// makes of the reply, if that reaches it. An earlier value of ours in its
// place is a success of its own time: a duplicate, or a reply that was lost.
func (h *held) commit(id string, rev int64, count int) {
	n, c := h.node, h.node.cluster
	p := c.records.pulses[id]
	if p.rev == rev {
		p = pulse{rev: c.write(), count: count, ttl: h.timing.TTL}
		c.records.pulses[id] = p
		for _, o := range c.nodes {
			o.watch(id)
		}
	}
	if n.dead || n.frozen || n.view != nil || id != h.id {
		return
	}
	sent, ours := h.sent[p.count]
	if p.rev == 0 || !ours && p.rev != h.rev {
		h.refused("its pulse was deleted")
		return
	}
	h.rev = p.rev
	for old := range h.sent {
		if old < p.count {
			delete(h.sent, old)
		}
	}
	if sent <= h.s {
		return
	}
	h.s = sent
	for _, e := range n.electors {
		if l := e.lease; l != nil && l.pulse == h && l.id == h.id {
			l.until = sent.Add(h.timing.Until + c.broken.late)
			select {
			case l.renewed <- struct{}{}:
			default:
			}
		}
	}
	n.tell()
}

// refused ends the pulse and all that hangs on it, and begins another.
func (h *held) refused(why string) {
	for _, e := range h.node.electors {
		if l := e.lease; l != nil && l.pulse == h && l.id == h.id {
			l.lose(errors.New(why), true)
		}
	}
	h.renew()
	if h.node.lag == 0 {
		h.beat()
	}
}
