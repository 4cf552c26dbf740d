package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/deputy-ha/deputy/plugins/endpoint"
	"github.com/deputy-ha/deputy/sdk"
)

// A probe asks one server with one set of settings.
type probe struct{ settings }

func newProbe(_ context.Context, s settings, _ sdk.Host) (*probe, error) { return &probe{s}, nil }

// Check asks once.
func (p *probe) Check(ctx context.Context, _ sdk.Role) (sdk.Health, error) {
	ctx, cancel := endpoint.Early(ctx)
	defer cancel()
	said, err := p.ask(ctx)
	if err != nil {
		said = err.Error()
	}
	return sdk.Health{Fit: err == nil, Detail: p.Socket + p.Address + ": " + said}, nil
}

// ask asks once and says what came. The error is what is wrong with it.
func (p *probe) ask(ctx context.Context) (string, error) {
	began := time.Now()
	took := func() string { return endpoint.Took(time.Since(began)) }
	conn, err := endpoint.Dial(ctx, p.Socket, p.Address)
	if err != nil {
		return "", fmt.Errorf("not connected after %s: %s", took(), endpoint.Why(ctx, err))
	}
	defer conn.Close()
	cut := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer cut()
	said := "connected after " + took()
	if p.TLS != nil {
		secure, err := p.secure(ctx, conn)
		if err != nil {
			return "", fmt.Errorf("%s, and then TLS: %s, after %s", said, endpoint.Why(ctx, err), took())
		}
		conn = secure
		said = "connected by TLS after " + took() + p.TLS.Says()
	}
	if p.Expect == nil {
		return said, nil
	}
	if _, err := conn.Write(p.Send); err != nil {
		return "", fmt.Errorf("%s, and what is to be sent was not taken: %s, after %s", said, endpoint.Why(ctx, err), took())
	}
	if len(p.Send) > 0 {
		said += fmt.Sprintf(", sent %s", endpoint.Excerpt(p.Send))
	}
	came, err := p.read(conn)
	switch {
	case p.Expect.Match(came):
		return fmt.Sprintf("%s, came %s after %s", said, endpoint.Excerpt(came), took()), nil
	case len(came) == 0:
		return "", fmt.Errorf("%s, and nothing came: %s, after %s", said, endpoint.Why(ctx, err), took())
	}
	return "", fmt.Errorf("%s, and came %s, which does not match %q: %s, after %s", said, endpoint.Excerpt(came), p.Expect, endpoint.Why(ctx, err), took())
}

// secure speaks TLS over a connection, with the certificates as they are now.
func (p *probe) secure(ctx context.Context, conn net.Conn) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(p.Address)
	config, err := p.TLS.Config(host)
	if err != nil {
		return nil, fmt.Errorf("tls.%w", err)
	}
	secure := tls.Client(conn, config)
	return secure, secure.HandshakeContext(ctx)
}

// errTooMuch is why no more is read.
var errTooMuch = errors.New("more than 64 KiB have come")

// read reads until what came matches. The error is why nothing more comes.
func (p *probe) read(conn io.Reader) ([]byte, error) {
	came := make([]byte, 0, 1<<10)
	for {
		if len(came) == endpoint.MaxRead {
			return came, errTooMuch
		}
		if len(came) == cap(came) {
			came = append(came, 0)[:len(came)]
		}
		n, err := conn.Read(came[len(came):min(cap(came), endpoint.MaxRead)])
		came = came[:len(came)+n]
		if err != nil || p.Expect.Match(came) {
			return came, err
		}
	}
}
