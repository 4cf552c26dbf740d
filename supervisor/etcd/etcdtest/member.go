package etcdtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Member is one process of a cluster.
type Member struct {
	c            *Cluster
	index        int
	name         string
	peer, client string // the addresses that others know
	peerProxy    *proxy // nil in a direct cluster
	clientProxy  *proxy

	life sync.Mutex // serialises starting and killing
	mu   sync.Mutex
	run  *run // nil when the process has never been started, or was killed
}

// A run is one process from its start to its end.
type run struct {
	cmd     *exec.Cmd
	stdin   io.Closer // the member's lifeline
	tail    *tail
	ready   chan struct{}
	ended   chan struct{} // closed when the process is gone and has been waited for
	stopped bool          // by SIGSTOP
	last    report
}

func newMember(c *Cluster, i int) (*Member, error) {
	m := &Member{c: c, index: i, name: fmt.Sprintf("m%d", i)}
	ip := c.ip(i)
	if c.opts.Direct {
		var err error
		if m.peer, err = freeAddr(ip); err != nil {
			return nil, err
		}
		if m.client, err = freeAddr(ip); err != nil {
			return nil, err
		}
		return m, nil
	}
	var err error
	m.peerProxy, err = newProxy(ip, i, c.gates, func(remote, local net.Addr) (int, error) {
		return owner(remote, local, c.pids())
	})
	if err != nil {
		return nil, err
	}
	m.clientProxy, err = newProxy(ip, i, c.gates, func(net.Addr, net.Addr) (int, error) {
		return clients, nil
	})
	if err != nil {
		m.peerProxy.close()
		return nil, err
	}
	m.peer, m.client = m.peerProxy.addr(), m.clientProxy.addr()
	return m, nil
}

func (m *Member) proxies() []*proxy {
	if m.c.opts.Direct {
		return nil
	}
	return []*proxy{m.peerProxy, m.clientProxy}
}

// Endpoint is the member's client URL.
func (m *Member) Endpoint() string { return m.c.scheme() + m.client }

func (m *Member) peerURL() string { return "http://" + m.peer }

// Pid is the process of the member; 0 when it does not run.
func (m *Member) Pid() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.run == nil {
		return 0
	}
	return m.run.cmd.Process.Pid
}

// Kill ends the member by SIGKILL and returns when it is gone. It may be
// called again.
func (m *Member) Kill() {
	m.life.Lock()
	defer m.life.Unlock()
	m.kill()
}

func (m *Member) kill() {
	m.mu.Lock()
	r := m.run
	m.run = nil
	m.mu.Unlock()
	if r == nil {
		return
	}
	r.cmd.Process.Kill() // fails only when it has ended by itself
	<-r.ended
	r.stdin.Close()
	m.c.notify()
}

// Stop stops the member by SIGSTOP: its connections stay, and nothing answers.
func (m *Member) Stop() error { return m.signal(syscall.SIGSTOP) }

// Continue lets a stopped member go on as though nothing had happened.
func (m *Member) Continue() error { return m.signal(syscall.SIGCONT) }

func (m *Member) signal(s syscall.Signal) error {
	m.mu.Lock()
	r := m.run
	if r != nil {
		r.stopped = s == syscall.SIGSTOP
	}
	m.mu.Unlock()
	if r == nil {
		return fmt.Errorf("signal etcd member %s: it does not run", m.name)
	}
	if err := r.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("signal etcd member %s: %w", m.name, err)
	}
	m.c.notify()
	return nil
}

// Restart kills the member if it runs, starts it with the data it has, and
// returns when it serves clients. For that, most members must run.
func (m *Member) Restart(ctx context.Context) error {
	var err error
	for range tries {
		var r *run
		if r, err = m.start(); err != nil {
			return err
		}
		if err = m.await(ctx, r); !errors.Is(err, errClash) {
			return err
		}
	}
	return err
}

