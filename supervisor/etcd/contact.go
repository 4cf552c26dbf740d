package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A contact is whether etcd answers.
type contact struct {
	at     sync.Mutex
	since  time.Time // wall time, for people; zero while it answers
	why    string
	change []chan<- struct{}
}

func (c *contact) hasContact() {
	c.at.Lock()
	defer c.at.Unlock()
	if c.since.IsZero() {
		return
	}
	c.since, c.why = time.Time{}, ""
	c.tell()
}

// lostContact takes note of a call that etcd did not answer, or denied.
func (c *contact) lostContact(err error) {
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, errDenied) {
		return // given up by the caller
	}
	c.at.Lock()
	defer c.at.Unlock()
	first := c.since.IsZero()
	if first {
		c.since = time.Now()
	}
	if why := err.Error(); first || why != c.why {
		c.why = why
		c.tell()
	}
}

// unreachable is empty while etcd answers.
func (c *contact) unreachable() string {
	c.at.Lock()
	defer c.at.Unlock()
	if c.since.IsZero() {
		return ""
	}
	return fmt.Sprintf("since %s: %s", c.since.Format(time.TimeOnly), c.why)
}

// subscribe has ch told of changes, without waiting for it.
func (c *contact) subscribe(ch chan<- struct{}) {
	c.at.Lock()
	defer c.at.Unlock()
	c.change = append(c.change, ch)
}

func (c *contact) tell() {
	for _, ch := range c.change {
		poke(ch)
	}
}

// poke sends to a channel of capacity 1, unless something waits there already.
func poke(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
