package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/deputy-ha/deputy/packaging/e2e/checker"
	"github.com/deputy-ha/deputy/packaging/e2e/prober"
	"github.com/deputy-ha/deputy/supervisor"
)

// notes are what each member of etcd told of who is primary, as soon as the
// first of them did.
type notes struct {
	mu sync.Mutex
	of map[string]map[int64]note // by service and revision
}

type note struct {
	seen    prober.Instant
	primary supervisor.Primary // zero when it was deleted
}

// take listens to one member until ctx ends.
func (n *notes) take(ctx context.Context, endpoint string) error {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer client.Close()
	const prefix = "/deputy/v1/services/"
	for next := int64(1); ctx.Err() == nil; {
		watching, stop := context.WithCancel(ctx)
		for reply := range client.Watch(watching, prefix, clientv3.WithPrefix(), clientv3.WithRev(next)) {
			seen := prober.Now()
			next = max(next, reply.CompactRevision)
			for _, event := range reply.Events {
				next = event.Kv.ModRevision + 1
				service, ok := strings.CutSuffix(strings.TrimPrefix(string(event.Kv.Key), prefix), "/primary")
				if !ok {
					continue
				}
				found := note{seen: seen}
				if event.Type == clientv3.EventTypePut {
					if err := json.Unmarshal(event.Kv.Value, &found.primary); err != nil {
						stop()
						return err
					}
				}
				n.add(service, event.Kv.ModRevision, found)
			}
		}
		stop()
		select { // the member is down, say
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

func (n *notes) add(service string, revision int64, found note) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.of[service] == nil {
		n.of[service] = make(map[int64]note)
	}
	if old, ok := n.of[service][revision]; !ok || found.seen < old.seen {
		n.of[service][revision] = found
	}
}

// records returns what changed of who is primary since from, after what was in
// force then.
func (n *notes) records(service string, from prober.Instant) []checker.Record {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []checker.Record
	for _, revision := range slices.SortedFunc(maps.Keys(n.of[service]), cmp.Compare[int64]) {
		is := n.of[service][revision]
		r := checker.Record{Seen: is.seen, Revision: revision, Term: uint64(is.primary.Term), Node: is.primary.Node}
		switch last := len(all) - 1; {
		case last >= 0 && all[last].Term == r.Term && all[last].Node == r.Node: // its state alone is another
		case last == 0 && r.Seen < from:
			all[0] = r
		default:
			all = append(all, r)
		}
	}
	return all
}

// seenLate is longer than a record takes to be seen.
const seenLate = 2 * time.Second

// history is what was seen of a service since it was settled at from. It is to
// have a primary in some times, but for a while.
func (w *watched) history(from prober.Instant, able []checker.Time, without time.Duration) checker.History {
	return checker.History{
		Service: w.name, Acts: w.Spans(from), Records: w.lab.notes.records(w.name, from), Late: seenLate,
		Able: able, Without: without,
	}
}
