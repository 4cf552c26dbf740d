package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/deputy-ha/deputy/plugins/endpoint"
	"github.com/deputy-ha/deputy/sdk"
)

// A probe asks one server with one set of settings.
type probe struct {
	settings
	client http.Client
}

// maxHeader is how many bytes of headers an answer may have.
const maxHeader = 64 << 10

func newProbe(_ context.Context, s settings, _ sdk.Host) (*probe, error) {
	p := &probe{settings: s}
	transport := &http.Transport{
		Proxy: nil, // not that of the environment: the server itself is asked
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return endpoint.Dial(ctx, s.Socket, address)
		},
		DialTLSContext:         p.dialTLS,
		DisableKeepAlives:      !s.KeepAlive,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    1,
		IdleConnTimeout:        time.Minute,
	}
	p.client = http.Client{Transport: transport, CheckRedirect: p.redirect}
	return p, nil
}

// dialTLS connects by TLS, with the certificates as they are now.
func (p *probe) dialTLS(ctx context.Context, _, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	config, err := p.TLS.Config(host)
	if err != nil {
		return nil, fmt.Errorf("tls.%w", err)
	}
	conn, err := endpoint.Dial(ctx, p.Socket, address)
	if err != nil {
		return nil, err
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return secure, nil
}

// redirect tells whether a redirect is followed.
func (p *probe) redirect(next *http.Request, before []*http.Request) error {
	const most = 10
	last := before[len(before)-1]
	switch {
	case !p.FollowRedirects:
		return http.ErrUseLastResponse
	case len(before) > most:
		return fmt.Errorf("it redirects more than %d times", most)
	case last.URL.Scheme == "https" && next.URL.Scheme != "https":
		return fmt.Errorf("it redirects from https to %s://%s", next.URL.Scheme, next.URL.Host)
	}
	return nil
}

// Close ends connections that are kept for the next check.
func (p *probe) Close() error {
	p.client.CloseIdleConnections()
	return nil
}

// Check asks once.
func (p *probe) Check(ctx context.Context, _ sdk.Role) (sdk.Health, error) {
	ctx, cancel := endpoint.Early(ctx)
	defer cancel()
	began := time.Now()
	said, err := p.ask(ctx, began)
	if err != nil {
		said = err.Error()
	}
	at := p.URL
	if p.Socket != "" {
		at += " by " + p.Socket
	}
	return sdk.Health{Fit: err == nil, Detail: p.Method + " " + at + ": " + said}, nil
}

// ask asks once and says what came. The error is what is wrong with it.
func (p *probe) ask(ctx context.Context, began time.Time) (string, error) {
	var connected atomic.Bool // by the transport's goroutines
	request, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	}), p.Method, p.URL, http.NoBody)
	if err != nil {
		return "", err
	}
	request.Host = p.Host
	request.Header.Set("User-Agent", "deputy/"+version)
	for name, value := range p.Headers {
		request.Header.Set(name, value)
	}
	took := func() string { return endpoint.Took(time.Since(began)) }
	answer, err := p.client.Do(request)
	switch {
	case err != nil && !connected.Load():
		return "", fmt.Errorf("not connected after %s: %s", took(), endpoint.Why(ctx, err))
	case err != nil:
		return "", fmt.Errorf("connected, and no answer after %s: %s", took(), endpoint.Why(ctx, err))
	}
	defer answer.Body.Close()
	said := fmt.Sprintf("%s after %s", strings.TrimSpace(answer.Status), took())
	if final := answer.Request.URL.String(); final != p.URL && p.FollowRedirects {
		said = fmt.Sprintf("redirected to %s: %s", final, said)
	}
	if answer.TLS != nil {
		said += p.TLS.Says()
	}
	if !p.passes(answer.StatusCode) {
		return "", errors.New(p.unwanted(answer, said))
	}
	if p.Body == nil {
		if p.KeepAlive { // a connection is used again once its answer was read
			_, _ = io.CopyN(io.Discard, answer.Body, endpoint.MaxRead)
		}
		return said, nil
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, endpoint.MaxRead))
	switch {
	case p.Body.Match(body):
		return said + fmt.Sprintf(", and its body matches %q", p.Body), nil
	case err != nil:
		return "", fmt.Errorf("%s, and then %s; of its body came %s, which does not match %q", said, endpoint.Why(ctx, err), endpoint.Excerpt(body), p.Body)
	}
	return "", fmt.Errorf("%s, and its body does not match %q: %s", said, p.Body, endpoint.Excerpt(body))
}

// unwanted says of an answer whose status does not pass what it says itself.
func (p *probe) unwanted(answer *http.Response, said string) string {
	var want []string
	for _, r := range p.Status {
		want = append(want, r.String())
	}
	said += ", want " + strings.Join(slices.Compact(want), ", ")
	if to := answer.Header.Get("Location"); to != "" {
		return said + fmt.Sprintf(": it redirects to %q", to)
	}
	beginning, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
	if line := endpoint.FirstLine(beginning); line != "" {
		said += ": " + line
	}
	return said
}
