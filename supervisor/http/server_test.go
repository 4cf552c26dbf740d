package http

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// pipes is a listener in memory, so that time can be virtual.
type pipes struct {
	conns chan net.Conn
	ends  chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ends:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.ends:
	default:
		close(p.ends)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// dial returns the near end of a connection, once it is accepted.
func (p *pipes) dial() net.Conn {
	here, there := net.Pipe()
	p.conns <- there
	return here
}

// serving serves h until the returned func is called, which returns what Serve did.
func serving(p *pipes, h http.Handler, now func() sdk.Instant) (end func() error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, p, h, slog.New(slog.DiscardHandler), now) }()
	return func() error {
		cancel(errors.New("the test ends"))
		return <-ended
	}
}

// read returns the status of an answer, read to its end.
func read(c net.Conn) (status int, err error) {
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

const request = "GET /services/orders/primary HTTP/1.1\r\nHost: db1\r\n\r\n"

// An answer that was true when it was made is not sent when it is no more: the
// process may have been stopped in between.
func TestLateAnswerIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		late := false
		end := serving(p, routes(always(member(sdk.RolePrimary, true)), slog.New(slog.DiscardHandler), at(start)), func() sdk.Instant {
			if late {
				return start.Add(Age)
			}
			return start
		})
		c := p.dial()
		defer c.Close()
		for range 2 { // on one connection
			go io.WriteString(c, request)
			if got, err := read(c); err != nil || got != http.StatusOK {
				t.Fatalf("%d, %v", got, err)
			}
		}
		synctest.Wait()
		late = true
		go io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: db1\r\n\r\n")
		if got, err := read(c); err != nil || got != http.StatusOK {
			t.Errorf("what is bound to nothing: %d, %v", got, err)
		}
		go io.WriteString(c, request)
		if got, err := read(c); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			t.Errorf("got %d, %v, want a closed connection", got, err)
		}
		if err := end(); err != nil {
			t.Error(err)
		}
	})
}

// Who sends a request byte by byte, or none, does not keep a connection.
func TestSlowRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		end := serving(p, routes(always(member(sdk.RolePrimary, true)), slog.New(slog.DiscardHandler), at(start)), at(start))
		began := time.Now()
		c := p.dial()
		var writer sync.WaitGroup
		writer.Go(func() {
			for _, b := range []byte(request) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		if got, err := read(c); err == nil && got == http.StatusOK {
			t.Errorf("answered: %d", got)
		}
		if took := time.Since(began); took > headerTime+time.Second {
			t.Errorf("it was borne for %s", took)
		}
		c.Close()
		writer.Wait()
		if err := end(); err != nil {
			t.Error(err)
		}
	})
}

func TestHeaderIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		end := serving(p, routes(always(member(sdk.RolePrimary, true)), slog.New(slog.DiscardHandler), at(start)), at(start))
		c := p.dial()
		defer c.Close()
		go io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: db1\r\nX: "+strings.Repeat("x", 2*maxHeader)+"\r\n\r\n")
		if got, err := read(c); err != nil || got != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%d, %v", got, err)
		}
		if err := end(); err != nil {
			t.Error(err)
		}
	})
}

// One connection too many waits for its turn.
func TestConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		end := serving(p, routes(always(member(sdk.RolePrimary, true)), slog.New(slog.DiscardHandler), at(start)), at(start))
		first := p.dial()
		for range maxConns - 1 {
			defer p.dial().Close()
		}
		in := make(chan net.Conn)
		go func() { in <- p.dial() }()
		synctest.Wait()
		select {
		case <-in:
			t.Error("one too many is let in")
		default:
		}
		first.Close()
		extra := <-in
		defer extra.Close()
		go io.WriteString(extra, request)
		if got, err := read(extra); err != nil || got != http.StatusOK {
			t.Errorf("%d, %v", got, err)
		}
		if err := end(); err != nil {
			t.Error(err)
		}
	})
}

// The end waits for answers, not for who asks nothing, and for nothing long.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			takes time.Duration
			want  int // 0: no answer
		}{{goodbyeTime / 2, http.StatusOK}, {time.Hour, 0}} {
			p := newPipes()
			asked := make(chan struct{})
			end := serving(p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(asked)
				select {
				case <-time.After(c.takes):
				case <-r.Context().Done():
				}
			}), at(start))
			idle, busy := p.dial(), p.dial()
			go io.WriteString(busy, request)
			<-asked
			answered := make(chan int, 1)
			go func() {
				got, _ := read(busy)
				answered <- got
			}()
			began := time.Now()
			if err := end(); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > goodbyeTime {
				t.Errorf("the end took %s", took)
			}
			if got := <-answered; got != c.want {
				t.Errorf("a request that takes %s: %d, want %d", c.takes, got, c.want)
			}
			idle.Close()
			busy.Close()
		}
	})
}

func TestServeTellsWhyItCannot(t *testing.T) {
	p := newPipes()
	p.Close()
	if err := Serve(t.Context(), p, http.NewServeMux(), slog.New(slog.DiscardHandler)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want %v", err, net.ErrClosed)
	}
}
