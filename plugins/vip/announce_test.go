package main

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
	"github.com/deputy-ha/deputy/sdk"
)

// A neighbour that is sure where the address is learns at once that it moved.
func TestNeighboursLearnAtOnce(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
	b := newNode(t, l.Host("192.0.2.12/24", "2001:db8::12/64"), "b", both())
	peer := l.Host(peer4+"/24", peer6+"/64")
	echoes(a.Host)
	echoes(b.Host)
	a.demote(sdk.OutcomeAlready)
	b.demote(sdk.OutcomeAlready)
	a.promote(sdk.OutcomeDone)
	for range 3 {
		for _, addr := range []string{vip4, vip6} {
			peer.Run("ip", "neigh", "replace", addr, "lladdr", a.MAC.String(), "nud", "reachable", "dev", "eth0")
		}
		a.demote(sdk.OutcomeDone)
		for _, addr := range []string{vip4, vip6} {
			if got, want := peer.Neighbour(addr), a.MAC.String()+" REACHABLE"; got != want {
				t.Fatalf("before the promotion the peer has %s at %q, want %q", addr, got, want)
			}
		}
		b.promote(sdk.OutcomeDone)
		for _, addr := range []string{vip4, vip6} { // as soon as the promotion is over
			if got := peer.Neighbour(addr); !strings.HasPrefix(got, b.MAC.String()) {
				t.Errorf("after the promotion of %s the peer has %s at %q, want %s", b.name, addr, got, b.MAC)
			}
		}
		for _, at := range []string{at4, at6} {
			if !reaches(peer, at, 5*time.Second) {
				t.Errorf("the peer does not reach %s on %s", at, b.name)
			}
		}
		a, b = b, a
	}
}

// Neither of both forms is said by one whose lease is over, nor by one that has
// demoted.
func TestAnnouncementsEnd(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	quick := both(func(c map[string]any) {
		c["announce"] = map[string]any{"count": 100, "interval": "10ms", "repeat": []string{}}
	})
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", quick)
	peer := l.Host(peer4+"/24", peer6+"/64")
	elsewhere := "02:00:00:00:00:99"
	learns := func(addr string) bool {
		peer.Run("ip", "neigh", "replace", addr, "lladdr", elsewhere, "nud", "reachable", "dev", "eth0")
		for end := time.Now().Add(150 * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if !strings.HasPrefix(peer.Neighbour(addr), elsewhere) {
				return true
			}
		}
		return false
	}
	p := a.transition(sdk.Promote)
	p.LeaseUntil = sdk.Now().Add(500 * time.Millisecond)
	a.demote(sdk.OutcomeAlready)
	if r := a.do(p); r.Outcome != sdk.OutcomeDone {
		t.Fatalf("promote: got %+v", r)
	}
	if !learns(vip4) {
		t.Error("nothing is announced after the promotion")
	}
	time.Sleep(p.LeaseUntil.Sub(sdk.Now()))
	for _, addr := range []string{vip4, vip6} {
		if learns(addr) {
			t.Errorf("%s is announced although the lease is over", addr)
		}
	}
	a.promote(sdk.OutcomeDone)
	if !learns(vip6) {
		t.Error("nothing is announced after the second promotion")
	}
	a.demote(sdk.OutcomeDone)
	for _, addr := range []string{vip4, vip6} {
		if learns(addr) {
			t.Errorf("%s is announced after the demotion", addr)
		}
	}
}

func TestAnnouncementsInTime(t *testing.T) {
	s := announceSettings{Count: 5, Interval: 200 * time.Millisecond, Repeat: []time.Duration{time.Second, 5 * time.Second}}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var at []time.Duration
		a := announce(s, func() { at = append(at, time.Since(began)) })
		<-a.over
		a.end()
		var want []time.Duration
		for _, ms := range []int64{200, 400, 600, 800, 1000, 5000} {
			want = append(want, time.Duration(ms)*time.Millisecond)
		}
		if diff := cmp.Diff(want, at); diff != "" {
			t.Errorf("announcements after the first one (-want +got):\n%s", diff)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		said := 0
		a := announce(s, func() { said++ })
		time.Sleep(500 * time.Millisecond)
		a.end()
		if said != 2 {
			t.Errorf("%d announcements in 500ms, want 2", said)
		}
		time.Sleep(time.Minute)
		if said != 2 {
			t.Errorf("%d announcements after the end", said-2)
		}
	})
	s.Count = 0
	if due := s.due(); len(due) > 0 {
		t.Errorf("with count = 0 announcements are due at %v", due)
	}
}

// The bytes are those that the standards have.
func TestFrames(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	a, b := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::1:a10")
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"gratuitous request", gratuitous(mac, a)[0], "0001 0800 06 04 0001 020000000001 c000020a 000000000000 c000020a"},
		{"gratuitous reply", gratuitous(mac, a)[1], "0001 0800 06 04 0002 020000000001 c000020a ffffffffffff c000020a"},
		{"probe", arpProbe(mac, a), "0001 0800 06 04 0001 020000000001 00000000 000000000000 c000020a"},
		{"advertisement", advertise(mac, b, false), "88 00 0000 20000000 20010db800000000000000000001 0a10 02 01 020000000001"},
		{"advertisement of a router", advertise(mac, b, true), "88 00 0000 a0000000 20010db800000000000000000001 0a10 02 01 020000000001"},
		{"solicitation", solicit(b), "60000000 0018 3a ff" + strings.Repeat("00", 16) + "ff0200000000000000000001ff010a10" + "87 00 38cd 00000000 20010db800000000000000000001 0a10"},
	} {
		if got, want := fmt.Sprintf("%x", c.got), strings.ReplaceAll(c.want, " ", ""); got != want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, want)
		}
	}
	if got, want := multicast(solicited(b)).String(), "33:33:ff:01:0a:10"; got != want {
		t.Errorf("group of %s: got %s, want %s", b, got, want)
	}
}
