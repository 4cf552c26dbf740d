package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// pipes is a listener and a dialler in memory, so that time can be virtual.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return &guest{Conn: c, right: steer, leave: func() {}}, nil
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (p pipes) client() *Client { return p.through(NewClient("pipe")) }

// through has a client connect by these pipes.
func (p pipes) through(c *Client) *Client {
	c.http.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		here, there := net.Pipe()
		p <- there
		return here, nil
	}
	return c
}

// A watch on which nothing happens still says something every Beat.
func TestBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := newServer("")
		p := make(pipes)
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- s.serve(ctx, p) }()

		began, heard := time.Now(), 0
		for _, err := range p.client().WatchStatus(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			if heard++; heard == 6 {
				break
			}
		}
		if got := time.Since(began); got != 5*Beat {
			t.Errorf("a status and five beats took %v, want %v", got, 5*Beat)
		}

		// The records' watch beats as well, with nothing to read in it.
		watch, stop := context.WithTimeout(ctx, 10*silentTime)
		defer stop()
		states := 0
		for st := range p.client().Watch(watch, "orders") {
			if states++; st.Unreachable != "" {
				t.Errorf("a watch of quiet records broke: %s", st.Unreachable)
			}
		}
		if states != 1 {
			t.Errorf("%d states of records that did not change, want one", states)
		}
		cancel()
		close(p)
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// A daemon that is frozen in the middle of a watch is found out.
func TestSilentDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := make(pipes)
		go func() {
			c := <-p
			buf := make([]byte, 1024)
			if _, err := c.Read(buf); err != nil { // what comes before the request answers nothing
				t.Error(err)
			}
			go func() { // reads what is left of it; closed by the client's end
				for {
					if _, err := c.Read(buf); err != nil {
						return
					}
				}
			}()
			c.Write([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n"))
		}()
		began := time.Now()
		var last error
		for _, last = range p.client().WatchStatus(t.Context()) {
		}
		if !errors.Is(last, ErrSilent) || time.Since(began) != silentTime {
			t.Errorf("after %v: %v, want %v after %v", time.Since(began), last, ErrSilent, silentTime)
		}

		go func() { <-p }()
		began = time.Now()
		if err := p.client().Resume(t.Context(), "orders"); !errors.Is(err, ErrNoDaemon) || time.Since(began) != orderTime+slack {
			t.Errorf("after %v: %v, want %v after %v", time.Since(began), err, ErrNoDaemon, orderTime+slack)
		}
	})
}

var (
	_ Member             = (*fakeMember)(nil)
	_ supervisor.Cluster = (*fakeCluster)(nil)
)

// Who asks often keeps a connection, which is good for as long as they ask, and
// closed when they do not any more.
func TestKeptConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, cluster := newServer("")
		for i := range 100 { // an answer of several chunks
			cluster.state.Candidates = append(cluster.state.Candidates, supervisor.Candidate{Node: supervisor.Node{Name: fmt.Sprint("db", i)}})
		}
		p := make(pipes)
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- s.serve(ctx, p) }()
		c := p.through(NewKeepingClient("pipe"))
		dial, dials := c.http.Transport.(*http.Transport).DialContext, 0
		c.http.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials++
			return dial(ctx, network, addr)
		}
		for range 5 {
			if got, err := c.Status(ctx); err != nil || got.Term != 7 {
				t.Errorf("%v, %v", got, err)
			}
			time.Sleep(idleTime/2 - time.Second) // longer than an answer may take to be taken
			if got, err := c.State(ctx, "orders"); err != nil || len(got.Candidates) != 100 {
				t.Errorf("%d candidates, %v", len(got.Candidates), err)
			}
			time.Sleep(idleTime/2 - time.Second)
			if _, err := ask[int](ctx, c, "/what-a-newer-client-asks"); err == nil || !strings.Contains(err.Error(), "404") {
				t.Errorf("an unknown question: %v", err)
			}
		}
		if dials != 1 {
			t.Errorf("%d connections for questions in a row, want one", dials)
		}
		time.Sleep(idleTime / 2)
		synctest.Wait()
		if _, err := c.Status(ctx); err != nil || dials != 2 {
			t.Errorf("after a long silence: %d connections, %v; want another one", dials, err)
		}
		c.Close()
		cancel()
		close(p)
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// The end of a server does not wait for connections that are kept.
func TestKeptConnectionDoesNotHoldTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := newServer("")
		p := make(pipes)
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- s.serve(ctx, p) }()
		c := p.through(NewKeepingClient("pipe"))
		if _, err := c.Status(ctx); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		began := time.Now()
		cancel()
		close(p)
		if err := <-served; err != nil || time.Since(began) != 0 {
			t.Errorf("after %s: %v, want the end at once", time.Since(began), err)
		}
	})
}
