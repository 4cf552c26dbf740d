package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// A lease is one tenure of one service, renewed by a pulse.
type lease struct {
	e       *election
	p       *pulse
	key     string // of the primary's record
	term    sdk.Term
	won     int64 // revision of the record when it was won
	follows supervisor.TermRecord
	lost    chan struct{}
	renewed chan struct{}
	writing chan struct{} // held by the one that writes the record

	// Of the record, and only for who holds writing.
	rec primaryRecord
	rev int64

	mu    sync.Mutex
	cause error // why it is lost; nil while it is not
	gone  bool  // the role proved not ours
	done  bool  // resigned or abandoned
	// leaving: the record may be gone because we are deleting it.
	leaving bool
}

var _ supervisor.Lease = (*lease)(nil)

func newLease(e *election, p *pulse, rec primaryRecord, rev int64) *lease {
	l := &lease{
		e:       e,
		p:       p,
		key:     e.c.keys.primary(e.service),
		term:    rec.Term,
		won:     rev,
		lost:    make(chan struct{}),
		renewed: make(chan struct{}, 1),
		writing: make(chan struct{}, 1),
		rec:     rec,
		rev:     rev,
	}
	if rec.Follows != nil {
		l.follows = *rec.Follows
	}
	return l
}

func (l *lease) Term() sdk.Term                 { return l.term }
func (l *lease) Follows() supervisor.TermRecord { return l.follows }
func (l *lease) Lost() <-chan struct{}          { return l.lost }
func (l *lease) Renewed() <-chan struct{}       { return l.renewed }

func (l *lease) Cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}

func (l *lease) Until() sdk.Instant {
	l.mu.Lock()
	none := l.gone || l.done
	l.mu.Unlock()
	if none {
		return 0
	}
	return l.p.until()
}

func (l *lease) Tenure() supervisor.Tenure {
	return supervisor.Tenure{
		Service: l.e.service,
		Term:    l.term,
		Pulse:   l.p.id,
		Boot:    l.e.c.cfg.Node.Boot,
		Node:    l.e.c.cfg.Node.Name,
		Until:   l.Until(),
	}
}

func (l *lease) Renew(ctx context.Context) error {
	if err := l.p.written(ctx, l.e.c.clock.Now()); err != nil {
		return fmt.Errorf("renew the lease of %s: %w", l.e.service, err)
	}
	return nil
}

func (l *lease) isLost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause != nil
}

// lose ends the tenure at its deadline; renewing goes on.
func (l *lease) lose(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loseLocked(cause)
}

func (l *lease) loseLocked(cause error) {
	if l.cause == nil && !l.done {
		l.cause = cause
		close(l.lost)
	}
}

// forfeit ends the tenure because the role is not ours any more.
func (l *lease) forfeit(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
	l.loseLocked(cause)
}

// names reports whether a primary's record is of this tenure.
func (l *lease) names(rec primaryRecord) bool {
	return rec.Pulse == l.p.id && rec.Term == l.term
}

// verify looks at the primary's record as it was read while the lease was
// held.
func (l *lease) verify(r record) {
	l.mu.Lock()
	leaving := l.leaving || l.done
	l.mu.Unlock()
	if leaving {
		return
	}
	rec, err := decode[primaryRecord](r)
	switch {
	case !r.exists():
		l.forfeit(fmt.Errorf("%w: its record was deleted", errRoleLost))
	case err != nil:
		l.forfeit(fmt.Errorf("%w: %w", errRoleLost, err))
	case !l.names(rec):
		l.forfeit(fmt.Errorf("%w: it is with %s, term %d", errRoleLost, rec.Node, rec.Term))
	}
}

// watched looks at what the view knows of the primary's record since the lease
// was won.
func (l *lease) watched(v *view) {
	if rec, at := v.latest(l.key); at > l.won {
		l.verify(rec)
	}
}

