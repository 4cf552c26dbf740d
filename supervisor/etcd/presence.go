package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/deputy-ha/deputy/supervisor"
)

// minPresence is the shortest TTL of the etcd lease that candidates hang on.
const minPresence = 10 * time.Second

// A presence keeps the records of this node's candidacies. They hang on an
// etcd lease, so that they vanish some seconds after the process; nothing is
// decided by that.
type presence struct {
	wake chan struct{}

	mu    sync.Mutex
	wants map[string]*want // by key
}

// A want is one record as it is to be.
type want struct {
	key     string
	view    *view // which would show the record
	value   []byte
	dirty   bool          // value is not written
	written chan struct{} // closed when it is
	// Of the keeper alone.
	lease int64 // that the record hangs on
	rev   int64
}

func (p *presence) init() {
	p.wake = make(chan struct{}, 1)
	p.wants = make(map[string]*want)
}

func (e *elector) Publish(ctx context.Context, c supervisor.Candidate) error {
	key := e.c.keys.candidate(e.service, e.c.cfg.Node.Name)
	written := e.c.present.set(key, e.view, encode(c))
	select {
	case <-written:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("publish the candidacy for %s: %w", e.service, context.Cause(ctx))
	}
}

// set has the record be this value from now on. It returns a channel that is
// closed once it, or a later one, is.
func (p *presence) set(key string, v *view, value []byte) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.wants[key]
	if w == nil {
		w = &want{key: key, view: v}
		p.wants[key] = w
	}
	if string(w.value) != string(value) {
		w.value = value
		if !w.dirty {
			w.dirty, w.written = true, make(chan struct{})
		}
		poke(p.wake)
	}
	return w.written
}

// keepPresent writes the records, and renews what they hang on, until ctx
// ends; then it deletes them.
func (c *Client) keepPresent(ctx context.Context) {
	p := &c.present
	var lease int64
	var ttl time.Duration
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-p.wake:
		case <-next.C:
		case <-ctx.Done():
			c.unpublish(context.WithoutCancel(ctx), lease)
			return
		}
		err := p.keep(ctx, c, &lease, &ttl)
		wait := ttl / 3
		if err != nil {
			wait = hedgeDelay
			if ctx.Err() == nil && !errors.Is(err, supervisor.ErrUnreachable) {
				c.log.Warn("cannot publish", "cause", err)
				wait = time.Second
			}
		}
		next.Reset(wait)
	}
}

// keep makes the records be what they are to be, once.
func (p *presence) keep(ctx context.Context, c *Client, lease *int64, ttl *time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errNoAnswer)
	defer cancel()
	p.mu.Lock()
	none := len(p.wants) == 0
	p.mu.Unlock()
	if none {
		*ttl = minPresence
		return nil
	}
	if *lease != 0 {
		_, err := ask(ctx, c.hedge, hedgeDelay, func(ctx context.Context, way kv) (struct{}, error) {
			return struct{}{}, way.KeepAlive(ctx, *lease)
		})
		if errors.Is(err, errLeaseGone) {
			*lease = 0
		} else if err != nil {
			return fmt.Errorf("renew the presence of this node: %w", err)
		}
	}
	if *lease == 0 {
		*ttl = c.presenceTTL()
		id, err := ask(ctx, c.hedge, time.Second, func(ctx context.Context, way kv) (int64, error) {
			return way.Grant(ctx, *ttl)
		})
		if err != nil {
			return fmt.Errorf("begin the presence of this node: %w", err)
		}
		*lease = id
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for _, w := range p.stale(*lease) {
		group.Go(func() error { return p.write(ctx, c, w, *lease) })
	}
	err := group.Wait()
	if errors.Is(err, errLeaseGone) {
		*lease = 0
	}
	return err
}

// stale returns the records that are not what they are to be.
func (p *presence) stale(lease int64) []*want {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []*want
	for _, w := range p.wants {
		// etcd may have taken its lease away too early.
		lost := w.view.synced() && !w.view.get(w.key).exists()
		if w.dirty || w.lease != lease || lost {
			list = append(list, w)
		}
	}
	return list
}

// write writes one record.
func (p *presence) write(ctx context.Context, c *Client, w *want, lease int64) error {
	p.mu.Lock()
	value := w.value
	p.mu.Unlock()
	for {
		r, err := c.txn(ctx, txn{
			If:   []cond{is(w.key, w.rev)},
			Then: []op{putLeased(w.key, value, lease)},
			Else: []op{get(one(w.key))},
		})
		if err != nil {
			return fmt.Errorf("publish %s: %w", w.key, err)
		}
		found := r.first(0)
		if r.OK {
			found = record{Key: w.key, Value: value, Mod: r.Rev, Lease: lease}
		}
		w.rev = found.Mod
		if found.exists() && found.Lease == lease && string(found.Value) == string(value) {
			_, _, breaks := c.past.now()
			w.view.apply(breaks, event{record: found})
			w.lease = lease
			p.mu.Lock()
			if w.dirty && string(w.value) == string(value) {
				w.dirty = false
				close(w.written)
			}
			p.mu.Unlock()
			return nil
		}
	}
}

// unpublish deletes the records, as the process ends.
func (c *Client) unpublish(ctx context.Context, lease int64) {
	if lease == 0 {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Second, errNoAnswer)
	defer cancel()
	_, err := ask(ctx, c.hedge, hedgeDelay, func(ctx context.Context, way kv) (struct{}, error) {
		return struct{}{}, way.Revoke(ctx, lease)
	})
	if err != nil && !errors.Is(err, errLeaseGone) {
		c.log.Info("cannot delete the candidacies, they will run out", "cause", err)
	}
}

// presenceTTL is long enough for the presence not to end before the leases.
func (c *Client) presenceTTL() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	ttl := minPresence
	for t := range c.pulses {
		ttl = max(ttl, 3*t)
	}
	return ttl
}

// leave deletes the pulses that nothing hangs on, as the process ends.
func (c *Client) leave(ctx context.Context) {
	c.mu.Lock()
	pulses := slices.Collect(maps.Values(c.pulses))
	c.mu.Unlock()
	for _, p := range pulses {
		p.remove(ctx)
	}
}
