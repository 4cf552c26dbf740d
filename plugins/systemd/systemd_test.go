package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

func TestUnitsStartInOrderAndStopInReverse(t *testing.T) {
	h := newFakeHost(t)
	a, b := h.unit("a.service"), h.unit("b.service")
	s := h.plugin([]string{"a.service", "b.service"})
	s.must(s.promote(7))
	h.asked("start a.service", "start b.service")
	if !h.runs(a) || !h.runs(b) {
		t.Error("promoted, but not both run")
	}
	text, err := os.ReadFile(h.at().run + "/orders/allow-a.service")
	if want := "DEPUTY_SERVICE=orders\nDEPUTY_PART=units\nDEPUTY_NODE=\"db1\"\nDEPUTY_TERM=7\n"; string(text) != want {
		t.Errorf("leave to run says %q, %v; want %q", text, err, want)
	}
	s.must(s.demote(7))
	h.asked("stop b.service", "stop a.service")
	if h.runs(a) || h.runs(b) {
		t.Error("demoted, but not both have ended")
	}
	if left, _ := filepath.Glob(h.at().run + "/orders/*"); left != nil {
		t.Errorf("left: %s", left)
	}
	if err := s.demote(7); !errors.Is(err, sdk.ErrAlready) {
		t.Errorf("demote again: got %v, want already", err)
	}
	h.asked()
}

func TestNextProcessAdoptsWhatRunsForItsTerm(t *testing.T) {
	h := newFakeHost(t)
	a := h.unit("a.service")
	before := h.plugin([]string{"a.service"})
	before.must(before.promote(7))
	h.did()
	after := h.plugin([]string{"a.service"})
	if err := after.promote(7); !errors.Is(err, sdk.ErrAlready) {
		t.Errorf("promote for the same term: got %v, want already", err)
	}
	h.asked()
	// What runs for another term has that in its environment.
	after.must(after.promote(9))
	h.asked("stop a.service", "start a.service")
	if term, _ := after.allowed("a.service"); term != 9 || a.starts != 2 {
		t.Errorf("it runs for term %d, started %d times", term, a.starts)
	}
}

func TestWhatSomebodyElseStartedStartsAnew(t *testing.T) {
	h := newFakeHost(t)
	a := h.unit("a.service", func(u *fakeUnit) { u.Conditions = nil })
	h.byHand(a)
	h.did()
	s := h.plugin([]string{"a.service"}, func(c *settings) { c.Guard = false })
	if got, err := s.Check(t.Context(), sdk.RoleStandby); err != nil || got.Fit || !strings.Contains(got.Detail, "somebody else has started it") {
		t.Errorf("check on a standby: got %+v, %v", got, err)
	}
	s.must(s.promote(7))
	h.asked("stop a.service", "start a.service")
}

func TestUnitsOfSettingsOfBeforeAreStopped(t *testing.T) {
	h := newFakeHost(t)
	h.unit("a.service")
	b := h.unit("b.service")
	before := h.plugin([]string{"a.service", "b.service"})
	before.must(before.promote(7))
	h.did()
	after := h.plugin([]string{"a.service"})
	after.must(after.promote(7))
	h.asked("stop b.service")
	if h.runs(b) {
		t.Error("b.service still runs")
	}
	before.must(before.promote(7))
	h.did()
	after.must(after.demote(7))
	h.asked("stop b.service", "stop a.service")
}

func TestPromotionThatComesTooLate(t *testing.T) {
	h := newFakeHost(t)
	h.unit("a.service")
	h.unit("b.service", func(u *fakeUnit) { u.startTakes = -1 })
	s := h.plugin([]string{"a.service", "b.service"})
	late := s.transition(sdk.Promote, 7)
	late.LeaseUntil = sdk.Now()
	says(t, s.within(late), "the lease does not hold any more")
	h.asked()
	// A renewal tells that the lease holds longer than the act was told.
	short := s.transition(sdk.Promote, 7)
	short.LeaseUntil = sdk.Now().Add(time.Minute)
	_ = s.Renew(t.Context(), sdk.Now())
	if s.lease() == nil {
		t.Error("a renewal until now says that the lease holds")
	}
}

