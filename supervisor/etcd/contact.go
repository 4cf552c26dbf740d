package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// A contact is whether etcd answers, and does what is asked.
type contact struct {
	mu     sync.Mutex
	last   time.Time     // of the newest answer
	silent hitch         // until something is answered
	denied hitch         // until something is written
	told   time.Time     // when either was last changed
	broken time.Time     // since when either is one; zero while neither is
	lost   time.Duration // all the times before
	cure   string        // of the silence, where it is known
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
		c.reckon()
		c.change.tell()
	}
}

// reckon takes note of whether something goes wrong from now on.
func (c *contact) reckon() {
	switch wrong := !c.hitch().since.IsZero(); {
	case wrong && c.broken.IsZero():
		c.broken = time.Now()
	case !wrong && !c.broken.IsZero():
		c.lost += time.Since(c.broken)
		c.broken = time.Time{}
	}
}

// figures are those of supervisor.Meter.
func (c *contact) figures() supervisor.Contact {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := supervisor.Contact{Reachable: c.broken.IsZero() && !c.last.IsZero(), Unreachable: c.lost, Last: c.last}
	if !c.broken.IsZero() {
		f.Unreachable += time.Since(c.broken)
	}
	return f
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
		c.reckon()
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
