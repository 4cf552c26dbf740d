package etcdtest

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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

// inodeOf finds the socket whose own address is remote in /proc/net/tcp, see
// proc_net_tcp in the kernel's documentation.
func inodeOf(remote, local net.Addr) (string, error) {
	a, err := netip.ParseAddrPort(remote.String())
	if err != nil {
		return "", err
	}
	b, err := netip.ParseAddrPort(local.String())
	if err != nil {
		return "", err
	}
	table := "/proc/net/tcp"
	if a.Addr().Is6() {
		table = "/proc/net/tcp6"
	}
	data, err := os.ReadFile(table)
	if err != nil {
		return "", err
	}
	own, peer := procAddr(a), procAddr(b)
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) > 9 && f[1] == own && f[2] == peer && f[9] != "0" {
			return f[9], nil
		}
	}
	return "", fmt.Errorf("find the socket of %v: not in %s", remote, table)
}

// procAddr spells an address as /proc/net/tcp does: each group of four bytes
// in the machine's order, here little-endian.
func procAddr(a netip.AddrPort) string {
	b := a.Addr().AsSlice()
	for i := 0; i < len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	return fmt.Sprintf("%s:%04X", strings.ToUpper(hex.EncodeToString(b)), a.Port())
}