func TestNothingStartsOnAHostThatShutsDown(t *testing.T) {
	h := newFakeHost(t)
	a := h.unit("a.service")
	s := h.plugin([]string{"a.service"})
	h.set(func() { h.goesDown = true })
	says(t, s.promote(7), "start a.service", "this host is shutting down")
	if h.runs(a) {
		t.Error("it was started")
	}
	s.must(demoted(s.demote(7)))
}

func TestStartsThatFail(t *testing.T) {
	for _, c := range []struct {
		name  string
		unit  func(*fakeUnit)
		want  []string
		alone bool // nothing has changed
	}{
		{"job", func(u *fakeUnit) { u.startFails = "failed" }, []string{"start a.service", "job ended as failed", "failed (failed): exit-code", "journalctl -u a.service"}, true},
		{"condition", func(u *fakeUnit) {
			u.Conditions = append(u.Conditions, condition{Name: "ConditionPathExists", Parameter: "/nowhere"})
		}, []string{"systemd skipped it", "ConditionPathExists=/nowhere is not met"}, true},
		{"dies", func(u *fakeUnit) { u.Kind, u.diesAfter = "simple", 10*time.Millisecond }, []string{"did not stay active", "failed (failed): exit-code"}, false},
		{"dies and restarts", func(u *fakeUnit) { u.Kind, u.diesAfter, u.restarts = "exec", 10*time.Millisecond, true }, []string{"did not stay active", "activating (auto-restart)"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newFakeHost(t)
			h.unit("a.service", c.unit)
			s := h.plugin([]string{"a.service"}, func(c *settings) { c.Settle = 2 * time.Second })
			err := s.promote(7)
			says(t, err, c.want...)
			if _, has := s.allowed("a.service"); has == c.alone {
				t.Errorf("it still has leave: %t, want %t", has, !c.alone)
			}
			s.must(demoted(s.demote(7)))
			if _, has := s.allowed("a.service"); has {
				t.Error("it has leave after the demotion")
			}
		})
	}
}

func TestUnitWhosePastKeepsItFromStartingStarts(t *testing.T) {
	for _, result := range []string{"failed", "frozen"} { // too often lately; killed while it was frozen
		h := newFakeHost(t)
		h.unit("a.service", func(u *fakeUnit) { u.limited = result })
		s := h.plugin([]string{"a.service"})
		s.must(s.promote(7))
		h.asked("start a.service", "start a.service")
	}
}

func TestUnitThatTellsWhenItIsReadyNeedsNotSettle(t *testing.T) {
	h := newFakeHost(t)
	h.unit("a.service")
	h.unit("b.service", func(u *fakeUnit) { u.Kind = "simple" })
	for unit, settles := range map[string]bool{"a.service": false, "b.service": true} {
		s := h.plugin([]string{unit}, func(c *settings) { c.Settle = time.Second })
		began := time.Now()
		s.must(s.promote(7))
		if took := time.Since(began); (took >= time.Second) != settles {
			t.Errorf("%s took %s", unit, took)
		}
		s.must(s.demote(7))
	}
}

func TestStartThatDoesNotEndIsEndedByADemotion(t *testing.T) {
	h := newFakeHost(t)
	a := h.unit("a.service", func(u *fakeUnit) { u.startTakes = -1 })
	s := h.plugin([]string{"a.service"})
	act := s.transition(sdk.Promote, 7)
	act.Timeout = time.Second
	says(t, s.within(act), "start a.service", "not done within 1s")
	s.must(s.demote(7))
	h.asked("start a.service", "stop a.service")
	if h.runs(a) {
		t.Error("it runs")
	}
}

func TestWhatAStopLeavesIsKilled(t *testing.T) {
	h := newFakeHost(t)
	a := h.unit("a.service", func(u *fakeUnit) { u.leaves = true })
	s := h.plugin([]string{"a.service"})
	s.must(s.promote(7))
	h.did()
	s.must(s.demote(7))
	h.asked("stop a.service", "kill a.service")
	if h.runs(a) {
		t.Error("it runs")
	}
}

