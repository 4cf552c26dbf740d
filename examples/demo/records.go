package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/deputy-ha/deputy/supervisor"
)

// recordsPrefix is where deputy keeps its records unless told otherwise.
const recordsPrefix = "/deputy/v1/services/"

const (
	readEvery = 50 * time.Millisecond
	readFor   = 500 * time.Millisecond // as long as one member may take
)

// A snapshot is what the records of the service say.
type snapshot struct {
	primary    supervisor.Primary // zero when there is none
	candidates map[string]supervisor.Candidate
}

// Records are deputy's records in etcd, read as anybody can read them.
type records struct {
	service string
	clients []*clientv3.Client // one each member: a client of all may stay with one that is stopped

	mu   sync.Mutex
	last snapshot
}

func openRecords(endpoints []string, service string) (*records, error) {
	r := &records{service: service}
	for _, e := range endpoints {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{e}, Logger: zap.NewNop()})
		if err != nil {
			return nil, fmt.Errorf("reach etcd: %w", err)
		}
		r.clients = append(r.clients, c)
	}
	return r, nil
}

func (r *records) close() error {
	for _, c := range r.clients {
		c.Close() // its connections go in any case
	}
	return nil
}

func (r *records) now() snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// run reads the records again and again until ctx ends.
func (r *records) run(ctx context.Context) error {
	tick := time.NewTicker(readEvery)
	defer tick.Stop()
	for i := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		s, err := r.read(ctx, r.clients[i])
		if err != nil {
			i = (i + 1) % len(r.clients)
			continue
		}
		r.mu.Lock()
		r.last = s
		r.mu.Unlock()
	}
}

func (r *records) read(ctx context.Context, c *clientv3.Client) (snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, readFor)
	defer cancel()
	prefix := recordsPrefix + r.service + "/"
	primary, candidates := prefix+"primary", prefix+"candidates/"
	reply, err := c.Txn(ctx).Then(clientv3.OpGet(primary), clientv3.OpGet(candidates, clientv3.WithPrefix())).Commit()
	if err != nil {
		return snapshot{}, err
	}
	s := snapshot{candidates: make(map[string]supervisor.Candidate)}
	for _, part := range reply.Responses {
		for _, kv := range part.GetResponseRange().Kvs {
			if string(kv.Key) == primary {
				if err := json.Unmarshal(kv.Value, &s.primary); err != nil {
					return snapshot{}, err
				}
				continue
			}
			var c supervisor.Candidate
			if err := json.Unmarshal(kv.Value, &c); err != nil {
				return snapshot{}, err
			}
			s.candidates[strings.TrimPrefix(string(kv.Key), candidates)] = c
		}
	}
	return s, nil
}
