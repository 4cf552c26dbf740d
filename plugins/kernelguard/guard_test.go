package kernelguard

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
	"github.com/deputy-ha/deputy/sdk"
)

// addrs are what most tests guard.
func addrs() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")}
}

// newTestGuard guards addresses in the namespace of this process, until the test is
// over.
func newTestGuard(t *testing.T, service, part string, addrs []netip.Addr) *Guard {
	t.Helper()
	netlab.Require(t)
	g, err := ForAddresses(service, part, addrs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(g.Remove(), g.Close()); err != nil {
			t.Errorf("remove: %v", err)
		}
	})
	return g
}

func (g *Guard) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// is has to be what the kernel has.
func (g *Guard) is(t *testing.T, installed, open bool) State {
	t.Helper()
	s, err := g.State()
	if err != nil {
		t.Fatal(err)
	}
	if s.Installed != installed || (s.Left > 0) != open {
		t.Fatalf("the guard is installed: %t, open for %s; want installed: %t, open: %t", s.Installed, s.Left, installed, open)
	}
	return s
}

func TestArmAndDisarm(t *testing.T) {
	g := newTestGuard(t, "orders", "vip", addrs())
	g.is(t, false, false)
	g.must(t, g.Disarm(0))
	if s := g.is(t, true, false); fmt.Sprint(s.Addresses) != fmt.Sprint(addrs()) || !s.Current {
		t.Errorf("the guard says it guards %v, current: %t; want %v", s.Addresses, s.Current, addrs())
	}
	if err := g.Renew(sdk.Now().Add(time.Minute)); !errors.Is(err, ErrExpired) || !errors.Is(err, sdk.ErrExpired) {
		t.Errorf("renew a closed guard: got %v, want %v", err, ErrExpired)
	}
	g.is(t, true, false)
	for range 3 {
		until := sdk.Now().Add(time.Minute)
		g.must(t, g.Arm(until))
		if s := g.is(t, true, true); s.Left > until.Sub(sdk.Now()) {
			t.Errorf("open for %s, beyond its end by %s", s.Left, s.Left-until.Sub(sdk.Now()))
		}
		g.must(t, g.Renew(until.Add(time.Minute)))
		if s := g.is(t, true, true); s.Left < time.Minute {
			t.Errorf("renewed for 2m, open for %s", s.Left)
		}
		g.must(t, g.Renew(until)) // less than before
		if s := g.is(t, true, true); s.Left > time.Minute {
			t.Errorf("renewed for 1m, open for %s", s.Left)
		}
	}
	g.must(t, g.Disarm(time.Second))
	g.is(t, true, false)
	g.must(t, g.Disarm(0))
	g.must(t, g.Arm(sdk.Now().Add(time.Minute)))
	g.must(t, g.Remove())
	g.is(t, false, false)
	g.must(t, g.Remove())
}

// What somebody has removed is put back when it is to be opened.
func TestArmAfterRemoval(t *testing.T) {
	g, other := newTestGuard(t, "orders", "vip", addrs()), newTestGuard(t, "orders", "vip", addrs())
	g.must(t, g.Arm(sdk.Now().Add(time.Minute)))
	for range 2 {
		other.must(t, other.Remove())
		g.is(t, false, false)
		g.must(t, g.Disarm(0))
		other.must(t, other.Remove())
		g.must(t, g.Arm(sdk.Now().Add(time.Minute)))
		if s := g.is(t, true, true); !s.Current {
			t.Error("what is put back is not the guard")
		}
	}
}

// An instant that has passed closes.
func TestPastInstants(t *testing.T) {
	g := newTestGuard(t, "orders", "vip", addrs())
	g.must(t, g.Arm(sdk.Now().Add(time.Minute)))
	if err := g.Renew(sdk.Now().Add(-time.Second)); !errors.Is(err, ErrExpired) {
		t.Errorf("renew until the past: got %v, want %v", err, ErrExpired)
	}
	g.is(t, true, false)
	g.must(t, g.Arm(sdk.Now().Add(time.Minute)))
	if err := g.Arm(sdk.Now()); !errors.Is(err, ErrExpired) {
		t.Errorf("open until now: got %v, want %v", err, ErrExpired)
	}
	g.is(t, true, false)
}

// What has expired is not renewed, and closes in time. The kernel's own view
// of it is exact; see the tests of plugins/vip for what packets see.
func TestExpires(t *testing.T) {
	g := newTestGuard(t, "orders", "vip", addrs())
	for range 10 {
		until := sdk.Now().Add(100 * time.Millisecond)
		g.must(t, g.Arm(until))
		for {
			before := sdk.Now()
			s, err := g.State()
			if err != nil {
				t.Fatal(err)
			}
			if s.Left == 0 {
				break
			}
			if before > until {
				t.Errorf("still open %s after its end", before.Sub(until))
			}
		}
		if err := g.Renew(sdk.Now().Add(time.Minute)); !errors.Is(err, ErrExpired) {
			t.Errorf("renew what has expired: got %v, want %v", err, ErrExpired)
		}
		g.is(t, true, false)
	}
}