func TestUnitThatDoesNotStopIsKilledInTime(t *testing.T) {
	h := newFakeHost(t)
	h.unit("a.service", func(u *fakeUnit) { u.stopTakes = -1 })
	s := h.plugin([]string{"a.service"}, func(c *settings) { c.StopTimeout = 50 * time.Millisecond })
	s.must(s.promote(7))
	h.did()
	began := time.Now()
	s.must(s.demote(7))
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("killed after %s", took)
	}
	h.asked("stop a.service", "kill a.service")
}

func TestUnitThatCannotBeKilledIsToldOf(t *testing.T) {
	h := newFakeHost(t)
	a := h.unit("a.service", func(u *fakeUnit) { u.leaves, u.immortal = true, true })
	s := h.plugin([]string{"a.service"})
	s.must(s.promote(7))
	act := s.transition(sdk.Demote, 7)
	act.Timeout = time.Second
	says(t, s.within(act), "stop a.service", "has processes: 4001", "not done within 1s")
	h.set(func() { a.immortal = false })
	if err := s.demote(7); err != nil && !errors.Is(err, sdk.ErrAlready) { // it is killed on
		t.Error(err)
	}
}

func TestForcedDemotionKillsAllAtOnce(t *testing.T) {
	h := newFakeHost(t)
	never := func(u *fakeUnit) { u.stopTakes, u.restarts = -1, true }
	a, b := h.unit("a.service", never), h.unit("b.service", never)
	s := h.plugin([]string{"a.service", "b.service"})
	s.must(s.promote(7))
	h.did()
	act := s.transition(sdk.Demote, 7)
	act.Mode = sdk.Forced
	s.must(s.within(act))
	if h.runs(a) || h.runs(b) {
		t.Error("not both have ended")
	}
	got := h.did()
	for _, want := range []string{"stop a.service", "stop b.service", "kill a.service", "kill b.service"} {
		if !slices.Contains(got, want) {
			t.Errorf("systemd was asked for %q, not for %q", got, want)
		}
	}
}

func TestForcedDemotionMayAskFirst(t *testing.T) {
	h := newFakeHost(t)
	h.unit("a.service")
	h.unit("b.service", func(u *fakeUnit) { u.stopTakes = -1 })
	s := h.plugin([]string{"a.service", "b.service"}, func(c *settings) { c.Forced = "stop" })
	s.must(s.promote(7))
	h.did()
	act := s.transition(sdk.Demote, 7)
	act.Mode, act.Timeout = sdk.Forced, 2*time.Second
	s.must(s.within(act))
	got := h.did()
	slices.Sort(got)
	if want := []string{"kill b.service", "stop a.service", "stop b.service"}; !slices.Equal(got, want) {
		t.Errorf("systemd was asked for %q, want %q", got, want)
	}
}

