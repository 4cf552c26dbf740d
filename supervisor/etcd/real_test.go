package etcd

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
)

func TestMain(m *testing.M) {
	etcdtest.Main()
	holderMain()
	// Tests on a real etcd wait more than they work.
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// A bootClock is CLOCK_BOOTTIME, which all processes of a test share. Its
// timers stand still in suspend, but no test suspends its machine.
type bootClock struct{}

func (bootClock) Now() sdk.Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err)
	}
	return sdk.Instant(ts.Nano())
}

func (c bootClock) Timer(at sdk.Instant) supervisor.Timer {
	t := &bootTimer{done: make(chan struct{})}
	t.real = time.AfterFunc(at.Sub(c.Now()), func() { close(t.done) })
	return t
}

type bootTimer struct {
	real *time.Timer
	done chan struct{}
}

func (t *bootTimer) C() <-chan struct{} { return t.done }
func (t *bootTimer) Stop()              { t.real.Stop() }

// quick is an etcd for tests that do not depend on its own times.
var quick = etcdtest.Options{Heartbeat: 20 * time.Millisecond, Election: 200 * time.Millisecond, NoFsync: true}

// A realNode is a node on a real etcd.
type realNode struct {
	*Client
	stop func() // may be called again
}

// realClient returns a Client that does not run. Each test has a prefix of its
// own.
func realClient(t testing.TB, c *etcdtest.Cluster, node string, edit ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{
		Endpoints: c.Endpoints(),
		Prefix:    "/" + strings.ReplaceAll(t.Name(), "/", "-"),
		Clock:     bootClock{},
		Node:      supervisor.Node{Name: node, Address: node + ".example", Boot: "boot-" + node, Machine: "machine-" + node},
		Log:       slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})).With("node", node),
	}
	for _, e := range edit {
		e(&cfg)
	}
	client, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return client
}

// startReal returns a Client that runs until the test ends.
func startReal(t testing.TB, c *etcdtest.Cluster, node string, edit ...func(*Config)) *realNode {
	t.Helper()
	client := realClient(t, c, node, edit...)
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := client.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	n := &realNode{Client: client, stop: func() {
		cancel(errors.New("the test's node stops"))
		<-done
	}}
	t.Cleanup(n.stop)
	return n
}

// takeReal takes a service's role, once it is vacant.
func takeReal(t testing.TB, n *realNode, service string, ttl time.Duration) supervisor.Lease {
	t.Helper()
	e := n.Elector(service, ttl)
	for st := range e.Observe(t.Context()) {
		if !isVacant(st) {
			continue
		}
		l, err := e.Take(t.Context(), st)
		for errors.Is(err, supervisor.ErrUnreachable) { // a busy machine: the write took longer than the ttl allows
			l, err = e.Take(t.Context(), st)
		}
		if err == nil {
			return l
		}
		if !errors.Is(err, supervisor.ErrRefused) {
			t.Fatal(err)
		}
	}
	t.Fatal("the test ended before the role was taken")
	return nil
}
