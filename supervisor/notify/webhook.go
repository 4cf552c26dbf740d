package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// A Webhook is a receiver's address. What is secret in it, its path and its
// headers, gets into no error.
type Webhook struct {
	// Address and Headers are asked for each message, as secrets change.
	Address func() (string, error)
	Headers func() (http.Header, error)
	CAFile  string // certificates of who signs for it; empty: those of the system
	Agent   string // the User-Agent
}

// Send posts the message as JSON. An answer of 2xx has taken it. One of 4xx is
// ErrRefused, but for those that say to come back: 408, 425 and 429.
func (w Webhook) Send(ctx context.Context, m Message) error {
	p, err := w.prepare(ctx)
	if err != nil {
		return err
	}
	host := "the webhook"
	if u, err := url.Parse(p.address); err == nil {
		host = u.Scheme + "://" + u.Host
	}
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode the message: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.address, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w: the address of the webhook is none", ErrRefused)
	}
	req.Header = p.headers.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", m.ID)
	req.Header.Set("User-Agent", w.Agent)
	defer p.client.CloseIdleConnections()
	resp, err := p.client.Do(req)
	if err != nil {
		if inner := (*url.Error)(nil); errors.As(err, &inner) {
			err = inner.Err // which leaves the address out
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("post to %s: %w", host, err)
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 300)) // what of it there is
	return judge(host, resp, string(said))
}

// Verify tells why nothing could be sent, without sending anything.
func (w Webhook) Verify(ctx context.Context) error {
	_, err := w.prepare(ctx)
	return err
}

// A prepared is what a message is sent with.
type prepared struct {
	address string
	headers http.Header
	client  *http.Client
}

// prepare reads the files that it takes. A dead file system may hold it for ever:
// it is then left behind when ctx ends.
func (w Webhook) prepare(ctx context.Context) (p prepared, err error) {
	read := func() (p prepared, err error) {
		if p.address, err = w.Address(); err != nil {
			return p, err
		}
		if p.headers, err = w.Headers(); err != nil {
			return p, err
		}
		p.client, err = w.client()
		return p, err
	}
	type result struct {
		prepared
		err error
	}
	done := make(chan result, 1)
	go func() {
		p, err := read()
		done <- result{p, err}
	}()
	select {
	case r := <-done:
		return r.prepared, r.err
	case <-ctx.Done():
		return p, fmt.Errorf("read secrets and certificates: %w", context.Cause(ctx))
	}
}

// judge tells what an answer means.
func judge(host string, resp *http.Response, said string) error {
	text := strings.ToValidUTF8(strings.Join(strings.Fields(said), " "), "?")
	if text != "" {
		text = ": " + text
	}
	err := fmt.Errorf("%s answers %s%s", host, resp.Status, text)
	switch code := resp.StatusCode; {
	case code/100 == 2:
		return nil
	case code/100 == 3:
		return fmt.Errorf("%w: %w; write the address that it names instead", ErrRefused, err)
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests:
	case code/100 == 4:
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}

// client makes a client for one message: there are few, and nothing of one is
// left to the next.
func (w Webhook) client() (*http.Client, error) {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 10 * time.Second, DisableKeepAlives: true, ForceAttemptHTTP2: true,
	}
	if w.CAFile != "" {
		pem, err := os.ReadFile(w.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read ca_file: %w", err)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read ca_file: %s holds no certificate", w.CAFile)
		}
	}
	return &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}
