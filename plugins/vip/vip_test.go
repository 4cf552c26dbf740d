package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
	"github.com/deputy-ha/deputy/sdk"
)

func TestPromoteAndDemote(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
	peer := l.Host(peer4+"/24", peer6+"/64")
	echoes(a.Host)

	a.demote(sdk.OutcomeAlready)
	a.check(sdk.RoleStandby, true, "can come to eth0")
	a.promote(sdk.OutcomeDone)
	a.owns(true)
	for _, at := range []string{at4, at6} {
		if !reaches(peer, at, 5*time.Second) {
			t.Errorf("%s does not answer on the primary", at)
		}
	}
	a.check(sdk.RolePrimary, true, "")
	a.check(sdk.RoleStandby, false, "although this node is standby")
	a.promote(sdk.OutcomeAlready)
	a.demote(sdk.OutcomeDone)
	a.owns(false)
	for _, at := range []string{at4, at6} {
		if reaches(peer, at, 100*time.Millisecond) {
			t.Errorf("%s answers after the demotion", at)
		}
	}
	a.check(sdk.RolePrimary, false, "is not here")
	a.demote(sdk.OutcomeAlready)
	a.promote(sdk.OutcomeDone)
	a.owns(true)
}

func TestPromoteWithoutLease(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24"), "a", both())
	for _, until := range []sdk.Instant{0, sdk.Now(), sdk.Now().Add(-time.Second)} {
		p := a.transition(sdk.Promote)
		p.LeaseUntil = until
		if r := a.do(p); r.Outcome != sdk.OutcomeUnchanged || !r.Refused {
			t.Errorf("promote with a lease until %d: got %+v, want it refused", until, r)
		}
	}
	a.owns(false)
}

// What there is of a primary whose plugin was killed is kept by one that
// promotes again, and taken away by one that demotes.
// A process that starts in the middle of a tenure, in place of one that froze, is
// told of renewals alone. The kernel would remove the addresses after 4 s.
func TestRenewalsAfterSIGKILL(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
	peer := l.Host(peer4+"/24", peer6+"/64")
	echoes(a.Host)
	p := a.transition(sdk.Promote)
	p.LeaseUntil = sdk.Now().Add(2200 * time.Millisecond)
	if r := a.do(p); r.Outcome != sdk.OutcomeDone {
		t.Fatalf("promote: got %+v", r)
	}
	a.kill()
	a.start()
	a.configure(both())
	for began := time.Now(); time.Since(began) < 6*time.Second; time.Sleep(300 * time.Millisecond) {
		if err := a.renew(2200 * time.Millisecond); err != nil {
			t.Fatalf("renew, %s after it was killed: %v", time.Since(began), err)
		}
	}
	a.owns(true)
	a.check(sdk.RolePrimary, true, "")
	if !reaches(peer, at4, time.Second) || !reaches(peer, at6, time.Second) {
		t.Error("nobody answers")
	}
	a.demote(sdk.OutcomeDone)
	a.owns(false)
	if err := a.renew(2200 * time.Millisecond); err != nil {
		t.Errorf("renew what is demoted: %v", err)
	}
	a.owns(false)
}

