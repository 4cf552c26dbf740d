package main

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
	"github.com/deputy-ha/deputy/sdk"
)

// The kinds of interfaces that addresses are put on. Each has to be announced,
// to answer, and to be silent afterwards, as on a plain one.
func TestKindsOfInterfaces(t *testing.T) {
	t.Parallel()
	for _, k := range []struct {
		name   string
		on     string // the interface
		plugs  int    // how many cables
		make   []string
		peer   []string // at the peer, where its addresses are on another interface
		routed bool     // it has no neighbours
	}{
		{
			name: "bridge", on: "br0", plugs: 1,
			make: []string{"link add br0 type bridge", "link set br0 up", "link set eth0 master br0"},
		},
		{
			name: "macvlan", on: "mac0", plugs: 1,
			make: []string{"link add link eth0 name mac0 type macvlan mode bridge", "link set mac0 up"},
		},
		{
			name: "vlan", on: "eth0.5", plugs: 1,
			make: []string{"link add link eth0 name eth0.5 type vlan id 5", "link set eth0.5 up"},
			peer: []string{"link add link eth0 name eth0.5 type vlan id 5", "link set eth0.5 up"},
		},
		{
			name: "bond", on: "bond0", plugs: 2,
			make: []string{"link add bond0 type bond mode active-backup miimon 10", "link set eth0 down", "link set eth1 down", "link set eth0 master bond0", "link set eth1 master bond0", "link set bond0 up"},
		},
		{
			name: "vlan on a bond", on: "bond0.5", plugs: 2,
			make: []string{"link add bond0 type bond mode active-backup miimon 10", "link set eth0 down", "link set eth1 down", "link set eth0 master bond0", "link set eth1 master bond0", "link set bond0 up", "link add link bond0 name bond0.5 type vlan id 5", "link set bond0.5 up"},
			peer: []string{"link add link eth0 name eth0.5 type vlan id 5", "link set eth0.5 up"},
		},
		{name: "loopback", on: "lo", routed: true},
	} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			l := netlab.New(t)
			h := l.Host()
			if k.plugs == 2 {
				l.Plug(h, "eth1")
			}
			peer := l.Host()
			far := "eth0"
			for _, words := range k.make {
				ipOrSkip(t, h, words)
			}
			for _, words := range k.peer {
				ipOrSkip(t, peer, words)
				far = "eth0.5"
			}
			own := k.on
			if k.routed {
				own = "eth0"
			}
			for _, a := range []string{"192.0.2.11/24", "2001:db8::11/64"} {
				ipOrSkip(t, h, "addr add "+a+" dev "+own+nodad(a))
			}
			for _, a := range []string{peer4 + "/24", peer6 + "/64"} {
				ipOrSkip(t, peer, "addr add "+a+" dev "+far+nodad(a))
			}
			if k.routed { // as a routing daemon would have it
				peer.Run("ip", "route", "add", vip4+"/32", "via", "192.0.2.11")
				peer.Run("ip", "route", "add", vip6+"/128", "via", "2001:db8::11")
			}
			echoes(h)
			a := newNode(t, h, "a", both(func(c map[string]any) { c["interface"] = k.on }))
			eventually(t, "fit", func() bool {
				h, err := a.hosted.Check(t.Context(), sdk.RoleStandby, a.term)
				return err == nil && h.Fit
			})
			a.demote(sdk.OutcomeAlready)
			a.promote(sdk.OutcomeDone)
			for _, at := range []string{at4, at6} {
				if !reaches(peer, at, 5*time.Second) {
					t.Errorf("%s does not answer", at)
				}
			}
			if out := a.Run("ip", "addr", "show", "dev", k.on); !strings.Contains(out, vip4) || !strings.Contains(out, vip6) {
				t.Errorf("%s has: %s", k.on, out)
			}
			a.check(sdk.RolePrimary, true, "on "+k.on)

			// Another cable: the switch and the neighbours have to learn it.
			if k.plugs == 2 {
				first := h.Port
				l.Pull(first)
				for _, at := range []string{at4, at6} {
					if !reaches(peer, at, 5*time.Second) {
						t.Errorf("%s does not answer by the other port", at)
					}
				}
				a.check(sdk.RolePrimary, true, "")
			}
			a.demote(sdk.OutcomeDone)
			for _, at := range []string{at4, at6} {
				if reaches(peer, at, 100*time.Millisecond) {
					t.Errorf("%s answers after the demotion", at)
				}
			}

			// Its port takes no addresses.
			if k.name == "bridge" || k.name == "bond" {
				a.configure(both())
				a.check(sdk.RoleStandby, false, "give the "+k.name+"'s name as interface")
				if r := a.do(a.transition(sdk.Promote)); r.Outcome != sdk.OutcomeUnchanged {
					t.Errorf("promote on a port: got %+v", r)
				}
			}
		})
	}
}

func nodad(addr string) string {
	if strings.Contains(addr, ":") {
		return " nodad"
	}
	return ""
}

// ipOrSkip runs ip, and skips the test if this kernel has no such interfaces.
func ipOrSkip(t *testing.T, h *netlab.Host, line string) {
	t.Helper()
	var out []byte
	err := h.Do(func() (err error) {
		out, err = exec.Command("ip", strings.Fields(line)...).CombinedOutput()
		return err
	})
	if err != nil && strings.Contains(string(out), "Unknown device type") {
		t.Skipf("this kernel cannot: ip %s", line)
	} else if err != nil {
		t.Fatalf("ip %s: %v: %s", line, err, out)
	}
}

