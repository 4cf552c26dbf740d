package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
	"github.com/deputy-ha/deputy/sdk"
)

// A town has a node, a client of it, and a replica that is always let through.
type town struct {
	*node
	client, replica *netlab.Host
}

const node4, node6 = "192.0.2.11", "2001:db8::11"

func townConfig() map[string]any {
	return map[string]any{
		"ports": []string{"tcp/3306", "udp/3306", "tcp/8000-8010"},
		"allow": []string{"192.0.2.2", "2001:db8::2/127"},
	}
}

func newTown(t *testing.T, change ...func(map[string]any)) *town {
	t.Helper()
	l := netlab.New(t)
	config := townConfig()
	for _, f := range change {
		f(config)
	}
	w := &town{
		node:   newNode(t, l.Host(node4+"/24", node6+"/64"), config),
		client: l.Host("192.0.2.1/24", "2001:db8::1/64"), replica: l.Host("192.0.2.2/24", "2001:db8::2/64"),
	}
	for _, port := range []string{":3306", ":3307", ":8000", ":8010", ":8011"} {
		w.Echo(port)
	}
	return w
}

// ends are the guarded ports that one may connect to.
func ends() []string {
	return []string{node4 + ":3306", "[" + node6 + "]:3306", node4 + ":8000", node4 + ":8010", "[" + node6 + "]:8010"}
}

// open has to be so for the client, while others are let through.
func (w *town) open(want bool, refusal error) {
	w.t.Helper()
	within := 5 * time.Second
	if refusal == nil && !want {
		within = 200 * time.Millisecond
	}
	for _, end := range ends() {
		c, err := connect(w.client, end, within)
		if err == nil {
			c.Close()
		}
		if (err == nil) != want {
			w.t.Errorf("the client connects to %s: %v, want it open: %t", end, err, want)
		}
		if !want && refusal != nil && !errors.Is(err, refusal) {
			w.t.Errorf("the client connects to %s: %v, want %v", end, err, refusal)
		}
		for who, h := range map[string]*netlab.Host{"the replica": w.replica, "the node itself": w.Host} {
			if c, err := connect(h, end, 5*time.Second); err != nil {
				w.t.Errorf("%s connects to %s: %v", who, end, err)
			} else {
				c.Close()
			}
		}
	}
	for _, end := range []string{node4 + ":3307", "[" + node6 + "]:8011"} {
		if c, err := connect(w.client, end, 5*time.Second); err != nil {
			w.t.Errorf("the client connects to %s, which is not guarded: %v", end, err)
		} else {
			c.Close()
		}
	}
	for _, end := range ends()[:2] {
		if got := w.udp(w.client, end, 100*time.Millisecond); got != want {
			w.t.Errorf("the client is answered by udp/%s: %t, want %t", end, got, want)
		}
		if !w.udp(w.replica, end, 5*time.Second) {
			w.t.Errorf("the replica is not answered by udp/%s", end)
		}
	}
}

func (w *town) udp(h *netlab.Host, end string, within time.Duration) bool {
	x := h.Ask(end, 5*time.Millisecond)
	defer x.End()
	for until := time.Now().Add(within); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		if netlab.Last(x.Asked()) != 0 {
			return true
		}
	}
	return false
}

func TestOpenAndClosed(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	w.open(true, nil) // as after a boot, before the plugin has run
	w.check(sdk.RoleStandby, false, "guard is gone")
	w.becomes(sdk.Demote, sdk.OutcomeDone)
	w.open(false, syscall.ECONNREFUSED)
	w.check(sdk.RoleStandby, true, "is closed")
	w.check(sdk.RolePrimary, false, "has closed")
	w.becomes(sdk.Demote, sdk.OutcomeAlready)
	w.becomes(sdk.Promote, sdk.OutcomeDone)
	w.open(true, nil)
	w.check(sdk.RolePrimary, true, "tcp/3306, udp/3306, tcp/8000-8010 is open")
	w.check(sdk.RoleStandby, false, "is open although this node is standby")
	w.becomes(sdk.Promote, sdk.OutcomeAlready)
	if err := w.renew(time.Minute); err != nil {
		t.Errorf("renew: %v", err)
	}
	w.becomes(sdk.Demote, sdk.OutcomeDone)
	w.open(false, syscall.ECONNREFUSED)
	if err := w.renew(time.Minute); err != nil {
		t.Errorf("renew when there is nothing to renew: %v", err)
	}
	w.open(false, syscall.ECONNREFUSED)

	p := w.transition(sdk.Promote)
	p.LeaseUntil = sdk.Now()
	if r := w.do(p); r.Outcome != sdk.OutcomeUnchanged || !r.Refused {
		t.Errorf("promote without a lease: got %+v", r)
	}
}

func TestDrop(t *testing.T) {
	t.Parallel()
	w := newTown(t, func(c map[string]any) { c["action"] = "drop" })
	w.becomes(sdk.Demote, sdk.OutcomeDone)
	w.open(false, nil)
	w.becomes(sdk.Promote, sdk.OutcomeDone)
	w.open(true, nil)
}

