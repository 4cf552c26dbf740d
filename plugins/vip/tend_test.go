package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
	"github.com/deputy-ha/deputy/sdk"
)

// needs skips a test without a program, or fails it where CI says that it has
// to run.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil && os.Getenv("CI") == "true" {
			t.Fatalf("this needs %s, and CI has to have it", p)
		} else if err != nil {
			t.Skipf("this needs %s", p)
		}
	}
}

// Returns counts how often the addresses of both come back to a host.
type returns struct{ n atomic.Int32 }

func countReturns(t *testing.T, h *netlab.Host) *returns {
	t.Helper()
	r := &returns{}
	told, done, over := make(chan netlink.AddrUpdate, 1000), make(chan struct{}), make(chan struct{})
	h.Must(func() error { return netlink.AddrSubscribe(told, done) })
	go func() { // the cleanup waits for it
		defer close(over)
		gone := map[string]bool{}
		for u := range told {
			a := u.LinkAddress.IP.String()
			if u.NewAddr && gone[a] && (a == vip4 || a == vip6) {
				r.n.Add(1)
			}
			gone[a] = !u.NewAddr
		}
	}()
	t.Cleanup(func() { close(done); <-over })
	return r
}

// sinceThen returns how many there were since it was called last.
func (r *returns) sinceThen() int { return int(r.n.Swap(0)) }

// device returns an interface of a host.
func (n *node) device(name string) (dev netlink.Link) {
	n.t.Helper()
	n.Must(func() (err error) {
		dev, err = netlink.LinkByName(name)
		return err
	})
	return dev
}

// try runs a program that need not succeed.
func (n *node) try(words ...string) {
	_ = n.Do(func() error { return exec.Command(words[0], words[1:]...).Run() })
}

// remove removes an address from eth0 as another program does, and returns how
// long it takes to come back.
func (n *node) remove(dev netlink.Link, addr string) (took time.Duration) {
	n.t.Helper()
	a, err := netlink.ParseAddr(addr)
	if err != nil {
		n.t.Fatal(err)
	}
	n.Must(func() error {
		began := time.Now()
		if err := netlink.AddrDel(dev, a); err != nil {
			return err
		}
		for ; ; time.Sleep(100 * time.Microsecond) {
			all, err := netlink.AddrList(dev, netlink.FAMILY_ALL)
			took = time.Since(began)
			switch {
			case err != nil:
				return err
			case slices.ContainsFunc(all, func(b netlink.Addr) bool { return b.IP.Equal(a.IP) }):
				return nil
			case took > 10*time.Second:
				return fmt.Errorf("%s is not back within %s", addr, took)
			}
		}
	})
	return took
}

// newTended is a node that is primary, and a peer.
func newTended(t *testing.T) (a *node, peer *netlab.Host) {
	t.Helper()
	l := netlab.New(t)
	a = newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
	peer = l.Host(peer4+"/24", peer6+"/64")
	echoes(a.Host)
	a.demote(sdk.OutcomeAlready)
	a.promote(sdk.OutcomeDone)
	return a, peer
}

// Whoever flushes addresses is noticed at once, and they are back before a
// renewal or a check comes. Each on a node of its own: how often addresses come
// back within a while is bounded, and a flush may use all of that up.
func TestFlushedAddresses(t *testing.T) {
	t.Parallel()
	for _, f := range []struct {
		what string
		do   []string
		at   []string
	}{
		{"flush by ip", []string{"ip addr flush to " + vip4, "ip -6 addr flush to " + vip6}, []string{at4, at6}},
		{"interface down and up", []string{ // takes the host's own with it
			"ip link set eth0 down", "ip link set eth0 up", "ip addr add 2001:db8::11/64 dev eth0 nodad",
		}, []string{at4, at6}},
		{"flush of all", []string{
			"ip addr flush dev eth0", "ip addr add 192.0.2.11/24 dev eth0", "ip addr add 2001:db8::11/64 dev eth0 nodad",
		}, []string{at4, at6}},
	} {
		t.Run(f.what, func(t *testing.T) {
			a, peer := newTended(t)
			back := countReturns(t, a.Host)
			for _, line := range f.do {
				words := strings.Fields(line)
				a.try(words...) // flush has its own view of what comes back
			}
			eventually(t, "put right", func() bool { return a.has(vip4) && a.has(vip6) })
			for _, at := range f.at {
				if !reaches(peer, at, 5*time.Second) {
					t.Errorf("%s does not answer", at)
				}
			}
			a.check(sdk.RolePrimary, true, "")
			n := back.sinceThen()
			t.Logf("addresses came back %d times", n)
			if n == 0 {
				t.Error("nothing was removed")
			}
			a.says(t, "put back")
		})
	}
}