func TestUnitsThatAreRefused(t *testing.T) {
	loose := func(c *settings) { c.Guard = false }
	for _, c := range []struct {
		name   string
		unit   func(*fakeUnit)
		change func(*settings)
		want   string // empty: it is taken
	}{
		{"not found", func(u *fakeUnit) { u.Load = "not-found" }, nil, "is not installed on this node"},
		{"masked", func(u *fakeUnit) { u.Load = "masked" }, nil, "systemctl unmask a.service"},
		{"wrong", func(u *fakeUnit) { u.Load, u.LoadError.Message = "bad-setting", "no ExecStart=" }, nil, "cannot be loaded (bad-setting): no ExecStart="},
		{"not by hand", func(u *fakeUnit) { u.NoStop = true }, nil, "RefuseManualStop="},
		{"process", func(u *fakeUnit) { u.KillMode = "process" }, nil, "has KillMode=process"},
		{"none", func(u *fakeUnit) { u.KillMode = "none" }, nil, "has KillMode=none"},
		{"mixed", func(u *fakeUnit) { u.KillMode = "mixed" }, nil, ""},
		{"no SIGKILL", func(u *fakeUnit) { u.SendSIGKILL = false }, nil, "set SendSIGKILL=yes"},
		{"oneshot", func(u *fakeUnit) { u.Kind = "oneshot" }, nil, "set RemainAfterExit=yes"},
		{"oneshot that remains", func(u *fakeUnit) { u.Kind, u.Remains = "oneshot", true }, nil, ""},
		{"no guard", func(u *fakeUnit) { u.Conditions = nil }, nil, "`deputy enable orders` writes the drop-in"},
		{"guard that is not read", func(u *fakeUnit) { u.Conditions, u.Old = nil, true }, nil, "systemctl daemon-reload"},
		{"guard of another service", func(u *fakeUnit) { u.Conditions[0].Parameter = "/run/deputy/other/allow-a.service" }, nil, "`deputy enable orders`"},
		{"enabled and guarded", func(u *fakeUnit) { u.FileState, u.WantedBy = "enabled", []string{"multi-user.target"} }, nil, ""},
		{"enabled", func(u *fakeUnit) { u.FileState = "enabled" }, loose, "systemctl disable a.service"},
		{"wanted", func(u *fakeUnit) { u.WantedBy = []string{"x.target", "y.service"} }, loose, "is wanted by x.target, y.service"},
		{"required", func(u *fakeUnit) { u.RequiredBy = []string{"x.target"} }, loose, "is required by x.target"},
		{"triggered", func(u *fakeUnit) { u.TriggeredBy = []string{"a.socket"} }, loose, "is started by a.socket"},
		{"nobody starts it", func(u *fakeUnit) { u.Conditions = nil }, loose, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newFakeHost(t)
			h.unit("a.service", c.unit)
			var change []func(*settings)
			if c.change != nil {
				change = append(change, c.change)
			}
			s := h.plugin([]string{"a.service"}, change...)
			got, err := s.Check(t.Context(), sdk.RoleStandby)
			if err != nil || got.Fit != (c.want == "") || !strings.Contains(got.Detail, c.want) {
				t.Errorf("check: got %+v, %v; want %q", got, err, c.want)
			}
			err = s.promote(7)
			if c.want != "" {
				says(t, err, c.want)
				h.asked()
			} else {
				s.must(err)
			}
			s.must(demoted(s.demote(7)))
		})
	}
}

// demoted is nil if a demotion has seen what it should.
func demoted(err error) error {
	if errors.Is(err, sdk.ErrAlready) {
		return nil
	}
	return err
}

