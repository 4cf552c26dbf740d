// Package haproxy tries the example beside it: HAProxy in front of three nodes.
//
// What it guarantees: the example is what was tried, with other addresses, while
// the role was moved and a node was lost. What it does not: anything of HAProxy
// in versions other than the one of this machine.
package haproxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
)

func TestMain(m *testing.M) {
	etcdtest.Main()
	os.Exit(m.Run())
}

// patience is how long anything here may take.
const patience = 30 * time.Second

// A lab is HAProxy in front of three nodes, and etcd behind them.
type lab struct {
	*testing.T
	dir, deputy             string
	servicePort, healthPort string
	primaryFront, readFront string
	nodes                   []*node
}

// A node has a supervisor, its HTTP, and a server that says whose it is.
type node struct {
	*lab
	name, addr string
	run, http  *exec.Cmd

	server net.Listener
	mu     sync.Mutex
	conns  map[net.Conn]bool
	wg     sync.WaitGroup
}

func newLab(t *testing.T) *lab {
	haproxy, err := exec.LookPath("haproxy")
	if err != nil {
		haproxy, err = exec.LookPath("/usr/sbin/haproxy")
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("haproxy is not installed")
		}
		t.Skip("haproxy is not installed")
	}
	short, err := os.MkdirTemp("", "h") // paths of sockets have to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	etcd := etcdtest.StartT(t, etcdtest.Options{Members: 1, NoFsync: true, Direct: true})
	l := &lab{T: t, dir: short, deputy: filepath.Join(short, "deputy")}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", l.deputy, "../../supervisor/deputy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build deputy: %v\n%s", err, out)
	}
	l.servicePort, l.healthPort = l.freePort(), l.freePort()
	l.primaryFront, l.readFront = "127.0.0.1:"+l.freePort(), "127.0.0.1:"+l.freePort()
	for i := range 3 {
		n := &node{lab: l, name: fmt.Sprintf("db%d", i+1), addr: fmt.Sprintf("127.0.0.%d", 11+i), conns: map[net.Conn]bool{}}
		l.nodes = append(l.nodes, n)
		n.prepare(etcd.Endpoints()[0])
		n.serve()
		n.http = n.start("http")
		n.run = n.start("run")
		t.Cleanup(n.lose)
	}

	example, err := os.ReadFile("haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(haproxy, "-c", "-f", "haproxy.cfg").CombinedOutput(); err != nil {
		t.Errorf("haproxy -c: %v\n%s", err, out)
	}
	config := strings.NewReplacer(
		"bind :3306", "bind "+l.primaryFront, "bind :3307", "bind "+l.readFront,
		"192.0.2.", "127.0.0.", ":3306", ":"+l.servicePort, "port 7420", "port "+l.healthPort,
	).Replace(string(example))
	file := filepath.Join(l.dir, "haproxy.cfg")
	l.write(file, config, 0o644)
	balancer := l.command(haproxy, "-db", "-f", file)
	if err := balancer.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(balancer, syscall.SIGTERM) })
	return l
}

func (l *lab) write(file, text string, mode os.FileMode) {
	l.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		l.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		l.Fatal(err)
	}
}

// command is a program that ends with this one, and logs beside the rest.
func (l *lab) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	log, err := os.OpenFile(filepath.Join(l.dir, filepath.Base(program)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		if l.Failed() {
			text, _ := os.ReadFile(log.Name())
			l.Logf("%s:\n%s", log.Name(), text)
		}
		log.Close()
	})
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// end ends a program, if it runs, and waits for it.
func end(cmd *exec.Cmd, by syscall.Signal) {
	if cmd != nil && cmd.ProcessState == nil {
		cmd.Process.Signal(by)
		cmd.Wait()
	}
}

// freePort is a port at which nobody listens on this machine at this moment.
func (l *lab) freePort() string {
	listener, err := net.Listen("tcp", ":0")
	if err != nil {
		l.Fatal(err)
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		l.Fatal(err)
	}
	return port
}

func (n *node) path(name string) string { return filepath.Join(n.dir, n.name, name) }

