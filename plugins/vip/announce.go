package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// A speaker tells neighbours on one interface where addresses are. It keeps
// its sockets, since closing them takes the kernel long. Its methods may be
// called at the same time.
type speaker struct {
	mu    sync.Mutex
	index int // of the interface that the sockets are bound to
	v4    *packet.Conn
	raw   net.PacketConn // v6 is its
	v6    *ipv6.PacketConn
}

// open makes ready to speak for addresses.
func (s *speaker) open(l link, addrs []netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index != l.index {
		s.shut()
		s.index = l.index
	}
	if s.v4 == nil && slices.ContainsFunc(addrs, netip.Addr.Is4) {
		deaf, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
		if err != nil {
			return err
		}
		if s.v4, err = packet.Listen(l.netInterface(), packet.Datagram, unix.ETH_P_ARP, &packet.Config{Filter: deaf}); err != nil {
			s.v4 = nil
			return fmt.Errorf("speak ARP on %s: %w", l.name, explainRaw(err))
		}
	}
	if s.v6 == nil && slices.ContainsFunc(addrs, netip.Addr.Is6) {
		raw, err := net.ListenPacket("ip6:ipv6-icmp", "::")
		if err != nil {
			return fmt.Errorf("speak neighbour discovery on %s: %w", l.name, explainRaw(err))
		}
		v6 := ipv6.NewPacketConn(raw)
		var none ipv6.ICMPFilter
		none.SetAll(true)
		if err := errors.Join(v6.SetICMPFilter(&none), v6.SetMulticastLoopback(false), v6.SetMulticastHopLimit(255)); err != nil {
			raw.Close()
			return fmt.Errorf("speak neighbour discovery on %s: %w", l.name, err)
		}
		s.raw, s.v6 = raw, v6
	}
	return nil
}

// say announces one address once, in every form. Unlike ARP, advertisements
// pass by the guard, which drops them when it is closed.
func (s *speaker) say(l link, a netip.Addr) error {
	if err := s.open(l, []netip.Addr{a}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.v4 == nil && a.Is4() || s.v6 == nil && a.Is6() {
		return os.ErrClosed
	}
	if a.Is6() {
		from := &ipv6.ControlMessage{HopLimit: 255, Src: a.AsSlice(), IfIndex: l.index}
		everybody := &net.IPAddr{IP: net.IPv6linklocalallnodes, Zone: strconv.Itoa(l.index)}
		if _, err := s.v6.WriteTo(advertise(l.mac, a, routes(l)), from, everybody); err != nil {
			return fmt.Errorf("advertise %s: %w", a, err)
		}
		return nil
	}
	for _, b := range gratuitous(l.mac, a) {
		if _, err := s.v4.WriteTo(b, &packet.Addr{HardwareAddr: broadcast()}); err != nil {
			return fmt.Errorf("announce %s: %w", a, err)
		}
	}
	return nil
}

// routes reports whether the host forwards what comes in by an interface, as
// its advertisements have to tell.
func routes(l link) bool {
	said, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + l.name + "/forwarding")
	return err == nil && len(said) > 0 && said[0] == '1'
}

func (s *speaker) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut()
}

func (s *speaker) shut() {
	if s.v4 != nil {
		s.v4.Close()
		s.v4 = nil
	}
	if s.raw != nil {
		s.raw.Close()
		s.raw, s.v6 = nil, nil
	}
}

func explainRaw(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: announcing needs CAP_NET_RAW: %s", err, cure("CAP_NET_RAW"))
	}
	return err
}

// announce begins to have each said that is due after the first one.
func announce(s announceSettings, say func()) *background {
	began := time.Now()
	return begin(func(ctx context.Context) {
		for _, after := range s.due() {
			if !sleep(ctx, time.Until(began.Add(after))) {
				return
			}
			say()
		}
	})
}

// due is when announcements follow the first one.
func (s announceSettings) due() []time.Duration {
	var all []time.Duration
	if s.Count == 0 {
		return nil
	}
	for i := 1; i < s.Count; i++ {
		all = append(all, time.Duration(i)*s.Interval)
	}
	all = append(all, s.Repeat...)
	slices.Sort(all)
	return all
}