func TestAfterSIGKILL(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
	peer := l.Host(peer4+"/24", peer6+"/64")
	echoes(a.Host)

	a.demote(sdk.OutcomeAlready)
	a.promote(sdk.OutcomeDone)
	eventually(t, "an answer", func() bool { return reaches(peer, at4, time.Second) && reaches(peer, at6, time.Second) })
	x4, x6 := peer.Ask(at4, time.Millisecond), peer.Ask(at6, time.Millisecond)
	for range 3 {
		a.kill()
		a.owns(true)
		a.start()
		a.configure(both())
		a.promote(sdk.OutcomeAlready)
	}
	for kind, asked := range map[string][]netlab.Question{"IPv4": x4.End(), "IPv6": x6.End()} {
		for i, q := range asked {
			if q.Answered == 0 {
				t.Errorf("%s: question %d of %d has no answer: the adoption was noticed", kind, i, len(asked))
				break
			}
		}
	}
	if err := a.renew(time.Minute); err != nil {
		t.Errorf("renew what was adopted: %v", err)
	}

	a.kill()
	a.start()
	a.configure(both())
	a.demote(sdk.OutcomeDone)
	a.owns(false)

	// Once the guard has closed it is no adoption any more.
	p := a.transition(sdk.Promote)
	p.LeaseUntil = sdk.Now().Add(300 * time.Millisecond)
	if r := a.do(p); r.Outcome != sdk.OutcomeDone {
		t.Fatalf("promote: got %+v", r)
	}
	a.kill()
	time.Sleep(p.LeaseUntil.Sub(sdk.Now()))
	a.owns(true)
	a.start()
	a.configure(both())
	a.check(sdk.RolePrimary, false, "guard has closed")
	a.promote(sdk.OutcomeDone)
	if !reaches(peer, at4, 5*time.Second) {
		t.Error("does not answer after it was promoted afresh")
	}
}

// Addresses of settings of before, and copies of ours elsewhere, go.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	h := l.Host("192.0.2.11/24", "2001:db8::11/64")
	l.Plug(h, "eth1", "198.51.100.11/24")
	a := newNode(t, h, "a", map[string]any{"addresses": []string{"192.0.2.20", "2001:db8::20"}, "interface": "eth0"})
	a.demote(sdk.OutcomeAlready)
	a.promote(sdk.OutcomeDone)
	a.kill()

	a.start()
	a.configure(both())
	a.demote(sdk.OutcomeDone)
	for _, gone := range []string{"192.0.2.20", "2001:db8::20"} {
		if a.has(gone) {
			t.Errorf("%s of the settings of before is still here", gone)
		}
	}

	// Copies with another prefix or on another interface.
	a.promote(sdk.OutcomeDone)
	a.Run("ip", "addr", "add", vip4+"/24", "dev", "eth1")
	a.Run("ip", "addr", "add", vip4+"/25", "dev", "eth0")
	a.check(sdk.RolePrimary, false, "want")
	a.demote(sdk.OutcomeDone)
	a.owns(false)

	// A copy on a standby.
	a.Run("ip", "addr", "add", vip4+"/24", "dev", "eth1")
	a.check(sdk.RoleStandby, false, "although this node is standby")
	a.promote(sdk.OutcomeDone)
	if out := a.Run("ip", "addr", "show", "dev", "eth1"); strings.Contains(out, vip4) {
		t.Errorf("a copy on another interface stays beside the address: %s", out)
	}
}

