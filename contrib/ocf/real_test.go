package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/sdktest"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// needAgent skips a test where ClusterLabs' agent is not installed, but not in CI.
func needAgent(t *testing.T, provider, kind, pkg string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join("/usr/lib/ocf/resource.d", provider, kind)); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%v: install %s", err, pkg)
		}
		t.Skipf("%v: Debian has it in %s", err, pkg)
	}
}

// stateful are settings for pacemaker's own agent for tests, and its state.
func stateful(t *testing.T) (settings map[string]any, state func() string) {
	t.Helper()
	needAgent(t, "pacemaker", "Stateful", "pacemaker-resource-agents")
	file := filepath.Join(t.TempDir(), "state")
	return map[string]any{"agent": "ocf:pacemaker:Stateful", "parameters": map[string]any{"state": file}}, func() string {
		text, _ := os.ReadFile(file)
		return strings.TrimSpace(string(text))
	}
}

// A node asks a plugin in a process of its own.
type node struct {
	t *testing.T
	h sdktest.Hosted
	n int
}

func newNode(t *testing.T, config map[string]any) *node {
	t.Helper()
	h := sdktest.Own(t)
	if err := h.Configure(t.Context(), wire.Setup{Service: "orders", Node: "db1", Part: "ocf", StateDir: t.TempDir(), Config: config}); err != nil {
		t.Fatal(err)
	}
	return &node{t: t, h: h}
}

func (n *node) do(a sdk.Action, mode sdk.Mode) sdk.Result {
	n.t.Helper()
	n.n++
	return n.h.Do(within(n.t, 40*time.Second), sdk.Transition{
		ID: fmt.Sprint("t", n.n), Attempt: 1, Term: sdk.Term(n.n), Service: "orders", Node: "db1", Reason: sdk.ReasonSwitchover, Cause: "a test",
		Action: a, Mode: mode, Timeout: 30 * time.Second, LeaseUntil: sdk.Now().Add(time.Minute), Primary: sdk.Peer{Node: "db1"},
	}, time.Second, func(string) {})
}

// want asks for an act and a check.
func (n *node) want(a sdk.Action, mode sdk.Mode, outcome sdk.Outcome, role sdk.Role, detail string) {
	n.t.Helper()
	if got := n.do(a, mode); got.Outcome != outcome {
		n.t.Errorf("%s: got %+v, want %s; it said\n%s", a, got, outcome, n.h.Said())
	}
	got, err := n.h.Check(within(n.t, 20*time.Second), role, sdk.Term(n.n))
	if err != nil || !got.Fit || got.Detail != detail {
		n.t.Errorf("after %s: got %+v, %v, want fit, %q", a, got, err, detail)
	}
}

// Pacemaker's agent Stateful runs on every node, and is promoted on one.
func TestStateful(t *testing.T) {
	t.Parallel()
	config, state := stateful(t)
	n := newNode(t, config)
	const standby = "running as a standby"
	n.want(sdk.Demote, sdk.Planned, sdk.OutcomeAlready, sdk.RoleStandby, standby)
	if got := state(); got != "Unpromoted" {
		t.Errorf("it is %q", got)
	}
	n.want(sdk.Promote, sdk.Planned, sdk.OutcomeDone, sdk.RolePrimary, "promoted")
	if got := state(); got != "Promoted" {
		t.Errorf("it is %q", got)
	}
	n.want(sdk.Promote, sdk.Planned, sdk.OutcomeAlready, sdk.RolePrimary, "promoted")
	n.want(sdk.Demote, sdk.Forced, sdk.OutcomeDone, sdk.RoleCandidate, standby)
	if got := state(); got != "Unpromoted" {
		t.Errorf("it is %q", got)
	}
	n.want(sdk.Follow, sdk.Planned, sdk.OutcomeAlready, sdk.RoleStandby, standby)
	if said := n.h.Said(); strings.Contains(said, "not found") || strings.Contains(said, "Pacemaker cluster") {
		t.Errorf("it misses something: %s", said)
	}
}

// The contract of all plugins, with a promotable agent of others. It is alone with
// the processor: the suite bounds times, and agents are many processes.
func TestStatefulConforms(t *testing.T) {
	config, state := stateful(t)
	sdktest.Run(t, sdktest.Binary(sdktest.Build(t, ".")), sdktest.Config{
		Settings: config,
		Timeout:  30 * time.Second,
		Promoted: func() (bool, error) { return state() == "Promoted", nil },
	})
}

// virtualIP are settings for heartbeat's agent IPaddr2.
func virtualIP(t *testing.T, address, device string) map[string]any {
	t.Helper()
	needAgent(t, "heartbeat", "IPaddr2", "resource-agents")
	return map[string]any{"agent": "ocf:heartbeat:IPaddr2", "parameters": map[string]any{
		"ip": address, "cidr_netmask": "24", "nic": device,
		"arp_count": "1", "arp_interval": "20", // not a second's worth of them
	}}
}

