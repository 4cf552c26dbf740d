package prober

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// On loopback a client asks, a node answers, and is silent for a while.
func TestProberHearsWhoAnswers(t *testing.T) {
	free, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	port := free.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	free.Close()
	home := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	p, err := New("lo", home, 2*time.Millisecond)
	if errors.Is(err, unix.EPERM) {
		t.Skip("a packet socket needs CAP_NET_RAW")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	asked := p.Service()
	asked.Ask(netip.AddrPortFrom(home, port))
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return p.Run(ctx) })
	began := Now()
	for _, node := range []string{"n1", "n2"} {
		serving, silence := context.WithCancel(ctx)
		g.Go(func() error { return Answer(serving, node, port, func() {}) })
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			if who, ago := asked.Answering(); who == node && ago < 50*time.Millisecond {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s is not heard", node)
			}
		}
		if node == "n1" {
			silence()
			time.Sleep(30 * time.Millisecond) // the outage that is looked for
		}
		defer silence()
	}
	stop()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	var change Outage
	for _, o := range asked.Outages(began) {
		if o.Before == "n1" && o.After == "n2" {
			change = o
		}
	}
	if change.Dur() < 20*time.Millisecond || change.Lost == 0 {
		t.Errorf("got %v of %v, want one of some 30ms from n1 to n2", change, asked.Outages(began))
	}
	if all := asked.Overlaps(began); len(all) != 0 {
		t.Errorf("one after the other is taken for %v", all)
	}
}
