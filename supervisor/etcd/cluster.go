package etcd

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

var _ supervisor.Cluster = (*Client)(nil)

// Services returns the names of all services that have records, in order.
func (c *Client) Services(ctx context.Context) ([]string, error) {
	r, err := c.txn(ctx, txn{Then: []op{getKeys(c.keys.services())}})
	if err != nil {
		return nil, fmt.Errorf("list the services: %w", err)
	}
	names := []string{}
	for _, rec := range r.Results[0] {
		// A notice may outlast its service, when it was written as that was removed.
		if name, _, ok := c.keys.split(rec.Key); ok && !c.keys.notified(name).has(rec.Key) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// State reads what the records say now. One look cannot tell a silent primary
// from one that renews, so its Vacant is true only after a resignation; Watch
// tells them apart.
func (c *Client) State(ctx context.Context, service string) (supervisor.State, error) {
	states, err := c.States(ctx, []string{service})
	if err != nil {
		return supervisor.State{}, fmt.Errorf("read the state of %s: %w", service, err)
	}
	s, ok := states[service]
	if !ok {
		return s, noService(service)
	}
	return s, nil
}

// States reads the State of several services in a few round trips. Those that
// have no records are left out.
func (c *Client) States(ctx context.Context, services []string) (map[string]supervisor.State, error) {
	o := c.observer()
	elections := make([]*election, len(services))
	var views []*view
	for i, service := range services {
		elections[i] = o.election(service)
		views = append(views, elections[i].view)
	}
	states := make(map[string]supervisor.State)
	if len(services) == 0 {
		return states, nil
	}
	if _, err := o.sync(ctx, append(views, o.drains)...); err != nil {
		return nil, err
	}
	for i, service := range services {
		if len(views[i].in(under(c.keys.service(service)))) > 0 {
			states[service], _ = elections[i].current()
		}
	}
	return states, nil
}

// Watch yields the State once it is known, and after each change.
func (c *Client) Watch(ctx context.Context, service string) iter.Seq[supervisor.State] {
	return func(yield func(supervisor.State) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		o := c.observer()
		var wg sync.WaitGroup
		wg.Go(func() { _ = o.Run(ctx) }) // its errors are those of a second Run
		defer wg.Wait()
		defer cancel(errReleased)

		e := o.election(service)
		changed := make(chan struct{}, 1)
		defer e.change.add(changed)()
		var last supervisor.State
		for ctx.Err() == nil {
			st, wake := e.current()
			known := e.view.synced() && o.drains.synced() || st.Unreachable != ""
			if known && (last.Service == "" || !same(st, last)) {
				last = st
				if !yield(st) {
					return
				}
			}
			timer, stop := make(<-chan struct{}), func() {}
			if wake != 0 {
				t := c.clock.Timer(wake)
				timer, stop = t.C(), t.Stop
			}
			select {
			case <-changed:
			case <-timer:
			case <-ctx.Done():
			}
			stop()
		}
	}
}

// observer returns a Client that looks at the same records and never writes,
// for as long as one call.
func (c *Client) observer() *Client {
	cfg := c.cfg
	cfg.Witness, cfg.Compact, cfg.Log = nil, 0, nil
	o := newClient(cfg, nil)
	o.hedge, o.quiet, o.past = c.hedge, true, newPast(c.hedge.ways)
	return o
}

// History returns the changes of role that are kept, oldest first.
func (c *Client) History(ctx context.Context, service string) ([]supervisor.Change, error) {
	r, err := c.read(ctx, append(c.keys.state(service), c.keys.history(service))...)
	if err != nil {
		return nil, fmt.Errorf("read the history of %s: %w", service, err)
	}
	if none := slices.IndexFunc(r.Results, func(recs []record) bool { return len(recs) > 0 }) < 0; none {
		return nil, noService(service)
	}
	changes := []supervisor.Change{}
	for _, rec := range r.Results[len(r.Results)-1] {
		change, err := decode[supervisor.Change](rec)
		if err != nil {
			return nil, fmt.Errorf("read the history of %s: %w", service, err)
		}
		changes = append(changes, change)
	}
	slices.SortFunc(changes, func(a, b supervisor.Change) int { return cmp.Compare(a.Term, b.Term) })
	return changes, nil
}

// Request writes a reservation, unless one is in force that its target has not
// declined and the primary not undone.
func (c *Client) Request(ctx context.Context, service string, r supervisor.Reservation) error {
	if err := c.exists(ctx, service); err != nil {
		return fmt.Errorf("reserve %s for %s: %w", service, r.To, err)
	}
	if r.ID == "" {
		r.ID = rand.Text()
	}
	return c.reserve(ctx, service, reservationRecord{Reservation: r}, "")
}

// Cancel deletes the reservation with this ID; without one it does nothing.
func (c *Client) Cancel(ctx context.Context, service, id string) error {
	err := c.rewrite(ctx, c.keys.reserved(service), func(rec record) ([]byte, error) {
		if now, err := decode[supervisor.Reservation](rec); err == nil && now.ID != id {
			return rec.Value, nil
		}
		return nil, nil
	})
	if err != nil {
		return fmt.Errorf("cancel the order for %s: %w", service, err)
	}
	return nil
}

// Pause replaces a pause that is in force.
func (c *Client) Pause(ctx context.Context, service string, p supervisor.Pause) error {
	err := c.exists(ctx, service)
	if err == nil {
		err = c.rewrite(ctx, c.keys.pause(service), func(record) ([]byte, error) { return encode(p), nil })
	}
	if err != nil {
		return fmt.Errorf("pause %s: %w", service, err)
	}
	return nil
}

// Resume ends a pause. It also gives a service whose primary an operator chose
// back to preempt.
func (c *Client) Resume(ctx context.Context, service string) error {
	err := c.exists(ctx, service)
	if err == nil {
		err = c.rewrite(ctx, c.keys.pause(service), func(record) ([]byte, error) { return nil, nil })
	}
	if err == nil {
		err = c.rewrite(ctx, c.keys.term(service), func(rec record) ([]byte, error) {
			term, err := decode[termRecord](rec)
			if err != nil || !rec.exists() || !term.Moved {
				return rec.Value, err
			}
			term.Moved = false
			return encode(term), nil
		})
	}
	if err != nil {
		return fmt.Errorf("resume %s: %w", service, err)
	}
	return nil
}

// Drain has a node hand over everything and lead nothing.
func (c *Client) Drain(ctx context.Context, d supervisor.Drain) error {
	err := c.rewrite(ctx, c.keys.node(d.Node), func(record) ([]byte, error) { return encode(d), nil })
	if err != nil {
		return fmt.Errorf("drain %s: %w", d.Node, err)
	}
	return nil
}

// Undrain lets a node lead again; one that is not drained may already.
func (c *Client) Undrain(ctx context.Context, node string) error {
	err := c.rewrite(ctx, c.keys.node(node), func(record) ([]byte, error) { return nil, nil })
	if err != nil {
		return fmt.Errorf("undrain %s: %w", node, err)
	}
	return nil
}

// Ban replaces a ban of the same node.
func (c *Client) Ban(ctx context.Context, service string, b supervisor.Ban) error {
	err := c.exists(ctx, service)
	if err == nil {
		err = c.rewrite(ctx, c.keys.ban(service, b.Node), func(record) ([]byte, error) { return encode(b), nil })
	}
	if err != nil {
		return fmt.Errorf("ban %s from %s: %w", b.Node, service, err)
	}
	return nil
}

// Unban lets a node lead the service again; one that is not banned may already.
func (c *Client) Unban(ctx context.Context, service, node string) error {
	err := c.exists(ctx, service)
	if err == nil {
		err = c.rewrite(ctx, c.keys.ban(service, node), func(record) ([]byte, error) { return nil, nil })
	}
	if err != nil {
		return fmt.Errorf("let %s lead %s again: %w", node, service, err)
	}
	return nil
}

// Remove deletes everything there is of a service, its term included: when the
// service comes back, its terms begin at 1, and whatever remembers a higher
// one refuses it until told to forget that. It waits for the TTL of a primary
// that did not resign, to see whether its pulse is silent.
func (c *Client) Remove(ctx context.Context, service string) error {
	if err := c.remove(ctx, service); err != nil {
		return fmt.Errorf("remove %s: %w", service, err)
	}
	c.log.Warn("forgot a service; when it comes back its terms begin at 1", "service", service)
	return nil
}

func (c *Client) remove(ctx context.Context, service string) error {
	for first := true; ; first = false {
		r, err := c.read(ctx, one(c.keys.primary(service)), one(c.keys.term(service)), c.keys.candidates(service), under(c.keys.service(service)))
		if err != nil {
			return err
		}
		primRec, termRec := r.first(0), r.first(1)
		switch {
		case len(r.Results[3]) == 0 && first:
			return noService(service)
		case len(r.Results[3]) == 0:
			return nil // by this call, or by another
		case len(r.Results[2]) > 0:
			var who []string
			for _, rec := range r.Results[2] {
				who = append(who, strings.TrimPrefix(rec.Key, c.keys.candidates(service).key))
			}
			return &busy{fmt.Sprintf("a member runs on %s: stop it there first, deputy disable does", strings.Join(who, ", "))}
		}
		t := txn{
			If:   []cond{is(primRec.Key, primRec.Mod), is(termRec.Key, termRec.Mod), none(c.keys.candidates(service))},
			Then: []op{remove(under(c.keys.service(service)))},
		}
		t.If[0].key, t.If[1].key = c.keys.primary(service), c.keys.term(service)
		prim, err := decode[primaryRecord](primRec)
		if err != nil {
			return err
		}
		term, err := decode[termRecord](termRec)
		if err != nil {
			return err
		}
		pulse, node, ttl := prim.Pulse, prim.Node, prim.ttl()
		if !primRec.exists() && !term.Resigned {
			pulse, node, ttl = term.Pulse, term.Node, term.ttl()
		}
		if pulse != "" {
			rev, err := c.silent(ctx, pulse, ttl)
			if err != nil {
				return fmt.Errorf("wait for the pulse of %s to be silent: %w", node, err)
			}
			if rev < 0 {
				return &busy{node + " is primary: stop it there first, deputy disable does"}
			}
			t.If = append(t.If, is(c.keys.pulse(pulse), rev))
		}
		if r, err = c.txn(ctx, t); err != nil {
			return err
		} else if r.OK {
			return nil
		}
	}
}

// silent watches a pulse for the TTL that it states, or for the one given when
// it is gone. It returns the revision that it kept, or -1 when it changed.
func (c *Client) silent(ctx context.Context, id string, ttl time.Duration) (rev int64, err error) {
	r, err := c.read(ctx, one(c.keys.pulse(id)))
	if err != nil {
		return 0, err
	}
	first := r.first(0)
	if rec, err := decode[pulseRecord](first); err == nil && first.exists() {
		ttl = rec.ttl()
	}
	ttl = max(ttl, supervisor.MinTTL)
	end := c.clock.Now().Add(stretch(ttl))
	for {
		c.sleep(ctx, min(end.Sub(c.clock.Now()), supervisor.NewTiming(ttl).Renew))
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		over := c.clock.Now() >= end
		r, err := c.read(ctx, one(c.keys.pulse(id)))
		switch {
		case err != nil:
			return 0, err
		case r.first(0).Mod != first.Mod:
			return -1, nil
		case over:
			return first.Mod, nil
		}
	}
}

// exists returns an error unless the service has records.
func (c *Client) exists(ctx context.Context, service string) error {
	var keys txn
	for _, s := range c.keys.state(service) {
		keys.Then = append(keys.Then, getKeys(s))
	}
	r, err := c.txn(ctx, keys)
	if err != nil {
		return err
	}
	for _, recs := range r.Results {
		if len(recs) > 0 {
			return nil
		}
	}
	return noService(service)
}

// rewrite has a record be what edit makes of it, or deletes it when that is
// nil. It compares what it replaces, and begins anew when that has changed.
func (c *Client) rewrite(ctx context.Context, key string, edit func(record) ([]byte, error)) error {
	r, err := c.read(ctx, one(key))
	for {
		if err != nil {
			return err
		}
		rec := r.first(0)
		value, bad := edit(rec)
		if bad != nil {
			return bad
		}
		if bytes.Equal(value, rec.Value) && rec.exists() == (value != nil) {
			return nil // so it is, by this call or another
		}
		t := txn{If: []cond{is(key, rec.Mod)}, Then: []op{put(key, value)}, Else: []op{get(one(key))}}
		if value == nil {
			t.Then = []op{remove(one(key))}
		}
		if r, err = c.txn(ctx, t); err == nil && r.OK {
			return nil
		}
	}
}

func noService(name string) error { return fmt.Errorf("%w: %s", supervisor.ErrNoService, name) }

// A busy error is an ErrBusy that says who is there.
type busy struct{ who string }

func (b *busy) Error() string     { return b.who }
func (b *busy) Is(err error) bool { return errors.Is(err, supervisor.ErrBusy) }
