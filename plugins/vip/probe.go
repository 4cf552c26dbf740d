package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A conflict is another host that has an address.
type conflict struct {
	addr netip.Addr
	mac  net.Addr
}

func (c *conflict) Error() string {
	return fmt.Sprintf("%s is in use by the host with hardware address %s", c.addr, c.mac)
}

// probe looks for other hosts that have the addresses, and returns a conflict
// for the first that is found.
func probe(ctx context.Context, s probeSettings, l link, addrs []netip.Addr) error {
	found := make(chan error, len(addrs))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, a := range addrs {
		go func() { // all are waited for below
			err := probeOne(ctx, s, l, a)
			if err != nil {
				cancel(err)
			}
			found <- err
		}()
	}
	var first error
	for range addrs {
		var c *conflict
		if err := <-found; first == nil || errors.As(err, &c) {
			first = err
		}
	}
	return first
}

func probeOne(ctx context.Context, s probeSettings, l link, a netip.Addr) error {
	kind, filter := unix.ETH_P_ARP, []bpf.RawInstruction(nil)
	question, to := arpProbe(l.mac, a), broadcast()
	if a.Is6() {
		kind, question, to = unix.ETH_P_IPV6, solicit(a), multicast(solicited(a))
		var err error
		filter, err = bpf.Assemble([]bpf.Instruction{ // ICMPv6 without extension headers
			bpf.LoadAbsolute{Off: 6, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_ICMPV6, SkipFalse: 1},
			bpf.RetConstant{Val: 1 << 16},
			bpf.RetConstant{Val: 0},
		})
		if err != nil {
			return err
		}
	}
	conn, err := packet.Listen(l.netInterface(), packet.Datagram, kind, &packet.Config{Filter: filter})
	if err != nil {
		return fmt.Errorf("probe %s: %w", a, explainRaw(err))
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	b := make([]byte, 1<<12)
	for range s.Count {
		if _, err := conn.WriteTo(question, &packet.Addr{HardwareAddr: to}); err != nil {
			return fmt.Errorf("probe %s: %w", a, err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(s.Interval)); err != nil {
			return fmt.Errorf("probe %s: %w", a, err)
		}
		for {
			if ctx.Err() != nil {
				return fmt.Errorf("probe %s: %w", a, context.Cause(ctx))
			}
			n, from, err := conn.ReadFrom(b)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			} else if err != nil {
				return fmt.Errorf("probe %s: %w", a, err)
			}
			if from.String() == l.mac.String() {
				continue // our own question
			}
			if mac, claims := arpClaim(b[:n], a); a.Is4() && claims && mac.String() != l.mac.String() {
				return &conflict{a, &packet.Addr{HardwareAddr: mac}}
			}
			if a.Is6() && ndClaim(b[:n], a) {
				return &conflict{a, from}
			}
		}
	}
	return nil
}
