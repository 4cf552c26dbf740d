package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// manyFor is how long it may take until all services have a primary.
const manyFor = 2 * time.Minute

// thousand measures many services whose hooks cost nothing: what their records
// cost, and how long it takes until another node has them all.
func (b *bench) thousand(ctx context.Context) (err error) {
	o := b.options
	o.many = func(dir string) error { return defineMany(dir, b.services) }
	l, err := openLab(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	w := &watched{primaries: make(map[string]supervisor.Primary), candidates: make(map[string]supervisor.Candidate), at: make(map[string]instant)}
	watching, stop := context.WithCancelCause(ctx)
	done := make(chan error, 1)
	go func() { done <- w.run(watching, l.records.clients[0]) }() // joined below
	defer func() {
		stop(errClosed)
		err = errors.Join(err, <-done)
	}()

	await := func(what string, ok func() bool) error {
		ctx, cancel := context.WithTimeoutCause(ctx, manyFor, errors.New("not in time"))
		defer cancel()
		if err := l.await(ctx, what, ok); err != nil {
			return fmt.Errorf("%w, with %s\n%s", err, w, l.logs())
		}
		return nil
	}
	first := l.nodes[0]
	began := now()
	if err := first.on(ctx); err != nil {
		return err
	}
	if err := await("one node is primary of all", func() bool { return w.led(func(node string) bool { return node == first.name }) == b.services }); err != nil {
		return err
	}
	b.add("one node starts and is primary of all", b.services, seconds(now()-began), "", "", true)
	for _, n := range l.nodes[1:] {
		if err := n.on(ctx); err != nil {
			return err
		}
	}
	if err := await("all nodes are candidates for all", func() bool { return w.present() == size*b.services }); err != nil {
		return err
	}
	if err := rest(ctx, 10*time.Second); err != nil {
		return err
	}

	used, err := l.consumption()
	if err != nil {
		return err
	}
	before, err := measureEtcd(ctx, l)
	if err != nil {
		return err
	}
	if err := rest(ctx, b.watch); err != nil {
		return err
	}
	after, err := measureEtcd(ctx, l)
	if err != nil {
		return err
	}
	for _, n := range l.nodes[:2] {
		pid, err := n.deputyPID()
		if err != nil {
			return err
		}
		s, err := readStat(pid)
		if err != nil {
			return err
		}
		m, err := weigh(pid)
		if err != nil {
			return err
		}
		who := "primary"
		if n != first {
			who = "standby"
		}
		b.add("memory of the "+who, b.services, mib(m.resident), "", "", true)
		b.add("CPU of the "+who, b.services, percent(share(s.own-used[n.name].own, now()-used[n.name].at)), "", "", true)
	}
	over := (after.at - before.at).Seconds()
	b.add("etcd requests a second, three nodes", b.services, fmt.Sprintf("%.1f", (after.requests-before.requests)/over), "", "", true)
	b.add("etcd writes a second, three nodes", b.services, fmt.Sprintf("%.1f", float64(after.revision-before.revision)/over), "", "", true)

	lost := now()
	if err := first.lose(); err != nil {
		return err
	}
	if err := await("the others are primary of all", func() bool { return w.led(func(node string) bool { return node != first.name }) == b.services }); err != nil {
		return err
	}
	b.durations("taken and promoted after the node died", w.taken(lost), 0, 0)
	return nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// defineMany writes definitions of services that have nothing to do.
func defineMany(dir string, n int) error {
	for i := range n {
		text := fmt.Sprintf(`description = "One of many, %d"
ttl         = "3s"

[[plugin]]
use    = "exec"
config = { promote = ["/bin/true"], demote = ["/bin/true"] }
`, i)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("s%04d.toml", i)), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// watched is what a watch has shown of all services.
type watched struct {
	mu         sync.Mutex
	primaries  map[string]supervisor.Primary   // by service
	at         map[string]instant              // when each got the primary it has
	candidates map[string]supervisor.Candidate // by key
}

// run watches from the beginning of the records until ctx ends.
func (w *watched) run(ctx context.Context, c *clientv3.Client) error {
	for reply := range c.Watch(ctx, recordsPrefix, clientv3.WithPrefix(), clientv3.WithRev(1)) {
		if err := reply.Err(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("watch all services: %w", err)
		}
		for _, e := range reply.Events {
			if err := w.see(string(e.Kv.Key), e.Type == clientv3.EventTypeDelete, e.Kv.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *watched) see(key string, gone bool, value []byte) error {
	service, rest, _ := strings.Cut(strings.TrimPrefix(key, recordsPrefix), "/")
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case rest == "primary" && gone:
		delete(w.primaries, service)
	case rest == "primary":
		var p supervisor.Primary
		if err := json.Unmarshal(value, &p); err != nil {
			return err
		}
		if p.State == sdk.RolePrimary && w.primaries[service].Node != p.Node {
			w.primaries[service], w.at[service] = p, now()
		}
	case strings.HasPrefix(rest, "candidates/") && gone:
		delete(w.candidates, key)
	case strings.HasPrefix(rest, "candidates/"):
		var c supervisor.Candidate
		if err := json.Unmarshal(value, &c); err != nil {
			return err
		}
		w.candidates[key] = c
	}
	return nil
}

// led counts the services whose primary is one of those.
func (w *watched) led(by func(node string) bool) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.primaries {
		if by(p.Node) {
			n++
		}
	}
	return n
}

func (w *watched) present() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.candidates)
}

// taken returns how long after an instant each service got its primary.
func (w *watched) taken(after instant) (all []time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, at := range w.at {
		all = append(all, at-after)
	}
	return all
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	by := make(map[string]int)
	for _, p := range w.primaries {
		by[p.Node]++
	}
	without := make(map[string]int)
	for key, c := range w.candidates {
		service, _, _ := strings.Cut(strings.TrimPrefix(key, recordsPrefix), "/")
		if _, ok := w.primaries[service]; !ok {
			without[fmt.Sprintf("%s as %s: %s", c.Name, c.Role, c.Verdict)]++
		}
	}
	return fmt.Sprintf("primaries %v, %d candidates, and without a primary %v", by, len(w.candidates), without)
}

// A load is what etcd has done so far.
type load struct {
	at       instant
	requests float64 // messages received from clients, by all members
	revision int64   // grows by one with each write
}

func measureEtcd(ctx context.Context, l *lab) (load, error) {
	var m load
	for i, endpoint := range l.etcd.Endpoints() {
		n, err := requests(ctx, endpoint)
		if err != nil {
			return load{}, fmt.Errorf("ask etcd for its metrics: %w", err)
		}
		m.requests += n
		if i == 0 {
			reply, err := l.records.clients[0].Get(ctx, "nothing")
			if err != nil {
				return load{}, err
			}
			m.revision = reply.Header.Revision
		}
	}
	m.at = now()
	return m, nil
}

// requests sums what a member's metrics say about messages from clients.
func requests(ctx context.Context, endpoint string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	reply, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		return 0, err
	}
	var sum float64
	for line := range strings.Lines(string(body)) {
		if !strings.HasPrefix(line, "grpc_server_msg_received_total{") {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]), 64)
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return sum, nil
}
