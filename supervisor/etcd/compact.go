package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// A compactRecord is the value of compact: who discards old revisions next.
type compactRecord struct {
	Node  string    `json:"node"`
	At    time.Time `json:"at"` // wall time, for people
	Write string    `json:"write"`
}

// orphanAfter is how many of its TTLs a pulse has to be silent before it is
// deleted, if no tenure hangs on it: the process that wrote it has ended
// without a chance to.
const orphanAfter = 10

// compacting discards what is older than the configured age, until ctx ends.
// Of all processes one at a time does: each tries to write the same record
// once in that age, and the one whose compare succeeds is in charge until its
// next try. It discards what was old at its try before, so nothing younger
// than the age is lost. Kubernetes' API servers do the same. What etcd
// compacts by itself is left to it. A process that may not compact says so once.
func (c *Client) compacting(ctx context.Context) {
	var (
		key  = c.keys.root + "compact"
		rev  int64 // etcd's at the last try
		mod  int64 // of the record at the last try
		seen = make(orphans)

		denied bool
	)
	for {
		c.sleep(ctx, c.cfg.Compact)
		if ctx.Err() != nil {
			return
		}
		value := compactRecord{Node: c.cfg.Node.Name, At: time.Now().UTC(), Write: rand.Text()}
		r, err := c.txn(ctx, txn{
			If:   []cond{is(key, mod)},
			Then: []op{put(key, encode(value))},
			Else: []op{get(one(key))},
		})
		if err != nil {
			continue
		}
		ours := r.OK
		next := r.Rev
		if !ours {
			found, err := decode[compactRecord](r.first(0))
			ours = err == nil && found.Write == value.Write // a duplicate of this transaction was first
			mod = r.first(0).Mod
		} else {
			mod = r.Rev
		}
		if ours {
			if rev > 0 && !denied {
				denied = errors.Is(c.compact(ctx, rev), errDenied)
			}
			c.collect(ctx, seen)
		}
		rev = next
	}
}

// compact discards what was overwritten before rev.
func (c *Client) compact(ctx context.Context, rev int64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errNoAnswer)
	defer cancel()
	_, err := ask(ctx, c.hedge, attemptTimeout, func(ctx context.Context, way kv) (struct{}, error) {
		return struct{}{}, way.Compact(ctx, rev)
	})
	switch {
	case errors.Is(err, errCompacted):
		return nil // by somebody else, further
	case errors.Is(err, errDenied):
		c.log.Warn("cannot compact etcd", "cause", compactDenied)
	case err != nil && !errors.Is(err, supervisor.ErrUnreachable):
		c.log.Warn("cannot compact etcd", "cause", err)
	}
	return err
}

// compactDenied is what etcd's answer comes to: since 3.5.33, 3.6.14 and 3.7.1
// it lets nobody but root compact once authentication is on.
const compactDenied = `etcd lets only root compact: start etcd with --auto-compaction-mode=periodic --auto-compaction-retention=5m, and set compact = "off" in [etcd]`

// orphans are the pulses seen, by key.
type orphans map[string]orphan

// An orphan is a pulse that no tenure hangs on, as last changed.
type orphan struct {
	mod   int64
	since sdk.Instant // first seen like this
}

// collect deletes pulses that no tenure hangs on and nobody renews.
func (c *Client) collect(ctx context.Context, seen orphans) {
	named, err := c.named(ctx)
	if err != nil {
		return // at the next turn
	}
	r, err := c.read(ctx, c.keys.pulses())
	if err != nil {
		return
	}
	now := c.clock.Now()
	found := make(map[string]bool)
	for _, rec := range r.Results[0] {
		pulse, err := decode[pulseRecord](rec)
		if err != nil || named[rec.Key] {
			continue
		}
		found[rec.Key] = true
		if o := seen[rec.Key]; o.mod != rec.Mod {
			seen[rec.Key] = orphan{mod: rec.Mod, since: now}
		} else if now.Sub(o.since) > orphanAfter*max(pulse.ttl(), supervisor.MinTTL) {
			t := txn{If: []cond{is(rec.Key, rec.Mod)}, Then: []op{remove(one(rec.Key))}}
			if r, err := c.txn(ctx, t); err == nil && r.OK {
				c.log.Info("deleted a pulse of a process that ended", "pulse", rec.Key, "node", pulse.Node)
			}
		}
	}
	for key := range seen {
		if !found[key] {
			delete(seen, key)
		}
	}
}

// named returns the keys of the pulses that tenures hang on.
func (c *Client) named(ctx context.Context) (map[string]bool, error) {
	services, err := c.Services(ctx)
	if err != nil {
		return nil, err
	}
	named := make(map[string]bool)
	for _, some := range slices.Collect(slices.Chunk(services, maxOps/2)) {
		var spans []span
		for _, s := range some {
			spans = append(spans, one(c.keys.primary(s)), one(c.keys.term(s)))
		}
		r, err := c.read(ctx, spans...)
		if err != nil {
			return nil, err
		}
		for i := 0; i < len(r.Results); i += 2 {
			prim, err := decode[primaryRecord](r.first(i))
			if err != nil {
				return nil, err
			}
			term, err := decode[termRecord](r.first(i + 1))
			if err != nil {
				return nil, err
			}
			named[c.keys.pulse(prim.Pulse)] = true
			if !term.Resigned {
				named[c.keys.pulse(term.Pulse)] = true
			}
		}
	}
	return named, nil
}
