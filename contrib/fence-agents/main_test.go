package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/sdktest"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// TestMain is the plugin's own main when a host starts this program, and else
// the tests.
func TestMain(m *testing.M) {
	if os.Getenv("PLUGIN_UNIX_SOCKET_DIR") != "" {
		main()
	}
	os.Exit(m.Run())
}

// A device is what the agent of the tests turns nodes off by.
type device struct {
	*testing.T
	state string
	agent string // its program
	log   *lockedBuffer
}

// newDevice has two nodes that are on. The agent is called as the given name.
func newDevice(t *testing.T, name string) *device {
	t.Helper()
	d := &device{T: t, state: t.TempDir(), log: &lockedBuffer{}}
	program, err := filepath.Abs("testdata/fence_lab")
	if err != nil {
		t.Fatal(err)
	}
	d.agent = filepath.Join(t.TempDir(), name)
	if err := os.Symlink(program, d.agent); err != nil {
		t.Fatal(err)
	}
	d.set("1", "on")
	d.set("2", "on")
	return d
}

// set writes a file of the device.
func (d *device) set(file, text string) {
	d.Helper()
	if err := os.WriteFile(filepath.Join(d.state, file), []byte(text+"\n"), 0o600); err != nil {
		d.Fatal(err)
	}
}

// get reads one; empty when it is not there.
func (d *device) get(file string) string {
	text, _ := os.ReadFile(filepath.Join(d.state, file))
	return strings.TrimSpace(string(text))
}

// settings are some for this device.
func (d *device) settings() settings {
	return settings{
		Agent: d.agent, Action: "off", Verify: true, Timeout: 10 * time.Second,
		Options: map[string]string{"state": d.state, "password": "s3cr3t"},
		Nodes:   map[string]map[string]string{"db1": {"plug": "1"}, "db2": {"plug": "2"}},
	}
}

