package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/deputy-ha/deputy/sdk"
)

// A fakeHost is a host whose systemd is a fake: a service of the same name on
// a dbus-daemon of the test's own, with units whose processes are numbers in
// files of a folder. What it does is what systemd 252 and 257 were seen to do.
type fakeHost struct {
	t    *testing.T
	dir  string
	conn *dbus.Conn
	cmd  *exec.Cmd // dbus-daemon

	mu       sync.Mutex
	units    map[string]*fakeUnit
	jobs     int
	pids     int
	calls    []string // of jobs and signals, in order
	denied   bool     // to whoever asks
	goesDown bool     // the host shuts down
}

// A fakeUnit is a unit and what it does.
type fakeUnit struct {
	view
	name string
	conf map[string]any // properties that are otherwise than those of most units

	startTakes, stopTakes time.Duration // until a job is done; less than zero: never
	startFails            string        // the job's result
	diesAfter             time.Duration // once it is started; zero: it does not
	leaves                bool          // processes, when it is stopped
	immortal              bool          // SIGKILL does not end it
	restarts              bool          // Restart=always
	limited               string        // what a start ends as that is not even tried, as one too many lately; empty: it is tried
	starts                int

	job int // the newest
}

// newFakeHost starts it.
func newFakeHost(t *testing.T) *fakeHost {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no dbus-daemon, which package dbus brings: %v", err)
		}
		t.Skipf("no dbus-daemon, which package dbus brings: %v", err)
	}
	dir, err := os.MkdirTemp("", "bus") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	h := &fakeHost{t: t, dir: dir, units: map[string]*fakeUnit{}}
	t.Cleanup(func() {
		h.stopBus()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	h.write("bus.conf", `<busconfig><type>system</type><listen>unix:path=`+dir+`/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>`)
	h.write("cgroup/cgroup.procs", "")
	h.startBus()
	return h
}

// at is where the plugin finds the fake.
func (h *fakeHost) at() place { return placeBelow(h.dir) }

func placeBelow(dir string) place {
	return place{buses: []string{"unix:path=" + dir + "/bus"}, run: dir + "/run", cgroups: dir + "/cgroup"}
}

func (h *fakeHost) write(name, text string) {
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// startBus starts dbus-daemon, and connects the fake to it.
func (h *fakeHost) startBus() {
	h.t.Helper()
	h.cmd = exec.Command("dbus-daemon", "--config-file="+h.dir+"/bus.conf", "--nofork", "--nopidfile", "--nosyslog")
	if err := h.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	var conn *dbus.Conn
	eventually(h.t, "dbus-daemon answers", func() (err error) {
		conn, err = dbus.Connect("unix:path=" + h.dir + "/bus")
		return err
	})
	h.conn = conn
	if err := errors.Join(conn.Export(fakePID1{h}, pid1Path, pid1), conn.Export(fakeSystem{h}, pid1Path, properties)); err != nil {
		h.t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, u := range h.units {
		h.export(u)
	}
	if _, err := conn.RequestName(pid1Name, 0); err != nil {
		h.t.Fatal(err)
	}
}

func (h *fakeHost) stopBus() {
	_ = h.conn.Close()
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
	_ = os.Remove(h.dir + "/bus")
}

// unit adds a unit that most would take.
func (h *fakeHost) unit(name string, change ...func(*fakeUnit)) *fakeUnit {
	u := &fakeUnit{name: name, conf: map[string]any{}, startTakes: time.Millisecond, stopTakes: time.Millisecond}
	u.view = view{
		Active: "inactive", Sub: "dead", Slice: "system.slice", Met: false, Load: "loaded", Kind: "notify", KillMode: "control-group",
		SendSIGKILL: true, FileState: "disabled", Freezer: "running", Result: "success",
		Conditions: []condition{{Name: "ConditionPathExists", Parameter: h.at().run + "/orders/allow-" + name}},
	}
	for _, f := range change {
		f(u)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.units[name] = u
	h.export(u)
	return u
}

func (u *fakeUnit) path() dbus.ObjectPath {
	return dbus.ObjectPath("/org/freedesktop/systemd1/unit/" + strings.NewReplacer(".", "_2e", "-", "_2d", "@", "_40").Replace(u.name))
}

func (h *fakeHost) export(u *fakeUnit) {
	if err := errors.Join(h.conn.Export(fakeProps{h, u}, u.path(), properties), h.conn.Export(fakeObject{h, u}, u.path(), unitObject)); err != nil {
		h.t.Error(err)
	}
}

// A fakeSystem is the state of the whole host.
type fakeSystem struct{ h *fakeHost }

// Get returns it.
func (s fakeSystem) Get(string, string) (dbus.Variant, *dbus.Error) {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	if s.h.goesDown {
		return dbus.MakeVariant("stopping"), nil
	}
	return dbus.MakeVariant("running"), nil
}

// A fakeProps are the properties of a unit.
type fakeProps struct {
	h *fakeHost
	u *fakeUnit
}

// GetAll returns all.
func (p fakeProps) GetAll(string) (map[string]dbus.Variant, *dbus.Error) {
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	all := map[string]dbus.Variant{}
	for _, one := range p.u.read() {
		all[one.name] = variant(one.into)
	}
	return all, nil
}

func variant(into any) dbus.Variant {
	switch v := into.(type) {
	case *string:
		return dbus.MakeVariant(*v)
	case *bool:
		return dbus.MakeVariant(*v)
	case *[]byte:
		return dbus.MakeVariant(*v)
	case *[]string:
		return dbus.MakeVariant(*v)
	case *[]condition:
		return dbus.MakeVariant(slices.Clone(*v)) // sent once nothing is locked any more
	case *struct{ Name, Message string }:
		return dbus.MakeVariant(*v)
	case *struct {
		ID   uint32
		Path dbus.ObjectPath
	}:
		j := *v
		if j.Path == "" {
			j.Path = "/"
		}
		return dbus.MakeVariant(j)
	}
	panic(fmt.Sprintf("%T", into))
}

// A fakePID1 has the methods of systemd that the plugin calls.
type fakePID1 struct{ h *fakeHost }

// Subscribe does nothing: all are told.
func (p fakePID1) Subscribe() *dbus.Error { return nil }

// LoadUnit makes up units that are not there, as systemd does.
func (p fakePID1) LoadUnit(name string) (dbus.ObjectPath, *dbus.Error) {
	p.h.mu.Lock()
	u := p.h.units[name]
	p.h.mu.Unlock()
	if u == nil {
		u = p.h.unit(name, func(u *fakeUnit) { u.Load = "not-found" })
	}
	return u.path(), nil
}

// StartUnit begins a job.
func (p fakePID1) StartUnit(name, _ string) (dbus.ObjectPath, *dbus.Error) {
	return p.h.begin("start", name, (*fakeUnit).up)
}

// StopUnit begins a job.
func (p fakePID1) StopUnit(name, _ string) (dbus.ObjectPath, *dbus.Error) {
	return p.h.begin("stop", name, (*fakeUnit).down)
}

// ResetFailedUnit forgets failures.
func (p fakePID1) ResetFailedUnit(name string) *dbus.Error {
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	if p.h.denied {
		return denial()
	}
	u := p.h.units[name]
	u.limited = ""
	if u.Active == "failed" {
		u.Active, u.Sub, u.Result = "inactive", "dead", "success"
	}
	return nil
}

// A fakeObject is a unit's own.
type fakeObject fakeProps

// Kill sends a signal.
func (p fakeObject) Kill(_ string, signal int32) *dbus.Error {
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	if p.h.denied {
		return denial()
	}
	if signal != 9 {
		return nil
	}
	p.h.calls = append(p.h.calls, "kill "+p.u.name)
	if !p.u.immortal && p.u.Group != "" {
		p.h.ends(p.u, "signal")
	}
	return nil
}

func denial() *dbus.Error {
	return dbus.NewError("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", []any{"Interactive authentication required."})
}

// begin begins a job, which replaces one that has not ended.
func (h *fakeHost) begin(what, name string, do func(*fakeUnit, *fakeHost) (string, time.Duration)) (dbus.ObjectPath, *dbus.Error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.denied {
		return "", denial()
	}
	h.calls = append(h.calls, what+" "+name)
	u := h.units[name]
	if u.job != 0 {
		h.removed(u, "canceled")
	}
	h.jobs++
	id := h.jobs
	u.job, u.Job.ID, u.Job.Path = id, uint32(id), jobPath(id)
	if what == "stop" && u.active() {
		u.Active, u.Sub = "deactivating", "stop-sigterm"
	}
	h.changed(u)
	takes := u.startTakes
	if what == "stop" {
		takes = u.stopTakes
		if u.Group == "" {
			takes = 0
		}
	}
	if takes >= 0 {
		time.AfterFunc(takes, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			if u.job != id {
				return
			}
			result, dies := do(u, h)
			h.removed(u, result)
			if run := u.starts; dies > 0 {
				time.AfterFunc(dies, func() {
					h.mu.Lock()
					defer h.mu.Unlock()
					if u.starts == run && u.active() {
						h.ends(u, "exit-code")
					}
				})
			}
		})
	}
	return jobPath(id), nil
}

func jobPath(id int) dbus.ObjectPath {
	return dbus.ObjectPath(fmt.Sprint("/org/freedesktop/systemd1/job/", id))
}

// up is what a start comes to.
func (u *fakeUnit) up(h *fakeHost) (string, time.Duration) {
	if u.active() {
		return "done", 0
	}
	u.Met = true
	for i, c := range u.Conditions {
		_, err := os.Stat(c.Parameter)
		u.Conditions[i].State = 1
		if (err == nil) == c.Negate {
			u.Conditions[i].State, u.Met = -1, false
		}
	}
	switch {
	case !u.Met:
		return "done", 0
	case u.limited != "":
		u.Active, u.Sub = "failed", "failed" // and the result is that of the last run
		return u.limited, 0
	case u.startFails != "":
		u.starts++
		u.Invocation = fmt.Append(nil, u.starts)
		u.Active, u.Sub, u.Result = "failed", "failed", "exit-code"
		return u.startFails, 0
	}
	h.pids++
	u.starts++
	u.Active, u.Sub, u.Result, u.Group, u.Invocation = "active", "running", "success", "/system.slice/"+u.name, fmt.Append(nil, u.starts)
	h.write("cgroup"+u.Group+"/cgroup.procs", fmt.Sprintln(4000+h.pids))
	return "done", u.diesAfter
}

// down is what a stop comes to.
func (u *fakeUnit) down(h *fakeHost) (string, time.Duration) {
	u.Active, u.Sub = "inactive", "dead"
	if !u.leaves {
		h.empties(u)
	}
	return "done", 0
}

// ends is what a unit does whose processes end. A job that stops it is then
// done; else it is started again, if it is one of those.
func (h *fakeHost) ends(u *fakeUnit, result string) {
	h.empties(u)
	stopping := u.Active == "deactivating"
	u.Active, u.Sub, u.Result = "failed", "failed", result
	switch {
	case stopping:
		h.removed(u, "done")
	case u.restarts:
		u.Active, u.Sub = "activating", "auto-restart"
	}
	h.changed(u)
}

func (h *fakeHost) empties(u *fakeUnit) {
	u.leaves = false
	if u.Group != "" {
		_ = os.RemoveAll(h.dir + "/cgroup" + u.Group)
		u.Group = ""
	}
}

// removed ends the job of a unit.
func (h *fakeHost) removed(u *fakeUnit, result string) {
	id := u.job
	if id == 0 {
		return
	}
	u.job, u.Job.ID, u.Job.Path = 0, 0, "/"
	h.changed(u)
	_ = h.conn.Emit(pid1Path, pid1+".JobRemoved", uint32(id), jobPath(id), u.name, result)
}

func (h *fakeHost) changed(u *fakeUnit) {
	_ = h.conn.Emit(u.path(), properties+".PropertiesChanged", unitObject, map[string]dbus.Variant{}, []string{"ActiveState"})
}

// crash has a unit's processes end by themselves.
func (h *fakeHost) crash(u *fakeUnit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ends(u, "exit-code")
}

// byHand starts a unit as an operator does.
func (h *fakeHost) byHand(u *fakeUnit) {
	h.t.Helper()
	if _, err := (fakePID1{h}).StartUnit(u.name, "replace"); err != nil {
		h.t.Fatal(err)
	}
	eventually(h.t, "the job ends", func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if u.job != 0 {
			return fmt.Errorf("job %d runs", u.job)
		}
		return nil
	})
}

// did returns what was asked for since the last call.
func (h *fakeHost) did() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	calls := h.calls
	h.calls = nil
	return calls
}

// runs tells whether a unit has processes.
func (h *fakeHost) runs(u *fakeUnit) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return u.Group != ""
}