// What somebody removes is back at once, and flags and lifetimes that others
// change are set again: of IPv6 a change replaces all of them.
func TestChangedAddresses(t *testing.T) {
	t.Parallel()
	a, _ := newTended(t)
	eth0 := a.device("eth0")
	var took []time.Duration
	for range 5 {
		took = append(took, a.remove(eth0, vip4+"/32"), a.remove(eth0, vip6+"/128"))
	}
	report(t, "an address that somebody removes is back", took)
	for i, words := range []string{
		"ip addr change " + vip6 + "/128 dev eth0 valid_lft 1000 preferred_lft 900",
		"ip addr change " + vip4 + "/32 dev eth0 valid_lft 1000 preferred_lft 900",
	} {
		w := strings.Fields(words)
		a.Run(w[0], w[1:]...)
		addr := []string{vip6, vip4}[i]
		want := []string{"deprecated", "noprefixroute"}
		if addr == vip6 {
			want = append(want, "nodad")
		}
		eventually(t, "flags of "+addr+" as before", func() bool {
			out := a.Run("ip", "addr", "show", "to", addr)
			for _, flag := range want {
				if !strings.Contains(out, flag) {
					return false
				}
			}
			return true
		})
	}
	if err := a.renew(time.Minute); err != nil { // sets lifetimes anew
		t.Error(err)
	}
	if out := a.Run("ip", "addr", "show", "to", vip6); !strings.Contains(out, "nodad") || !strings.Contains(out, "deprecated") || !strings.Contains(out, "noprefixroute") {
		t.Errorf("after a renewal: %s", out)
	}
	a.demote(sdk.OutcomeDone)
	a.owns(false)
}

// A standby, and one whose demotion is over, puts nothing back.
func TestNothingComesBackAfterADemotion(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
	a.promote(sdk.OutcomeDone)
	a.demote(sdk.OutcomeDone)
	a.Run("ip", "link", "set", "eth0", "down")
	a.Run("ip", "link", "set", "eth0", "up")
	a.Run("ip", "addr", "add", vip4+"/32", "dev", "eth0") // by somebody: it is told
	eventually(t, "unfit", func() bool {
		h, err := a.hosted.Check(t.Context(), sdk.RoleStandby, a.term)
		return err == nil && !h.Fit && strings.Contains(h.Detail, vip4)
	})
	a.Run("ip", "addr", "del", vip4+"/32", "dev", "eth0")
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		a.owns(false)
	}
	a.check(sdk.RoleStandby, true, "")
}

// Whoever flushes the rules of the host is noticed, and the guard is back at
// once: open on the primary, without a packet lost, and closed elsewhere.
func TestFlushedRuleset(t *testing.T) {
	t.Parallel()
	needs(t, "nft")
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
	peer := l.Host(peer4+"/24", peer6+"/64")
	echoes(a.Host)
	installed := func() bool {
		n := 0
		a.Must(func() error {
			c, err := nftables.New()
			if err != nil {
				return err
			}
			tables, err := c.ListTables()
			for _, table := range tables {
				if table.Name == "deputy/orders/vip" {
					n++
				}
			}
			return err
		})
		return n == 2 // inet and arp
	}
	a.demote(sdk.OutcomeAlready)
	a.Run("nft", "flush", "ruleset")
	eventually(t, "the guard of a standby back", installed)
	a.check(sdk.RoleStandby, true, "")

	a.promote(sdk.OutcomeDone)
	eventually(t, "an answer", func() bool { return reaches(peer, at4, time.Second) && reaches(peer, at6, time.Second) })
	x4, x6 := peer.Ask(at4, time.Millisecond), peer.Ask(at6, time.Millisecond)
	for range 3 {
		a.Run("nft", "flush", "ruleset")
		began := time.Now()
		eventually(t, "the guard of a primary back", installed)
		t.Logf("the guard is back %s after nft has ended", time.Since(began).Round(100*time.Microsecond))
	}
	a.check(sdk.RolePrimary, true, "")
	time.Sleep(50 * time.Millisecond) // answers that are under way
	for _, x := range []*netlab.Exchange{x4, x6} {
		lost, n := 0, 0
		asked := x.End()
		for _, q := range asked {
			if n++; q.Answered == 0 && q.Sent < asked[len(asked)-1].Sent.Add(-30*time.Millisecond) {
				lost++
			}
		}
		if lost > 0 || n == 0 {
			t.Errorf("%s: %d of %d lost", x.Kind, lost, n)
		}
	}
	a.says(t, `"by":"nft (`)
	a.Run("nft", "flush", "ruleset") // also what is flushed just before a demotion
	a.demote(sdk.OutcomeDone)
	a.owns(false)
	if !installed() {
		t.Error("a demotion left no closed guard")
	}
}

