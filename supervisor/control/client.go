package control

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// ErrSilent is the error of a watch in which the daemon has said nothing for
// several Beats: it is frozen, or starved.
var ErrSilent = errors.New("the daemon is silent")

const (
	dialTime   = 2 * time.Second
	slack      = 2 * time.Second // what an answer may take beyond the time that the daemon takes for it
	silentTime = 4 * Beat
	retryTime  = 500 * time.Millisecond // between two tries of a watch
	maxKept    = 4                      // connections of a client that keeps some
)

// A Client asks one service's supervisor on this node. Its Cluster methods are
// answered for all services, by way of this one. Errors are ErrNoDaemon,
// ErrDenied, and what the supervisor met.
type Client struct {
	socket string
	http   *http.Client
}

var _ supervisor.Cluster = (*Client)(nil)

// NewClient returns a client of the socket in a service's runtime directory.
// It connects when it is asked something.
func NewClient(dir string) *Client {
	return newClient(dir, &http.Transport{DisableKeepAlives: true}) // nothing to close, nothing left open
}

// NewKeepingClient returns a client for who asks often: it keeps a connection
// between two questions, for a while, and has a few at most at the same time.
// Further questions wait for their turn. Close closes what it keeps.
func NewKeepingClient(dir string) *Client {
	return newClient(dir, &http.Transport{
		MaxConnsPerHost:     maxKept,
		MaxIdleConnsPerHost: maxKept,
		IdleConnTimeout:     idleTime / 2, // so that it is this end that closes first
	})
}

func newClient(dir string, t *http.Transport) *Client {
	socket := filepath.Join(dir, SocketName)
	t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTime)
		defer cancel()
		return dial(ctx, socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: t}}
}

// Close closes the connections that are kept and that nobody uses now.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status returns the member's status.
func (c *Client) Status(ctx context.Context) (supervisor.Status, error) {
	return ask[supervisor.Status](ctx, c, "/status")
}

// WatchStatus yields the member's status at once, after each change, and at
// least every Beat, until ctx ends or, with an error, the watch breaks.
func (c *Client) WatchStatus(ctx context.Context) iter.Seq2[supervisor.Status, error] {
	return watch[supervisor.Status](ctx, c, "/watch")
}

// Figures returns what the member has counted.
func (c *Client) Figures(ctx context.Context) (supervisor.Figures, error) {
	return ask[supervisor.Figures](ctx, c, "/figures")
}

// AllFigures returns what the members of all services of the supervisor's process
// have counted.
func (c *Client) AllFigures(ctx context.Context) ([]supervisor.Figures, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askTime+slack, fmt.Errorf("%w at %s: it accepted the request and is silent", ErrNoDaemon, c.socket))
	defer cancel()
	res, err := c.do(ctx, "GET", "/figures/all", nil)
	if err != nil {
		return nil, causeOr(ctx, err)
	}
	defer res.Body.Close()
	var all []supervisor.Figures
	for dec := gob.NewDecoder(res.Body); ; {
		var f supervisor.Figures
		switch err := dec.Decode(&f); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("read the answer from %s: %w", c.socket, causeOr(ctx, err))
		}
		all = append(all, f)
	}
}

// Clear tells a blocked or failed member that an operator has put things right.
func (c *Client) Clear(ctx context.Context) error { return c.order(ctx, "POST", "/clear", nil) }

// Reload has the supervisor read its definition again, and give its place to
// another program where its file was replaced.
func (c *Client) Reload(ctx context.Context) (Reloaded, error) {
	return exchange[Reloaded](ctx, c, reloadTime, "POST", "/reload")
}

// Process returns the program that answers.
func (c *Client) Process(ctx context.Context) (Process, error) {
	return ask[Process](ctx, c, "/process")
}

// Goroutines returns where the supervisor's process is just now, for those who
// look for a mistake in it.
func (c *Client) Goroutines(ctx context.Context) (string, error) {
	return ask[string](ctx, c, "/goroutines")
}

// LogLevel returns the least level that the supervisor's process logs.
func (c *Client) LogLevel(ctx context.Context) (LogLevel, error) {
	return ask[LogLevel](ctx, c, "/log-level")
}

// SetLogLevel changes the least level that the supervisor's process logs, for a
// time or until it ends.
func (c *Client) SetLogLevel(ctx context.Context, l LogLevel) error {
	return c.order(ctx, "PUT", "/log-level", l)
}

// Services returns the names of all services that the records know.
func (c *Client) Services(ctx context.Context) ([]string, error) {
	return ask[[]string](ctx, c, "/services")
}

// State returns what the records say of a service.
func (c *Client) State(ctx context.Context, service string) (supervisor.State, error) {
	return ask[supervisor.State](ctx, c, path("services", service, "state"))
}