// exclusive waits for its turn to write the record.
func (l *lease) exclusive(ctx context.Context) (done func(), err error) {
	select {
	case l.writing <- struct{}{}:
		return func() { <-l.writing }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (l *lease) leave(now bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaving = now
}

func (l *lease) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done
}

func (l *lease) Announce(ctx context.Context, r sdk.Role, ready ...string) error {
	done, err := l.exclusive(ctx)
	if err != nil {
		return fmt.Errorf("announce %s of %s: %w", r, l.e.service, err)
	}
	defer done()
	ctx, cancel := context.WithTimeoutCause(ctx, l.p.timing.TTL, errNoAnswer)
	defer cancel()
	term := l.e.c.keys.term(l.e.service)
	var last record
	if r == sdk.RolePrimary {
		now, err := l.e.c.read(ctx, one(term))
		if err != nil {
			return fmt.Errorf("announce %s of %s: %w", r, l.e.service, err)
		}
		last = now.first(0)
	}
	for !l.over() {
		rec := l.rec
		rec.State, rec.Ready, rec.Write = r, ready, rand.Text()
		t := txn{
			If:   []cond{is(l.key, l.rev)},
			Then: []op{put(l.key, encode(rec))},
			Else: []op{get(one(l.key)), get(one(term))},
		}
		// There is a primary again: whoever was lost before needs no fence.
		if tenure, err := decode[termRecord](last); err == nil && tenure.Term == l.term && len(tenure.Victims) > 0 {
			tenure.Victims = nil
			t.If = append(t.If, is(term, last.Mod))
			t.Then = append(t.Then, put(term, encode(tenure)))
		}
		reply, err := l.e.c.txn(ctx, t)
		if err != nil {
			return fmt.Errorf("announce %s of %s: %w", r, l.e.service, err)
		}
		if reply.OK {
			l.rec, l.rev = rec, reply.Rev
			l.e.learn(reply.Rev, t.Then)
			return nil
		}
		found := reply.first(0)
		l.verify(found)
		now, err := decode[primaryRecord](found)
		if err != nil || !l.names(now) {
			break
		}
		// An earlier announcement, or a duplicate of this one.
		l.rec, l.rev = now, found.Mod
		if now.Write == rec.Write {
			return nil
		}
		if last.exists() {
			last = reply.first(1)
		}
	}
	return fmt.Errorf("announce %s of %s: %w", r, l.e.service, supervisor.ErrRefused)
}

func (l *lease) Resign(ctx context.Context) error {
	done, err := l.exclusive(ctx)
	if err != nil {
		return fmt.Errorf("resign %s: %w", l.e.service, err)
	}
	defer done()
	if l.over() {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, max(l.p.timing.TTL, callTimeout), errNoAnswer)
	defer cancel()
	l.leave(true)
	if err := l.e.vacate(ctx, l.p.id, l.term, l.e.heir()); err != nil {
		l.leave(false)
		return fmt.Errorf("resign %s: %w", l.e.service, err)
	}
	l.finish()
	l.e.c.log.Info("resigned", "service", l.e.service, "term", uint64(l.term))
	return nil
}

func (l *lease) Abandon() {
	if l.over() {
		return
	}
	l.p.retire()
	l.finish()
}

// finish takes the lease out of everything.
func (l *lease) finish() {
	l.mu.Lock()
	l.done = true
	l.mu.Unlock()
	l.p.drop(l)
	l.e.dismiss(l)
}

// An heir is who gets the role when it is given up.
type heir struct {
	reservationRecord
	rev int64
}

// heir is the node that has accepted the reservation in force; nil when there
// is none.
func (e *election) heir() *heir {
	e.mu.Lock()
	res, rev := e.state.Reservation, e.basis.Reservation
	e.mu.Unlock()
	if res == nil || res.To == e.c.cfg.Node.Name {
		return nil
	}
	rec, err := decode[reservationRecord](e.view.get(e.c.keys.reserved(e.service)))
	if err != nil || rec.ID != res.ID || rec.State != supervisor.Accepted || rec.Target == nil {
		return nil
	}
	return &heir{rec, rev}
}

// give adds to a transaction that gives up a tenure that the heir has the next
// one: the same as if the heir took it, without the time between.
func (h *heir) give(t *txn, k keys, service string, last termRecord) {
	now, follows := h.Target, last.TermRecord
	follows.Resigned = true
	rec, next := records(last.Term+1, sdk.Peer{Node: h.To, Address: now.Address}, now.Pulse, now.ttl(), follows)
	rec.Given, next.Moved = &h.Reservation, h.Moves()
	t.If = append(t.If, is(k.reserved(service), h.rev), born(k.pulse(now.Pulse), now.Birth))
	t.Then = []op{put(k.primary(service), encode(rec)), put(k.term(service), encode(next)), remove(one(k.reserved(service)))}
}

// vacate gives up a tenure that nothing here acts under: it deletes the
// primary's record and marks the term resigned, if they are still of that
// tenure. Where there is an heir who can still have it, the role goes there in
// the same transaction. It returns nil as well when the tenure is not ours.
func (e *election) vacate(ctx context.Context, pulse string, term sdk.Term, to *heir) error {
	// From now on it may be over at any time: what gets no answer may be carried
	// out late, or be so already.
	e.end(term)
	primaryKey, termKey := e.c.keys.primary(e.service), e.c.keys.term(e.service)
	// Somebody waits for the role. What was seen last is compared, so where it
	// is the tenure it need not be read again first.
	r := reply{Results: [][]record{{e.view.get(primaryKey)}, {e.view.get(termKey)}}}
	seen, err := decode[primaryRecord](r.first(0))
	if err != nil || seen.Pulse != pulse || seen.Term != term {
		r, err = e.c.read(ctx, one(primaryKey), one(termKey))
	}
	for {
		if err != nil {
			return err
		}
		prim, primErr := decode[primaryRecord](r.first(0))
		last, lastErr := decode[termRecord](r.first(1))
		if err := errors.Join(primErr, lastErr); err != nil {
			return err
		}
		hold := r.first(0).exists() && prim.Pulse == pulse && prim.Term == term
		owed := last.Term == term && last.Pulse == pulse && !last.Resigned
		if !hold && (!owed || r.first(0).exists()) {
			e.noticed(r.Rev, r.first(0), primaryKey)
			e.noticed(r.Rev, r.first(1), termKey)
			return nil
		}
		t := txn{
			If:   []cond{is(primaryKey, r.first(0).Mod), is(termKey, r.first(1).Mod)},
			Else: []op{get(one(primaryKey)), get(one(termKey))},
		}
		if hold {
			t.Then = append(t.Then, remove(one(primaryKey)))
		}
		if last.Term == term {
			last.Resigned = true
			t.Then = append(t.Then, put(termKey, encode(last)))
		}
		if to != nil && hold && last.Term == term && to.Target.Highest <= term {
			to.give(&t, e.c.keys, e.service, last)
		}
		to = nil // whatever the reason was, it is not tried again
		r, err = e.c.txn(ctx, t)
		if err == nil && r.OK {
			if !hold {
				e.noticed(r.Rev, record{}, primaryKey)
			}
			e.learn(r.Rev, t.Then)
			return nil
		}
	}
}

// end takes note that a tenure is given up here.
func (e *election) end(term sdk.Term) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = max(e.ended, term)
}
