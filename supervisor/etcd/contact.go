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
	mu     sync.Mutex
	last   time.Time // of the newest answer
	since  time.Time // wall time, for people; zero while it answers
	why    string
	told   time.Time // when why was last changed
	change signal
}

func (c *contact) answers() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = time.Now()
	if c.since.IsZero() {
		return
	}
	c.since, c.why = time.Time{}, ""
	c.change.tell()
}

// fails takes note of a call that etcd did not answer, or denied.
func (c *contact) fails(err error) {
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, errDenied) {
		return // given up by the caller
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.since.IsZero() {
		// One call of many that etcd is too slow for is no loss of contact. To
		// tell of each would cost all services a write, and make it slower.
		if now.Sub(c.last) < attemptTimeout {
			return
		}
		c.since = now
	} else if now.Sub(c.told) < time.Second {
		return // endpoints fail in turns, and each change is told to everybody
	}
	if why := err.Error(); why != c.why {
		c.why, c.told = why, now
		c.change.tell()
	}
}

// unreachable is empty while etcd answers.
func (c *contact) unreachable() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since.IsZero() {
		return ""
	}
	return fmt.Sprintf("since %s: %s", c.since.Format(time.TimeOnly), c.why)
}
