package http

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// The bounds of whoever asks.
const (
	headerTime  = 5 * time.Second  // for a request to arrive
	answerTime  = 10 * time.Second // for an answer to be made and taken
	idleTime    = 60 * time.Second // between two requests on a connection
	goodbyeTime = 2 * time.Second  // for requests to end by themselves when the server ends
	maxConns    = 1024             // connections at the same time; others wait for their turn
	maxHeader   = 16 << 10
)

// Serve answers with h whoever connects to l, until ctx ends; h is that of [New].
// It closes l, and returns when every request has ended: nil when ctx ended it.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	return serve(ctx, l, h, log, sdk.Now)
}

func serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger, now func() sdk.Instant) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	base, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(errEnds)
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			wg.Add(1) // from within a connection that Close has not closed yet
			defer wg.Done()
			sendBefore(r.Context(), 0) // what the answer before was bound to
			h.ServeHTTP(w, r)
		}),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       headerTime,
		WriteTimeout:      answerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	defer server.Close()
	served := make(chan error, 1)
	wg.Go(func() { served <- server.Serve(newGate(l, now)) })
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	last, stop := context.WithTimeout(base, goodbyeTime)
	defer stop()
	if err := server.Shutdown(last); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("end requests at %s: %w", l.Addr(), err)
	}
	return nil
}

var (
	errEnds = errors.New("the server ends")                 // and requests that would outlast it
	errLate = errors.New("the answer is not true any more") // nobody gets it
)

// A gate lets in so many connections at the same time.
type gate struct {
	net.Listener
	now    func() sdk.Instant
	places chan struct{}
	ends   chan struct{}
	end    func()
}

func newGate(l net.Listener, now func() sdk.Instant) *gate {
	g := &gate{Listener: l, now: now, places: make(chan struct{}, maxConns), ends: make(chan struct{})}
	g.end = sync.OnceFunc(func() { close(g.ends) })
	return g
}

// Accept returns the next connection once there is a place for it.
func (g *gate) Accept() (net.Conn, error) {
	select {
	case g.places <- struct{}{}:
	case <-g.ends:
		return nil, net.ErrClosed
	}
	c, err := g.Listener.Accept()
	if err != nil {
		<-g.places
		return nil, err
	}
	return &conn{Conn: c, now: g.now, leave: sync.OnceFunc(func() { <-g.places })}, nil
}

// Close ends an Accept, also one that waits for a place.
func (g *gate) Close() error {
	g.end()
	return g.Listener.Close()
}

// A conn is a connection on which nothing is sent that is not true any more.
type conn struct {
	net.Conn
	now   func() sdk.Instant
	until sdk.Instant // of what is sent next; zero has no end. Only its request's goroutine uses it.
	leave func()
}

// Write fails with errLate, and so ends the connection, once it is too late for
// what is to be sent.
func (c *conn) Write(b []byte) (int, error) {
	if c.until != 0 && c.now() >= c.until {
		return 0, errLate
	}
	return c.Conn.Write(b)
}

func (c *conn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// The server's contexts carry the connection.
type connKey struct{}

// sendBefore has the answer to a request not be sent at an instant or later: who
// asked then gets none. Without a server it does nothing.
func sendBefore(ctx context.Context, until sdk.Instant) {
	if c, ok := ctx.Value(connKey{}).(*conn); ok {
		c.until = until
	}
}
