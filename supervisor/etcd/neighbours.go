package etcd

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/deputy-ha/deputy/supervisor"
)

// mostDoors bounds how many other prefixes are looked at.
const mostDoors = 50

// Neighbours looks under the prefixes beside this one, in the same etcd, for
// services that are the same by name and by the hash of their definition: most
// likely their nodes are meant to be of this cluster, and each of the two has a
// primary. It tells nothing where the user of [etcd] may not look, and does not
// find a prefix that is not beside this one or one of its parents.
func (c *Client) Neighbours(ctx context.Context, hashes map[string]string) (told []string) {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errNoAnswer)
	defer cancel()
	for _, prefix := range c.doors(ctx) {
		k := newKeys(prefix)
		for _, service := range slices.Sorted(maps.Keys(hashes)) {
			r, err := c.peek(ctx, get(k.candidates(service)))
			if err != nil {
				return told
			}
			var nodes []string
			for _, rec := range r.Results[0] {
				if n, err := decode[supervisor.Candidate](rec); err == nil && n.Hash == hashes[service] {
					nodes = append(nodes, n.Name)
				}
			}
			if len(nodes) > 0 {
				told = append(told, fmt.Sprintf("service %s %s, %s, with %s: %s", service, saidNeighbour, prefix, strings.Join(nodes, ", "), cureNeighbour))
			}
		}
	}
	return told
}

// doors are the prefixes beside this one and beside its parents, and those of
// its parents, that have services.
func (c *Client) doors(ctx context.Context) (doors []string) {
	ours := c.keys.prefix()
	for i, r := range ours {
		if r != '/' {
			continue
		}
		base := under(ours[:i+1])
		for from := base.key; len(doors) < mostDoors; {
			r, err := c.peek(ctx, getFirstKey(span{from, base.end}))
			if err != nil || !r.first(0).exists() {
				break
			}
			key := r.first(0).Key
			name, _, deeper := strings.Cut(strings.TrimPrefix(key, base.key), "/")
			if !deeper {
				from = key + "\x00"
				continue
			}
			dir := base.key + name
			from = under(dir + "/").end
			if dir == ours {
				continue
			}
			has, err := c.peek(ctx, getFirstKey(newKeys(dir).services()))
			if err == nil && has.first(0).exists() {
				doors = append(doors, dir)
			}
		}
	}
	return doors
}

// peek is a transaction whose failure is nobody's trouble.
func (c *Client) peek(ctx context.Context, o op) (reply, error) {
	return ask(ctx, c.hedge, hedgeDelay, func(ctx context.Context, way kv) (reply, error) {
		return way.Txn(ctx, txn{Then: []op{o}})
	})
}
