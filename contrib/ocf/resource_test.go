package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/sdktest"
)

func TestActs(t *testing.T) {
	const promote, demote, follow, forced = "promote", "demote", "follow", "forced"
	const done, already, unchanged, unknown = sdk.OutcomeDone, sdk.OutcomeAlready, sdk.OutcomeUnchanged, sdk.OutcomeUnknown
	for _, c := range []struct {
		name    string
		kind    string
		is      string            // before
		files   map[string]string // of the resource
		act     string
		outcome sdk.Outcome
		want    string // part of the error
		left    string // what it is afterwards
		calls   string
		refused bool
	}{
		{"start", "Simple", "", nil, promote, done, "", "running", "monitor start monitor", false},
		{"runs already", "Simple", "running", nil, promote, already, "ocf:lab:Simple is running", "running", "monitor", false},
		{"runs degraded", "Simple", "190", nil, promote, already, "running, and degraded", "190", "monitor", false},
		{"start fails", "Simple", "", map[string]string{"fail-start": "1 no disk"}, promote, unchanged, "start: exit code 1: no disk", "", "monitor start monitor", false},
		{"start is refused", "Simple", "", map[string]string{"fail-start": "5 no mount.x"}, promote, unchanged, "start: exit code 5 (something is not installed): no mount.x", "", "monitor start monitor", true},
		{"start lies", "Simple", "", map[string]string{"lies-start": ""}, promote, unchanged, "start went well, and monitor does not prove it: it is not running", "", "monitor start monitor monitor", false},
		{"failed before", "Simple", "1", nil, promote, unknown, "monitor: exit code 1", "1", "monitor", false},
		{"an exit code of nobody", "Simple", "77", nil, promote, unknown, "monitor: exit code 77", "77", "monitor", false},
		{"stop", "Simple", "running", nil, demote, done, "", "", "monitor stop monitor", false},
		{"stop by force", "Simple", "running", nil, forced, done, "", "", "stop monitor", false},
		{"stopped already", "Simple", "", nil, demote, already, "ocf:lab:Simple is not running", "", "monitor stop monitor", false},
		{"stopped from any state", "Simple", "1", nil, demote, done, "", "", "monitor stop monitor", false},
		{"stop fails", "Simple", "running", map[string]string{"fail-stop": "1 busy"}, demote, unknown, "stop: exit code 1: busy; and then monitor: running", "running", "monitor stop monitor", false},
		{"stop fails, and monitor would not mind", "Simple", "", map[string]string{"fail-stop": "1 busy"}, demote, unknown, "stop: exit code 1: busy; and then monitor: not running", "", "monitor stop monitor", false},
		{"stop lies", "Simple", "running", map[string]string{"lies-stop": ""}, demote, unknown, "monitor does not prove it: it is running", "running", "monitor stop monitor", false},
		{"stop, and nobody knows", "Simple", "running", map[string]string{"fail-monitor": "1 hm"}, demote, unknown, "stop went well, and then monitor: exit code 1: hm", "", "monitor stop monitor", false},
		{"nobody to follow", "Simple", "", nil, follow, already, "runs on the primary alone", "", "", false},

		{"start and promote", "Role", "", nil, promote, done, "", "promoted", "monitor start promote monitor", false},
		{"promote a standby", "Role", "running", nil, promote, done, "", "promoted", "monitor promote monitor", false},
		{"promoted already", "Role", "promoted", nil, promote, already, "ocf:lab:Role is promoted", "promoted", "monitor", false},
		{"promoted and degraded", "Role", "191", nil, promote, already, "promoted, and degraded", "191", "monitor", false},
		{"promoted and failed", "Role", "9", nil, promote, unknown, "promoted, and failed: only a demotion", "9", "monitor", false},
		{"promote fails", "Role", "running", map[string]string{"fail-promote": "1 behind"}, promote, unchanged, "promote: exit code 1: behind", "running", "monitor promote monitor", false},
		{"promote fails, and has done it", "Role", "promoted", map[string]string{"fail-monitor": "1 hm"}, promote, unknown, "monitor: exit code 1: hm", "promoted", "monitor", false},
		{"promote lies", "Role", "running", map[string]string{"lies-promote": ""}, promote, unchanged, "it is running as a standby", "running", "monitor promote monitor monitor", false},
		{"demote", "Role", "promoted", nil, demote, done, "", "running", "monitor demote monitor monitor", false},
		{"demote by force", "Role", "promoted", nil, forced, done, "", "running", "demote monitor", false},
		{"demoted already", "Role", "running", nil, demote, already, "running as a standby", "running", "monitor demote monitor monitor", false},
		{"stopped: starts as a standby", "Role", "", nil, demote, already, "is not running", "running", "monitor demote monitor monitor start monitor", false},
		{"stopped: and stays so by force", "Role", "", nil, forced, done, "", "", "demote monitor", false},
		{"no standby: demoted all the same", "Role", "", map[string]string{"fail-start": "1 no disk"}, demote, already, "is not running", "", "monitor demote monitor monitor start", false},
		{"demote fails: stopped", "Role", "promoted", map[string]string{"fail-demote": "1 stuck"}, forced, done, "", "", "demote stop monitor", false},
		{"demote lies: stopped", "Role", "promoted", map[string]string{"lies-demote": ""}, forced, done, "", "", "demote monitor stop monitor", false},
		{"neither", "Role", "promoted", map[string]string{"fail-demote": "1 stuck", "fail-stop": "1 stuck too"}, forced, unknown, "demote: exit code 1: stuck; and stop: exit code 1: stuck too; and then monitor: promoted", "promoted", "demote stop monitor", false},
		{"follow", "Role", "", nil, follow, done, "", "running", "monitor start monitor", false},
		{"follows already", "Role", "running", nil, follow, already, "running as a standby", "running", "monitor", false},
		{"follow while promoted", "Role", "promoted", nil, follow, unknown, "it is promoted, and this node is not primary", "promoted", "monitor", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.set("is", c.is)
			for file, text := range c.files {
				b.set(file, text)
			}
			tr := sdk.Transition{
				ID: "t", Attempt: 1, Term: 1, Service: "orders", Node: "db1", Reason: sdk.ReasonElection, Cause: "a test",
				Action: sdk.Action(c.act), Mode: sdk.Planned, Timeout: 20 * time.Second, LeaseUntil: sdk.Now().Add(time.Minute), Primary: sdk.Peer{Node: "db1"},
			}
			switch c.act {
			case follow:
				tr.Primary.Node = "db2"
			case forced:
				tr.Action, tr.Mode, tr.Reason = sdk.Demote, sdk.Forced, sdk.ReasonLost
			}
			h := sdktest.Own(t)
			if err := h.Configure(t.Context(), b.setup(c.kind)); err != nil {
				t.Fatal(err)
			}
			got := h.Do(within(t, 30*time.Second), tr, time.Second, func(string) {})
			if got.Outcome != c.outcome || got.Refused != c.refused || !strings.Contains(got.Detail, c.want) {
				t.Errorf("got %+v, want %s: %s", got, c.outcome, c.want)
			}
			if got := b.get("is"); got != c.left {
				t.Errorf("it is %q, want %q", got, c.left)
			}
			if got := b.calls(); got != c.calls {
				t.Errorf("called for %q, want %q", got, c.calls)
			}
		})
	}
}

