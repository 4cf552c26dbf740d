package etcdtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// clients stands for all clients where a link needs an end.
const clients = -1

// A link is one direction between two members, or between a member and its
// clients.
type link struct{ from, to int }

// Gates hold back what links carry. What is held back is not lost: it arrives
// when the gate opens, as retransmitted segments do.
type gates struct {
	mu      sync.Mutex
	shut    map[link]bool
	changed chan struct{}
}

func newGates() *gates {
	return &gates{shut: make(map[link]bool), changed: make(chan struct{})}
}

func (g *gates) set(shut bool, links ...link) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range links {
		if shut {
			g.shut[l] = true
		} else {
			delete(g.shut, l)
		}
	}
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *gates) isShut(l link) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shut[l]
}

// pass waits until the link is open.
func (g *gates) pass(ctx context.Context, l link) error {
	for {
		g.mu.Lock()
		shut, changed := g.shut[l], g.changed
		g.mu.Unlock()
		if !shut {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// A proxy stands in front of one address of a member. The address it listens
// on stays the same for ever; the one behind it changes when the member
// restarts.
type proxy struct {
	ln    net.Listener
	gates *gates
	to    int // the member behind it
	// from tells who has connected.
	from   func(remote, local net.Addr) (int, error)
	stop   context.CancelCauseFunc
	ctx    context.Context
	wg     sync.WaitGroup
	mu     sync.Mutex
	target string
	conns  map[net.Conn]struct{}
}

var errClosed = errors.New("the cluster is closed")

func newProxy(ip string, to int, g *gates, from func(remote, local net.Addr) (int, error)) (*proxy, error) {
	ln, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		return nil, fmt.Errorf("listen for member %d: %w", to, err)
	}
	p := &proxy{ln: ln, gates: g, to: to, from: from, conns: make(map[net.Conn]struct{})}
	p.ctx, p.stop = context.WithCancelCause(context.Background())
	p.wg.Go(p.accept) // joined by close
	return p, nil
}

func (p *proxy) addr() string { return p.ln.Addr().String() }

func (p *proxy) aim(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

func (p *proxy) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return // closed
		}
		p.wg.Go(func() { p.carry(c) })
	}
}

// carry connects a new connection with the member behind the proxy, and both
// ends when either ends.
func (p *proxy) carry(front net.Conn) {
	defer front.Close()
	if !p.keep(front) {
		return
	}
	defer p.forget(front)
	from, err := p.from(front.RemoteAddr(), front.LocalAddr())
	if err != nil {
		return // whoever it was has gone again
	}
	in, out := link{from, p.to}, link{p.to, from}
	if p.gates.pass(p.ctx, in) != nil || p.gates.pass(p.ctx, out) != nil {
		return
	}
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	back, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer back.Close()
	if !p.keep(back) {
		return
	}
	defer p.forget(back)

	var wg sync.WaitGroup
	wg.Go(func() { p.pump(back, front, in) })
	wg.Go(func() { p.pump(front, back, out) })
	wg.Wait()
}

// pump carries one direction. The end of the connection is held back as well.
func (p *proxy) pump(dst, src net.Conn, l link) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if p.gates.pass(p.ctx, l) != nil {
			return
		}
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *proxy) forget(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *proxy) close() {
	p.mu.Lock()
	p.stop(errClosed)
	p.ln.Close()
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// owner returns the index of the process in pids that holds the other end of
// a connection on this machine. A member does not say who it is on each
// connection that it opens, but the kernel knows.
func owner(remote, local net.Addr, pids []int) (int, error) {
	inode, err := inodeOf(remote, local)
	if err != nil {
		return 0, err
	}
	want := "socket:[" + inode + "]"
	for i, pid := range pids {
		if pid == 0 {
			continue
		}
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			return 0, err
		}
		if slices.ContainsFunc(fds, func(fd string) bool {
			got, err := os.Readlink(fd)
			return err == nil && got == want
		}) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("find the process of %v: none of %v", remote, pids)
}

// inodeOf asks the kernel for the one socket whose own address is remote, see
// sock_diag(7). The table in /proc/net/tcp tells the same, and takes
// milliseconds to read on a machine with much memory.
func inodeOf(remote, local net.Addr) (string, error) {
	a, err := netip.ParseAddrPort(remote.String())
	if err != nil {
		return "", err
	}
	b, err := netip.ParseAddrPort(local.String())
	if err != nil {
		return "", err
	}
	family := byte(unix.AF_INET)
	if a.Addr().Is6() {
		family = unix.AF_INET6
	}
	// struct inet_diag_req_v2, in all states, of any interface and cookie.
	ask := binary.NativeEndian.AppendUint32([]byte{family, unix.IPPROTO_TCP, 0, 0}, ^uint32(0))
	ask = binary.BigEndian.AppendUint16(ask, a.Port())
	ask = binary.BigEndian.AppendUint16(ask, b.Port())
	for _, ip := range []netip.Addr{a.Addr(), b.Addr()} {
		ask = append(ask, ip.AsSlice()...)
		ask = append(ask, make([]byte, 16-ip.BitLen()/8)...)
	}
	ask = append(ask, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, 0)
	req.AddRawData(ask)
	got, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	if err != nil {
		return "", fmt.Errorf("find the socket of %v: %w", remote, err)
	}
	const inode = 68 // in struct inet_diag_msg
	if len(got) != 1 || len(got[0]) < inode+4 {
		return "", fmt.Errorf("find the socket of %v: %d answers", remote, len(got))
	}
	return strconv.FormatUint(uint64(binary.NativeEndian.Uint32(got[0][inode:])), 10), nil
}
