package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/sdktest"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// A node is a host with the real plugin in a process of its own.
type node struct {
	*netlab.Host
	t      *testing.T
	hosted sdktest.Hosted
	acts   int
}

func newNode(t *testing.T, h *netlab.Host, config map[string]any) *node {
	t.Helper()
	n := &node{Host: h, t: t}
	n.start()
	n.configure(config)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("it said: %s", n.hosted.Said())
		}
		n.kill()
	})
	return n
}

func (n *node) start() {
	n.t.Helper()
	n.Must(func() (err error) {
		n.hosted, err = sdktest.Binary("/proc/self/exe").Open(context.Background())
		return err
	})
}

func (n *node) kill() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = n.hosted.Kill(ctx)
}

func setup(config map[string]any) wire.Setup {
	return wire.Setup{Service: "orders", Node: "a", Part: "guard", Config: config, Term: 1}
}

func (n *node) configure(config map[string]any) {
	n.t.Helper()
	if err := n.hosted.Configure(n.t.Context(), setup(config)); err != nil {
		n.t.Fatalf("configure: %v", err)
	}
}

func (n *node) transition(a sdk.Action) sdk.Transition {
	n.acts++
	return sdk.Transition{
		ID: fmt.Sprint(a, n.acts), Action: a, Mode: sdk.Planned, Service: "orders", Node: "a", Term: 1,
		Reason: sdk.ReasonElection, Attempt: 1, Timeout: 10 * time.Second, LeaseUntil: sdk.Now().Add(time.Minute),
	}
}

func (n *node) do(t sdk.Transition) sdk.Result {
	n.t.Helper()
	return n.hosted.Do(n.t.Context(), t, time.Second, func(string) {})
}

// becomes has the act succeed, with the outcome given.
func (n *node) becomes(a sdk.Action, want sdk.Outcome) {
	n.t.Helper()
	if r := n.do(n.transition(a)); r.Outcome != want {
		n.t.Fatalf("%s: got %+v, want %s", a, r, want)
	}
}

func (n *node) renew(d time.Duration) error { return n.hosted.Renew(n.t.Context(), sdk.Now().Add(d)) }

func (n *node) check(role sdk.Role, fit bool, words string) {
	n.t.Helper()
	h, err := n.hosted.Check(n.t.Context(), role, 1)
	if err != nil || h.Fit != fit || !strings.Contains(h.Detail, words) {
		n.t.Errorf("check as %s: got %+v, %v; want fit %t with %q", role, h, err, fit, words)
	}
}

func (n *node) signal(s syscall.Signal) {
	n.t.Helper()
	if err := syscall.Kill(n.hosted.PIDs()[0], s); err != nil {
		n.t.Fatalf("%s: %v", s, err)
	}
}

// connect dials and has something echoed.
func connect(h *netlab.Host, to string, within time.Duration) (net.Conn, error) {
	c, err := h.Dial(to, within)
	if err != nil {
		return nil, err
	}
	if err := echo(c, within); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func echo(c net.Conn, within time.Duration) error {
	c.SetDeadline(time.Now().Add(within))
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// eventually waits for what has to become true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 10s", what)
		}
	}
}
