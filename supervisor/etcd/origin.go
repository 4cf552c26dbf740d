package etcd

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// An originRecord is the value of origin: a mark of these records, written once.
// A restored backup has it, another etcd has not: etcd's own id tells neither,
// as it follows from the members' URLs.
type originRecord struct {
	ID    string    `json:"id"`
	Node  string    `json:"node"`
	Since time.Time `json:"since"` // wall time, for people
}

// origin is the mark of the records, as last read; empty for none.
func (c *Client) origin() string {
	rec, err := decode[originRecord](c.drains.get(c.keys.origin()))
	if err != nil {
		return ""
	}
	return rec.ID
}

// estranged tells why these records are not those that this node knows: another
// etcd, or another prefix, without their mark. A node that still uses the old
// ones may be primary for as long as it likes, so no waiting helps; e.mu is
// held.
func (e *election) estranged(cluster string) string {
	file := "what this node remembers"
	if w := e.c.cfg.Witness; w != nil {
		file = w.File(e.service)
	}
	seen := supervisor.Seen{Cluster: e.cluster, Prefix: e.prefix, Origin: e.marked}
	return e.c.strange(seen, file, cluster, e.c.origin())
}

func (c *Client) strange(seen supervisor.Seen, file, cluster, mark string) string {
	prefix := c.keys.prefix()
	switch {
	case seen.Origin == "" || seen.Origin == mark:
		return ""
	case seen.Cluster != cluster:
		return fmt.Sprintf("%s: %s, was %s in %s, and no copy of it; a node with the old one may be primary, so this one does not campaign: %s", otherCluster, cluster, seen.Cluster, file, cureStrange)
	case seen.Prefix != prefix:
		return fmt.Sprintf("%s: %s, was %s in %s; a node with the old one may be primary, so this one does not campaign: %s", otherPrefix, prefix, seen.Prefix, file, cureStrange)
	}
	return ""
}

// Recognize tells why nobody here would campaign with these records, given what
// this node has seen of an election, and in which file it keeps that; empty when
// that is no reason.
func (c *Client) Recognize(ctx context.Context, seen supervisor.Seen, file string) (string, error) {
	r, err := c.read(ctx, one(c.keys.origin()))
	if err != nil {
		return "", fmt.Errorf("look whose records these are: %w", err)
	}
	mark, err := decode[originRecord](r.first(0))
	if err != nil {
		return "", fmt.Errorf("look whose records these are: %w", err)
	}
	return c.strange(seen, file, clusterName(r.Cluster), mark.ID), nil
}

// originate marks the records where they have no mark yet.
func (e *election) originate() {
	e.mu.Lock()
	defer e.mu.Unlock()
	id, _, _ := e.c.past.now()
	known := e.cluster == clusterName(id) && e.state.Frozen == "" && e.state.Unreachable == ""
	if e.originating || !known || !e.c.drains.synced() || e.c.origin() != "" {
		return
	}
	e.originating = true
	e.c.spawn(func(ctx context.Context) {
		ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errNoAnswer)
		defer cancel()
		key := e.c.keys.origin()
		// Another process may be first; either way it is read then.
		_, err := e.c.txn(ctx, txn{
			If:   []cond{is(key, 0)},
			Then: []op{put(key, encode(originRecord{ID: rand.Text(), Node: e.c.cfg.Node.Name, Since: time.Now().UTC()}))},
		})
		if err == nil {
			_, _ = e.c.sync(ctx, e.c.drains) // at the next refresh else
		}
		e.mu.Lock()
		e.originating = false
		e.mu.Unlock()
	})
}