func TestWhoMayNotManageUnitsIsTold(t *testing.T) {
	h := newFakeHost(t)
	h.unit("a.service")
	h.set(func() { h.denied = true })
	s := h.plugin([]string{"a.service"})
	const cure = "`deputy enable orders` lets deputy manage a.service"
	if got, err := s.Check(t.Context(), sdk.RoleCandidate); err != nil || got.Fit || !strings.Contains(got.Detail, cure) {
		t.Errorf("check: got %+v, %v", got, err)
	}
	says(t, s.promote(7), "not permitted", cure)
	h.set(func() { h.denied = false })
	if got, err := s.Check(t.Context(), sdk.RoleCandidate); err != nil || !got.Fit {
		t.Errorf("check: got %+v, %v", got, err)
	}
	s.must(s.promote(7))
	h.set(func() { h.denied = true })
	began := time.Now()
	says(t, s.demote(7), "stop a.service", cure) // and not after its ten seconds
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

// watched returns a channel that gets something for each change told.
func (s *subject) watched() <-chan struct{} {
	told := make(chan struct{}, 100)
	ctx, end := context.WithCancelCause(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = s.Watch(ctx, func() { told <- struct{}{} })
	}()
	s.t.Cleanup(func() {
		end(errors.New("the test is over"))
		<-over
	})
	return told
}

// becomes waits until checks, made whenever a change is told, say something.
func (s *subject) becomes(told <-chan struct{}, words string) sdk.Health {
	s.t.Helper()
	late := time.After(10 * time.Second)
	for {
		got, err := s.Check(s.t.Context(), sdk.RolePrimary)
		if err == nil && strings.Contains(got.Detail, words) {
			return got
		}
		select {
		case <-told:
		case <-late:
			s.t.Fatalf("got %+v, %v, and no change is told; want %q", got, err, words)
		}
	}
}

func TestFailureIsToldAtOnce(t *testing.T) {
	h := newFakeHost(t)
	a := h.unit("a.service")
	s := h.plugin([]string{"a.service"})
	s.must(s.promote(7))
	told := s.watched()
	if got := s.becomes(told, "a.service active"); !got.Fit {
		t.Errorf("got %+v", got)
	}
	h.crash(a)
	if got := s.becomes(told, "a.service is failed (failed): exit-code; see journalctl -u a.service"); got.Fit || !got.Certain {
		t.Errorf("got %+v, want certain", got)
	}
}

func TestRestartInPlaceIsNotCertain(t *testing.T) {
	h := newFakeHost(t)
	a := h.unit("a.service", func(u *fakeUnit) { u.restarts = true })
	s := h.plugin([]string{"a.service"})
	s.must(s.promote(7))
	told := s.watched()
	s.becomes(told, "active")
	h.crash(a)
	if got := s.becomes(told, "a.service is activating (auto-restart)"); got.Fit || got.Certain {
		t.Errorf("got %+v, want not certain", got)
	}
	s.must(s.demote(7))
}

func TestWhatElseAPrimaryIsToldOf(t *testing.T) {
	h := newFakeHost(t)
	a := h.unit("a.service")
	s := h.plugin([]string{"a.service"})
	s.must(s.promote(7))
	told := s.watched()
	s.becomes(told, "active")
	h.set(func() { a.Freezer = "frozen"; h.changed(a) })
	s.becomes(told, "systemctl thaw a.service")
	h.set(func() { a.Freezer, a.Sub = "running", "exited"; h.changed(a) })
	if got := s.becomes(told, "has no process any more"); !got.Certain {
		t.Errorf("got %+v, want certain", got)
	}
	h.set(func() { a.Sub = "running"; h.changed(a) })
	s.becomes(told, "active")
	s.must(os.Remove(h.at().run + "/orders/allow-a.service"))
	s.becomes(told, "a.service runs without leave")
	s.must(s.demote(7))
}

func TestBusThatRestarts(t *testing.T) {
	h := newFakeHost(t)
	a := h.unit("a.service")
	s := h.plugin([]string{"a.service"})
	s.must(s.promote(7))
	told := s.watched()
	s.becomes(told, "active")
	h.stopBus()
	eventually(t, "the loss is told", func() error {
		if _, err := s.Check(t.Context(), sdk.RolePrimary); err == nil {
			return errors.New("the check has an answer")
		}
		return nil
	})
	_, err := s.Check(t.Context(), sdk.RolePrimary)
	says(t, err, "connect to systemd", "is dbus installed")

	// A demotion waits for it.
	demoted := make(chan error, 1)
	go func() { demoted <- s.demote(7) }()
	select {
	case err := <-demoted:
		t.Fatalf("demoted without a bus: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	h.startBus()
	s.must(<-demoted)
	if h.runs(a) {
		t.Error("it runs")
	}
	h.did()
	s.must(s.promote(8))
	h.asked("start a.service")
	h.crash(a)
	s.becomes(told, "a.service is failed")
}

func TestGroupOf(t *testing.T) {
	for slice, want := range map[string]string{
		"system.slice":         "/system.slice/a.service",
		"-.slice":              "/a.service",
		"deputy-orders.slice":  "/deputy.slice/deputy-orders.slice/a.service",
		"system-a\\x2db.slice": "/system.slice/system-a\\x2db.slice/a.service",
		"":                     "",
	} {
		if got := groupOf(slice, "a.service"); got != want {
			t.Errorf("%q: got %q, want %q", slice, got, want)
		}
	}
}

func TestProcessesBelowAGroup(t *testing.T) {
	for _, mounted := range []string{"", "unified/", "systemd/"} {
		dir := t.TempDir()
		write := func(name, text string) {
			t.Helper()
			path := filepath.Join(dir, mounted, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		write("cgroup.procs", "1\n")
		write("system.slice/a.service/cgroup.procs", "")
		write("system.slice/a.service/inner/cgroup.procs", "12\n13\n")
		got, err := processes(dir, "/system.slice/a.service")
		if err != nil || !slices.Equal(got, []string{"12", "13"}) {
			t.Errorf("below %q: got %q, %v", mounted, got, err)
		}
		if got, err := processes(dir, "/system.slice/b.service"); err != nil || got != nil {
			t.Errorf("of a group that is not there: got %q, %v", got, err)
		}
	}
}