// Watch yields what the records say of a service until ctx ends. While the
// daemon does not answer it tries again, and says so in Unreachable.
func (c *Client) Watch(ctx context.Context, service string) iter.Seq[supervisor.State] {
	return func(yield func(supervisor.State) bool) {
		last := supervisor.State{Service: service}
		for ctx.Err() == nil {
			for s, err := range watch[supervisor.State](ctx, c, path("services", service, "watch")) {
				if err == nil {
					last = s
				} else if ctx.Err() == nil {
					last.Unreachable = err.Error()
				} else {
					return
				}
				if !yield(last) {
					return
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(retryTime):
			}
		}
	}
}

// History returns the changes of role, oldest first.
func (c *Client) History(ctx context.Context, service string) ([]supervisor.Change, error) {
	return ask[[]supervisor.Change](ctx, c, path("services", service, "history"))
}

// Request writes a reservation. The daemon notes by whom.
func (c *Client) Request(ctx context.Context, service string, r supervisor.Reservation) error {
	return c.order(ctx, "POST", path("services", service, "reservation"), r)
}

// Cancel deletes the reservation, if it is still this one.
func (c *Client) Cancel(ctx context.Context, service, id string) error {
	return c.order(ctx, "DELETE", path("services", service, "reservation", id), nil)
}

// Pause suspends automatic take-overs. The daemon notes by whom.
func (c *Client) Pause(ctx context.Context, service string, p supervisor.Pause) error {
	return c.order(ctx, "PUT", path("services", service, "pause"), p)
}

// Resume ends a pause.
func (c *Client) Resume(ctx context.Context, service string) error {
	return c.order(ctx, "DELETE", path("services", service, "pause"), nil)
}

// Drain has a node hand everything over. The daemon notes by whom.
func (c *Client) Drain(ctx context.Context, d supervisor.Drain) error {
	return c.order(ctx, "PUT", path("nodes", d.Node, "drain"), d)
}

// Undrain lets a node lead again.
func (c *Client) Undrain(ctx context.Context, node string) error {
	return c.order(ctx, "DELETE", path("nodes", node, "drain"), nil)
}

// Ban keeps a node from leading a service. The daemon notes by whom.
func (c *Client) Ban(ctx context.Context, service string, b supervisor.Ban) error {
	return c.order(ctx, "PUT", path("services", service, "bans", b.Node), b)
}

// Unban lets a node lead a service again.
func (c *Client) Unban(ctx context.Context, service, node string) error {
	return c.order(ctx, "DELETE", path("services", service, "bans", node), nil)
}

// Remove forgets a service.
func (c *Client) Remove(ctx context.Context, service string) error {
	return c.orderFor(ctx, removeTime, "DELETE", path("services", service), nil)
}

func path(parts ...string) string {
	p := ""
	for _, part := range parts {
		p += "/" + url.PathEscape(part)
	}
	return p
}

// do sends a request. The caller closes the body of an answer.
func (c *Client) do(ctx context.Context, method, path string, order any) (*http.Response, error) {
	var body io.Reader
	if order != nil {
		b, err := json.Marshal(order)
		if err != nil {
			return nil, fmt.Errorf("write the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://deputy"+path, body)
	if err != nil {
		return nil, fmt.Errorf("write the request: %w", err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		if urlErr := (*url.Error)(nil); errors.As(err, &urlErr) {
			err = urlErr.Err // the rest of its text is ours, and made up
		}
		if ctx.Err() == nil && !errors.Is(err, ErrNoDaemon) && !errors.Is(err, ErrDenied) {
			err = fmt.Errorf("%w at %s: %w", ErrNoDaemon, c.socket, err)
		}
		return nil, err
	}
	if res.StatusCode/100 != 2 {
		defer res.Body.Close()
		return nil, readError(res)
	}
	return res, nil
}

func (c *Client) order(ctx context.Context, method, path string, order any) error {
	return c.orderFor(ctx, orderTime, method, path, order)
}

func (c *Client) orderFor(ctx context.Context, d time.Duration, method, path string, order any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d+slack, fmt.Errorf("%w at %s: it accepted the request and is silent", ErrNoDaemon, c.socket))
	defer cancel()
	res, err := c.do(ctx, method, path, order)
	if err != nil {
		return causeOr(ctx, err)
	}
	return res.Body.Close()
}

func ask[T any](ctx context.Context, c *Client, path string) (T, error) {
	return exchange[T](ctx, c, askTime, "GET", path)
}

// exchange sends a request without a body, and reads the answer.
func exchange[T any](ctx context.Context, c *Client, d time.Duration, method, path string) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, d+slack, fmt.Errorf("%w at %s: it accepted the request and is silent", ErrNoDaemon, c.socket))
	defer cancel()
	var v T
	res, err := c.do(ctx, method, path, nil)
	if err != nil {
		return v, causeOr(ctx, err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
		return v, fmt.Errorf("read the answer from %s: %w", c.socket, causeOr(ctx, err))
	}
	_, _ = io.CopyN(io.Discard, res.Body, 512) // to its end, or the connection cannot be kept
	return v, nil
}

// causeOr returns why ctx ended, if it has, and else err.
func causeOr(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// watch yields each line of a watch, and its end as an error.
func watch[T any](ctx context.Context, c *Client, path string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(errHungUp)
		silence := time.AfterFunc(askTime+slack, func() { cancel(fmt.Errorf("%w at %s", ErrSilent, c.socket)) })
		defer silence.Stop()
		var zero T
		res, err := c.do(ctx, "GET", path, nil)
		if err != nil {
			yield(zero, causeOr(ctx, err))
			return
		}
		defer res.Body.Close()
		dec := json.NewDecoder(heard{res.Body, silence})
		for {
			var v T
			if err := dec.Decode(&v); err != nil {
				yield(zero, fmt.Errorf("%w at %s any more: %w", ErrNoDaemon, c.socket, causeOr(ctx, err)))
				return
			}
			if !yield(v, nil) {
				return
			}
		}
	}
}

// heard puts off a timer with each read.
type heard struct {
	io.Reader
	silence *time.Timer
}

func (h heard) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	h.silence.Reset(silentTime)
	return n, err
}