// What hangs is killed with its children, and what was begun is unknown. A
// demotion has time left then to stop.
func TestAgentThatHangs(t *testing.T) {
	t.Parallel()
	gone := func(b *bench) {
		t.Helper()
		child, err := strconv.Atoi(b.get("child"))
		if err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(10 * time.Second); !errors.Is(syscall.Kill(child, 0), syscall.ESRCH); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("its child %d is left", child)
			}
		}
	}
	b := newBench(t)
	b.set("hang-start", "")
	err := b.resource("Simple").Promote(within(t, 2*time.Second), &sdk.Transition{Timeout: 2 * time.Second})
	if err == nil || !strings.Contains(err.Error(), "start: ") || errors.Is(err, sdk.ErrAlready) {
		t.Errorf("start: got %v", err)
	}
	gone(b)

	b = newBench(t)
	b.set("is", "promoted")
	b.set("hang-demote", "")
	if err := b.resource("Role").Demote(within(t, 6*time.Second), &sdk.Transition{Mode: sdk.Forced}); err != nil {
		t.Errorf("demote: got %v", err)
	}
	if b.get("is") != "" {
		t.Errorf("it is %s, and not stopped", b.get("is"))
	}
	gone(b)
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		kind string
		role sdk.Role
		is   string
		want sdk.Health
		err  string
	}{
		{"Simple", sdk.RolePrimary, "running", sdk.Health{Fit: true, Detail: "running"}, ""},
		{"Simple", sdk.RolePrimary, "promoted", sdk.Health{Fit: true, Detail: "promoted"}, ""},
		{"Simple", sdk.RolePrimary, "190", sdk.Health{Fit: true, Detail: "running, and degraded"}, ""},
		{"Simple", sdk.RolePrimary, "", sdk.Health{Detail: "not running"}, ""},
		{"Simple", sdk.RolePrimary, "1", sdk.Health{}, "monitor: exit code 1"},
		{"Simple", sdk.RoleStandby, "", sdk.Health{Fit: true, Detail: "not running"}, ""},
		{"Simple", sdk.RoleCandidate, "5", sdk.Health{}, "monitor: exit code 5 (something is not installed)"},
		{"Simple", sdk.RoleStandby, "running", sdk.Health{Detail: "running, and this node is not primary"}, ""},
		{"Role", sdk.RolePrimary, "promoted", sdk.Health{Fit: true, Detail: "promoted"}, ""},
		{"Role", sdk.RolePrimary, "191", sdk.Health{Fit: true, Detail: "promoted, and degraded"}, ""},
		{"Role", sdk.RolePrimary, "running", sdk.Health{Detail: "running as a standby"}, ""},
		{"Role", sdk.RolePrimary, "9", sdk.Health{Detail: "promoted, and failed"}, ""},
		{"Role", sdk.RolePrimary, "", sdk.Health{Detail: "not running"}, ""},
		{"Role", sdk.RoleStandby, "running", sdk.Health{Fit: true, Detail: "running as a standby"}, ""},
		{"Role", sdk.RoleStandby, "", sdk.Health{Fit: true, Detail: "warning: not running; it is started with the next change of role"}, ""},
		{"Role", sdk.RoleCandidate, "promoted", sdk.Health{Detail: "promoted, and this node is not primary"}, ""},
	} {
		b := newBench(t)
		b.set("is", c.is)
		got, err := b.resource(c.kind).Check(t.Context(), c.role)
		if got != c.want || c.err == "" != (err == nil) || !strings.Contains(fmt.Sprint(err), c.err) {
			t.Errorf("%s, %s, %q: got %+v, %v, want %+v, %s", c.kind, c.role, c.is, got, err, c.want, c.err)
		}
		interval, level := "0", "0"
		if c.role == sdk.RolePrimary {
			interval, level = "10000", "10"
		}
		if env := b.get("env"); b.get("calls") != "monitor "+interval || !strings.Contains(env, "\nOCF_CHECK_LEVEL="+level+"\n") && !strings.HasPrefix(env, "OCF_CHECK_LEVEL="+level+"\n") {
			t.Errorf("%s, %s: called for %q, with\n%s", c.kind, c.role, b.get("calls"), env)
		}
	}
}

