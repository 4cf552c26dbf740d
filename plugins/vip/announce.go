package main

import (
	"context"
	"encoding/binary"
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

// A speaker tells neighbours on one interface where addresses are, and hears
// when another host says that it has one. It keeps its sockets, since closing
// them takes the kernel long. Its methods may be called at the same time.
type speaker struct {
	addrs []netip.Addr
	heard func(*conflict) // of another host

	hearing sync.WaitGroup
	mu      sync.Mutex
	closed  bool
	index   int              // of the interface that the sockets are bound to
	mac     net.HardwareAddr // and its own address
	v4      *packet.Conn
	raw     net.PacketConn // v6 is its
	v6      *ipv6.PacketConn
}

func newSpeaker(addrs []netip.Addr, heard func(*conflict)) *speaker {
	return &speaker{addrs: addrs, heard: heard}
}

// open makes ready to speak.
func (s *speaker) open(l link) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.mac = l.mac
	if s.index != l.index {
		s.shut()
		s.index = l.index
	}
	if s.v4 == nil && slices.ContainsFunc(s.addrs, netip.Addr.Is4) {
		claims, err := bpf.Assemble(claimsOf(s.addrs))
		if err != nil {
			return err
		}
		conn, err := packet.Listen(l.netInterface(), packet.Datagram, unix.ETH_P_ARP, &packet.Config{Filter: claims})
		if err != nil {
			return fmt.Errorf("speak ARP on %s: %w", l.name, explainRaw(err))
		}
		s.v4 = conn
		s.hearing.Go(func() { s.hear4(conn) })
	}
	if s.v6 == nil && slices.ContainsFunc(s.addrs, netip.Addr.Is6) {
		raw, err := net.ListenPacket("ip6:ipv6-icmp", "::")
		if err != nil {
			return fmt.Errorf("speak neighbour discovery on %s: %w", l.name, explainRaw(err))
		}
		v6 := ipv6.NewPacketConn(raw)
		var claims ipv6.ICMPFilter
		claims.SetAll(true)
		claims.Accept(ipv6.ICMPTypeNeighborAdvertisement)
		if err := errors.Join(v6.SetICMPFilter(&claims), v6.SetControlMessage(ipv6.FlagInterface, true), v6.SetMulticastLoopback(false), v6.SetMulticastHopLimit(255)); err != nil {
			raw.Close()
			return fmt.Errorf("speak neighbour discovery on %s: %w", l.name, err)
		}
		s.raw, s.v6 = raw, v6
		s.hearing.Go(func() { s.hear6(v6, l.index) })
	}
	return nil
}

// claimsOf is the program that lets ARP packets through by which somebody says
// that an address is its own.
func claimsOf(addrs []netip.Addr) []bpf.Instruction {
	const sender = 14 // offset of who says it
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: sender, Size: 4}}
	for _, a := range addrs {
		if a.Is4() {
			b := a.As4()
			program = append(program,
				bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(b[:]), SkipTrue: 1},
				bpf.RetConstant{Val: 1 << 16})
		}
	}
	return append(program, bpf.RetConstant{Val: 0})
}

// hear4 and hear6 hear what others claim until their socket is closed, or its
// interface is gone.
func (s *speaker) hear4(conn *packet.Conn) {
	b := make([]byte, 64)
	for {
		n, _, err := conn.ReadFrom(b)
		switch {
		case errors.Is(err, unix.ENETDOWN): // told once, and over when the interface is up again
			continue
		case err != nil:
			return
		}
		for _, a := range s.addrs {
			if mac, claims := arpClaim(b[:n], a); a.Is4() && claims {
				s.claimed(a, mac)
			}
		}
	}
}

func (s *speaker) hear6(conn *ipv6.PacketConn, index int) {
	b := make([]byte, 128)
	for {
		n, from, _, err := conn.ReadFrom(b)
		if err != nil {
			return
		}
		if a, mac, ok := advertised(b[:n]); ok && from != nil && from.IfIndex == index && slices.Contains(s.addrs, a) {
			s.claimed(a, mac)
		}
	}
}

func (s *speaker) claimed(a netip.Addr, mac net.HardwareAddr) {
	s.mu.Lock()
	other := mac.String() != s.mac.String()
	s.mu.Unlock()
	if other {
		s.heard(&conflict{a, &packet.Addr{HardwareAddr: mac}})
	}
}

// say announces one address once, in every form. Unlike ARP, advertisements
// pass by the guard, which drops them when it is closed.
func (s *speaker) say(l link, a netip.Addr) error {
	if err := s.open(l); err != nil {
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

// close returns once nothing is heard any more.
func (s *speaker) close() {
	s.mu.Lock()
	s.closed = true
	s.shut()
	s.mu.Unlock()
	s.hearing.Wait()
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
		for s.Count > 0 && s.Refresh > 0 && sleep(ctx, s.Refresh) {
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
