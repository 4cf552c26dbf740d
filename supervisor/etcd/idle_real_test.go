package etcd

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
)

// etcd ends connections that ping without a call under way: then the endpoints
// that are not preferred had to be connected with anew in every emergency.
func TestIdleConnectionsAreKept(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for several pings")
	}
	t.Parallel()
	opts := quick
	opts.Members = 1
	c := etcdtest.StartT(t, opts)
	door := newDoor(t, strings.TrimPrefix(c.Endpoints()[0], "http://"))
	n := realClient(t, c, "a", func(cfg *Config) { cfg.Endpoints = []string{"http://" + door.ln.Addr().String()} })
	if _, err := n.Services(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(45 * time.Second)
	if got := door.count(); got != 1 {
		t.Errorf("%d connections while nothing was asked, want 1", got)
	}
}

// A door counts the connections that go through it.
type door struct {
	ln    net.Listener
	to    string
	wg    sync.WaitGroup
	mu    sync.Mutex
	conns []net.Conn
	n     int
}

func newDoor(t *testing.T, to string) *door {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{ln: ln, to: to}
	d.wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			d.mu.Lock()
			d.n++
			d.conns = append(d.conns, in, out)
			d.mu.Unlock()
			d.wg.Go(func() { _, _ = io.Copy(out, in); out.Close() })
			d.wg.Go(func() { _, _ = io.Copy(in, out); in.Close() })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		d.mu.Lock()
		for _, c := range d.conns {
			c.Close()
		}
		d.mu.Unlock()
		d.wg.Wait()
	})
	return d
}

func (d *door) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.n
}
