package etcd

import (
	"sync"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// A meter counts the pulses of one TTL, whichever pulse they were of.
type meter struct {
	mu sync.Mutex
	n  supervisor.Renewals
}

// meter returns the meter of a TTL; c.mu is held.
func (c *Client) meter(ttl time.Duration) *meter {
	m := c.meters[ttl]
	if m == nil {
		m = &meter{n: supervisor.Renewals{Bounds: supervisor.RenewalBounds()}}
		c.meters[ttl] = m
	}
	return m
}

// count counts one pulse, and whether it was acknowledged.
func (m *meter) count(took time.Duration, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ok {
		m.n.Took.Add(m.n.Bounds, took)
	} else {
		m.n.Failures++
	}
}

var _ supervisor.Meter = (*elector)(nil)

func (e *elector) Renewals() supervisor.Renewals {
	e.c.mu.Lock()
	m := e.c.meter(e.ttl)
	e.c.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.n
	n.Took = n.Took.Clone()
	return n
}

func (e *elector) Contact() supervisor.Contact { return e.c.contact.figures() }