// An interface may come late, go, be renamed, or be known by another name.
func TestInterfacesComeAndGo(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both(func(c map[string]any) { c["interface"] = "mac0" }))
	peer := l.Host(peer4+"/24", peer6+"/64")
	echoes(a.Host)
	a.demote(sdk.OutcomeAlready)
	a.check(sdk.RoleStandby, false, "interface mac0 does not exist")
	if r := a.do(a.transition(sdk.Promote)); r.Outcome != sdk.OutcomeUnchanged || !strings.Contains(r.Detail, "does not exist") {
		t.Errorf("promote without the interface: got %+v", r)
	}
	// The host's own addresses are where the interface is.
	plug := func() {
		for _, line := range []string{
			"link add link eth0 name mac0 type macvlan mode bridge", "link set mac0 up",
			"addr flush dev eth0", "addr add 192.0.2.11/24 dev mac0", "addr add 2001:db8::11/64 dev mac0 nodad",
		} {
			ipOrSkip(t, a.Host, line)
		}
	}
	plug()
	eventually(t, "fit", func() bool {
		h, err := a.hosted.Check(t.Context(), sdk.RoleStandby, a.term)
		return err == nil && h.Fit
	})
	a.promote(sdk.OutcomeDone)
	answers := func(when string) {
		t.Helper()
		for _, at := range []string{at4, at6} {
			if !reaches(peer, at, 5*time.Second) {
				t.Errorf("%s does not answer %s", at, when)
			}
		}
	}
	answers("after the promotion")

	// It goes, as with a cable of USB, and comes back while the lease holds.
	a.Run("ip", "link", "del", "mac0")
	a.check(sdk.RolePrimary, false, "interface mac0 does not exist")
	plug()
	eventually(t, "back", func() bool { return a.has(vip4) && a.has(vip6) })
	answers("once its interface is back")
	a.check(sdk.RolePrimary, true, "")

	// It is renamed: that is told, with the cure, and the cure works.
	a.Run("ip", "link", "set", "mac0", "name", "lan0")
	a.check(sdk.RolePrimary, false, "it is called lan0 now")
	a.Run("ip", "link", "property", "add", "dev", "lan0", "altname", "mac0")
	a.check(sdk.RolePrimary, true, "on lan0")
	answers("by its alternative name")
	if err := a.renew(time.Minute); err != nil {
		t.Error(err)
	}
	a.demote(sdk.OutcomeDone)
	a.owns(false)
	long := "enp0s31f6-front-office"
	a.Run("ip", "link", "property", "add", "dev", "lan0", "altname", long)
	a.configure(both(func(c map[string]any) { c["interface"] = long }))
	a.promote(sdk.OutcomeDone)
	a.owns(true)
	a.demote(sdk.OutcomeDone)
}

// The host goes on to speak from its own addresses, unless it is told to speak
// from the one that moves.
func TestSourceAddresses(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
	source := func(to string) string {
		_, after, _ := strings.Cut(a.Run("ip", "route", "get", to), " src ")
		from, _, _ := strings.Cut(after, " ")
		return from
	}
	a.demote(sdk.OutcomeAlready)
	a.promote(sdk.OutcomeDone)
	for to, want := range map[string]string{peer4: "192.0.2.11", peer6: "2001:db8::11", "2001:db8::18": "2001:db8::11"} {
		if got := source(to); got != want {
			t.Errorf("towards %s the host speaks from %s, want %s", to, got, want)
		}
	}
	a.configure(both(func(c map[string]any) { c["deprecated"] = false }))
	a.promote(sdk.OutcomeAlready) // as a supervisor does after a reload
	// RFC 6724, rule 8: the longest prefix in common.
	if got := source("2001:db8::18"); got != vip6 {
		t.Errorf("deprecated = false: the host speaks from %s, want %s", got, vip6)
	}
	a.demote(sdk.OutcomeDone)
}

// Settings of the kernel that do not go with the address are told of.
func TestSysctls(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	for _, c := range []struct{ address, key, value, says string }{
		{vip4, "all/arp_ignore", "2", "arp_ignore = 2"},
		{vip4 + "/24", "eth0/arp_ignore", "8", "arp_ignore = 8"},
		{vip4 + "/24", "all/promote_secondaries", "0", "promote_secondaries = 0"},
		{vip4, "all/promote_secondaries", "0", ""},
		{vip6, "all/arp_ignore", "8", ""},
	} {
		h := l.Host("192.0.2.11/24", "2001:db8::11/64")
		h.Set("net/ipv4/conf/eth0/promote_secondaries", "0")
		h.Set("net/ipv4/conf/all/promote_secondaries", "1")
		h.Set("net/ipv4/conf/"+c.key, c.value)
		n := newNode(t, h, "a", map[string]any{"address": c.address, "interface": "eth0"})
		if c.says != "" {
			eventually(t, c.says, func() bool { return strings.Contains(n.hosted.Said(), c.says) })
			continue
		}
		n.demote(sdk.OutcomeAlready)
		n.check(sdk.RoleStandby, true, "")
		if said := n.hosted.Said(); strings.Contains(said, "is not good") {
			t.Errorf("%s with %s = %s: said %s", c.address, c.key, c.value, said)
		}
	}
}
