package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

const (
	// firstDelay is how long the nodes that an event is not about let the one
	// that it is about have the first try.
	firstDelay = 3 * time.Second
	// Between two tries.
	firstRetry = time.Second
	lastRetry  = time.Minute
	// busyDelay is how often to see whether another node has delivered a notice.
	busyDelay = 2 * time.Second
	// After giveUp a notice is not tried any more.
	giveUp = time.Hour
	// claimSpare is what a claim is longer than a delivery may take.
	claimSpare = 5 * time.Second

	// Of each kind of event so many are told in a row, and then one in so long.
	burst  = 5
	refill = time.Minute
	// maxPending bounds what waits; what is too much is told in the log only.
	maxPending = 100
)

// A courier delivers one service's events to one receiver, one after the other.
type courier struct {
	of   Service
	to   Receiver
	log  *slog.Logger
	wake chan struct{}

	mu    sync.Mutex
	inbox []supervisor.Event

	// Of run alone.
	pending []*parcel
	buckets map[supervisor.EventKind]*bucket
}

// A parcel is an event on its way.
type parcel struct {
	Message
	since, next time.Time
	retry       time.Duration
	missed      int  // calls of the ledger that failed in a row
	done        bool // needs no delivery by this node, only to be kept as told
}

// A bucket bounds how often something is told.
type bucket struct {
	left int
	at   time.Time // the last refill
}

func newCourier(s Service, r Receiver) *courier {
	return &courier{
		of: s, to: r, wake: make(chan struct{}, 1), buckets: map[supervisor.EventKind]*bucket{},
		log: s.Log.With("notify", r.Name),
	}
}

// add takes an event in. It never waits.
func (c *courier) add(e supervisor.Event) {
	c.mu.Lock()
	c.inbox = append(c.inbox, e)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *courier) run(ctx context.Context) {
	for {
		c.unpack()
		now := time.Now()
		var next *parcel
		for _, p := range c.pending {
			if next == nil || p.next.Before(next.next) {
				next = p
			}
		}
		if next != nil && !next.next.After(now) {
			if c.deliver(ctx, next) {
				c.pending = slices.DeleteFunc(c.pending, func(p *parcel) bool { return p == next })
			}
			if ctx.Err() != nil {
				return
			}
			continue
		}
		var due <-chan time.Time
		if next != nil {
			due = time.After(next.next.Sub(now))
		}
		select {
		case <-c.wake:
		case <-due:
		case <-ctx.Done():
			return
		}
	}
}

// unpack makes parcels of what was added.
func (c *courier) unpack() {
	c.mu.Lock()
	events := c.inbox
	c.inbox = nil
	c.mu.Unlock()
	now := time.Now()
	for _, e := range events {
		p := &parcel{Message: Message{Event: e, Sender: c.of.Node}, since: now, next: now, retry: firstRetry}
		if e.Node != "" && e.Node != c.of.Node {
			p.next = now.Add(firstDelay)
		}
		c.pending = append(c.pending, p)
	}
	for len(c.pending) > maxPending {
		c.log.Error("nobody told: too much waits for this receiver", "event", c.pending[0].ID, "text", c.pending[0].Text)
		c.pending = c.pending[1:]
	}
}

// deliver tries once. It reports whether the parcel is dealt with.
func (c *courier) deliver(ctx context.Context, p *parcel) bool {
	notice := supervisor.Notice{Event: p.Event, Receiver: c.to.Name}
	now := time.Now()
	switch {
	case now.Sub(p.since) >= giveUp:
		c.log.Error("nobody told: no try succeeded in an hour", "event", p.ID, "text", p.Text)
		return true
	case p.done:
		return c.keep(ctx, notice, p)
	}
	b := c.bucket(p.Kind, now)
	if b.left == 0 {
		p.next = b.at.Add(refill)
		c.fold(p)
		return false
	}
	token, err := c.claim(ctx, notice)
	switch {
	case errors.Is(err, supervisor.ErrTold):
		return true
	case errors.Is(err, supervisor.ErrBusy):
		p.next, p.missed = time.Now().Add(busyDelay), 0
		return false
	case ctx.Err() != nil:
		return false
	case err != nil:
		// One try may fail by chance. After that it is better told twice than
		// not at all.
		if p.missed++; p.missed == 1 {
			p.next = time.Now().Add(firstRetry)
			return false
		}
		c.log.Warn("perhaps not the only node to tell this", "event", p.ID, "cause", err)
	default:
		p.missed = 0
	}
	if err := c.send(ctx, p); ctx.Err() != nil {
		return false
	} else if errors.Is(err, ErrRefused) {
		c.log.Error("nobody told: the receiver does not take this", "event", p.ID, "text", p.Text, "cause", err)
	} else if err != nil {
		c.log.Warn("not told, and tried again", "event", p.ID, "again", p.retry, "cause", err)
		c.later(p)
		if token != "" {
			c.release(ctx, notice, token)
		}
		return false
	} else {
		c.log.Info("told", "event", p.ID)
	}
	b.left--
	p.done, p.retry = true, firstRetry
	return c.keep(ctx, notice, p)
}

func (c *courier) claim(ctx context.Context, n supervisor.Notice) (token string, err error) {
	err = c.of.ask(ctx, func(ctx context.Context) error {
		token, err = c.of.Ledger.Claim(ctx, n, c.to.Timeout+claimSpare)
		return err
	})
	return token, err
}

func (c *courier) send(ctx context.Context, p *parcel) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.to.Timeout, fmt.Errorf("not done within %s", c.to.Timeout))
	defer cancel()
	m := p.Message
	if m.Folded > 0 {
		m.Text += fmt.Sprintf(" It stands for %d more of its kind.", m.Folded)
	}
	return c.to.Send(ctx, m)
}

// release ends a claim before its time, so that another node tries next.
func (c *courier) release(ctx context.Context, n supervisor.Notice, token string) {
	if err := c.of.ask(ctx, func(ctx context.Context) error { return c.of.Ledger.Release(ctx, n, token) }); err != nil {
		c.log.Debug("claim not released, it runs out", "cause", err)
	}
}

// keep has the ledger keep that a notice needs no delivery.
func (c *courier) keep(ctx context.Context, n supervisor.Notice, p *parcel) bool {
	err := c.of.ask(ctx, func(ctx context.Context) error { return c.of.Ledger.Told(ctx, n) })
	if err != nil {
		c.log.Debug("not kept that it was told", "event", p.ID, "cause", err)
		c.later(p)
	}
	return err == nil
}

// later puts the next try off, for longer each time.
func (c *courier) later(p *parcel) {
	p.next = time.Now().Add(p.retry/2 + rand.N(p.retry))
	p.retry = min(2*p.retry, lastRetry)
}

// bucket returns what is left of a kind.
func (c *courier) bucket(kind supervisor.EventKind, now time.Time) *bucket {
	b := c.buckets[kind]
	if b == nil {
		b = &bucket{left: burst, at: now}
		c.buckets[kind] = b
	}
	if n := int(now.Sub(b.at) / refill); n > 0 {
		b.left, b.at = min(b.left+n, burst), b.at.Add(time.Duration(n)*refill)
	}
	return b
}

// fold has the newest parcel of a kind stand for those that wait before it.
func (c *courier) fold(like *parcel) {
	var newest *parcel
	for _, p := range c.pending {
		if p.done || p.Kind != like.Kind || p.Resolved != like.Resolved {
			continue
		}
		if newest != nil {
			p.Folded += newest.Folded + 1
			newest.done, newest.next, newest.Folded = true, time.Now(), 0
		}
		newest = p
	}
}