// A process that stands still between reading the clock and the kernel's
// having done it, as the clock then tells, does not leave it so.
func TestStandingStill(t *testing.T) {
	g := newTestGuard(t, "orders", "vip", addrs())
	jumps := func(ds ...time.Duration) func() sdk.Instant {
		var by time.Duration
		i := 0
		return func() sdk.Instant {
			if i < len(ds) {
				by += ds[i]
			}
			i++
			return sdk.Now().Add(by)
		}
	}
	// The second reading is the one afterwards.
	for _, open := range map[string]func(sdk.Instant) error{"open": g.Arm, "renew": g.Renew} {
		g.now = sdk.Now
		g.must(t, g.Arm(sdk.Now().Add(time.Minute)))
		g.now = jumps(0, 30*time.Second)
		until := sdk.Now().Add(time.Minute)
		g.must(t, open(until))
		if s := g.is(t, true, true); s.Left > 30*time.Second {
			t.Errorf("after half a minute lost on the way it is open for %s", s.Left)
		}
		// Longer than the lease: it is closed again.
		g.now = jumps(0, time.Hour)
		if err := open(until); !errors.Is(err, ErrExpired) {
			t.Errorf("after an hour lost on the way: got %v, want %v", err, ErrExpired)
		}
		g.is(t, true, false)
	}
	// Again and again.
	g.now = sdk.Now
	g.must(t, g.Arm(sdk.Now().Add(time.Minute)))
	g.now = jumps(0, time.Second, 0, time.Second, 0, time.Second, 0, time.Second)
	if err := g.Renew(sdk.Now().Add(time.Minute)); err == nil {
		t.Error("a process that stands still each time is not told of it")
	}
	g.is(t, true, false)
}

// What the kernel has done without an answer in time, as when somebody else's
// change kept it waiting, does not stay so.
func TestUnanswered(t *testing.T) {
	for _, c := range []struct {
		name    string
		err     error
		late    time.Duration
		applied bool
		want    error
	}{
		{"done late", os.ErrDeadlineExceeded, 30 * time.Second, true, nil},
		{"not done", os.ErrDeadlineExceeded, 30 * time.Second, false, nil},
		{"done after the lease", os.ErrDeadlineExceeded, time.Hour, true, ErrExpired},
		{"answer lost", syscall.ENOBUFS, 30 * time.Second, true, nil},
		{"refused", syscall.EPERM, 0, false, syscall.EPERM},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newTestGuard(t, "orders", "vip", addrs())
			g.must(t, g.Arm(sdk.Now().Add(time.Minute)))
			var by time.Duration
			g.now = func() sdk.Instant { return sdk.Now().Add(by) }
			var used *nftables.Conn
			until := g.now().Add(2 * time.Minute)
			err := g.open(until, func(n *nftables.Conn, left time.Duration) error {
				if used = n; c.applied {
					g.must(t, errors.Join(g.renewLiving(n, left), n.Flush()))
				}
				by = c.late
				return c.err
			})
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if g.conn.nft == used {
				t.Error("the next change reads the answers to this one")
			}
			s := g.is(t, true, !errors.Is(c.want, ErrExpired))
			if end := g.now().Add(s.Left); s.Left > 0 && end > until {
				t.Errorf("open until %s after its end", end.Sub(until))
			}
			if c.want == nil && s.Left < time.Minute {
				t.Errorf("open for %s only", s.Left)
			}
		})
	}
}

// What others do to the tables is told, and put right by what comes next.
func TestRemovedByOthers(t *testing.T) {
	g := newTestGuard(t, "orders", "vip", addrs())
	flush := func(families ...nftables.TableFamily) {
		c, err := nftables.New()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			c.DelTable(&nftables.Table{Family: f, Name: g.name})
		}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	for _, families := range [][]nftables.TableFamily{
		{nftables.TableFamilyINet, nftables.TableFamilyARP}, {nftables.TableFamilyINet}, {nftables.TableFamilyARP},
	} {
		g.must(t, g.Arm(sdk.Now().Add(time.Minute)))
		flush(families...)
		g.is(t, false, false)
		if err := g.Renew(sdk.Now().Add(time.Minute)); !errors.Is(err, ErrGone) {
			t.Errorf("renew what is gone: got %v, want %v", err, ErrGone)
		}
		g.must(t, g.Arm(sdk.Now().Add(time.Minute)))
		g.is(t, true, true)
		flush(families...)
		g.must(t, g.Disarm(time.Second))
		g.is(t, true, false)
	}
}

