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

// A Prober asks about services until its Run ends.
type Prober struct {
	every  time.Duration
	client netip.AddrPort
	link   int
	conn   *net.UDPConn // asks through the network, and hears every answer
	door   int          // a packet socket that asks at doors, and receives nothing

	mu     sync.Mutex
	places []*place
	last   Instant // when it last asked
	pauses []pause
}

// A Service is what is asked for at some places, all of which only one node
// answers at a time.
type Service struct {
	prober *Prober
	client *place   // asked through the network, as clients do; nil where nothing is
	doors  []*place // the nodes' own
}

// A place is where questions are put.
type place struct {
	to   netip.AddrPort
	node string           // whose door it is; empty for the network
	mac  net.HardwareAddr // of the door
	track
}

// A pause is a time in which the prober was itself held up.
type pause struct {
	at  Instant
	dur time.Duration
}

// New prepares to ask every so often, from the address client of the network
// interface link. It needs CAP_NET_RAW.
func New(link string, client netip.Addr, every time.Duration) (*Prober, error) {
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
		every: every, link: dev.Index, conn: conn, door: packets,
		client: netip.AddrPortFrom(client, conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()),
	}
	if err := buffer(conn, 4<<20); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// buffer makes room for what arrives while nobody reads, beyond what the system
// allows everybody. It needs CAP_NET_ADMIN in the network's namespace.
func buffer(conn *net.UDPConn, size int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	err = errors.Join(raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size)
	}), err)
	if err != nil {
		return fmt.Errorf("make room for %d bytes: %w", size, err)
	}
	return nil
}

// Close gives up the sockets. Run must have returned, or never been called.
func (p *Prober) Close() error { return errors.Join(p.conn.Close(), unix.Close(p.door)) }

// Service begins to ask for a service at the places that it is told of.
func (p *Prober) Service() *Service { return &Service{prober: p} }

// Ask asks at an address, through the network.
func (s *Service) Ask(at netip.AddrPort) {
	s.prober.mu.Lock()
	defer s.prober.mu.Unlock()
	s.client = &place{to: at}
	s.prober.places = append(s.prober.places, s.client)
}

// Aim asks at an address, at a node's own door.
func (s *Service) Aim(node string, mac net.HardwareAddr, at netip.AddrPort) {
	s.prober.mu.Lock()
	defer s.prober.mu.Unlock()
	for _, d := range s.doors {
		if d.node == node {
			d.mac, d.to = mac, at
			return
		}
	}
	d := &place{to: at, node: node, mac: mac}
	s.doors = append(s.doors, d)
	s.prober.places = append(s.prober.places, d)
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
		all := make([]asked, len(p.places))
		for i, a := range p.places {
			all[i] = asked{a.to, a.mac, spell(i, a.ask(at))}
		}
		p.mu.Unlock()
		for _, q := range all {
			// Nobody there, no route, no carrier: that is what is measured.
			if q.mac == nil {
				_, _ = p.conn.WriteToUDPAddrPort(q.text, q.to)
				continue
			}
			to := &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16([]byte{0x08, 0x00}), Ifindex: p.link, Halen: uint8(len(q.mac))}
			copy(to.Addr[:], q.mac)
			_ = unix.Sendto(p.door, datagram(p.client, q.to, q.text), unix.MSG_DONTWAIT, to)
		}
	}
}

// asked is a question on its way.
type asked struct {
	to   netip.AddrPort
	mac  net.HardwareAddr
	text []byte
}

// questionSize is the length of what is asked: a place and a number in it. An
// answer is the same and a node's name.
const questionSize = 8

func spell(place, number int) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(place))
	return binary.BigEndian.AppendUint32(b, uint32(number))
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
		case n <= questionSize:
			continue
		}
		p.hear(netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), buf[:n], at)
	}
}

func (p *Prober) hear(from netip.AddrPort, answer []byte, at Instant) {
	i, number := int(binary.BigEndian.Uint32(answer)), int(binary.BigEndian.Uint32(answer[4:]))
	p.mu.Lock()
	defer p.mu.Unlock()
	if i < len(p.places) && p.places[i].to == from {
		p.places[i].tell(number, string(answer[questionSize:]), at)
	}
}

// seen is what clients see: what is asked through the network, or else what any
// door answers. The caller has the lock.
func (s *Service) seen() []question {
	if s.client != nil {
		return s.client.asked
	}
	return merge(s.tracks())
}

// tracks are all of a service. The caller has the lock.
func (s *Service) tracks() (all [][]question) {
	if s.client != nil {
		all = append(all, s.client.asked)
	}
	for _, d := range s.doors {
		all = append(all, d.asked)
	}
	return all
}

// Answering returns who gave the newest answer to a client, and how long ago.
func (s *Service) Answering() (node string, ago time.Duration) {
	s.prober.mu.Lock()
	defer s.prober.mu.Unlock()
	places := s.doors
	if s.client != nil {
		places = []*place{s.client}
	}
	newest := question{}
	for _, at := range places {
		if q := at.newest(); q.told > newest.told {
			newest = q
		}
	}
	return newest.by, Now() - newest.told
}

// Outages returns the times since from in which clients got no answer.
func (s *Service) Outages(from Instant) []Outage {
	s.prober.mu.Lock()
	defer s.prober.mu.Unlock()
	return outages(s.seen(), from)
}

// Outage returns how long clients got no answer since from, in all, and how
// many questions that lost.
func (s *Service) Outage(from Instant) (sum time.Duration, lost int) {
	for _, o := range s.Outages(from) {
		sum += o.Dur()
		lost += o.Lost
	}
	return sum, lost
}

// LostUnlike returns how many questions in outages since from had no answer
// although what was asked of control at the same instant had one: a machine that
// has no time for either says nothing about the service.
func (s *Service) LostUnlike(control *Service, from Instant) int {
	s.prober.mu.Lock()
	defer s.prober.mu.Unlock()
	return lostUnlike(s.seen(), control.seen(), from)
}

// Spans returns, in order of time, when each node is proven to have acted since
// from.
func (s *Service) Spans(from Instant) []Span {
	s.prober.mu.Lock()
	defer s.prober.mu.Unlock()
	return spans(s.tracks(), from)
}

// Overlaps returns the proven times since from in which two nodes acted.
func (s *Service) Overlaps(from Instant) []Overlap { return Overlaps(s.Spans(from)) }

// LastAsked returns when the newest question was put that a node has answered
// at its own door; zero for none.
func (s *Service) LastAsked(node string) Instant {
	s.prober.mu.Lock()
	defer s.prober.mu.Unlock()
	for _, d := range s.doors {
		if d.node == node {
			return d.newest().asked
		}
	}
	return 0
}

// Forget drops what was asked before an instant: an hour of it is a lot.
func (p *Prober) Forget(before Instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.places {
		at.forget(before)
	}
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
