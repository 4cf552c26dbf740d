package etcd

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// How much of a service's past people are told of, and how much is kept of what
// they were told: some notices for each of the terms that the history holds.
const (
	newsTerms   = 5
	keptNotices = 4 * kept
)

// A noticeRecord is the value of services/NAME/notified/...: a claim, which
// hangs on an etcd lease, or that the notice needs no delivery any more.
type noticeRecord struct {
	Told  bool      `json:"told"`
	Node  string    `json:"node"` // who claims it, or has delivered it
	Token string    `json:"token,omitempty"`
	At    time.Time `json:"at"`
}

var _ supervisor.Ledger = (*Client)(nil)

// News reads the newest changes of role and which events have been told.
func (c *Client) News(ctx context.Context, service string) (supervisor.News, error) {
	fail := func(err error) (supervisor.News, error) {
		return supervisor.News{}, fmt.Errorf("read the news of %s: %w", service, err)
	}
	r, err := c.read(ctx, one(c.keys.term(service)))
	if err != nil {
		return fail(err)
	}
	last, err := decode[termRecord](r.first(0))
	if err != nil {
		return fail(err)
	}
	t := txn{Then: []op{getKeys(c.keys.notified(service))}}
	for term := last.Term; term > 0 && term+newsTerms > last.Term; term-- {
		t.Then = append(t.Then, get(one(c.keys.change(service, term))))
	}
	if r, err = c.txn(ctx, t); err != nil {
		return fail(err)
	}
	var news supervisor.News
	for i := len(t.Then) - 1; i > 0; i-- {
		change, err := decode[supervisor.Change](r.first(i))
		if err != nil {
			return fail(err)
		}
		if change.Term != 0 {
			news.Changes = append(news.Changes, change)
		}
	}
	for _, rec := range r.Results[0] {
		words := strings.TrimPrefix(rec.Key, c.keys.notified(service).key)
		// What is claimed has not been told, and its etcd lease says that it is
		// claimed.
		if i := strings.LastIndexByte(words, '/'); i > 0 && rec.Lease == 0 {
			news.Told = append(news.Told, service+"/"+words[:i])
		}
	}
	news.Told = slices.Compact(news.Told)
	return news, nil
}

// Claim writes a claim that ends by itself.
func (c *Client) Claim(ctx context.Context, n supervisor.Notice, d time.Duration) (string, error) {
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("claim the notice %s for %s: %w", n.Event.ID, n.Receiver, err)
	}
	key := c.keys.notice(n)
	r, err := c.read(ctx, one(key))
	if err == nil && r.first(0).exists() {
		err = taken(r.first(0))
	}
	if err != nil {
		return fail(err)
	}
	lease, err := ask(ctx, c.hedge, hedgeDelay, func(ctx context.Context, way kv) (int64, error) {
		return way.Grant(ctx, d)
	})
	if err != nil {
		return fail(unknown(err))
	}
	claim := noticeRecord{Node: c.cfg.Node.Name, Token: rand.Text(), At: time.Now().UTC()}
	r, err = c.txn(ctx, txn{
		If:   []cond{is(key, 0)},
		Then: []op{putLeased(key, encode(claim), lease)},
		Else: []op{get(one(key))},
	})
	switch {
	case err != nil:
		return fail(err)
	case r.OK:
		return claim.Token, nil
	}
	// A duplicate of this transaction may have been carried out before it.
	if now, err := decode[noticeRecord](r.first(0)); err == nil && now.Token == claim.Token {
		return claim.Token, nil
	}
	return fail(taken(r.first(0)))
}

// taken tells why a notice that has a record cannot be claimed.
func taken(r record) error {
	rec, err := decode[noticeRecord](r)
	switch {
	case err != nil:
		return err
	case rec.Told:
		return supervisor.ErrTold
	}
	return &busy{rec.Node + " delivers it"}
}

// Release deletes the claim, if it is still this one.
func (c *Client) Release(ctx context.Context, n supervisor.Notice, token string) error {
	err := c.rewrite(ctx, c.keys.notice(n), func(rec record) ([]byte, error) {
		if now, err := decode[noticeRecord](rec); err != nil || now.Token != token {
			return rec.Value, err
		}
		return nil, nil
	})
	if err != nil {
		return fmt.Errorf("release the notice %s for %s: %w", n.Event.ID, n.Receiver, err)
	}
	return nil
}

// Told keeps that the notice needs no delivery, whoever has claimed it.
func (c *Client) Told(ctx context.Context, n supervisor.Notice) error {
	told := noticeRecord{Told: true, Node: c.cfg.Node.Name, At: time.Now().UTC()}
	_, err := c.txn(ctx, txn{Then: []op{put(c.keys.notice(n), encode(told))}})
	if err == nil {
		err = c.forgetNotices(ctx, n.Event.Service)
	}
	if err != nil {
		return fmt.Errorf("keep that %s knows of %s: %w", n.Receiver, n.Event.ID, err)
	}
	return nil
}

// forgetNotices deletes all but the newest.
func (c *Client) forgetNotices(ctx context.Context, service string) error {
	r, err := c.txn(ctx, txn{Then: []op{getKeys(c.keys.notified(service))}})
	if err != nil {
		return err
	}
	all := r.Results[0]
	if len(all) <= keptNotices {
		return nil
	}
	slices.SortFunc(all, func(a, b record) int { return cmp.Compare(a.Mod, b.Mod) })
	var t txn
	for _, rec := range all[:min(len(all)-keptNotices, maxOps)] {
		t.Then = append(t.Then, remove(one(rec.Key)))
	}
	_, err = c.txn(ctx, t)
	return err
}