// set changes what a unit does.
func (h *fakeHost) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// A subject is a plugin on a fake host.
type subject struct {
	*systemd
	h    *fakeHost
	t    *testing.T
	acts int
}

// plugin returns one that has the settings of most tests, unless changed.
func (h *fakeHost) plugin(units []string, change ...func(*settings)) *subject {
	h.t.Helper()
	c := settings{Settle: 30 * time.Millisecond, Forced: "kill", Guard: true}
	for _, u := range units {
		c.Units = append(c.Units, unitName(u))
	}
	for _, f := range change {
		f(&c)
	}
	s := &subject{h: h, t: h.t, systemd: newSystemd(h.at(), c, sdk.Host{Service: "orders", Node: "db1", Part: "units", Log: slog.New(slog.DiscardHandler)})}
	h.t.Cleanup(func() { _ = s.Close() })
	return s
}

func (s *subject) transition(a sdk.Action, term sdk.Term) *sdk.Transition {
	s.acts++
	return &sdk.Transition{
		ID: fmt.Sprint(a, s.acts), Action: a, Mode: sdk.Planned, Service: "orders", Node: "db1", Term: term, Attempt: 1,
		Timeout: 10 * time.Second, LeaseUntil: sdk.Now().Add(time.Minute),
	}
}

// within does an act with a deadline, as the SDK does.
func (s *subject) within(t *sdk.Transition) error {
	ctx, cancel := context.WithTimeoutCause(s.t.Context(), t.Timeout, fmt.Errorf("not done within %s", t.Timeout))
	defer cancel()
	if t.Action == sdk.Promote {
		return s.Promote(ctx, t)
	}
	return s.Demote(ctx, t)
}

func (s *subject) promote(term sdk.Term) error { return s.within(s.transition(sdk.Promote, term)) }
func (s *subject) demote(term sdk.Term) error  { return s.within(s.transition(sdk.Demote, term)) }

// must fails the test on an error.
func (s *subject) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// says fails the test unless an error says all of that.
func says(t *testing.T, err error, words ...string) {
	t.Helper()
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("got %v, want an error with %q", err, w)
		}
	}
}

// asked fails the test unless just that was asked for since the last time.
func (h *fakeHost) asked(want ...string) {
	h.t.Helper()
	if got := h.did(); !slices.Equal(got, want) {
		h.t.Errorf("systemd was asked for %q, want %q", got, want)
	}
}

// eventually waits for what has to become true.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within 10s: %v", what, err)
		}
	}
}