// A process that comes later, or has other settings, finds what there is.
func TestAnotherProcess(t *testing.T) {
	g := newTestGuard(t, "orders", "vip", addrs())
	g.must(t, g.Arm(sdk.Now().Add(time.Minute)))
	same := newTestGuard(t, "orders", "vip", addrs())
	if s := same.is(t, true, true); !s.Current {
		t.Error("the same guard is not taken for the same")
	}
	same.must(t, same.Renew(sdk.Now().Add(2*time.Minute)))

	other := newTestGuard(t, "orders", "vip", addrs()[:1])
	if s := other.is(t, true, true); s.Current || len(s.Addresses) != 2 {
		t.Errorf("another guard is found as current: %t, %v", s.Current, s.Addresses)
	}
	other.must(t, other.Renew(sdk.Now().Add(2*time.Minute))) // keeps what there is
	if s := other.is(t, true, true); s.Current {
		t.Error("a renewal has replaced a guard")
	}
	other.must(t, other.Arm(sdk.Now().Add(time.Minute)))
	if s := other.is(t, true, true); !s.Current || len(s.Addresses) != 1 {
		t.Errorf("armed, current: %t, %v", s.Current, s.Addresses)
	}
	// What the first one knows is out of date now; it does as it is told.
	g.must(t, g.Disarm(0))
	g.is(t, true, false)

	// What is closed keeps what it guards, until another guard is installed.
	g = newTestGuard(t, "orders", "vip", addrs())
	g.must(t, g.Disarm(0))
	if s := g.is(t, true, false); s.Current || len(s.Addresses) != 1 {
		t.Errorf("closed, current: %t, %v", s.Current, s.Addresses)
	}
	g.must(t, g.Install())
	if s := g.is(t, true, false); !s.Current || len(s.Addresses) != 2 {
		t.Errorf("installed, current: %t, %v", s.Current, s.Addresses)
	}
	g.must(t, g.Arm(sdk.Now().Add(time.Minute)))
	g.must(t, g.Install())
	g.is(t, true, true)
}

// Names that look alike are different tables.
func TestNames(t *testing.T) {
	var all []*Guard
	for _, n := range [][2]string{{"a", "b"}, {"a-b", "c"}, {"a", "b-c"}, {"a.b", "c"}, {"a", "b.c"}, {"A", "b"}} {
		g := newTestGuard(t, n[0], n[1], addrs())
		g.must(t, g.Arm(sdk.Now().Add(time.Minute)))
		all = append(all, g)
	}
	for i, g := range all {
		g.must(t, g.Disarm(0))
		for j, other := range all {
			other.is(t, true, j > i)
		}
	}
	if _, err := ForAddresses(strings.Repeat("s", 128), strings.Repeat("p", 128), addrs()); err == nil {
		t.Error("a name that the kernel cannot hold is taken")
	}
}

// Everybody at once: what the kernel has stays whole.
func TestAtOnce(t *testing.T) {
	g := newTestGuard(t, "orders", "vip", addrs())
	g.must(t, g.Arm(sdk.Now().Add(time.Minute)))
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 50 {
				if err := g.Renew(sdk.Now().Add(time.Minute)); err != nil {
					t.Errorf("renew: %v", err)
				}
			}
		})
		all.Go(func() {
			for range 50 {
				if s, err := g.State(); err != nil || s.Left == 0 {
					t.Errorf("state: %+v, %v", s, err)
				}
			}
		})
	}
	all.Wait()
}

// The kernel's own program reads what was written, as people will.
func TestReadable(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("this needs nft, to read")
	}
	g := newTestGuard(t, "orders", "vip", addrs())
	g.must(t, g.Arm(sdk.Now().Add(time.Minute)))
	p, err := ForPorts("orders", "guard", Ports{
		Ranges: []PortRange{{6, 3306, 3306}, {17, 8000, 8010}}, Loopback: true, Reject: true,
		Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/25"), netip.MustParsePrefix("2001:db8::/33"), netip.MustParsePrefix("0.0.0.0/0")},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { p.must(t, errors.Join(p.Remove(), p.Close())) }()
	p.must(t, p.Disarm(0))
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	for _, want := range []string{
		"table inet deputy/orders/vip {", "table arp deputy/orders/vip {",
		"ip daddr @address4 fib daddr type local jump dark", "ip6 saddr @address6 jump leaving", "arp saddr ip @address4 jump dark",
		"table inet deputy/orders/guard {", "tcp dport 3306 fib daddr type local jump refuse", "udp dport 8000-8010 fib daddr type local jump refuse",
		"ip saddr 192.0.2.0/25 return", "ip6 daddr 2001:db8::/33 return", "iiftype loopback return",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the rules lack %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

// How long a renewal takes, next to the time between two of them.
func BenchmarkRenew(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("this needs root")
	}
	g, err := ForAddresses("orders", "vip", addrs())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = errors.Join(g.Remove(), g.Close()) }()
	if err := g.Arm(sdk.Now().Add(time.Minute)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := g.Renew(sdk.Now().Add(time.Minute)); err != nil {
			b.Fatal(err)
		}
	}
}