func (n *node) prepare(etcd string) {
	n.write(n.path("deputy.toml"), fmt.Sprintf("node = %q\naddress = %q\n[etcd]\nendpoints = [%q]\n[http]\nlisten = %q\n",
		n.name, n.addr, etcd, net.JoinHostPort(n.addr, n.healthPort)), 0o644)
	n.write(n.path("hook"), "#!/bin/sh\ncase $1 in up) : >\"$2\" ;; *) rm -f \"$2\" ;; esac\n", 0o755)
	hook := func(what string) string { return fmt.Sprintf("[%q, %q, %q]", n.path("hook"), what, n.path("role")) }
	n.write(n.path("services.d/orders-db.toml"), fmt.Sprintf("ttl = \"1s\"\n[[plugin]]\nuse = \"exec\"\nconfig = { promote = %s, demote = %s }\n",
		hook("up"), hook("down")), 0o644)
}

func (n *node) deputyCommand(args ...string) *exec.Cmd {
	cmd := n.command(n.deputy, args...)
	cmd.Env = append(os.Environ(), "DEPUTY_CONFIG="+n.path("deputy.toml"), "DEPUTY_SERVICES="+n.path("services.d"),
		"DEPUTY_RUN_DIR="+n.path("run"), "DEPUTY_STATE_DIR="+n.path("state"))
	return cmd
}

func (n *node) start(args ...string) *exec.Cmd {
	cmd := n.deputyCommand(args...)
	if err := cmd.Start(); err != nil {
		n.Fatal(err)
	}
	return cmd
}

// serve says to each who connects whose server this is and in which role, and
// then says everything again. Like many a server it cuts nobody who is connected
// when the role goes: that is for the balancer.
func (n *node) serve() {
	var err error
	if n.server, err = net.Listen("tcp", net.JoinHostPort(n.addr, n.servicePort)); err != nil {
		n.Fatal(err)
	}
	n.wg.Go(func() {
		for {
			c, err := n.server.Accept()
			if err != nil {
				return
			}
			n.mu.Lock()
			n.conns[c] = true
			n.mu.Unlock()
			n.wg.Go(func() {
				defer c.Close()
				role := "standby"
				if _, err := os.Stat(n.path("role")); err == nil {
					role = "primary"
				}
				fmt.Fprintf(c, "%s %s\n", n.name, role)
				for in := bufio.NewReader(c); ; {
					line, err := in.ReadString('\n')
					if err != nil {
						return
					}
					fmt.Fprint(c, line)
				}
			})
		}
	})
}

// lose takes the node away: all of its processes at once.
func (n *node) lose() {
	end(n.run, syscall.SIGKILL)
	end(n.http, syscall.SIGKILL)
	n.server.Close()
	n.mu.Lock()
	for c := range n.conns {
		c.Close()
	}
	n.mu.Unlock()
	n.wg.Wait()
}

// health asks a node as HAProxy does.
func (n *node) health(what string) int {
	req, err := http.NewRequest("OPTIONS", "http://"+net.JoinHostPort(n.addr, n.healthPort)+"/services/orders-db/"+what, nil)
	if err != nil {
		n.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	return res.StatusCode
}

// await waits until ok is true.
func (l *lab) await(what string, ok func() bool) {
	l.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// A client is connected to a server through HAProxy.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	node string
	role string
}

var errCut = errors.New("cut")

// connect connects, and hears who is there.
func connect(front string) (*client, error) {
	conn, err := net.DialTimeout("tcp", front, time.Second)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, in: bufio.NewReader(conn)}
	if err := conn.SetDeadline(time.Now().Add(patience)); err == nil {
		if greeting, err := c.in.ReadString('\n'); err == nil {
			c.node, c.role, _ = strings.Cut(strings.TrimSpace(greeting), " ")
			return c, nil
		}
	}
	conn.Close()
	return nil, errCut
}

// works reports whether the connection is still good.
func (c *client) works() bool {
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return false
	}
	if _, err := fmt.Fprintln(c.conn, "still there?"); err != nil {
		return false
	}
	line, err := c.in.ReadString('\n')
	return err == nil && line == "still there?\n"
}

// A visit is one connection of a writer.
type visit struct {
	node, role string
	from, to   time.Time // what worked first and last
	cut        bool
}

// A writer always has a connection to the primary's port, or tries to.
type writer struct {
	mu     sync.Mutex
	visits []visit
}

