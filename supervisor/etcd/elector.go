package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// An elector is one service's election, with a TTL for the leases won here.
type elector struct {
	*election
	ttl time.Duration
}

var _ supervisor.Elector = (*elector)(nil)

// Elector returns the election of a service. New leases have the given TTL; one
// that is held keeps the TTL it was won with until it ends.
func (c *Client) Elector(service string, ttl time.Duration) supervisor.Elector {
	e := c.election(service)
	e.mu.Lock()
	e.ttl = ttl
	e.mu.Unlock()
	c.pulse(ttl) // begins now, for the watch to be listened to and the take to be fast
	c.prune()
	return &elector{election: e, ttl: ttl}
}

func (e *elector) Observe(ctx context.Context) iter.Seq[supervisor.State] {
	return func(yield func(supervisor.State) bool) {
		e.observed(1)
		defer e.observed(-1)
		defer e.remember(0)
		changed := make(chan struct{}, 1)
		defer e.change.add(changed)()
		var last supervisor.State
		for ctx.Err() == nil {
			st, wake := e.current()
			if last.Seq == 0 || !same(st, last) {
				last = st
				if !yield(st) {
					return
				}
			}
			e.originate()
			if due := e.remember(settling); due != 0 && (wake == 0 || due < wake) {
				wake = due
			}
			e.tidy()
			var timer <-chan struct{}
			stop := func() {}
			if wake != 0 {
				t := e.c.clock.Timer(wake)
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

func (e *elector) Take(ctx context.Context, seen supervisor.State) (supervisor.Lease, error) {
	l, err := e.take(ctx, seen)
	if err != nil {
		return nil, fmt.Errorf("take %s: %w", e.service, err)
	}
	return l, nil
}

func (e *elector) take(ctx context.Context, seen supervisor.State) (*lease, error) {
	select {
	case e.c.takes <- struct{}{}:
		defer func() { <-e.c.takes }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, e.ttl, errNoAnswer)
	defer cancel()
	st, b, err := e.begin(seen)
	if err != nil {
		return nil, err
	}
	defer e.begun()
	if b.Mine {
		return e.claim(ctx, b)
	}
	l, err := e.win(ctx, st, b)
	if errors.Is(err, supervisor.ErrUnreachable) {
		e.c.spawn(e.settle)
		nap(ctx, hedgeDelay) // what is denied at once is not to be tried all the time
	}
	return l, err
}

// begin checks that the State is the newest and allows a take, and keeps
// others of this process from taking.
func (e *elector) begin(seen supervisor.State) (supervisor.State, basis, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.state.Reservation
	refuse := func(format string, args ...any) (supervisor.State, basis, error) {
		return supervisor.State{}, basis{}, fmt.Errorf("%w: "+format, append([]any{supervisor.ErrRefused}, args...)...)
	}
	switch {
	case seen.Seq != e.state.Seq:
		return refuse("this State is not the newest")
	case e.held != nil || e.taking:
		return refuse("this process holds or takes the role already")
	case e.state.Frozen != "":
		return refuse("%s", e.state.Frozen)
	case !e.basis.Vacant && !e.basis.Mine:
		return refuse("the role is not vacant")
	case e.basis.Vacant && r.Binds() && r.To != e.c.cfg.Node.Name:
		return refuse("it is reserved for %s", r.To)
	}
	e.taking = true
	return e.state, e.basis, nil
}

// begun ends what begin began. The next State is a newer one, so that whoever
// waits for one can try again.
func (e *elector) begun() {
	e.mu.Lock()
	e.taking = false
	e.takes++
	e.mu.Unlock()
	e.change.tell()
}

// win takes a vacant role.
func (e *elector) win(ctx context.Context, st supervisor.State, b basis) (*lease, error) {
	p := e.c.pulse(e.ttl)
	if err := p.written(ctx, 1); err != nil {
		return nil, unknown(err)
	}
	k, node := e.c.keys, e.c.cfg.Node
	e.mu.Lock()
	term := max(e.highest, st.Term.Term) + 1
	e.mu.Unlock()
	res := st.Reservation
	forUs := res.Binds() && res.To == node.Name
	rec, last := records(term, node.Peer(), p.id, e.ttl, st.Term)
	last.Moved = forUs && res.Moves()
	primary, termKey, reserved := k.primary(e.service), k.term(e.service), k.reserved(e.service)
	t := txn{
		If: []cond{
			is(primary, b.Primary),
			is(termKey, b.Term),
			is(reserved, b.Reservation),
			born(p.key, p.birth()),
		},
		Then: []op{put(primary, encode(rec)), put(termKey, encode(last))},
		Else: []op{get(one(primary)), get(one(p.key))},
	}
	if b.Named != "" {
		t.If = append(t.If, is(k.pulse(b.Named), b.NamedRev))
		t.Then = append(t.Then, remove(one(k.pulse(b.Named))))
	}
	if forUs || b.Expired {
		t.Then = append(t.Then, remove(one(reserved)))
	}
	r, err := e.c.txn(ctx, t)
	if err != nil {
		return nil, err
	}
	if r.OK {
		if b.Named != "" {
			e.c.bury(b.Named)
		}
		e.learn(r.Rev, t.Then)
		return e.hold(ctx, p, rec, r.Rev)
	}
	// A duplicate of this transaction may have been carried out before it.
	found := r.first(0)
	now, err := decode[primaryRecord](found)
	if err == nil && now.Pulse == p.id && now.Write == rec.Write {
		e.noticed(r.Rev, found, primary)
		return e.hold(ctx, p, now, found.Mod)
	}
	if !r.first(1).exists() {
		poke(p.wake) // so that the pulse learns that it is gone
	}
	e.resync(ctx, b)
	return nil, supervisor.ErrRefused
}

// claim takes up a role that names our pulse and for which there is no lease:
// the primary before has given it to us, or a take was carried out that got no
// answer. What was seen is enough for that, unless we have begun to give it up
// since: whoever else wants the role has to find our pulse silent, so it is ours
// for as long as after any other pulse.
func (e *elector) claim(ctx context.Context, b basis) (*lease, error) {
	p := e.c.owns(b.Own)
	if p == nil {
		return nil, supervisor.ErrRefused
	}
	r := e.view.get(e.c.keys.primary(e.service))
	rec, err := decode[primaryRecord](r)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	over := rec.Term < e.highest || rec.Term <= e.ended
	e.mu.Unlock()
	switch {
	case r.Mod != b.Primary || rec.Pulse != p.id:
		return nil, supervisor.ErrRefused // there is a newer State
	case over:
		// Where it is still there, our pulse keeps everybody else off.
		if err := e.vacate(ctx, p.id, rec.Term, nil); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: its term %d is one of the past", supervisor.ErrRefused, rec.Term)
	}
	rec.Given = nil
	return e.hold(ctx, p, rec, r.Mod)
}

// hold makes the lease of a role that was won. One that has less than half of
// its time left is renewed, or else given back.
func (e *elector) hold(ctx context.Context, p *pulse, rec primaryRecord, rev int64) (*lease, error) {
	e.mu.Lock()
	e.highest = max(e.highest, rec.Term)
	e.mu.Unlock()
	l := newLease(e.election, p, rec, rev)
	half := p.timing.TTL / 2
	if p.until().Sub(e.c.clock.Now()) < half {
		rctx, cancel := context.WithTimeoutCause(ctx, half, errNoAnswer)
		err := p.written(rctx, e.c.clock.Now())
		cancel()
		if err != nil || p.until().Sub(e.c.clock.Now()) < half {
			gctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), p.timing.TTL, errNoAnswer)
			defer cancel()
			if err := e.vacate(gctx, p.id, rec.Term, nil); err != nil {
				return nil, fmt.Errorf("give back a lease that was won too late: %w", err)
			}
			return nil, fmt.Errorf("%w: it was won too late, and given back", supervisor.ErrRefused)
		}
	}
	e.mu.Lock()
	e.held = l
	e.mu.Unlock()
	p.add(l)
	e.c.log.Info("holds the role", "service", e.service, "term", uint64(l.term), "pulse", p.id)
	return l, nil
}

// resync reads what a refused take was about, for the watch may hang.
func (e *elector) resync(ctx context.Context, b basis) {
	views := []*view{e.view}
	e.mu.Lock()
	if e.sight != nil && e.sight.id == b.Named {
		views = append(views, e.sight.view)
	}
	e.mu.Unlock()
	// When it fails, the next State tells.
	_, _ = e.c.sync(ctx, views...)
}

func (e *elector) Adopt(ctx context.Context, t supervisor.Tenure) (supervisor.Lease, error) {
	l, err := e.adopt(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("adopt %s: %w", e.service, err)
	}
	return l, nil
}

// adopt moves a tenure from the pulse of a process that ended to ours, unless
// an earlier attempt has. The old pulse is left to die: other tenures may hang
// on it.
func (e *elector) adopt(ctx context.Context, t supervisor.Tenure) (*lease, error) {
	node := e.c.cfg.Node
	if t.Service != e.service || t.Boot != node.Boot || t.Node != node.Name || t.Pulse == "" {
		return nil, fmt.Errorf("%w: the tenure is of %s on %s, of another boot or service", supervisor.ErrRefused, t.Service, t.Node)
	}
	e.mu.Lock()
	busy := e.held != nil || e.taking
	e.taking = e.taking || !busy
	e.mu.Unlock()
	if busy {
		return nil, fmt.Errorf("%w: this process holds or takes the role already", supervisor.ErrRefused)
	}
	defer e.begun()
	ctx, cancel := context.WithTimeoutCause(ctx, e.ttl, errNoAnswer)
	defer cancel()

	p := e.c.pulse(e.ttl)
	if err := p.written(ctx, 1); err != nil {
		return nil, unknown(err)
	}
	primary, old := e.c.keys.primary(e.service), e.c.keys.pulse(t.Pulse)
	r, err := e.c.read(ctx, one(primary), one(old))
	for {
		if err != nil {
			return nil, err
		}
		rec, err := decode[primaryRecord](r.first(0))
		switch {
		case err != nil:
			return nil, err
		case rec.Pulse == p.id && rec.Term == t.Term:
			return e.hold(ctx, p, rec, r.first(0).Mod)
		case rec.Pulse != t.Pulse || rec.Term != t.Term || !r.first(1).exists():
			e.resync(ctx, basis{})
			return nil, supervisor.ErrRefused
		}
		rec.Pulse, rec.TTL, rec.Write = p.id, e.ttl.Milliseconds(), rand.Text()
		x := txn{
			If:   []cond{is(primary, r.first(0).Mod), is(old, r.first(1).Mod), born(p.key, p.birth())},
			Then: []op{put(primary, encode(rec))},
			Else: []op{get(one(primary)), get(one(old)), get(one(p.key))},
		}
		r, err = e.c.txn(ctx, x)
		if err != nil {
			return nil, err
		}
		if r.OK {
			e.learn(r.Rev, x.Then)
			return e.hold(ctx, p, rec, r.Rev)
		}
		if !r.first(2).exists() {
			poke(p.wake)
			return nil, fmt.Errorf("%w: %w", supervisor.ErrUnreachable, errPulseLost)
		}
	}
}

// unknown makes sure that an error does not pass for a refusal.
func unknown(err error) error {
	if errors.Is(err, supervisor.ErrUnreachable) {
		return err
	}
	return fmt.Errorf("%w: %w", supervisor.ErrUnreachable, err)
}