// What a frozen plugin has missed it does not put right when the lease is over
// by the time it goes on: the guard comes back closed, and no address does.
func TestThawedProcessBringsNothingBack(t *testing.T) {
	t.Parallel()
	needs(t, "nft")
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
	peer := l.Host(peer4+"/24", peer6+"/64")
	echoes(a.Host)
	for _, again := range []bool{false, true} { // whether the address is put there again by somebody
		a.demote(sdk.OutcomeAlready)
		p := a.transition(sdk.Promote)
		p.LeaseUntil = sdk.Now().Add(700 * time.Millisecond)
		if r := a.do(p); r.Outcome != sdk.OutcomeDone {
			t.Fatalf("promote: got %+v", r)
		}
		a.signal(syscall.SIGSTOP)
		time.Sleep(p.LeaseUntil.Sub(sdk.Now()))
		a.Run("nft", "flush", "ruleset")
		a.Run("ip", "addr", "flush", "to", vip4)
		a.Run("ip", "-6", "addr", "flush", "to", vip6)
		a.Run("ip", "link", "set", "eth0", "down")
		a.Run("ip", "link", "set", "eth0", "up")
		a.signal(syscall.SIGCONT)
		eventually(t, "the guard back", func() bool { return strings.Contains(a.Run("nft", "list", "ruleset"), "table arp deputy/orders/vip") })
		if again {
			a.Run("ip", "addr", "add", vip4+"/32", "dev", "eth0")
			if reaches(peer, at4, 200*time.Millisecond) {
				t.Error("the address is heard after the lease")
			}
			a.Run("ip", "addr", "del", vip4+"/32", "dev", "eth0")
		}
		for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			a.owns(false)
		}
	}
}

// Who removes an address again and again is told of, and the node is not fit:
// the plugin does not fight for ever.
func TestAddressesThatDoNotStay(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
	a.promote(sdk.OutcomeDone)
	eth0 := a.device("eth0")
	for range mendsAtOnce {
		a.remove(eth0, vip4+"/32")
	}
	a.check(sdk.RolePrimary, true, "")
	a.remove(eth0, vip4+"/32")
	a.check(sdk.RolePrimary, false, "again and again")
	a.Run("ip", "addr", "del", vip4+"/32", "dev", "eth0")
	time.Sleep(100 * time.Millisecond)
	if a.has(vip4) {
		t.Error("the plugin goes on to fight")
	}
	if err := a.renew(time.Minute); err != nil { // one try each
		t.Error(err)
	}
	a.owns(true)
	self, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	a.check(sdk.RolePrimary, false, strings.TrimSpace(string(self)))
}