func (w *writer) run(ctx context.Context, front string) {
	for ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
		c, err := connect(front)
		if err != nil {
			continue
		}
		now := time.Now()
		w.update(func() { w.visits = append(w.visits, visit{node: c.node, role: c.role, from: now, to: now}) })
		for ctx.Err() == nil {
			works := c.works()
			w.update(func() {
				if last := &w.visits[len(w.visits)-1]; works {
					last.to = time.Now()
				} else {
					last.cut = true
				}
			})
			if !works {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		c.conn.Close()
	}
}

func (w *writer) update(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// last returns the newest visit, and all that there were.
func (w *writer) last() (v visit, all []visit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.visits) > 0 {
		v = w.visits[len(w.visits)-1]
	}
	return v, append(all, w.visits...)
}

// settles waits until the writer is with a primary other than the one named, and
// has been for a while, and returns which. Of what was connected since then, no
// connection to that one was cut.
func (l *lab) settles(w *writer, before string, since time.Time) string {
	l.Helper()
	l.await("the writer is with another primary than "+before, func() bool {
		v, _ := w.last()
		return v.role == "primary" && v.node != before && v.to.Sub(v.from) > time.Second
	})
	v, all := w.last()
	strays := 0
	for _, o := range all[:len(all)-1] {
		switch {
		case o.from.Before(since):
			if o.node == before && o.cut {
				l.Logf("%s was cut off %s after the beginning", o.node, o.to.Sub(since).Round(time.Millisecond))
			}
		case o.node == v.node && o.role == "primary":
			l.Errorf("a connection to the new primary was cut: %+v", o)
		default:
			strays++
		}
	}
	if before != "" {
		l.Logf("from %s to %s: served by the new one %s after the beginning; %d connections went astray", before, v.node, v.from.Sub(since).Round(time.Millisecond), strays)
	}
	return v.node
}

// TestHAProxyFollowsThePrimary moves the role and loses a node behind HAProxy, and
// looks at what that costs clients.
func TestHAProxyFollowsThePrimary(t *testing.T) {
	l := newLab(t)
	byName := map[string]*node{}
	for _, n := range l.nodes {
		byName[n.name] = n
	}
	ctx, stop := context.WithCancel(t.Context())
	w := new(writer)
	var clients sync.WaitGroup
	clients.Go(func() { w.run(ctx, l.primaryFront) })
	defer clients.Wait()
	defer stop()
	first := l.settles(w, "", time.Now().Add(patience)) // HAProxy takes all for up until it has asked them

	// Two who read, each with a standby of its own.
	readers := map[string]*client{}
	l.await("both standbys are read from", func() bool {
		c, err := connect(l.readFront)
		if err != nil {
			return false
		}
		if c.role != "standby" || c.node == first {
			t.Errorf("reads from %s, which is %s", c.node, c.role)
		}
		if readers[c.node] != nil {
			c.conn.Close()
		} else {
			readers[c.node] = c
		}
		return len(readers) == 2
	})

	// deputy http is started again: nobody is cut.
	p := byName[first]
	end(p.http, syscall.SIGTERM)
	p.http = p.start("http")
	before, _ := w.last()
	l.await("the connection has outlived it for a second", func() bool {
		now, _ := w.last()
		if now.cut || !now.from.Equal(before.from) {
			t.Fatalf("a start of deputy http cost a connection: %+v", now)
		}
		return now.to.Sub(before.to) > time.Second
	})

	// The role moves to a standby.
	var second string
	for name := range readers {
		second = name
	}
	began := time.Now()
	move := p.deputyCommand("switchover", "orders-db", "--to", second)
	if err := move.Run(); err != nil {
		t.Fatalf("switchover: %v", err)
	}
	if got := l.settles(w, first, began); got != second {
		t.Errorf("the role went to %s, want %s", got, second)
	}
	for name, r := range readers {
		if !r.works() {
			t.Errorf("who read from %s was cut by a switchover", name)
		}
	}

	// The primary's node is lost.
	began = time.Now()
	byName[second].lose()
	third := l.settles(w, second, began)
	for name, r := range readers {
		if works := r.works(); works != (name != second) {
			t.Errorf("who read from %s: works is %t, and %s is lost", name, works, second)
		}
		r.conn.Close()
	}
	for _, n := range l.nodes {
		want := map[bool]int{true: http.StatusOK, false: http.StatusServiceUnavailable}[n.name == third]
		if n.name == second {
			want = 0
		}
		if got := n.health("primary"); got != want {
			t.Errorf("health of %s: %d, want %d", n.name, got, want)
		}
	}
}
