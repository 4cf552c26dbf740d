package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A contact is whether etcd answers, and does what is asked.
type contact struct {
	mu     sync.Mutex
	last   time.Time // of the newest answer
	silent hitch     // until something is answered
	denied hitch     // until something is written
	told   time.Time // when either was last changed
	cure   string    // of the silence, where it is known
	change signal
}

// A hitch is since when something goes wrong, and what. The zero hitch is
// none.
type hitch struct {
	since time.Time // wall time, for people
	why   string
}

// answers takes note of an answer.
func (c *contact) answers() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = time.Now()
	c.ends(&c.silent)
}

// obeys takes note that something was written.
func (c *contact) obeys() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ends(&c.denied)
}

// diagnose takes note of what etcd's silence comes from, and of its cure.
func (c *contact) diagnose(cure string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cure != c.cure {
		c.cure = cure
		if !c.silent.since.IsZero() {
			c.change.tell()
		}
	}
}

func (c *contact) ends(h *hitch) {
	if !h.since.IsZero() {
		*h = hitch{}
		c.change.tell()
	}
}

// fails takes note of a call that etcd did not answer, or denied.
func (c *contact) fails(err error) {
	denied := errors.Is(err, errDenied)
	if !denied && !errors.Is(err, context.DeadlineExceeded) {
		return // given up by the caller
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	t := &c.silent
	if denied {
		t = &c.denied
	}
	if t.since.IsZero() {
		// One call of many that etcd is too slow for is no loss of contact. To
		// tell of each would cost all services a write, and make it slower.
		if !denied && now.Sub(c.last) < attemptTimeout {
			return
		}
		t.since = now
	} else if now.Sub(c.told) < time.Second {
		return // endpoints fail in turns, and each change is told to everybody
	}
	if why := err.Error(); why != t.why {
		t.why, c.told = why, now
		c.change.tell()
	}
}

func (c *contact) hitch() hitch {
	if c.silent.since.IsZero() {
		return c.denied
	}
	return c.silent
}

// unreachable is empty while etcd answers and does what is asked.
func (c *contact) unreachable() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.hitch()
	if t.since.IsZero() {
		return ""
	}
	why := t.why
	if c.cure != "" && t == c.silent {
		why = c.cure + ": " + why
	}
	return fmt.Sprintf("since %s: %s", t.since.Format(time.TimeOnly), why)
}