// A change of the interface or of an address is told at once to who watches.
func TestChangesArePushed(t *testing.T) {
	v, _ := newSlow(t, true)
	ctx, cancel := context.WithCancel(t.Context())
	told, over := make(chan struct{}, 100), make(chan error, 1)
	go func() { over <- v.Watch(ctx, func() { told <- struct{}{} }) }()
	t.Cleanup(func() { cancel(); <-over })
	slow0, err := netlink.LinkByName("slow0")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		do   func() error
		fit  bool
	}{
		{"interface down", func() error { return netlink.LinkSetDown(slow0) }, false},
		{"interface up", func() error { return netlink.LinkSetUp(slow0) }, true},
		{"address removed", func() error {
			return netlink.AddrDel(slow0, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 30).To4(), Mask: net.CIDRMask(32, 32)}})
		}, true}, // it is back
	} {
		for len(told) > 0 {
			<-told
		}
		began := time.Now()
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-told:
			t.Logf("%s: told after %s", c.what, time.Since(began).Round(100*time.Microsecond))
		case <-time.After(5 * time.Second):
			t.Errorf("%s: not told", c.what)
		}
		eventually(t, fmt.Sprintf("%s: fit %t", c.what, c.fit), func() bool {
			h, err := v.Check(t.Context(), sdk.RolePrimary)
			return err == nil && h.Fit == c.fit
		})
	}
}

// A real systemd-networkd that configures the interface anew removes what it
// has not added. It is back before anybody asks.
func TestNetworkd(t *testing.T) {
	t.Parallel()
	networkd := "/lib/systemd/systemd-networkd"
	if _, err := os.Stat(networkd); err != nil {
		t.Skipf("this needs systemd-networkd: %v", err)
	}
	needs(t, "dbus-daemon", "networkctl", "unshare")
	l := netlab.New(t)
	a := newNode(t, l.Host(), "a", both())
	peer := l.Host(peer4+"/24", peer6+"/64")
	echoes(a.Host)
	d := &networkdHost{Host: a.Host, t: t, dir: t.TempDir()}
	d.start(networkd)
	d.write("")
	d.ctl("reload")
	d.ctl("reconfigure", "eth0")
	eventually(t, "configured", func() bool { return a.has("192.0.2.11") && a.has("2001:db8::11") })
	a.demote(sdk.OutcomeAlready)
	a.promote(sdk.OutcomeDone)
	back := countReturns(t, a.Host)
	for _, words := range [][]string{{"reconfigure", "eth0"}, {"reload"}} {
		d.write("MTUBytes=14" + fmt.Sprint(80+len(words)))
		d.ctl(words...)
		eventually(t, strings.Join(words, " ")+" put right", func() bool {
			return a.has(vip4) && a.has(vip6) && a.has("192.0.2.11") && a.has("2001:db8::11")
		})
		for _, at := range []string{at4, at6} {
			if !reaches(peer, at, 5*time.Second) {
				t.Errorf("%s does not answer after networkctl %v", at, words)
			}
		}
		n := back.sinceThen()
		t.Logf("networkctl %v: addresses came back %d times", words, n)
		if n == 0 {
			t.Errorf("networkctl %v has removed nothing: the test proves nothing", words)
		}
	}
	a.check(sdk.RolePrimary, true, "")
	a.says(t, "put back", "networkd")

	// With what README.md says it does not remove any.
	d.write("[Network]\nKeepConfiguration=yes")
	d.ctl("reload")
	eventually(t, "put right", func() bool { return a.has(vip4) && a.has(vip6) })
	back.sinceThen()
	d.ctl("reconfigure", "eth0")
	d.ctl("reconfigure", "eth0")
	if n := back.sinceThen(); n > 0 {
		t.Errorf("with KeepConfiguration=yes networkd removed addresses %d times", n)
	}
}

// A networkdHost has a systemd-networkd of its own, with its own /run.
type networkdHost struct {
	*netlab.Host
	t   *testing.T
	dir string
	pid int
}

// networkdScript gives what follows a /run of its own, in which the test's
// directory has the configuration.
const networkdScript = `set -e
mount --make-rprivate /
mount -t sysfs -o ro none /sys
mount -t tmpfs none /run
mkdir -p /run/dbus /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp /run/systemd/network
chown -R systemd-network: /run/systemd/netif
mount --bind "$1" /run/systemd/network
dbus-daemon --system --nofork --nopidfile &
while ! test -S /run/dbus/system_bus_socket; do sleep 0.01; done
"$2" &
echo ready
read -r _ || true
kill %1 %2
wait`

