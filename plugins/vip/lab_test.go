package main

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/sdktest"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// The addresses of most tests.
const (
	vip4, vip6 = "192.0.2.10", "2001:db8::10"
	peer4      = "192.0.2.1"
	peer6      = "2001:db8::1"
)

// both are settings with an address of each kind.
func both(change ...func(map[string]any)) map[string]any {
	c := map[string]any{"addresses": []string{vip4, vip6}, "interface": "eth0"}
	for _, f := range change {
		f(c)
	}
	return c
}

// A node is a host with the real plugin in a process of its own.
type node struct {
	*netlab.Host
	t       *testing.T
	name    string
	service string
	part    string
	hosted  sdktest.Hosted
	term    sdk.Term
	acts    int
}

// newNode starts the plugin on a host.
func newNode(t *testing.T, h *netlab.Host, name string, config map[string]any) *node {
	t.Helper()
	n := &node{Host: h, t: t, name: name, service: "orders", part: "vip", term: 1}
	n.start()
	n.configure(config)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s said: %s", name, n.hosted.Said())
			t.Logf("%s has: %s", name, n.Run("ip", "addr"))
		}
		n.kill()
	})
	return n
}

// start starts a fresh process.
func (n *node) start() {
	n.t.Helper()
	n.Must(func() (err error) {
		n.hosted, err = sdktest.Binary("/proc/self/exe").Open(context.Background())
		return err
	})
}

// kill ends the process by SIGKILL.
func (n *node) kill() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = n.hosted.Kill(ctx)
}

func (n *node) setup(config map[string]any) wire.Setup {
	return wire.Setup{Service: n.service, Node: n.name, Part: n.part, Config: config, Term: n.term}
}

func (n *node) configure(config map[string]any) {
	n.t.Helper()
	if err := n.hosted.Configure(n.t.Context(), n.setup(config)); err != nil {
		n.t.Fatalf("configure: %v", err)
	}
}

// transition is one with a lease for as long as tests take.
func (n *node) transition(a sdk.Action) sdk.Transition {
	n.acts++
	return sdk.Transition{
		ID: fmt.Sprint(a, n.acts), Action: a, Mode: sdk.Planned, Service: n.service, Node: n.name, Term: n.term,
		Reason: sdk.ReasonElection, Attempt: 1, Timeout: 10 * time.Second, LeaseUntil: sdk.Now().Add(time.Minute),
	}
}

func (n *node) do(t sdk.Transition) sdk.Result {
	n.t.Helper()
	return n.hosted.Do(n.t.Context(), t, time.Second, func(string) {})
}

// promote and demote have to succeed, with the outcome given.
func (n *node) promote(want sdk.Outcome) {
	n.t.Helper()
	if r := n.do(n.transition(sdk.Promote)); r.Outcome != want {
		n.t.Fatalf("promote %s: got %+v, want %s", n.name, r, want)
	}
}

func (n *node) demote(want sdk.Outcome) {
	n.t.Helper()
	if r := n.do(n.transition(sdk.Demote)); r.Outcome != want {
		n.t.Fatalf("demote %s: got %+v, want %s", n.name, r, want)
	}
}

func (n *node) renew(d time.Duration) error { return n.hosted.Renew(n.t.Context(), sdk.Now().Add(d)) }

// check has to find the node fit, or not, with the words given.
func (n *node) check(role sdk.Role, fit bool, words string) {
	n.t.Helper()
	h, err := n.hosted.Check(n.t.Context(), role, n.term)
	if err != nil || h.Fit != fit || !strings.Contains(h.Detail, words) {
		n.t.Errorf("check of %s as %s: got %+v, %v; want fit %t with %q", n.name, role, h, err, fit, words)
	}
}

// signal stops or continues the plugin's process.
func (n *node) signal(s syscall.Signal) {
	n.t.Helper()
	if err := syscall.Kill(n.hosted.PIDs()[0], s); err != nil {
		n.t.Fatalf("%s: %v", s, err)
	}
}

// has tells whether the host has an address.
func (n *node) has(addr string) bool {
	return strings.Contains(n.Run("ip", "addr", "show", "to", addr), addr)
}

// owns has to be so, for each address of both.
func (n *node) owns(want bool) {
	n.t.Helper()
	for _, a := range []string{vip4, vip6} {
		if got := n.has(a); got != want {
			n.t.Fatalf("%s has %s: %t, want %t", n.name, a, got, want)
		}
	}
}

// eventuallyGone waits for the addresses to be removed, which a forced
// demotion need not have done.
func (n *node) eventuallyGone() {
	n.t.Helper()
	eventually(n.t, "addresses removed", func() bool { return !n.has(vip4) && !n.has(vip6) })
}

// reaches tells whether a host gets an answer from an address, within some
// time.
func reaches(h *netlab.Host, addr string, within time.Duration) bool {
	x := h.Ask(addr, 5*time.Millisecond)
	defer x.End()
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if netlab.Last(x.Asked()) != 0 {
			return true
		}
	}
	return false
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

// says waits for words in the plugin's log, which comes by another way than its
// answers.
func (n *node) says(t *testing.T, words ...string) {
	t.Helper()
	for _, w := range words {
		eventually(t, "the log says "+w, func() bool { return strings.Contains(n.hosted.Said(), w) })
	}
}

// echoes has both addresses answer on a host, once it has them.
func echoes(h *netlab.Host) {
	h.Echo(vip4 + ":7")
	h.Echo("[" + vip6 + "]:7")
}

const at4, at6 = vip4 + ":7", "[" + vip6 + "]:7"
