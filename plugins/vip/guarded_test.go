package main

import (
	"os/exec"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
	"github.com/deputy-ha/deputy/sdk"
)

// A standby that forwards to the primary's address goes on doing so.
func TestStandbyForwards(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	h := l.Host("192.0.2.11/24", "2001:db8::11/64")
	l.Plug(h, "eth1", "198.51.100.11/24", "2001:db8:1::11/64")
	standby := newNode(t, h, "a", both())
	primary := newNode(t, l.Host("192.0.2.12/24", "2001:db8::12/64"), "b", both())
	client := l.Host("198.51.100.1/24", "2001:db8:1::1/64")
	h.Set("net/ipv4/ip_forward", "1")
	h.Set("net/ipv6/conf/all/forwarding", "1")
	primary.Run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.11")
	primary.Run("ip", "route", "add", "2001:db8:1::/64", "via", "2001:db8::11")
	client.Run("ip", "route", "add", "192.0.2.0/24", "via", "198.51.100.11")
	client.Run("ip", "route", "add", "2001:db8::/64", "via", "2001:db8:1::11")
	echoes(primary.Host)
	standby.demote(sdk.OutcomeAlready)
	primary.demote(sdk.OutcomeAlready)
	primary.promote(sdk.OutcomeDone)
	for _, at := range []string{at4, at6} {
		if !reaches(client, at, 10*time.Second) {
			t.Errorf("%s is not reached through the standby", at)
		}
	}
}

// A lease that ends also ends what is translated on its way in, and what the
// host itself sends to the address.
func TestGuardComesBeforeTranslation(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("this needs nft, to translate addresses")
	}
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
	peer := l.Host(peer4 + "/24")
	inside := l.Host("192.0.2.14/24") // what would be a container
	inside.Echo(":7")
	a.Echo(vip4 + ":9")
	a.Set("net/ipv4/ip_forward", "1")
	a.Run("nft", "add table ip t; add chain ip t pre { type nat hook prerouting priority dstnat; }; add rule ip t pre udp dport 7 ip daddr "+vip4+" dnat to 192.0.2.14; "+
		"add chain ip t post { type nat hook postrouting priority srcnat; }; add rule ip t post ip daddr 192.0.2.14 masquerade")
	a.demote(sdk.OutcomeAlready)
	p := a.transition(sdk.Promote)
	p.LeaseUntil = sdk.Now().Add(2 * time.Second)
	if r := a.do(p); r.Outcome != sdk.OutcomeDone {
		t.Fatalf("promote: got %+v", r)
	}
	through, own := peer.Ask(at4, 2*time.Millisecond), a.Ask(vip4+":9", 2*time.Millisecond)
	time.Sleep(p.LeaseUntil.Sub(sdk.Now()) + 100*time.Millisecond)
	a.owns(true)
	for what, x := range map[string]*netlab.Exchange{"what is translated": through, "the host itself": own} {
		last := netlab.Last(x.End())
		if last == 0 {
			t.Errorf("%s: never answered", what)
		} else if after := last.Sub(p.LeaseUntil); after > late {
			t.Errorf("%s: answered %s after the end of the lease", what, after)
		}
	}
}
