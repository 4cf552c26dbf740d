package main

import (
	"errors"
	"io"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
	"github.com/deputy-ha/deputy/sdk"
)

// A demotion ends the connections of the addresses: clients know at once.
func TestConnectionsAreCut(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
	peer := l.Host(peer4+"/24", peer6+"/64")
	echoes(a.Host)
	a.Echo(":9") // a socket of IPv6 that has connections of IPv4, too
	a.demote(sdk.OutcomeAlready)
	for _, mode := range []sdk.Mode{sdk.Planned, sdk.Forced} {
		a.promote(sdk.OutcomeDone)
		var conns []net.Conn
		for _, at := range []string{at4, at6, vip4 + ":9", "[" + vip6 + "]:9"} {
			c, err := peer.Dial(at, 5*time.Second)
			if err != nil {
				t.Fatalf("connect to %s: %v", at, err)
			}
			defer c.Close()
			if _, err := c.Write([]byte{1}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatalf("no echo from %s: %v", at, err)
			}
			conns = append(conns, c)
		}
		own, err := peer.Dial("192.0.2.11:9", 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer own.Close()
		d := a.transition(sdk.Demote)
		d.Mode = mode
		began := time.Now()
		if r := a.do(d); r.Outcome != sdk.OutcomeDone {
			t.Fatalf("demote: got %+v", r)
		}
		for _, c := range conns {
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s demotion: connection to %s: got %v, want %v", mode, c.RemoteAddr(), err, syscall.ECONNRESET)
			}
		}
		t.Logf("%s demotion: %d connections reset within %s", mode, len(conns), time.Since(began).Round(time.Millisecond))
		own.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := own.Write([]byte{1}); err != nil {
			t.Errorf("a connection to an address of the host itself: %v", err)
		}
		if _, err := io.ReadFull(own, make([]byte, 1)); err != nil {
			t.Errorf("a connection to an address of the host itself: %v", err)
		}
		a.eventuallyGone()
	}
}

// A forced demotion keeps its bound, also with connections to cut.
func TestForcedDemotionIsQuick(t *testing.T) {
	times := 20
	if long() > 0 {
		times = 200
	}
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
	peer := l.Host(peer4+"/24", peer6+"/64")
	echoes(a.Host)
	a.demote(sdk.OutcomeAlready)
	var took, heard []time.Duration
	for range times {
		a.promote(sdk.OutcomeDone)
		x := peer.Ask(at4, 500*time.Microsecond)
		for i := range 20 {
			c, err := peer.Dial([]string{at4, at6}[i%2], 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		d := a.transition(sdk.Demote)
		d.Mode, d.Reason, d.LeaseUntil = sdk.Forced, sdk.ReasonLost, 0
		began := sdk.Now()
		if r := a.do(d); r.Outcome != sdk.OutcomeDone {
			t.Fatalf("demote: got %+v", r)
		}
		took = append(took, sdk.Now().Sub(began))
		heard = append(heard, netlab.Last(x.End()).Sub(began))
		a.eventuallyGone()
	}
	report(t, "forced demotion, the call", took)
	report(t, "forced demotion, last answer", heard)
	if took[times/2] > forcedBound {
		t.Errorf("a forced demotion takes %s, its bound is %s", took[times/2], forcedBound)
	}
}

// How long it takes at a peer for the address to answer on another host.
func TestSwitchoverCosts(t *testing.T) {
	times := 20
	if long() > 0 {
		times = 200
	}
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
	b := newNode(t, l.Host("192.0.2.12/24", "2001:db8::12/64"), "b", both())
	peer := l.Host(peer4+"/24", peer6+"/64")
	echoes(a.Host)
	echoes(b.Host)
	a.demote(sdk.OutcomeAlready)
	b.demote(sdk.OutcomeAlready)
	a.promote(sdk.OutcomeDone)
	eventually(t, "an answer", func() bool { return reaches(peer, at4, time.Second) && reaches(peer, at6, time.Second) })
	var demote, silent, promote, answered, without []time.Duration
	for range times {
		x := peer.Ask(at4, 500*time.Microsecond)
		time.Sleep(20 * time.Millisecond)
		t0 := sdk.Now()
		a.demote(sdk.OutcomeDone)
		t1 := sdk.Now()
		b.promote(sdk.OutcomeDone)
		t2 := sdk.Now()
		eventually(t, "an answer", func() bool { return netlab.First(x.Asked(), t1).Answered != 0 })
		asked := x.End()
		first := netlab.First(asked, t1)
		var last sdk.Instant
		for _, q := range asked {
			if q.Sent < t1 && q.Answered != 0 {
				last = q.Sent
			}
		}
		demote, promote = append(demote, t1.Sub(t0)), append(promote, t2.Sub(t1))
		silent, answered = append(silent, last.Sub(t0)), append(answered, first.Answered.Sub(t1))
		without = append(without, first.Sent.Sub(last))
		a, b = b, a
	}
	report(t, "demote, the call", demote)
	report(t, "demote to the last answer", silent)
	report(t, "promote, the call", promote)
	report(t, "promote to the first answer", answered)
	report(t, "without an answer", without)
	// A tenth of a second is ten times what it takes on a machine at rest.
	if median := without[len(without)/2]; median > 100*time.Millisecond {
		t.Errorf("without an answer for %s", median)
	}
}

// report sorts and shows figures.
func report(t *testing.T, what string, took []time.Duration) {
	t.Helper()
	slices.Sort(took)
	at := func(i int) time.Duration { return took[i].Round(10 * time.Microsecond) }
	t.Logf("%-28s median %s, 90%% %s, most %s, of %d", what, at(len(took)/2), at(len(took)*9/10), at(len(took)-1), len(took))
}