// An agent gets what the standard says.
func TestEnvironment(t *testing.T) {
	b := newBench(t)
	r := b.resource("Role")
	if err := r.Promote(within(t, 20*time.Second), &sdk.Transition{Timeout: 20 * time.Second}); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for line := range strings.Lines(b.get("env")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		env[name] = value
	}
	for name, want := range map[string]string{
		"OCF_ROOT": b.root, "OCF_RA_VERSION_MAJOR": "1", "OCF_RA_VERSION_MINOR": "1", "OCF_RESOURCE_INSTANCE": "orders-ocf",
		"OCF_RESOURCE_TYPE": "Role", "OCF_RESOURCE_PROVIDER": "lab", "OCF_EXIT_REASON_PREFIX": "ocf-exit-reason:",
		"OCF_RESKEY_state": b.state, "OCF_RESKEY_CRM_meta_on_node": "db1", "OCF_RESKEY_CRM_meta_promotable": "true",
		"OCF_RESKEY_CRM_meta_globally_unique": "false", "HA_SBIN_DIR": r.tools,
	} {
		if env[name] != want {
			t.Errorf("%s is %q, want %q", name, env[name], want)
		}
	}
	if ms, err := strconv.Atoi(env["OCF_RESKEY_CRM_meta_timeout"]); err != nil || ms <= 0 || ms > 20000 {
		t.Errorf("the timeout is %q ms", env["OCF_RESKEY_CRM_meta_timeout"])
	}
	for name := range env {
		if strings.HasPrefix(name, "PLUGIN_") {
			t.Errorf("%s is not for it", name)
		}
	}
}

// The timeouts in the metadata are advice, given once.
func TestAdvice(t *testing.T) {
	b := newBench(t)
	r := b.resource("Role")
	for range 2 {
		if err := r.Promote(within(t, 20*time.Second), &sdk.Transition{Action: sdk.Promote, Timeout: 20 * time.Second}); err != nil && !errors.Is(err, sdk.ErrAlready) {
			t.Fatal(err)
		}
		if err := r.Demote(within(t, 20*time.Second), &sdk.Transition{Action: sdk.Demote, Timeout: 5 * time.Second}); err != nil {
			t.Fatal(err)
		}
	}
	const advice = "the agent advises more time"
	if n := strings.Count(b.log.String(), advice); n != 1 || !strings.Contains(b.log.String(), "action=promote timeout=20s advised=27s") {
		t.Errorf("advised %d times:\n%s", n, b.log)
	}
}

// A secret that an agent prints is in no log and no error.
func TestSecretsStayHidden(t *testing.T) {
	b := newBench(t)
	s := b.resource("Simple").settings
	s.Parameters["password"] = "s3cr3t"
	b.set("fail-start", "1 login with s3cr3t refused")
	err := newPart(t, s, b.log).Promote(within(t, 20*time.Second), &sdk.Transition{Timeout: time.Minute})
	if err == nil || !strings.Contains(err.Error(), "login with *** refused") {
		t.Errorf("got %v, want why, without the secret", err)
	}
	if strings.Contains(b.log.String(), "s3cr3t") || !strings.Contains(b.log.String(), "***") {
		t.Errorf("the log is %s", b.log)
	}
}
