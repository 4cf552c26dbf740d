package prober

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Now reads the clock that every instant here is of.
func Now() Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // the clock exists since Linux 2.6.39
	}
	return Instant(ts.Nano())
}

// A Prober asks until its Run ends.
type Prober struct {
	every   time.Duration
	service netip.AddrPort
	client  netip.AddrPort
	link    int
	conn    *net.UDPConn // asks through the network, and hears every answer
	door    int          // a packet socket that asks at doors, and receives nothing

	mu     sync.Mutex
	doors  []door
	tracks []track // 0 is the network's; then one a door
	last   Instant // when it last asked
	pauses []pause
}

// A door is the network interface of a node.
type door struct {
	node string
	mac  net.HardwareAddr
}

// A pause is a time in which the prober was itself held up.
type pause struct {
	at  Instant
	dur time.Duration
}

// New prepares to ask for service every so often, from the address client of
// the network interface link. It needs CAP_NET_RAW.
func New(link string, client netip.Addr, service netip.AddrPort, every time.Duration) (*Prober, error) {
	dev, err := net.InterfaceByName(link)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", link, err)
	}
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(client, 0)))
	if err != nil {
		return nil, fmt.Errorf("open the client's socket: %w", err)
	}
	packets, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a packet socket: %w", err), conn.Close())
	}
	p := &Prober{
		every: every, service: service, link: dev.Index, conn: conn, door: packets,
		client: netip.AddrPortFrom(client, conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()),
		tracks: make([]track, 1),
	}
	return p, conn.SetReadBuffer(4 << 20)
}

// Close gives up the sockets. Run must have returned, or never been called.
func (p *Prober) Close() error { return errors.Join(p.conn.Close(), unix.Close(p.door)) }

// Aim makes the prober ask a node at its own door, too.
func (p *Prober) Aim(node string, mac net.HardwareAddr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, d := range p.doors {
		if d.node == node {
			p.doors[i].mac = mac
			return
		}
	}
	p.doors = append(p.doors, door{node, mac})
	p.tracks = append(p.tracks, nil)
}

// Run asks and listens until ctx ends.
func (p *Prober) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.ask(ctx) })
	g.Go(func() error { return p.listen(ctx) })
	return g.Wait()
}

// first lets the calling goroutine go before others, as far as it may, until
// what it returns is called: a prober that is held up takes that for an outage.
func first() (undo func()) {
	runtime.LockOSThread()
	if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -20); err != nil {
		return runtime.UnlockOSThread
	}
	return func() {
		_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 0)
		runtime.UnlockOSThread()
	}
}

func (p *Prober) ask(ctx context.Context) error {
	defer first()()
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		p.mu.Lock()
		at := Now()
		if d := at - p.last; p.last != 0 && d > 2*p.every {
			p.pauses = append(p.pauses, pause{at, d})
		}
		p.last = at
		doors := p.doors
		questions := make([][]byte, len(p.tracks))
		for i := range p.tracks {
			questions[i] = spell(i, len(p.tracks[i]))
			p.tracks[i] = append(p.tracks[i], question{asked: at})
		}
		p.mu.Unlock()
		// Nobody there, no route, no carrier: that is what is measured.
		_, _ = p.conn.WriteToUDPAddrPort(questions[0], p.service)
		for i, d := range doors {
			to := &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16([]byte{0x08, 0x00}), Ifindex: p.link, Halen: uint8(len(d.mac))}
			copy(to.Addr[:], d.mac)
			_ = unix.Sendto(p.door, datagram(p.client, p.service, questions[1+i]), unix.MSG_DONTWAIT, to)
		}
	}
}

// questionSize is the length of what is asked: a track and a place in it. An
// answer is the same and a node's name.
const questionSize = 8

func spell(track, place int) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(track))
	return binary.BigEndian.AppendUint32(b, uint32(place))
}

func (p *Prober) listen(ctx context.Context) error {
	defer first()()
	defer context.AfterFunc(ctx, func() { _ = p.conn.SetReadDeadline(time.Now()) })()
	buf := make([]byte, 512)
	for {
		n, from, err := p.conn.ReadFromUDPAddrPort(buf)
		at := Now()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("listen for answers: %w", err)
		case netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != p.service || n <= questionSize:
			continue
		}
		p.hear(int(binary.BigEndian.Uint32(buf)), int(binary.BigEndian.Uint32(buf[4:])), string(buf[questionSize:n]), at)
	}
}

func (p *Prober) hear(track, place int, by string, at Instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if track < len(p.tracks) && place < len(p.tracks[track]) {
		if q := &p.tracks[track][place]; q.told == 0 {
			q.told, q.by = at, by
		}
	}
}

// Answering returns who gave the newest answer to a client, and how long ago.
func (p *Prober) Answering() (node string, ago time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tracks[0]
	for i := len(t) - 1; i >= 0; i-- {
		if t[i].told != 0 {
			return t[i].by, Now() - t[i].told
		}
	}
	return "", Now()
}

// Outages returns the times since from in which clients got no answer.
func (p *Prober) Outages(from Instant) []Outage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tracks[0].outages(from)
}

// Outage returns how long clients got no answer since from, in all, and how
// many questions that lost.
func (p *Prober) Outage(from Instant) (sum time.Duration, lost int) {
	for _, o := range p.Outages(from) {
		sum += o.Dur()
		lost += o.Lost
	}
	return sum, lost
}

// Overlaps returns the proven times since from in which two nodes acted.
func (p *Prober) Overlaps(from Instant) []Overlap {
	p.mu.Lock()
	defer p.mu.Unlock()
	return overlaps(p.tracks, from)
}

// LastAsked returns when the newest question was put that a node has answered
// at its own door; zero for none.
func (p *Prober) LastAsked(node string) Instant {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, d := range p.doors {
		if d.node != node {
			continue
		}
		t := p.tracks[1+i]
		for j := len(t) - 1; j >= 0; j-- {
			if t[j].told != 0 {
				return t[j].asked
			}
		}
	}
	return 0
}

// Held returns the longest time since from in which the prober did not ask.
func (p *Prober) Held(from Instant) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	longest := p.every
	for _, pause := range p.pauses {
		if pause.at > from {
			longest = max(longest, pause.dur)
		}
	}
	return longest
}