func TestLoopback(t *testing.T) {
	t.Parallel()
	w := newTown(t, func(c map[string]any) { c["loopback"] = false })
	w.becomes(sdk.Demote, sdk.OutcomeDone)
	for _, end := range []string{"127.0.0.1:3306", "[::1]:8000", node4 + ":3306"} {
		if _, err := connect(w.Host, end, 5*time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("the node itself connects to %s: got %v, want %v", end, err, syscall.ECONNREFUSED)
		}
	}
	w.becomes(sdk.Promote, sdk.OutcomeDone)
	if c, err := connect(w.Host, "127.0.0.1:3306", 5*time.Second); err != nil {
		t.Errorf("the node itself, while the guard is open: %v", err)
	} else {
		c.Close()
	}
}

// A demotion cuts those who are connected, and nobody else.
func TestConnectionsAreCut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		action string
		mode   sdk.Mode
	}{{"reject", sdk.Planned}, {"reject", sdk.Forced}, {"drop", sdk.Planned}, {"drop", sdk.Forced}} {
		t.Run(c.action+" "+string(c.mode), func(t *testing.T) {
			w := newTown(t, func(m map[string]any) { m["action"] = c.action })
			w.becomes(sdk.Demote, sdk.OutcomeDone)
			w.becomes(sdk.Promote, sdk.OutcomeDone)
			var cut, kept []net.Conn
			for _, end := range ends() {
				for h, list := range map[*netlab.Host]*[]net.Conn{w.client: &cut, w.replica: &kept, w.Host: &kept} {
					conn, err := connect(h, end, 5*time.Second)
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					*list = append(*list, conn)
				}
			}
			d := w.transition(sdk.Demote)
			d.Mode = c.mode
			if r := w.do(d); r.Outcome != sdk.OutcomeDone {
				t.Fatalf("demote: got %+v", r)
			}
			for _, conn := range cut {
				conn.SetDeadline(time.Now().Add(5 * time.Second))
				if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("connection of the client to %s: got %v, want %v", conn.RemoteAddr(), err, syscall.ECONNRESET)
				}
			}
			for _, conn := range kept {
				if err := echo(conn, 5*time.Second); err != nil {
					t.Errorf("connection of %s to %s, which is let through: %v", conn.LocalAddr(), conn.RemoteAddr(), err)
				}
			}
		})
	}
}

