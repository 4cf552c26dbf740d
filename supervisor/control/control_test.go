package control

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deputy-ha/deputy/supervisor"
)

// start serves s until the test ends, and returns once it answers.
func start(t *testing.T, s *Server) *Client {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("Serve did not end with its context")
		}
	})
	c := NewClient(filepath.Dir(s.Socket))
	for deadline := time.Now().Add(20 * time.Second); ; {
		_, err := c.Status(ctx)
		if err == nil || !errors.Is(err, ErrNoDaemon) {
			return c
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server does not answer: %v", err)
		}
	}
}

func TestOrders(t *testing.T) {
	s, m, cluster := newServer(filepath.Join(t.TempDir(), SocketName))
	c := start(t, s)
	ctx := t.Context()
	me := peer{uid: uint32(os.Getuid())}.name()
	until := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

	for _, err := range []error{
		c.Request(ctx, "orders", supervisor.Reservation{ID: "r1", To: "db2", By: "somebody else", For: time.Minute}),
		c.Cancel(ctx, "orders", "r1"),
		c.Pause(ctx, "orders", supervisor.Pause{Until: until, Reason: "disk"}),
		c.Resume(ctx, "orders"),
		c.Drain(ctx, supervisor.Drain{Node: "db1", Reason: "kernel"}),
		c.Undrain(ctx, "db1"),
		c.Ban(ctx, "orders", supervisor.Ban{Node: "db1", Until: until, By: "somebody else", Reason: "noisy"}),
		c.Unban(ctx, "orders", "db1"),
		c.Remove(ctx, "orders"),
		func() error {
			got, err := c.Reload(ctx)
			if want := (Reloaded{Hash: "abc", Replaced: true}); err == nil && got != want {
				t.Errorf("Reload: got %+v, want %+v", got, want)
			}
			return err
		}(),
		c.Clear(ctx),
	} {
		if err != nil {
			t.Error(err)
		}
	}

	want := []any{
		supervisor.Reservation{ID: "r1", To: "db2", By: me, For: time.Minute},
		cancelled{"orders", "r1"},
		supervisor.Pause{Until: until, By: me, Reason: "disk"},
		"resume orders",
		supervisor.Drain{Node: "db1", By: me, Reason: "kernel"},
		"undrain db1",
		supervisor.Ban{Node: "db1", Until: until, By: me, Reason: "noisy"},
		"unban db1 orders",
		"remove orders",
		"reload",
	}
	if diff := cmp.Diff(want, cluster.noted(), cmp.AllowUnexported(cancelled{})); diff != "" {
		t.Errorf("orders (-want +got):\n%s", diff)
	}
	if m.cleared != 1 {
		t.Errorf("cleared %d times, want once", m.cleared)
	}
}

func TestQuestions(t *testing.T) {
	s, m, cluster := newServer(filepath.Join(t.TempDir(), SocketName))
	c := start(t, s)
	ctx := t.Context()

	if got, err := c.Status(ctx); err != nil || !cmp.Equal(got, m.Status()) {
		t.Errorf("Status: %v, %v", got, err)
	}
	if got, err := c.State(ctx, "orders"); err != nil || !cmp.Equal(got, cluster.state) {
		t.Errorf("State: %v, %v", got, err)
	}
	if got, err := c.Process(ctx); err != nil || got != s.Process {
		t.Errorf("Process: %+v, %v", got, err)
	}
	if got, err := c.Services(ctx); err != nil || !cmp.Equal(got, []string{"orders"}) {
		t.Errorf("Services: %v, %v", got, err)
	}
	if got, err := c.History(ctx, "orders"); err != nil || len(got) != 2 || got[1].Node != "db2" {
		t.Errorf("History: %v, %v", got, err)
	}
	if got, err := c.Goroutines(ctx); err != nil || !strings.Contains(got, "control.(*Server).serve") {
		t.Errorf("Goroutines: %q, %v, want where this server is", got, err)
	}
	if err := c.SetLogLevel(ctx, LogLevel{Level: slog.LevelDebug}); err != nil {
		t.Error(err)
	}
	if got, err := c.LogLevel(ctx); err != nil || got != (LogLevel{Level: slog.LevelDebug}) {
		t.Errorf("LogLevel: %v, %v, want DEBUG", got, err)
	}
}

