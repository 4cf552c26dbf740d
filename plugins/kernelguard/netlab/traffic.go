package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
)

// Echo answers UDP and TCP at an address of the host, which need not have it
// yet, until the test is over.
func (h *Host) Echo(at string) {
	h.t.Helper()
	h.Set("net/ipv4/ip_nonlocal_bind", "1")
	h.Set("net/ipv6/ip_nonlocal_bind", "1")
	var udp net.PacketConn
	var tcp net.Listener
	h.Must(func() (err error) {
		if udp, err = net.ListenPacket("udp", at); err != nil {
			return err
		}
		tcp, err = net.Listen("tcp", at)
		return err
	})
	var serving sync.WaitGroup
	serving.Go(func() {
		b := make([]byte, 1<<11)
		for {
			n, from, err := udp.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = udp.WriteTo(b[:n], from)
			}
		}
	})
	serving.Go(func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	h.t.Cleanup(func() {
		udp.Close()
		tcp.Close()
	})
}

// Dial connects from the host by TCP, within a time.
func (h *Host) Dial(to string, within time.Duration) (conn net.Conn, err error) {
	return conn, h.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", to, within)
		return err
	})
}

// A Question is something that was asked of a host, or said by it.
type Question struct {
	Sent     sdk.Instant // read before it was sent
	Answered sdk.Instant // zero: never, or not heard
}

// An Exchange is questions of one kind, one after the other.
type Exchange struct {
	Kind     string
	mu       sync.Mutex
	asked    []Question
	stop     chan struct{}
	sending  sync.WaitGroup
	reading  sync.WaitGroup
	closings []func() error
}

// begin sends each interval, until End. send is given the number of each.
func (x *Exchange) begin(interval time.Duration, send func(i int) error) {
	x.sending.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for i := 0; ; i++ {
			x.mu.Lock()
			x.asked = append(x.asked, Question{Sent: sdk.Now()})
			x.mu.Unlock()
			_ = send(i) // a guard that is closed, say
			select {
			case <-tick.C:
			case <-x.stop:
				return
			}
		}
	})
}

// over reports whether nothing more is asked. Until then an error of reading is
// a refusal that came back.
func (x *Exchange) over() bool {
	select {
	case <-x.stop:
		return true
	default:
		return false
	}
}

// heard notes that question i was answered.
func (x *Exchange) heard(i int) {
	now := sdk.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	if i < len(x.asked) && x.asked[i].Answered == 0 {
		x.asked[i].Answered = now
	}
}

// Asked is what was asked so far.
func (x *Exchange) Asked() []Question {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.asked)
}

// End asks no more, waits for late answers, and returns all.
func (x *Exchange) End() []Question {
	close(x.stop)
	x.sending.Wait()
	time.Sleep(100 * time.Millisecond)
	for _, c := range x.closings {
		_ = c()
	}
	x.reading.Wait()
	return x.Asked()
}

// Last is when the last question that was answered had been sent.
func Last(asked []Question) sdk.Instant {
	for _, q := range slices.Backward(asked) {
		if q.Answered != 0 {
			return q.Sent
		}
	}
	return 0
}

// First is when the first question since an instant was answered, and when it
// had been sent.
func First(asked []Question, since sdk.Instant) Question {
	for _, q := range asked {
		if q.Sent >= since && q.Answered != 0 {
			return q
		}
	}
	return Question{}
}

// Ask has the host ask an echo server by UDP, each interval.
func (h *Host) Ask(to string, interval time.Duration) *Exchange {
	h.t.Helper()
	x := &Exchange{stop: make(chan struct{}), Kind: "udp " + to}
	target := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))
	var conn *net.UDPConn
	h.Must(func() (err error) {
		conn, err = net.ListenUDP("udp", nil)
		return err
	})
	x.closings = append(x.closings, conn.Close)
	x.begin(interval, func(i int) error {
		_, err := conn.WriteTo(binary.BigEndian.AppendUint32(nil, uint32(i)), target)
		return err
	})
	x.reading.Go(func() { x.numbers(conn) })
	return x
}

func (x *Exchange) numbers(conn net.PacketConn) {
	b := make([]byte, 64)
	for {
		n, _, err := conn.ReadFrom(b)
		if err != nil && x.over() {
			return
		}
		if err == nil && n >= 4 {
			x.heard(int(binary.BigEndian.Uint32(b)))
		}
	}
}

// Tell has the host say something to another one by UDP, each interval, from
// an address that need not be its own. What arrives counts as answered.
func (h *Host) Tell(from string, to *Host, at string, interval time.Duration) *Exchange {
	h.t.Helper()
	x := &Exchange{stop: make(chan struct{}), Kind: "from " + from}
	h.Set("net/ipv4/ip_nonlocal_bind", "1")
	h.Set("net/ipv6/ip_nonlocal_bind", "1")
	var out, in net.PacketConn
	h.Must(func() (err error) {
		out, err = net.ListenPacket("udp", from)
		return err
	})
	to.Must(func() (err error) {
		in, err = net.ListenPacket("udp", at)
		return err
	})
	x.closings = append(x.closings, out.Close, in.Close)
	target := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at))
	x.begin(interval, func(i int) error {
		_, err := out.WriteTo(binary.BigEndian.AppendUint32(nil, uint32(i)), target)
		return err
	})
	x.reading.Go(func() { x.numbers(in) })
	return x
}