// fencer is the plugin on db2.
func (d *device) fencer(s settings) *fencer {
	d.Helper()
	f, err := newFencer(d.Context(), s, sdk.Host{Node: "db2", Log: slog.New(slog.NewTextHandler(d.log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { f.Close() })
	return f
}

func (d *device) fence(f *fencer, victim string, within time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(d.Context(), within, fmt.Errorf("not within %s", within))
	defer cancel()
	return f.Fence(ctx, sdk.Peer{Node: victim}, &sdk.Transition{})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// await waits for a condition.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestFence(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*device, *settings)
		victim string
		want   string // part of the error; empty: it is fenced
		state  string // of the victim's plug afterwards
		calls  string // in order, of the victim's plug
	}{
		{"it is on", nil, "db1", "", "off", "status off status"},
		{"it is off already", func(d *device, _ *settings) { d.set("1", "off") }, "db1", "says that db1 is off: already so", "off", "status"},
		{"it takes a moment", func(d *device, _ *settings) { d.set("slow", "") }, "db1", "", "off", "status off status.*"},
		{"turned on again", func(_ *device, s *settings) { s.Action = "reboot" }, "db1", "", "on", "status off status on"},
		{"off already is not turned on", func(d *device, s *settings) { d.set("1", "off"); s.Action = "reboot" }, "db1", "already so", "off", "status"},
		{
			"it cannot be turned on again, and is fenced all the same",
			func(d *device, s *settings) { d.set("fail-on", "no power"); s.Action = "reboot" }, "db1", "", "off", "status off status on",
		},
		{"not turned off, whatever the agent says", func(d *device, _ *settings) { d.set("lies", "") }, "db1", "status does not prove it: it is on", "on", "status off status.*"},
		{"trusted", func(d *device, s *settings) { d.set("lies", ""); s.Verify = false }, "db1", "", "on", "off"},
		{"trusted, and it fails", func(d *device, s *settings) { d.set("fail-off", "no route"); s.Verify = false }, "db1", "exit status 1: no route", "on", "off"},
		{"off fails, and the node is on", func(d *device, _ *settings) { d.set("fail-off", "busy") }, "db1", "off: exit status 1: busy; and then status: it is on", "on", "status off status"},
		{"status fails", func(d *device, _ *settings) { d.set("fail-status", "no route") }, "db1", "status does not prove it: exit status 1: no route", "off", "status off status.*"},
		{"status has no words for its exit code", func(d *device, _ *settings) { d.set("exit2", "") }, "db1", "exits as if the node were off, and does not say so", "off", "status off status.*"},
		{"a plug that there is not", func(_ *device, s *settings) { s.Nodes["db1"]["plug"] = "9" }, "db1", "off: exit status 1: no plug 9; and then status: exit status 1: no plug 9", "on", ""},
		{"a stranger", nil, "db9", "db9 is not among nodes, which are db1, db2: add it there", "on", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := newDevice(t, "fence_lab")
			s := d.settings()
			if c.change != nil {
				c.change(d, &s)
			}
			err := d.fence(d.fencer(s), c.victim, 4*time.Second)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("got %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			}
			if strings.Contains(c.want, "already so") != errors.Is(err, sdk.ErrAlready) {
				t.Errorf("already: %v", err)
			}
			if got := d.get("1"); got != c.state {
				t.Errorf("the plug is %s, want %s", got, c.state)
			}
			calls := strings.TrimSpace(strings.ReplaceAll(strings.ReplaceAll(d.get("calls"), " 1", ""), "\n", " "))
			if c.calls != "" && !regexp.MustCompile("^"+c.calls+"$").MatchString(calls) {
				t.Errorf("called for %q, want %q", calls, c.calls)
			}
		})
	}
}

// At its deadline all of the agent is gone, children included.
func TestAgentThatHangs(t *testing.T) {
	t.Parallel()
	d := newDevice(t, "fence_lab")
	d.set("hang-off", "")
	s := d.settings()
	s.Timeout = 300 * time.Millisecond
	began := time.Now()
	err := d.fence(d.fencer(s), "db1", 30*time.Second)
	if err == nil || !strings.Contains(err.Error(), "off: no answer within 300ms; and then status: it is on") {
		t.Errorf("got %v, want that off did not answer", err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("took %s", took)
	}
	child, err := strconv.Atoi(d.get("child"))
	if err != nil {
		t.Fatal(err)
	}
	// A zombie has ended: whoever its parent is now takes its time to see that.
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
	_, state, _ := strings.Cut(string(stat), ") ")
	if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH) && !strings.HasPrefix(state, "Z") {
		t.Errorf("its child %d is left: %s (%v)", child, state, err)
	}
}

// A secret is in no argument, no environment, no log and no error, though the
// agent itself prints it.
func TestSecretsStayHidden(t *testing.T) {
	t.Parallel()
	d := newDevice(t, "fence_lab")
	d.set("fail-off", "login with s3cr3t refused")
	s := d.settings()
	s.Options["verbose"] = "1"
	err := d.fence(d.fencer(s), "db1", 10*time.Second)
	if err == nil || !strings.Contains(err.Error(), "login with *** refused") {
		t.Errorf("got %v, want why, without the secret", err)
	}
	if !strings.Contains(d.log.String(), "sends *** to the device") {
		t.Errorf("the log is %s", d.log)
	}
	for what, text := range map[string]string{"arguments and environment": d.get("seen"), "the log": d.log.String(), "the error": fmt.Sprint(err)} {
		if text == "" || strings.Contains(text, "s3cr3t") {
			t.Errorf("%s: %q", what, text)
		}
	}
}

// What a fence would need is looked at before it is needed.
func TestMonitor(t *testing.T) {
	t.Parallel()
	d := newDevice(t, "fence_lab")
	s := d.settings()
	s.Monitor = 20 * time.Millisecond
	f := d.fencer(s)
	says := func(want string) func() bool {
		return func() bool {
			h, err := f.Check(t.Context(), sdk.RoleStandby)
			if err != nil || !h.Fit {
				t.Fatalf("unfit for a device that does not answer: %+v, %v", h, err)
			}
			return strings.Contains(h.Detail, want)
		}
	}
	await(t, "it can fence", says("can fence db1"))
	d.set("fail-status", "no route to the switch")
	await(t, "it cannot", says("warning: cannot fence db1: exit status 1: no route to the switch"))
	await(t, "a warning", func() bool { return strings.Contains(d.log.String(), "a node could not be fenced now") })
	os.Remove(filepath.Join(d.state, "fail-status"))
	await(t, "it can again", says("can fence db1"))
	await(t, "that it can again is logged", func() bool { return strings.Contains(d.log.String(), "can be fenced again") })
	if n := strings.Count(d.log.String(), "a node could not be fenced now"); n != 1 {
		t.Errorf("warned %d times", n)
	}
	if strings.Contains(d.get("calls"), "off") || strings.Contains(d.get("calls"), " 2") {
		t.Errorf("a look did more than look, or at itself: %s", d.get("calls"))
	}
}

// A device that serves one at a time serves a fence first.
func TestFenceGoesFirst(t *testing.T) {
	t.Parallel()
	d := newDevice(t, "fence_lab")
	d.set("hang-status", "")
	s := d.settings()
	s.Monitor, s.Timeout = time.Millisecond, time.Minute
	f := d.fencer(s)
	await(t, "a look that hangs", func() bool { return d.get("child") != "" })
	os.Remove(filepath.Join(d.state, "hang-status"))
	if err := d.fence(f, "db1", 30*time.Second); err != nil {
		t.Errorf("got %v", err)
	}
	if d.get("1") != "off" {
		t.Error("the node is on")
	}
}

func TestSettings(t *testing.T) {
	h := sdktest.Own(t)
	d, blind, kind, mute := newDevice(t, "fence_lab"), newDevice(t, "fence_blind"), newDevice(t, "fence_kind"), newDevice(t, "fence_mute")
	type m = map[string]any
	nodes := m{"db1": m{"plug": "1"}, "db2": m{}}
	for _, c := range []struct {
		name   string
		config m
		want   string // empty when it is right; else part of what is wrong
	}{
		{"all that is needed", m{"agent": d.agent, "nodes": nodes}, ""},
		{"everything", m{"agent": d.agent, "nodes": nodes, "options": m{"state": "/x", "power-timeout": "9"}, "action": "reboot", "verify": true, "timeout": "5s", "monitor": "10s"}, ""},
		{"without status, trusted", m{"agent": blind.agent, "nodes": nodes, "verify": false}, ""},
		{"one that does not tell about itself", m{"agent": mute.agent, "nodes": m{"db1": m{"odd": "1"}}}, ""},

		{"nothing", m{}, "agent: is missing"},
		{"no nodes", m{"agent": d.agent}, "nodes: is missing"},
		{"nodes that are none", m{"agent": d.agent, "nodes": m{}}, "nodes: is empty"},
		{"no such agent", m{"agent": "fence_ilo_of_nobody", "nodes": nodes}, "agent: no fence_ilo_of_nobody in /usr/sbin or $PATH: install it (Debian: fence-agents; Red Hat: fence-agents-ilo-of-nobody)"},
		{"no such file", m{"agent": "/nonexistent/fence_x", "nodes": nodes}, "agent: stat /nonexistent/fence_x"},
		{"not a program", m{"agent": "/etc/passwd", "nodes": nodes}, "agent: /etc/passwd is not a program"},
		{"an option misspelt", m{"agent": d.agent, "nodes": nodes, "options": m{"pasword": "x"}}, `options.pasword: ` + d.agent + ` has no such option; did you mean "password"?`},
		{"an option of a node", m{"agent": d.agent, "nodes": m{"db1": m{"socket": "1"}}}, "nodes.db1.socket: " + d.agent + " has no such option; there are "},
		{"its own action", m{"agent": d.agent, "nodes": nodes, "options": m{"action": "on"}}, "options.action: is for deputy to say"},
		{"two lines", m{"agent": d.agent, "nodes": nodes, "options": m{"password": "a\naction=on"}}, "options.password: has more than one line"},
		{"a number", m{"agent": d.agent, "nodes": m{"db1": m{"plug": 1}}}, "nodes.db1.plug: must be a text in quotes"},
		{"no status", m{"agent": blind.agent, "nodes": nodes}, "verify: " + blind.agent + " cannot tell whether a node is off"},
		{"no off", m{"agent": kind.agent, "nodes": nodes}, `cannot do "off", only on, status, monitor, metadata`},
		{"no on", m{"agent": blind.agent, "nodes": nodes, "verify": false, "action": "reboot"}, `cannot do "on"`},
		{"another action", m{"agent": d.agent, "nodes": nodes, "action": "cycle"}, "action: "},
	} {
		err := h.Validate(t.Context(), wire.Setup{Service: "s", Node: "db2", Part: "fence", Config: c.config})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: got %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	err := h.Configure(t.Context(), wire.Setup{Service: "s", Node: "db1", Part: "fence", Config: m{"agent": d.agent, "nodes": m{"db1": m{}}}})
	if err == nil || !strings.Contains(err.Error(), "nodes: has no node besides this one, db1") {
		t.Errorf("only this node: got %v", err)
	}
}

// README.md has each setting, with its default, as the schema has it.
func TestReadmeHasTheSettings(t *testing.T) {
	d, err := sdktest.Own(t).Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(d.Capabilities) != "[check fence]" {
		t.Errorf("it can %v", d.Capabilities)
	}
	sdktest.Readme(t, readme, d.Schema)
}

// The contract of all plugins.
func TestConformance(t *testing.T) {
	t.Parallel()
	d := newDevice(t, "fence_lab")
	sdktest.Run(t, sdktest.Binary(sdktest.Build(t, ".")), sdktest.Config{
		Settings: map[string]any{
			"agent": d.agent, "monitor": "100ms", "options": map[string]any{"state": d.state, "password": "x"},
			"nodes": map[string]any{"sdktest": map[string]any{"plug": "2"}, "db1": map[string]any{"plug": "1"}},
		},
		Victim: sdk.Peer{Node: "db1"},
	})
	if d.get("1") != "off" || d.get("2") != "on" {
		t.Errorf("db1 is %s, want off; this node is %s, want on", d.get("1"), d.get("2"))
	}
}

// The family's own agent for tests, where it is installed.
func TestFenceDummy(t *testing.T) {
	t.Parallel()
	const dummy = "/usr/sbin/fence_dummy"
	if _, err := os.Stat(dummy); err != nil {
		t.Skipf("%v: Debian has it in fence-agents, which brings 130 MB of libraries", err)
	}
	status := filepath.Join(t.TempDir(), "status")
	if err := os.WriteFile(status, []byte("on"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := &device{T: t, log: &lockedBuffer{}}
	s := settings{
		Agent: "fence_dummy", Action: "off", Verify: true, Timeout: 20 * time.Second,
		Nodes: map[string]map[string]string{"db1": {"status_file": status}, "db2": {}},
	}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	if err := d.fence(d.fencer(s), "db1", time.Minute); err != nil {
		t.Fatalf("%v\n%s", err, d.log)
	}
	if text, err := os.ReadFile(status); err != nil || string(text) != "off" {
		t.Errorf("its file says %q, %v", text, err)
	}
	if err := d.fence(d.fencer(s), "db1", time.Minute); !errors.Is(err, sdk.ErrAlready) {
		t.Errorf("fenced again: %v, want already", err)
	}
	s.Nodes["db1"] = map[string]string{"type": "fail", "plug": "1", "power_timeout": "1"}
	if err := d.fence(d.fencer(s), "db1", 30*time.Second); err == nil {
		t.Error("fenced by an agent that fails")
	}
	s.Nodes["db1"] = map[string]string{"status_fil": status}
	if err := s.Validate(); err == nil || !strings.Contains(err.Error(), `did you mean "status_file"?`) {
		t.Errorf("a misspelt option: %v", err)
	}
	for _, name := range []string{"fence_apc", "fence_ipmilan", "fence_redfish", "fence_virsh"} {
		a, err := findAgent(name)
		if err != nil {
			t.Log(err)
			continue
		}
		about, err := a.metadata(t.Context())
		if err != nil || !about.can("off") || !about.can("status") || len(about.names()) < 20 {
			t.Errorf("%s tells of %v and %d options, %v", name, about.actions(), len(about.names()), err)
		}
	}
}