// What went wrong behind the socket is the same error in front of it.
func TestErrorsComeThrough(t *testing.T) {
	s, m, cluster := newServer(filepath.Join(t.TempDir(), SocketName))
	c := start(t, s)
	for _, want := range []error{
		supervisor.ErrBusy, supervisor.ErrNoService, supervisor.ErrRefused, supervisor.ErrUnreachable,
		supervisor.ErrNotHere, context.DeadlineExceeded,
	} {
		cluster.err = errors.Join(errors.New("write the record"), want)
		err := c.Resume(t.Context(), "orders")
		if !errors.Is(err, want) || err.Error() != cluster.err.Error() {
			t.Errorf("got %v, want %v", err, cluster.err)
		}
	}
	m.err = supervisor.ErrNotHere
	if err := c.Clear(t.Context()); !errors.Is(err, supervisor.ErrNotHere) {
		t.Errorf("Clear: got %v, want %v", err, supervisor.ErrNotHere)
	}
}

// An order with a key that this daemon does not know is not half carried out.
func TestUnknownKeyOfAnOrder(t *testing.T) {
	s, _, cluster := newServer(filepath.Join(t.TempDir(), SocketName))
	c := start(t, s)
	err := c.order(t.Context(), "PUT", "/services/orders/pause", map[string]string{"only": "mondays"})
	if err == nil || !strings.Contains(err.Error(), "only") {
		t.Errorf("got %v, want an error that names the key", err)
	}
	if got := cluster.noted(); len(got) != 0 {
		t.Errorf("carried out all the same: %v", got)
	}
}

func TestWatchTellsEachChange(t *testing.T) {
	s, m, _ := newServer(filepath.Join(t.TempDir(), SocketName))
	c := start(t, s)
	var terms []uint64
	for st, err := range c.WatchStatus(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if n := len(terms); n > 0 && terms[n-1] == uint64(st.Term) {
			continue // a beat
		}
		terms = append(terms, uint64(st.Term))
		if len(terms) == 3 {
			break
		}
		st.Term++
		m.set(st)
	}
	if diff := cmp.Diff([]uint64{7, 8, 9}, terms); diff != "" {
		t.Errorf("terms (-want +got):\n%s", diff)
	}
}

func TestNoDaemon(t *testing.T) {
	dir := t.TempDir()
	_, err := NewClient(dir).Status(t.Context())
	if !errors.Is(err, ErrNoDaemon) || !strings.Contains(err.Error(), filepath.Join(dir, SocketName)) {
		t.Errorf("got %v, want ErrNoDaemon with the socket's path", err)
	}
}

// A watch of the records goes on when the daemon is started again, and says
// so in between.
func TestWatchOutlivesTheDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), SocketName)
	s, _, _ := newServer(socket)
	first, kill := context.WithCancel(t.Context())
	defer kill()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(first) }()
	var story []string
	for st := range NewClient(filepath.Dir(socket)).Watch(t.Context(), "orders") {
		said := "reachable"
		if st.Unreachable != "" {
			said = "unreachable"
		}
		if n := len(story); n > 0 && story[n-1] == said {
			continue
		}
		story = append(story, said)
		if len(story) == 1 && said == "unreachable" {
			story = nil // the server is not up yet
			continue
		}
		switch len(story) {
		case 1:
			kill()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		case 2:
			start(t, s)
		}
		if len(story) == 3 {
			break
		}
	}
	if diff := cmp.Diff([]string{"reachable", "unreachable", "reachable"}, story); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