// A demotion that ends connections behind its answer ends none that a promotion
// right after it has let in.
func TestNewConnectionsAreSpared(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	w.becomes(sdk.Demote, sdk.OutcomeDone)
	w.becomes(sdk.Promote, sdk.OutcomeDone)
	for range 10 {
		w.becomes(sdk.Demote, sdk.OutcomeDone)
		w.becomes(sdk.Promote, sdk.OutcomeDone)
		conn, err := connect(w.client, ends()[0], 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 { // longer than it takes to find connections
			if err := echo(conn, 5*time.Second); err != nil {
				t.Fatalf("a connection that began after the promotion: %v", err)
			}
			time.Sleep(time.Millisecond)
		}
		conn.Close()
	}
}

// Who is stopped has closed ports when the lease ends; connections of before
// end when either side next sends.
func TestFrozenPluginIsClosedInTime(t *testing.T) {
	t.Parallel()
	const late = 5 * time.Millisecond // see plugins/vip
	w := newTown(t)
	w.becomes(sdk.Demote, sdk.OutcomeDone)
	var margins []time.Duration
	times := 3
	if os.Getenv("DEPUTY_LONG") != "" {
		times = 20
	}
	for range times {
		p := w.transition(sdk.Promote)
		p.LeaseUntil = sdk.Now().Add(950 * time.Millisecond)
		if r := w.do(p); r.Outcome != sdk.OutcomeDone {
			t.Fatalf("promote: got %+v", r)
		}
		conn, err := connect(w.client, ends()[0], 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		until := sdk.Now().Add(950 * time.Millisecond)
		if err := w.hosted.Renew(t.Context(), until); err != nil {
			t.Fatalf("renew: %v", err)
		}
		w.signal(syscall.SIGSTOP)
		all := []*netlab.Exchange{w.client.Ask(ends()[0], 2*time.Millisecond), w.client.Ask(ends()[1], 2*time.Millisecond)}
		time.Sleep(until.Sub(sdk.Now()) + late)
		if _, err := connect(w.client, ends()[0], 5*time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a new connection after the lease: got %v, want %v", err, syscall.ECONNREFUSED)
		}
		if err := echo(conn, 5*time.Second); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a connection of before, after the lease: got %v, want %v", err, syscall.ECONNRESET)
		}
		w.signal(syscall.SIGCONT)
		if err := w.renew(time.Second); !errors.Is(err, sdk.ErrExpired) {
			t.Errorf("renew after the freeze: got %v, want %v", err, sdk.ErrExpired)
		}
		time.Sleep(20 * time.Millisecond)
		for _, x := range all {
			last := netlab.Last(x.End())
			if after := last.Sub(until); last == 0 || after > late {
				t.Errorf("%s: last heard %s after the end of the lease", x.Kind, after)
			}
			margins = append(margins, until.Sub(last))
		}
		w.becomes(sdk.Demote, sdk.OutcomeAlready)
	}
	slices.Sort(margins)
	t.Logf("last heard before the end of the lease by: least %s, median %s, of %d", margins[0], margins[len(margins)/2], len(margins))
}

// A process that comes after one that was killed takes over, or closes.
func TestAfterSIGKILL(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	config := townConfig()
	w.becomes(sdk.Demote, sdk.OutcomeDone)
	w.becomes(sdk.Promote, sdk.OutcomeDone)
	x := w.client.Ask(ends()[0], time.Millisecond)
	for range 3 {
		w.kill()
		w.start()
		w.configure(config)
		w.becomes(sdk.Promote, sdk.OutcomeAlready)
		if err := w.renew(time.Minute); err != nil {
			t.Errorf("renew what was adopted: %v", err)
		}
	}
	// Other settings, and what both let in is let in throughout.
	config["ports"] = append(config["ports"].([]string), "tcp/3307")
	w.configure(config)
	if err := w.renew(time.Minute); err != nil {
		t.Errorf("renew between the settings and the promotion: %v", err)
	}
	w.check(sdk.RolePrimary, false, "of other settings")
	w.becomes(sdk.Promote, sdk.OutcomeDone)
	w.check(sdk.RolePrimary, true, "is open")
	asked := x.End()
	for i, q := range asked {
		if q.Answered == 0 {
			t.Errorf("question %d of %d has no answer", i, len(asked))
			break
		}
	}
	w.kill()
	w.start()
	w.configure(config)
	w.becomes(sdk.Demote, sdk.OutcomeDone)
	if _, err := connect(w.client, node4+":3307", 5*time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a port of the new settings: got %v, want %v", err, syscall.ECONNREFUSED)
	}
}

// A standby whose settings have changed is not fit until the guard of these is
// installed: until then its new ports are open.
func TestOtherSettingsOnAStandby(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	w.becomes(sdk.Demote, sdk.OutcomeDone)
	config := townConfig()
	config["ports"] = append(config["ports"].([]string), "tcp/3307")
	w.configure(config)
	w.check(sdk.RoleStandby, false, "the demotion after a reload")
	w.becomes(sdk.Demote, sdk.OutcomeDone)
	w.check(sdk.RoleStandby, true, "is closed")
	if _, err := connect(w.client, node4+":3307", 5*time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a port of the new settings: got %v, want %v", err, syscall.ECONNREFUSED)
	}
}

// A process that finds the guard closed keeps it so; one that finds none, or
// that of other settings, changes nothing by being configured.
func TestFlushedRulesetAfterSIGKILL(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("this needs nft, to flush")
	}
	w := newTown(t)
	w.becomes(sdk.Demote, sdk.OutcomeDone)
	again := func(config map[string]any) {
		w.kill()
		w.start()
		w.configure(config)
	}
	again(townConfig())
	w.Run("nft", "flush", "ruleset")
	eventually(t, "closed again on a standby", func() bool {
		_, err := connect(w.client, ends()[0], 5*time.Second)
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	w.check(sdk.RoleStandby, true, "is closed")
	// What keeps it closed does not close what is promoted.
	w.becomes(sdk.Promote, sdk.OutcomeDone)
	w.Run("nft", "flush", "ruleset")
	time.Sleep(2 * keepInterval)
	w.check(sdk.RolePrimary, false, "guard is gone")
	if err := w.renew(time.Minute); err != nil {
		t.Errorf("renew after the flush: %v", err)
	}
	w.check(sdk.RolePrimary, true, "is open")

	w.becomes(sdk.Demote, sdk.OutcomeDone)
	w.kill()
	w.Run("nft", "flush", "ruleset")
	w.start()
	w.configure(townConfig())
	time.Sleep(2 * keepInterval)
	w.check(sdk.RoleStandby, false, "guard is gone")

	w.becomes(sdk.Demote, sdk.OutcomeDone)
	config := townConfig()
	config["ports"] = []string{"tcp/3307"}
	w.configure(config)
	w.Run("nft", "flush", "ruleset")
	time.Sleep(2 * keepInterval)
	w.check(sdk.RoleStandby, false, "guard is gone")
}

// Who flushes the rules of the host opens the ports, but not for long.
func TestFlushedRuleset(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("this needs nft, to flush")
	}
	w := newTown(t)
	w.becomes(sdk.Demote, sdk.OutcomeDone)
	w.Run("nft", "flush", "ruleset")
	eventually(t, "closed again on a standby", func() bool {
		_, err := connect(w.client, ends()[0], 5*time.Second)
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	w.check(sdk.RoleStandby, true, "is closed")
	w.becomes(sdk.Promote, sdk.OutcomeDone)
	w.Run("nft", "flush", "ruleset")
	w.check(sdk.RolePrimary, false, "guard is gone")
	if err := w.renew(time.Minute); err != nil {
		t.Errorf("renew after the flush: %v", err)
	}
	w.check(sdk.RolePrimary, true, "is open")
	eventually(t, "both flushes to be told of", func() bool { return strings.Count(w.hosted.Said(), "guard installed again") == 2 })
}
