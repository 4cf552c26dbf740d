package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/control"
	"github.com/deputy-ha/deputy/supervisor/http"
)

// A sitter is a member that is primary of three nodes, for ever.
type sitter string

func (s sitter) Figures() supervisor.Figures { return supervisor.Figures{} }

func (s sitter) Status() supervisor.Status {
	name := string(s)
	st := supervisor.Status{
		Service: name, Description: "where " + name + " is kept", Node: "db1", Role: sdk.RolePrimary, Term: 7, Fit: true, Verdict: "is primary",
		LeaseUntil: sdk.Now().Add(time.Second),
		Parts:      []supervisor.PartStatus{{Name: "mysql", Use: "mysql", Promoted: true, Checked: true, Fit: true, Detail: "answers"}},
		State:      supervisor.State{Service: name, Primary: &supervisor.Primary{Node: "db1", Term: 7, State: sdk.RolePrimary}},
	}
	for i := range 3 {
		st.State.Candidates = append(st.State.Candidates, supervisor.Candidate{
			Node: supervisor.Node{Name: fmt.Sprintf("db%d", i+1), Address: "192.0.2.11"}, Role: sdk.RoleCandidate, Fit: true, Verdict: "waits for db1", Hash: strings.Repeat("0", 64),
		})
	}
	return st
}

func (s sitter) Watch(context.Context) iter.Seq[supervisor.Status] { return nil }
func (s sitter) Clear() error                                      { return nil }

// here returns the services of a node with empty directories, and a func that
// starts the supervisor of one, with the records that it has.
func here(tb testing.TB) (*sockets, func(service string, records supervisor.Cluster)) {
	tb.Helper()
	dir, err := os.MkdirTemp("", "d") // paths of sockets have to be short
	if err != nil {
		tb.Fatal(err)
	}
	a := &app{paths: paths{run: filepath.Join(dir, "run"), services: filepath.Join(dir, "services.d")}}
	k := newSockets(a)
	ctx, cancel := context.WithCancelCause(context.Background())
	var running sync.WaitGroup
	tb.Cleanup(func() {
		k.close()
		cancel(errors.New("the test ends"))
		running.Wait()
		os.RemoveAll(dir)
	})
	if err := os.MkdirAll(a.paths.services, 0o755); err != nil {
		tb.Fatal(err)
	}
	return k, func(service string, records supervisor.Cluster) {
		if err := os.MkdirAll(a.dir(service), 0o755); err != nil {
			tb.Error(err)
		}
		s := &control.Server{Socket: filepath.Join(a.dir(service), control.SocketName), Member: sitter(service), Cluster: records, Log: slog.New(slog.DiscardHandler)}
		running.Go(func() {
			if err := s.Serve(ctx); err != nil {
				tb.Error(err)
			}
		})
	}
}

// A supervisor that gives its place to another program is away for a moment.
func TestSupervisorThatIsAwayForAMoment(t *testing.T) {
	k, start := here(t)
	if err := os.WriteFile(filepath.Join(k.paths.services, "orders.toml"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	away := time.AfterFunc(absence/4, func() { start("orders", nil) })
	defer away.Stop()
	before := sdk.Now()
	s, asked, err := k.Status(t.Context(), "orders")
	if err != nil || s.Node != "db1" {
		t.Errorf("%+v, %v", s, err)
	}
	if asked.Sub(before) < absence/4 {
		t.Errorf("it was asked %s after the beginning, when it was not there", asked.Sub(before))
	}

	// Whose definition is here alone is waited for, and not for long.
	if err := os.WriteFile(filepath.Join(k.paths.services, "stopped.toml"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.Status(t.Context(), "stopped"); !errors.Is(err, control.ErrNoDaemon) {
		t.Errorf("a stopped one: %v", err)
	}
}

func TestServicesThatThereAreNot(t *testing.T) {
	k, start := here(t)
	start("orders", nil)
	for _, name := range []string{"ordres", "", ".", "..", "../run/orders", "a/b", "x\x00"} {
		if _, _, err := k.Status(t.Context(), name); !errors.Is(err, supervisor.ErrNoService) {
			t.Errorf("%q: %v, want %v", name, err, supervisor.ErrNoService)
		}
	}
}

// BenchmarkThousandServices is GET /services where a thousand supervisors are asked,
// here in one process with who asks.
func BenchmarkThousandServices(b *testing.B) {
	k, start := here(b)
	const services = 1000
	for i := range services {
		start(fmt.Sprintf("orders-%04d", i), nil)
	}
	for len(k.Services()) < services {
		time.Sleep(10 * time.Millisecond)
	}
	h := http.New(k, slog.New(slog.DiscardHandler))
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/services", nil))
		if n := strings.Count(w.Body.String(), `"source":"daemon"`); n != services {
			b.Fatalf("%d reports", n)
		}
		b.ReportMetric(float64(w.Body.Len()), "bytes/answer")
	}
}

// BenchmarkHealthOfOne is what one question of a load balancer costs, supervisor and
// all.
func BenchmarkHealthOfOne(b *testing.B) {
	k, start := here(b)
	start("orders", nil)
	for len(k.Services()) == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	h := http.New(k, slog.New(slog.DiscardHandler))
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/services/orders/primary", nil))
		if w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
}