func (d *networkdHost) start(networkd string) {
	d.t.Helper()
	if err := os.Chmod(d.dir, 0o755); err != nil { // it reads as a user of its own
		d.t.Fatal(err)
	}
	for dir := d.dir; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		_ = os.Chmod(dir, 0o755)
	}
	cmd := exec.Command("unshare", "--mount", "bash", "-c", networkdScript, "networkd", d.dir, networkd)
	life, err := cmd.StdinPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	d.Must(cmd.Start)
	d.t.Cleanup(func() {
		life.Close()
		_ = cmd.Wait()
	})
	said := make([]byte, 6)
	if _, err := out.Read(said); err != nil {
		d.t.Fatalf("start systemd-networkd: %v", err)
	}
	d.pid = cmd.Process.Pid
}

func (d *networkdHost) write(more string) {
	d.t.Helper()
	text := "[Match]\nName=eth0\n[Network]\nAddress=192.0.2.11/24\nAddress=2001:db8::11/64\nIPv6AcceptRA=no\nLinkLocalAddressing=no\nIPv6DuplicateAddressDetection=0\n"
	if !strings.HasPrefix(more, "[") {
		text += "[Link]\n"
	}
	if err := os.WriteFile(filepath.Join(d.dir, "10-eth0.network"), []byte(text+more+"\n"), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// ctl asks it, once it is there to be asked.
func (d *networkdHost) ctl(words ...string) {
	d.t.Helper()
	var out []byte
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		cmd := exec.Command("nsenter", append([]string{"--mount", "--net", "--target", fmt.Sprint(d.pid), "networkctl"}, words...)...)
		if out, err = cmd.CombinedOutput(); err == nil {
			return
		}
	}
	d.t.Fatalf("networkctl %v: %v: %s", words, err, out)
}

// What a bond tells by the event of another port, it is announced anew by. The
// kernel at hand may have no bonds.
func TestBondFailsOver(t *testing.T) {
	l := netlab.New(t)
	home := l.Home()
	// Not those of the conformance test, whose guard stays here closed.
	const a4, a6 = "192.0.2.40", "2001:db8::40"
	l.Plug(home, "events0", "192.0.2.11/24", "2001:db8::11/64")
	peer := l.Host(peer4+"/24", peer6+"/64")
	k := &told{kernel: &rtnetlink{}, changes: make(chan change)}
	s := settings{
		Addresses: []place{{netip.MustParsePrefix(a4 + "/32")}, {netip.MustParsePrefix(a6 + "/128")}},
		Interface: "events0", Guard: true, Deprecated: true, MonitorLink: true, Announce: announceSettings{Count: 1},
	}
	v, err := newVIPOf(k, s, sdk.Host{Service: "events", Part: "vip", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = v.Close()
		_ = v.guard.Remove()
		_ = v.guard.Close()
	})
	eventually(t, "a carrier", func() bool { _, err := v.ready(); return err == nil })
	if err := v.Promote(t.Context(), act(sdk.Promote, sdk.Planned)); err != nil {
		t.Fatalf("promote: %v", err)
	}
	t.Cleanup(func() { _ = v.Demote(context.Background(), act(sdk.Demote, sdk.Planned)) })
	for _, at := range []string{a4 + ":7", "[" + a6 + "]:7"} {
		if home.Echo(at); !reaches(peer, at, 5*time.Second) {
			t.Fatalf("%s does not answer", at)
		}
	}
	elsewhere := "02:00:00:00:00:99"
	for _, event := range []uint32{unix.IFLA_EVENT_NOTIFY_PEERS, unix.IFLA_EVENT_BONDING_FAILOVER} {
		for _, addr := range []string{a4, a6} {
			peer.Run("ip", "neigh", "replace", addr, "lladdr", elsewhere, "nud", "reachable", "dev", "eth0")
		}
		l, err := k.link("events0")
		if err != nil {
			t.Fatal(err)
		}
		k.changes <- change{link: &l, event: event}
		for _, addr := range []string{a4, a6} {
			eventually(t, fmt.Sprintf("%s announced by event %d", addr, event), func() bool { return strings.HasPrefix(peer.Neighbour(addr), home.MAC.String()) })
		}
	}
}

// A told kernel hears only what a test tells.
type told struct {
	kernel
	changes chan change
}

func (k *told) hear(ctx context.Context, tell func(change)) error {
	tell(change{lost: true})
	for {
		select {
		case c := <-k.changes:
			tell(c)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
