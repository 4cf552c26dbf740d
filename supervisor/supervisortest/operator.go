package supervisortest

import (
	"context"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// Operator returns the records as an operator sees and steers them.
func (c *Cluster) Operator() supervisor.Cluster {
	c.mu.Lock()
	defer c.mu.Unlock()
	return operator{c.start("operator")}
}

type operator struct{ node *Node }

func (o operator) Services(ctx context.Context) (names []string, err error) {
	err = o.node.request(ctx, time.Second, func() error {
		names = slices.Sorted(maps.Keys(o.node.cluster.records.services))
		return nil
	})
	return names, err
}

// elector is this operator's view of a service. The caller holds mu.
func (o operator) elector(service string) (*elector, error) {
	if o.node.cluster.records.services[service] == nil {
		return nil, supervisor.ErrNoService
	}
	for _, e := range o.node.electors {
		if e.service == service {
			return e, nil
		}
	}
	return o.node.elector(service, supervisor.MinTTL), nil
}

func (o operator) State(ctx context.Context, service string) (s supervisor.State, err error) {
	err = o.with(ctx, service, func(e *elector) error {
		s, _ = e.see()
		return nil
	})
	return s, err
}

func (o operator) with(ctx context.Context, service string, f func(*elector) error) error {
	return o.node.request(ctx, time.Second, func() error {
		e, err := o.elector(service)
		if err != nil {
			return err
		}
		defer o.node.cluster.notify()
		o.node.cluster.write()
		return f(e)
	})
}

func (o operator) Watch(ctx context.Context, service string) iter.Seq[supervisor.State] {
	o.node.cluster.mu.Lock()
	defer o.node.cluster.mu.Unlock()
	e, err := o.elector(service)
	if err != nil {
		return func(func(supervisor.State) bool) {}
	}
	return e.Observe(ctx)
}

func (o operator) History(ctx context.Context, service string) (h []supervisor.Change, err error) {
	err = o.with(ctx, service, func(e *elector) error {
		h = slices.Clone(e.records().history)
		return nil
	})
	return h, err
}

func (e *elector) records() *service { return e.node.cluster.records.service(e.service) }

func (o operator) Request(ctx context.Context, service string, r supervisor.Reservation) error {
	o.node.trip(ctx)
	return o.with(ctx, service, func(e *elector) error {
		if now, _ := e.see(); now.Reservation.Binds() {
			return supervisor.ErrBusy
		}
		s := e.records()
		s.reservation, s.reservedRev, s.heir = &r, o.node.cluster.rev, nil
		return nil
	})
}

func (o operator) Cancel(ctx context.Context, service, id string) error {
	return o.with(ctx, service, func(e *elector) error {
		if r := e.records(); r.reservation != nil && r.reservation.ID == id {
			r.reservation, r.reservedRev = nil, 0
		}
		return nil
	})
}

func (o operator) Pause(ctx context.Context, service string, p supervisor.Pause) error {
	return o.with(ctx, service, func(e *elector) error { e.records().pause = &p; return nil })
}

func (o operator) Resume(ctx context.Context, service string) error {
	return o.with(ctx, service, func(e *elector) error {
		e.records().pause, e.records().term.Moved = nil, false
		return nil
	})
}

func (o operator) Drain(ctx context.Context, d supervisor.Drain) error {
	return o.drain(ctx, func() { o.node.cluster.records.drains[d.Node] = d })
}

func (o operator) Undrain(ctx context.Context, node string) error {
	return o.drain(ctx, func() { delete(o.node.cluster.records.drains, node) })
}

func (o operator) Ban(ctx context.Context, service string, b supervisor.Ban) error {
	return o.with(ctx, service, func(e *elector) error { e.records().bans[b.Node] = b; return nil })
}

func (o operator) Unban(ctx context.Context, service, node string) error {
	return o.with(ctx, service, func(e *elector) error { delete(e.records().bans, node); return nil })
}

func (o operator) drain(ctx context.Context, f func()) error {
	return o.node.request(ctx, time.Second, func() error {
		f()
		o.node.cluster.write()
		o.node.cluster.notify()
		return nil
	})
}

func (o operator) Remove(ctx context.Context, service string) error {
	return o.with(ctx, service, func(e *elector) error {
		if r := e.records(); r.primary != nil || len(r.candidates) > 0 {
			return supervisor.ErrBusy
		}
		delete(o.node.cluster.records.services, service)
		return nil
	})
}
