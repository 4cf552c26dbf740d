package etcd

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// A clock runs at a rate of its own, and its timers wait behind the gate of a
// frozen process.
type clock struct {
	base time.Time
	boot sdk.Instant
	rate float64
	gate *gate
}

func newClock(boot time.Duration, rate float64, g *gate) *clock {
	return &clock{base: time.Now(), boot: sdk.Instant(boot), rate: rate, gate: g}
}

func (c *clock) Now() sdk.Instant {
	return c.boot.Add(time.Duration(float64(time.Since(c.base)) * c.rate))
}

func (c *clock) Timer(at sdk.Instant) supervisor.Timer {
	done := make(chan struct{})
	// Rounded up: a timer that fires early would find that it is not time yet.
	d := max(time.Duration(float64(at.Sub(c.Now()))/c.rate)+2, 0)
	t := &clockTimer{done: done}
	t.real = time.AfterFunc(d, func() {
		c.gate.wait()
		close(done)
	})
	return t
}

type clockTimer struct {
	real *time.Timer
	done chan struct{}
}

func (t *clockTimer) C() <-chan struct{} { return t.done }
func (t *clockTimer) Stop()              { t.real.Stop() }

// A witness remembers for a host, whatever processes run there.
type witness struct {
	mu   sync.Mutex
	seen map[string]supervisor.Seen
}

func (w *witness) LoadSeen(service string) (supervisor.Seen, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[service], nil
}

func (w *witness) SaveSeen(service string, s supervisor.Seen) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen == nil {
		w.seen = make(map[string]supervisor.Seen)
	}
	w.seen[service] = s
	return nil
}

// File is as the one of the directory of lasting state.
func (*witness) File(service string) string { return "/var/lib/deputy/" + service + "/seen.json" }

// A host is one machine with its clock and its lines to the store.
type host struct {
	name    string
	gate    *gate
	clock   *clock
	lines   []*line
	witness *witness
	prefix  string
	timing  func(time.Duration) supervisor.Timing // nil: the true one
}

func newHost(s *store, name string, rate float64, seed uint64) *host {
	g := &gate{}
	h := &host{name: name, gate: g, clock: newClock(1000*time.Second, rate, g), witness: &witness{}, prefix: "/test"}
	for i := range 3 {
		h.lines = append(h.lines, newLine(s, fmt.Sprintf("%s-%d", name, i), g, seed+uint64(i)))
	}
	return h
}

func (h *host) cut(cut bool) {
	for _, l := range h.lines {
		l.setCut(cut)
	}
}

func (h *host) faults(f faults) {
	for _, l := range h.lines {
		l.setFaults(f)
	}
}

// A process is one Client that runs on a host.
type process struct {
	*Client
	host *host
	stop func()
}

// start runs a Client on the host. The test waits for its end.
func (h *host) start(t testing.TB, log io.Writer) *process {
	t.Helper()
	cfg := Config{
		Prefix:  h.prefix,
		Clock:   h.clock,
		Node:    supervisor.Node{Name: h.name, Address: h.name + ".example", Boot: "boot-" + h.name, Machine: "machine-" + h.name},
		Witness: h.witness,
	}
	if log != nil {
		cfg.Log = slog.New(slog.NewTextHandler(log, nil)).With("node", h.name)
	}
	ways := make([]kv, len(h.lines))
	for i, l := range h.lines {
		ways[i] = l
	}
	return h.run(t, cfg, ways)
}

func (h *host) run(t testing.TB, cfg Config, ways []kv) *process {
	t.Helper()
	c := newClient(cfg, ways)
	if h.timing != nil {
		c.timing = h.timing
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	var once sync.Once
	p := &process{Client: c, host: h}
	p.stop = func() {
		once.Do(func() {
			cancel()
			<-done
		})
	}
	return p
}

// observe keeps the newest State of an elector.
func observe(ctx context.Context, e supervisor.Elector) <-chan supervisor.State {
	out := make(chan supervisor.State)
	go func() {
		defer close(out)
		for st := range e.Observe(ctx) {
			select {
			case out <- st:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// until reads States up to the first that is as wanted.
func until(t testing.TB, states <-chan supervisor.State, what string, want func(supervisor.State) bool) supervisor.State {
	t.Helper()
	limit := time.After(time.Minute)
	var last supervisor.State
	for {
		select {
		case st, ok := <-states:
			if !ok {
				t.Fatalf("no State that is %s; the last was %+v", what, last)
			}
			last = st
			if want(st) {
				return st
			}
		case <-limit:
			t.Fatalf("no State that is %s; the last was %+v", what, last)
		}
	}
}

func isVacant(st supervisor.State) bool { return st.Vacant && st.Frozen == "" }
