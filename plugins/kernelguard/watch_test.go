package kernelguard

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/deputy-ha/deputy/sdk"
)

// Who removes the tables is told of, by name; what else happens to nftables is
// not.
func TestWatch(t *testing.T) {
	g := newTestGuard(t, "watched", "vip", addrs())
	other := newTestGuard(t, "watched", "vip2", addrs())
	g.must(t, g.Arm(sdk.Now().Add(time.Minute)))
	ctx, cancel := context.WithCancelCause(t.Context())
	told, over := make(chan string, 100), make(chan error, 1)
	go func() { over <- g.Watch(ctx, func(by string) { told <- by }) }()
	enough := errors.New("enough")
	defer func() {
		cancel(enough)
		if err := <-over; !errors.Is(err, enough) {
			t.Errorf("watch: %v", err)
		}
	}()
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	remove := func() {
		t.Helper()
		for _, table := range g.tables {
			conn.DelTable(table.handle(g.name))
		}
		g.must(t, conn.Flush())
	}
	// It has begun to hear when it tells of the first one.
	for begun := false; !begun; {
		remove()
		select {
		case <-told:
			begun = true
		case <-time.After(100 * time.Millisecond):
		}
		g.is(t, false, false)
		g.must(t, g.Arm(sdk.Now().Add(time.Minute))) // builds them anew, which may be told
	}
	quiet := false
	for !quiet { // the rest of that
		select {
		case <-told:
		case <-time.After(300 * time.Millisecond):
			quiet = true
		}
	}
	for range 3 {
		g.must(t, other.Arm(sdk.Now().Add(time.Minute)))
		g.must(t, g.Renew(sdk.Now().Add(time.Minute)))
		g.must(t, other.Remove())
		remove()
		if by := <-told; !strings.HasPrefix(by, strings.TrimSpace(string(name))+" (") {
			t.Errorf("removed by %q, want %s and its number", by, name)
		}
		g.is(t, false, false) // or it was told of too much
		g.must(t, g.Arm(sdk.Now().Add(time.Minute)))
		<-told // they were built anew
	}
	select {
	case by := <-told:
		t.Errorf("told once more, of %s", by)
	default:
	}
}