// Other settings while promoted: what both have stays untouched.
func TestOtherSettingsWhilePromoted(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", map[string]any{"addresses": []string{vip4, "192.0.2.20"}, "interface": "eth0"})
	peer := l.Host(peer4+"/24", peer6+"/64")
	echoes(a.Host)
	a.demote(sdk.OutcomeAlready)
	a.promote(sdk.OutcomeDone)
	eventually(t, "an answer", func() bool { return reaches(peer, at4, time.Second) })
	x := peer.Ask(at4, time.Millisecond)
	a.configure(both())
	if err := a.renew(time.Minute); err != nil {
		t.Errorf("renew between the settings and the promotion: %v", err)
	}
	a.promote(sdk.OutcomeDone)
	a.owns(true)
	if a.has("192.0.2.20") {
		t.Error("an address that only the settings of before have is still here")
	}
	if !reaches(peer, at6, 5*time.Second) {
		t.Error("an address that only the new settings have does not answer")
	}
	lost := 0
	asked := x.End()
	for _, q := range asked {
		if q.Answered == 0 {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d questions for an address that both settings have were not answered", lost, len(asked))
	}
	a.check(sdk.RolePrimary, true, "")

	// Without a guard.
	a.configure(both(func(c map[string]any) { c["guard"] = false }))
	a.promote(sdk.OutcomeDone)
	if out := a.Run("nft", "list", "ruleset"); strings.Contains(out, "deputy") {
		t.Errorf("the guard of the settings of before is still there: %s", out)
	}
	a.owns(true)
	a.demote(sdk.OutcomeDone)
	a.owns(false)
}

// Two services on a node, with names that look alike, and two parts of one.
func TestServicesDoNotDisturbEachOther(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	h := l.Host("192.0.2.11/24")
	peer := l.Host(peer4 + "/24")
	var nodes []*node
	for i, names := range [][2]string{{"a", "b-c"}, {"a-b", "c"}, {"a", "b"}, {"a.b", "c"}} {
		n := newNode(t, h, "a", map[string]any{"address": fmt.Sprintf("192.0.2.%d", 20+i), "interface": "eth0"})
		n.service, n.part = names[0], names[1]
		n.configure(map[string]any{"address": fmt.Sprintf("192.0.2.%d", 20+i), "interface": "eth0"})
		h.Echo(fmt.Sprintf("192.0.2.%d:7", 20+i))
		n.demote(sdk.OutcomeAlready)
		n.promote(sdk.OutcomeDone)
		nodes = append(nodes, n)
	}
	for i, n := range nodes {
		n.demote(sdk.OutcomeDone)
		for j := range nodes {
			at := fmt.Sprintf("192.0.2.%d", 20+j)
			if want := j > i; n.has(at) != want {
				t.Errorf("after %d services were demoted %s is here: %t", i+1, at, !want)
			} else if want && !reaches(peer, at+":7", 5*time.Second) {
				t.Errorf("after %d services were demoted %s does not answer", i+1, at)
			}
		}
	}
}

// The node's own address is not for us.
func TestAddressOfTheHost(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", map[string]any{"addresses": []string{vip4, "192.0.2.11"}, "interface": "eth0"})
	peer := l.Host(peer4 + "/24")
	a.Echo("192.0.2.11:7")
	if r := a.do(a.transition(sdk.Demote)); r.Outcome.OK() || !strings.Contains(r.Detail, "192.0.2.11/24 on eth0 was not added by deputy") {
		t.Errorf("demote with the host's own address: got %+v", r)
	}
	if r := a.do(a.transition(sdk.Promote)); r.Outcome != sdk.OutcomeUnchanged || !r.Refused || !strings.Contains(r.Detail, "ip address del 192.0.2.11/24 dev eth0") {
		t.Errorf("promote with the host's own address: got %+v", r)
	}
	a.check(sdk.RoleCandidate, false, "was not added by deputy")
	if !a.has("192.0.2.11") || !reaches(peer, "192.0.2.11:7", 5*time.Second) {
		t.Error("the host's own address was touched")
	}
}

// What somebody else does between a demotion and the next promotion is seen,
// though little is looked at then.
func TestPromoteAfterOthers(t *testing.T) {
	t.Parallel()
	needs(t, "ip", "nft")
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
	peer := l.Host(peer4+"/24", peer6+"/64")
	echoes(a.Host)
	a.demote(sdk.OutcomeAlready)
	for range 3 {
		a.Run("nft", "flush", "ruleset")
		a.promote(sdk.OutcomeDone)
		a.owns(true)
		a.check(sdk.RolePrimary, true, "")
		if !reaches(peer, at4, 5*time.Second) {
			t.Errorf("%s does not answer on the primary", at4)
		}
		a.demote(sdk.OutcomeDone)
		if reaches(peer, at4, 100*time.Millisecond) {
			t.Errorf("%s answers after the demotion", at4)
		}
	}
	a.Run("ip", "address", "add", "192.0.2.10/32", "dev", "eth0")
	a.promote(sdk.OutcomeDone) // it is guarded, so it is taken for a leftover
	if out := a.Run("ip", "-4", "address", "show", "to", "192.0.2.10"); !strings.Contains(out, "noprefixroute") {
		t.Errorf("not as the plugin adds it, which it would try to mend again and again: %s", out)
	}
	a.check(sdk.RolePrimary, true, "")
	a.demote(sdk.OutcomeDone)
	a.owns(false)
}

func TestCheckLooksAtTheInterface(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
	a.demote(sdk.OutcomeAlready)
	a.check(sdk.RoleStandby, true, "")
	a.SetCarrier(false)
	a.check(sdk.RoleStandby, false, "eth0 has no carrier")
	if r := a.do(a.transition(sdk.Promote)); r.Outcome != sdk.OutcomeUnchanged || !strings.Contains(r.Detail, "no carrier") {
		t.Errorf("promote without a carrier: got %+v", r)
	}
	a.SetCarrier(true)
	eventually(t, "fit again", func() bool {
		h, _ := a.hosted.Check(t.Context(), sdk.RoleStandby, a.term)
		return h.Fit
	})
	a.promote(sdk.OutcomeDone)

	// IPv6 addresses go when the interface goes down, and come back.
	a.Run("ip", "link", "set", "eth0", "down")
	a.check(sdk.RolePrimary, false, "ip link set eth0 up")
	a.Run("ip", "link", "set", "eth0", "up")
	if err := a.renew(time.Minute); err != nil {
		t.Errorf("renew after the interface was down: %v", err)
	}
	a.owns(true)
	a.demote(sdk.OutcomeDone)

	a.Set("net/ipv6/conf/eth0/disable_ipv6", "1")
	a.check(sdk.RoleStandby, false, "sysctl net.ipv6.conf.eth0.disable_ipv6=0")
	if r := a.do(a.transition(sdk.Promote)); r.Outcome != sdk.OutcomeUnchanged || !strings.Contains(r.Detail, "disable_ipv6") {
		t.Errorf("promote without IPv6: got %+v", r)
	}
	a.Run("ip", "link", "set", "eth0", "name", "eth9")
	a.check(sdk.RoleStandby, false, "interface eth0 does not exist")
	a.demote(sdk.OutcomeAlready)
}

// A standby may talk to the address on another host, answer for nothing, and
// learn where it is.
func TestStandbyReachesThePrimary(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
	b := newNode(t, l.Host("192.0.2.12/24", "2001:db8::12/64"), "b", both())
	echoes(a.Host)
	echoes(b.Host)
	a.demote(sdk.OutcomeAlready)
	b.demote(sdk.OutcomeAlready)
	for range 2 {
		a.promote(sdk.OutcomeDone)
		for _, at := range []string{at4, at6} {
			if !reaches(b.Host, at, 5*time.Second) {
				t.Fatalf("standby %s does not reach %s on %s", b.name, at, a.name)
			}
			if !reaches(a.Host, at, 5*time.Second) {
				t.Fatalf("%s does not reach %s on itself", a.name, at)
			}
		}
		a.demote(sdk.OutcomeDone)
		a, b = b, a
	}
}

// Renewals come beside a promotion, also right before it: the supervisor marks
// the part, then calls. They do not judge what the promotion brings up.
func TestRenewalsBesideThePromotion(t *testing.T) {
	l := netlab.New(t)
	n := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
	n.demote(sdk.OutcomeAlready)
	for i := range 30 {
		renewed := make(chan error, 1)
		go func() { renewed <- n.renew(time.Minute) }()
		time.Sleep(time.Duration(i) * 200 * time.Microsecond)
		n.promote(sdk.OutcomeDone)
		if err := <-renewed; err != nil {
			t.Errorf("renew: %v", err)
		}
		n.owns(true)
		if err := n.renew(time.Minute); err != nil {
			t.Errorf("renew after the promotion: %v", err)
		}
		n.check(sdk.RolePrimary, true, "")
		n.demote(sdk.OutcomeDone)
	}
}