// AskNeighbour asks for an address by ARP or neighbour solicitation, each
// interval, in the name of a different host each time, so that every answer is
// told from others. prefix is that of those hosts.
func (h *Host) AskNeighbour(a netip.Addr, prefix netip.Prefix, interval time.Duration) *Exchange {
	h.t.Helper()
	x := &Exchange{stop: make(chan struct{}), Kind: "neighbour " + a.String()}
	kind := unix.ETH_P_ARP
	if a.Is6() {
		kind = unix.ETH_P_IPV6
	}
	var conn *packet.Conn
	h.Must(func() error {
		ifi, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		conn, err = packet.Listen(ifi, packet.Datagram, kind, nil)
		return err
	})
	x.closings = append(x.closings, conn.Close)
	x.reading.Go(func() {
		b := make([]byte, 1<<11)
		for {
			n, _, err := conn.ReadFrom(b)
			if err != nil && x.over() {
				return
			}
			if err == nil {
				if i, ok := answered(b[:n], a); ok {
					x.heard(x.latest(i))
				}
			}
		}
	})
	x.begin(interval, func(i int) error {
		b, to := solicit(h.MAC, alias(prefix, i), a), net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		if a.Is6() {
			last := a.As16()
			to = net.HardwareAddr{0x33, 0x33, 0xff, last[13], last[14], last[15]}
		}
		_, err := conn.WriteTo(b, &packet.Addr{HardwareAddr: to})
		return err
	})
	return x
}

// There are only so many names, used again and again: whoever is asked remembers
// each, and the kernel's memory for neighbours (gc_thresh3) is one for all
// namespaces.
const names, firstName = 60, 100

// alias is the name under which question i is asked.
func alias(prefix netip.Prefix, i int) netip.Addr {
	b := prefix.Addr().AsSlice()
	b[len(b)-1] = byte(firstName + i%names)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// latest is the latest question asked under the i-th name.
func (x *Exchange) latest(i int) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := len(x.asked) - 1
	return n - ((n-i)%names+names)%names
}

// answered is the number of the name that is told where an address is.
func answered(b []byte, a netip.Addr) (int, bool) {
	from, told := netip.Addr{}, byte(0)
	switch {
	case a.Is4() && len(b) >= 28 && b[7] == 2:
		from, _ = netip.AddrFromSlice(b[14:18])
		told = b[27]
	case a.Is6() && len(b) >= 64 && b[6] == 58 && b[40] == 136:
		from, _ = netip.AddrFromSlice(b[48:64])
		told = b[39]
	}
	return int(told) - firstName, from == a && told >= firstName && int(told) < firstName+names
}

// solicit is a question for an address: an ARP request or an IPv6 packet.
func solicit(mac net.HardwareAddr, from, a netip.Addr) []byte {
	if a.Is4() {
		b := append([]byte{0, 1, 8, 0, 6, 4, 0, 1}, mac...)
		b = append(append(b, from.AsSlice()...), make([]byte, 6)...)
		return append(b, a.AsSlice()...)
	}
	icmp := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, a.AsSlice()...)
	icmp = append(append(icmp, 1, 1), mac...)
	last := a.As16()
	group := netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: last[13], 14: last[14], 15: last[15]})
	pseudo := append(append(from.AsSlice(), group.AsSlice()...), 0, 0, 0, byte(len(icmp)), 0, 0, 0, 58)
	var sum uint32
	for b := append(pseudo, icmp...); len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(icmp[2:], ^uint16(sum>>16+sum))
	b := []byte{0x60, 0, 0, 0, 0, byte(len(icmp)), 58, 255}
	return append(append(append(b, from.AsSlice()...), group.AsSlice()...), icmp...)
}

// Neighbour is where the host believes another one to be, and how sure it is.
// Nothing when it does not know.
func (h *Host) Neighbour(a string) string {
	h.t.Helper()
	out := h.Run("ip", "neigh", "show", "to", a, "dev", device)
	var addr, lladdr, mac, state string
	_, _ = fmt.Sscan(out, &addr, &lladdr, &mac, &state)
	if lladdr != "lladdr" {
		return ""
	}
	return mac + " " + state
}

// Knows tells the host for good where another one is.
func (h *Host) Knows(a string, mac net.HardwareAddr) {
	h.t.Helper()
	h.Run("ip", "neigh", "replace", a, "lladdr", mac.String(), "nud", "permanent", "dev", device)
}