// has reports whether the host of this process has an address.
func has(address string) (bool, error) {
	all, err := net.InterfaceAddrs()
	for _, a := range all {
		if ip, _, _ := net.ParseCIDR(a.String()); ip.String() == address {
			return true, nil
		}
	}
	return false, err
}

// Heartbeat's agent IPaddr2 runs on the primary alone.
func TestIPaddr2(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	l.Plug(l.Home(), "one0", "192.0.2.11/24")
	const vip = "192.0.2.10"
	seen := func(want bool) {
		t.Helper()
		if got, err := has(vip); err != nil || got != want {
			t.Errorf("it has %s: %v, %v, want %v", vip, got, err, want)
		}
	}
	n := newNode(t, virtualIP(t, vip, "one0"))
	n.want(sdk.Demote, sdk.Planned, sdk.OutcomeAlready, sdk.RoleStandby, "not running")
	seen(false)
	n.want(sdk.Promote, sdk.Planned, sdk.OutcomeDone, sdk.RolePrimary, "running")
	seen(true)
	n.want(sdk.Promote, sdk.Planned, sdk.OutcomeAlready, sdk.RolePrimary, "running")
	n.want(sdk.Demote, sdk.Forced, sdk.OutcomeDone, sdk.RoleCandidate, "not running")
	seen(false)

	err := n.h.Validate(t.Context(), wire.Setup{Service: "orders", Node: "db1", Part: "ocf", Config: virtualIP(t, "192.0.2.300", "one0")})
	if err == nil || !strings.Contains(err.Error(), "parameters: ocf:heartbeat:IPaddr2 does not like them") {
		t.Errorf("an address that is none: got %v", err)
	}
}

// The contract of all plugins, with a simple agent of others: the cases in which
// the agent matters. IPaddr2 takes its time; Stateful goes through all of them.
func TestIPaddr2Conforms(t *testing.T) {
	l := netlab.New(t)
	l.Plug(l.Home(), "two0", "198.51.100.11/24")
	const vip = "198.51.100.10"
	sdktest.Run(t, sdktest.Binary(sdktest.Build(t, ".")), sdktest.Config{
		Settings: virtualIP(t, vip, "two0"),
		Timeout:  30 * time.Second,
		Only:     regexp.MustCompile("^(demote-first|promote|promote-twice|demote-twice|adopt|cancel|kill-promote|check-changes-nothing|descriptors)$"),
		Promoted: func() (bool, error) { return has(vip) },
	})
}

// Agents that need a cluster are refused with the reason, and such that do not
// are taken, as Debian has them.
func TestWhichAgentsAreTaken(t *testing.T) {
	t.Parallel()
	needAgent(t, "heartbeat", "IPaddr2", "resource-agents")
	needAgent(t, "pacemaker", "Stateful", "pacemaker-resource-agents")
	for agent, want := range map[string]string{
		"ocf:heartbeat:IPaddr2":       "",
		"ocf:heartbeat:Filesystem":    "",
		"ocf:heartbeat:LVM-activate":  "",
		"ocf:heartbeat:Dummy":         "",
		"ocf:heartbeat:iSCSITarget":   "",
		"ocf:heartbeat:exportfs":      "",
		"ocf:heartbeat:Stateful":      "",
		"ocf:pacemaker:Dummy":         "",
		"ocf:pacemaker:Stateful":      "",
		"ocf:heartbeat:mysql":         "read-only in notify",
		"ocf:heartbeat:galera":        "attributes that all nodes",
		"ocf:heartbeat:mariadb":       "the action notify",
		"ocf:heartbeat:conntrackd":    "the action notify",
		"ocf:heartbeat:pgsql":         "calls crm_mon",
		"ocf:heartbeat:SAPDatabase":   "calls cibadmin",
		"ocf:heartbeat:VirtualDomain": "calls crm_resource",
		"ocf:pacemaker:ping":          "calls attrd_updater",
	} {
		s := settings{Agent: agent, Root: "/usr/lib/ocf", Kind: "auto"}
		a, err := s.find()
		if err != nil {
			t.Error(err)
			continue
		}
		about, err := a.metadata(t.Context())
		if err != nil {
			t.Error(err)
			continue
		}
		var wrong []string
		for _, err := range s.judge(a, about) {
			if !strings.HasSuffix(err.Error(), "requires it") {
				wrong = append(wrong, err.Error())
			}
		}
		if all := strings.Join(wrong, "\n"); (want == "") != (all == "") || !strings.Contains(all, want) {
			t.Errorf("%s: got %q, want %q", agent, all, want)
		}
	}
}
