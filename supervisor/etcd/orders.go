package etcd

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/deputy-ha/deputy/supervisor"
)

// kept is how many changes of role the history holds.
const kept = 100

func (e *elector) Answer(ctx context.Context, res supervisor.Reservation) error {
	key, want := e.c.keys.reserved(e.service), encode(e.reservation(res))
	primary := e.c.keys.primary(e.service)
	r, err := e.c.read(ctx, one(key), one(primary))
	for {
		if err != nil {
			return fmt.Errorf("answer the reservation of %s: %w", e.service, err)
		}
		rec := r.first(0)
		now, bad := decode[supervisor.Reservation](rec)
		if bad != nil || !rec.exists() || now.ID != res.ID {
			// A reservation ends with the hand-over: without its outcome, which is
			// taken in before, it would look like undone.
			e.noticed(r.Rev, r.first(1), primary)
			e.noticed(r.Rev, rec, key)
			return fmt.Errorf("answer the reservation of %s: %w", e.service, supervisor.ErrRefused)
		}
		if string(rec.Value) == string(want) {
			e.noticed(r.Rev, rec, key)
			return nil
		}
		t := txn{If: []cond{is(key, rec.Mod)}, Then: []op{put(key, want)}, Else: []op{get(one(key)), get(one(primary))}}
		r, err = e.c.txn(ctx, t)
		if err == nil && r.OK {
			e.learn(r.Rev, t.Then)
			return nil
		}
	}
}

func (e *elector) Request(ctx context.Context, res supervisor.Reservation) error {
	e.mu.Lock()
	expired := ""
	if e.basis.Expired {
		expired = e.reserve
	}
	e.mu.Unlock()
	return e.c.reserve(ctx, e.service, e.reservation(res), expired)
}

// reservation is the record of a reservation. Where this node has accepted
// one, it says what it takes to be given the role.
func (e *elector) reservation(res supervisor.Reservation) reservationRecord {
	rec := reservationRecord{Reservation: res}
	if res.State != supervisor.Accepted || res.To != e.c.cfg.Node.Name {
		return rec
	}
	if p := e.c.pulse(e.ttl); p.birth() != 0 {
		e.mu.Lock()
		rec.Target = &target{Address: e.c.cfg.Node.Address, Pulse: p.id, Birth: p.birth(), TTL: e.ttl.Milliseconds(), Highest: e.highest}
		e.mu.Unlock()
	}
	return rec
}

// reserve writes a reservation unless another is in force. One with the ID
// expired is known to be past its end; others are taken to be before it.
func (c *Client) reserve(ctx context.Context, service string, res reservationRecord, expired string) error {
	key := c.keys.reserved(service)
	r, err := c.read(ctx, one(key))
	for {
		if err != nil {
			return fmt.Errorf("reserve %s for %s: %w", service, res.To, err)
		}
		rec := r.first(0)
		now, bad := decode[supervisor.Reservation](rec)
		switch {
		case bad != nil, !rec.exists(), now.ID == expired, !now.Binds():
		case now.ID == res.ID:
			return nil
		default:
			return fmt.Errorf("reserve %s for %s: %w: %s for %s: wait until it is done, which takes %s at most", service, res.To, supervisor.ErrBusy, now.Reason, now.To, now.For)
		}
		r, err = c.txn(ctx, txn{
			If:   []cond{is(key, rec.Mod)},
			Then: []op{put(key, encode(res))},
			Else: []op{get(one(key))},
		})
		if err == nil && r.OK {
			return nil
		}
	}
}

func (e *elector) Record(ctx context.Context, ch supervisor.Change) error {
	key := e.c.keys.change(e.service, ch.Term)
	r, err := e.c.read(ctx, one(key))
	for {
		if err != nil {
			return fmt.Errorf("record term %d of %s: %w", ch.Term, e.service, err)
		}
		rec := r.first(0)
		old, bad := decode[supervisor.Change](rec)
		if bad == nil && !old.Ended.IsZero() && ch.Ended.IsZero() {
			return nil // overtaken by the end of the tenure
		}
		want := encode(ch.Begin(old))
		if string(rec.Value) == string(want) {
			break
		}
		r, err = e.c.txn(ctx, txn{
			If:   []cond{is(key, rec.Mod)},
			Then: []op{put(key, want)},
			Else: []op{get(one(key))},
		})
		if err == nil && r.OK {
			break
		}
	}
	if err := e.trim(ctx); err != nil {
		return fmt.Errorf("shorten the history of %s: %w", e.service, err)
	}
	return nil
}

// trim deletes all but the newest changes.
func (e *elector) trim(ctx context.Context) error {
	all := e.c.keys.history(e.service)
	r, err := e.c.txn(ctx, txn{Then: []op{getKeys(all)}})
	if err != nil {
		return err
	}
	var terms []uint64
	for _, rec := range r.Results[0] {
		if n, err := strconv.ParseUint(strings.TrimPrefix(rec.Key, all.key), 10, 64); err == nil {
			terms = append(terms, n)
		}
	}
	if len(terms) <= kept {
		return nil
	}
	slices.Sort(terms)
	var t txn
	for _, n := range terms[:min(len(terms)-kept, maxOps)] {
		t.Then = append(t.Then, remove(one(all.key+strconv.FormatUint(n, 10))))
	}
	_, err = e.c.txn(ctx, t)
	return err
}