// await waits until the process serves clients.
func (m *Member) await(ctx context.Context, r *run) error {
	select {
	case <-r.ready:
		return nil
	case <-r.ended:
		return r.failure(m.name)
	case <-ctx.Done():
		return fmt.Errorf("wait for etcd member %s: %w: %s", m.name, context.Cause(ctx), r.tail)
	}
}

func (m *Member) start() (*run, error) {
	m.life.Lock()
	defer m.life.Unlock()
	m.kill()

	peer, client := m.peer, m.client
	if !m.c.opts.Direct {
		var err error
		if peer, err = freeAddr(m.c.ip(m.index)); err != nil {
			return nil, err
		}
		if client, err = freeAddr(m.c.ip(m.index)); err != nil {
			return nil, err
		}
		m.peerProxy.aim(peer)
		m.clientProxy.aim(client)
	}
	o := m.c.opts
	env, err := json.Marshal(spec{
		Name:          m.name,
		Dir:           m.c.dataDir(m.index),
		ListenPeer:    "http://" + peer,
		ListenClient:  m.c.scheme() + client,
		AdvertisePeer: m.peerURL(),
		Advertise:     m.Endpoint(),
		Initial:       m.c.initial(),
		Token:         m.c.token,
		HeartbeatMS:   uint(o.Heartbeat.Milliseconds()),
		ElectionMS:    uint(o.Election.Milliseconds()),
		NoFsync:       o.NoFsync,
		Quota:         o.Quota,
		Auth:          o.Auth,
		AuthTTL:       uint(o.AuthTTL / time.Second),
		Compact:       o.Compact,
		LogLevel:      o.LogLevel,
		TLS:           o.TLS,
	})
	if err != nil {
		return nil, err
	}

	r := &run{tail: &tail{to: o.Log}, ready: make(chan struct{}), ended: make(chan struct{})}
	r.cmd = exec.Command("/proc/self/exe")
	r.cmd.Args[0] = "etcdtest-" + m.name
	r.cmd.Env = append(os.Environ(), memberEnv+"="+string(env))
	r.cmd.Stderr = r.tail
	// A process group of its own: ^C is for us. And a member that is stopped
	// when we die gets SIGHUP with SIGCONT from the kernel, as its group is
	// orphaned then.
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if r.stdin, err = r.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start etcd member %s: %w", m.name, err)
	}
	m.mu.Lock()
	m.run = r
	m.mu.Unlock()
	go m.follow(r, stdout) // joined by kill, through r.ended
	return r, nil
}

// follow reads what the member reports until its process is gone.
func (m *Member) follow(r *run, stdout io.Reader) {
	defer close(r.ended)
	for d := json.NewDecoder(stdout); ; {
		var next report
		if err := d.Decode(&next); err != nil {
			break
		}
		m.mu.Lock()
		first := next.Ready && !r.last.Ready
		r.last = next
		m.mu.Unlock()
		if first {
			close(r.ready)
		}
		m.c.notify()
	}
	r.cmd.Wait() // how it ended is in its log
}

// reported returns what the member said last, and whether it runs.
func (m *Member) reported() (report, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.run == nil {
		return report{}, false
	}
	select {
	case <-m.run.ended:
		return report{}, false
	default:
	}
	return m.run.last, !m.run.stopped && m.run.last.Ready
}

func (r *run) failure(name string) error {
	log := r.tail.String()
	if strings.Contains(log, errClash.Error()) {
		return fmt.Errorf("start etcd member %s: %w", name, errClash)
	}
	if log == "" {
		return fmt.Errorf("start etcd member %s: it ended at once; does main or TestMain call etcdtest.Main first?", name)
	}
	return fmt.Errorf("start etcd member %s: %w", name, errors.New(log))
}

// A tail passes a log on and remembers its end.
type tail struct {
	mu  sync.Mutex
	to  io.Writer
	end []byte
}

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = append(t.end, p...)
	if len(t.end) > tailSize {
		t.end = append([]byte(nil), t.end[len(t.end)-tailSize:]...)
	}
	if t.to != nil {
		_, _ = t.to.Write(p) // nobody is to fail for a log
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.end))
}
