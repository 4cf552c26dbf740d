package systemd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

const (
	gate    = "deputy-lease@db.service"
	primary = "deputy-primary@db.target"
	standby = "deputy-standby@db.target"
)

// scene is a service with a member that the primary's target pulls in and
// takes along, as deputy-targets(7) tells people to write it.
func scene(t *testing.T, members ...string) (*fakePID1, *Targets) {
	p := newFakePID1(t)
	p.depends(primary, "BindsTo", gate)
	for _, m := range members {
		p.depends(primary, "Wants", m)
		p.depends(m, "PartOf", primary)
		p.depends(m, "BindsTo", gate)
	}
	return p, NewTargets(p.bus(), "db", slog.New(slog.DiscardHandler))
}

func act(a sdk.Action, mode sdk.Mode, timeout time.Duration) sdk.Transition {
	return sdk.Transition{Action: a, Mode: mode, Timeout: timeout, Service: "db", Term: 1, Attempt: 1}
}

// calmed is as if the role had moved some time ago.
func calmed(t *Targets) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.moved = t.moved.Add(-calm)
}

func TestTargetsWaitForTheirMembers(t *testing.T) {
	p, targets := scene(t, "parser.service", "report.timer")
	p.unit("parser.service", func(u *fakeUnit) { u.slow = 30 * time.Millisecond })
	p.unit("report.timer", func(u *fakeUnit) { u.deps["Triggers"] = []string{"report.service"} })

	r := targets.Do(t.Context(), act(sdk.Promote, sdk.Planned, 20*time.Second), nil)
	if r.Outcome != sdk.OutcomeDone || p.active("parser.service") != "active" || p.active(gate) != "active" {
		t.Fatalf("promote: %+v, and the member is %s", r, p.active("parser.service"))
	}
	if r := targets.Do(t.Context(), act(sdk.Promote, sdk.Planned, 20*time.Second), nil); r.Outcome != sdk.OutcomeAlready {
		t.Errorf("promote again: %+v", r)
	}
	if h, err := targets.Check(t.Context(), sdk.RolePrimary, 1); !h.Fit || err != nil {
		t.Errorf("check: %+v, %v", h, err)
	}
	p.unit(primary, func(u *fakeUnit) { u.active = "inactive" })
	if h, _ := targets.Check(t.Context(), sdk.RolePrimary, 1); h.Fit || !strings.Contains(h.Detail, primary+" is inactive") {
		t.Errorf("check of a primary without its target: %+v", h)
	}
	p.unit(primary, func(u *fakeUnit) { u.active = "active" })
	p.unit("report.service", func(u *fakeUnit) { u.active = "active" }) // triggered in the meantime

	r = targets.Do(t.Context(), act(sdk.Demote, sdk.Planned, 20*time.Second), nil)
	if r.Outcome != sdk.OutcomeDone {
		t.Fatalf("demote: %+v", r)
	}
	for _, name := range []string{primary, "parser.service", "report.timer", "report.service"} {
		if got := p.active(name); got != "inactive" {
			t.Errorf("%s is %s after the demotion", name, got)
		}
	}
	if got := p.active(gate); got != "active" {
		t.Errorf("the gate is %s: it has to outlive all parts", got)
	}
	if r := targets.Do(t.Context(), act(sdk.Demote, sdk.Planned, 20*time.Second), nil); r.Outcome != sdk.OutcomeAlready {
		t.Errorf("demote again: %+v", r)
	}
	if h, _ := targets.Check(t.Context(), sdk.RoleStandby, 1); !h.Fit {
		t.Errorf("check of a standby: %+v", h)
	}
}

// A gate starts after its supervisor, which has not started before it has adopted
// the role: who asked for a start then would wait for himself.
func TestTargetsThatAreDownAreNotAdopted(t *testing.T) {
	p, targets := scene(t, "parser.service")
	adopt := act(sdk.Promote, sdk.Planned, 20*time.Second)
	adopt.Reason = sdk.ReasonStart
	if r := targets.Do(t.Context(), adopt, nil); r.Outcome != sdk.OutcomeUnknown || !strings.Contains(r.Detail, primary+" is inactive") {
		t.Errorf("adopt what is down: %+v", r)
	}
	if calls := p.called(); len(calls) != 0 {
		t.Errorf("it did %q", calls)
	}
	for _, name := range []string{gate, primary, "parser.service"} {
		p.unit(name, func(u *fakeUnit) { u.active = "active" })
	}
	if r := targets.Do(t.Context(), adopt, nil); r.Outcome != sdk.OutcomeAlready {
		t.Errorf("adopt what is up: %+v", r)
	}
}

func TestTargetsThatNothingBelongsToCostNothing(t *testing.T) {
	p, targets := scene(t)
	p.unit(gate, func(u *fakeUnit) { u.slow = 300 * time.Millisecond })
	began := time.Now()
	if r := targets.Do(t.Context(), act(sdk.Promote, sdk.Planned, 20*time.Second), nil); r.Outcome != sdk.OutcomeAlready {
		t.Fatalf("promote: %+v", r)
	}
	if took := time.Since(began); took > 200*time.Millisecond {
		t.Errorf("promote waited %s for nothing", took)
	}
	if h, err := targets.Check(t.Context(), sdk.RolePrimary, 1); !h.Fit || err != nil || len(p.called()) > 0 {
		t.Errorf("check when the role has just moved: %+v, %v, and it did %q", h, err, p.called())
	}
	calmed(targets)
	for range 2 { // it is not there, then it is being started
		if h, err := targets.Check(t.Context(), sdk.RolePrimary, 1); !h.Fit || err != nil {
			t.Errorf("check: %+v, %v", h, err)
		}
	}
	eventually(t, func() bool { return p.active(primary) == "active" })
	// It ends with the gate, which is not for a part to stop.
	if r := targets.Do(t.Context(), act(sdk.Demote, sdk.Planned, 20*time.Second), nil); r.Outcome != sdk.OutcomeAlready {
		t.Errorf("demote: %+v", r)
	}
	if calls := p.called(); !slices.Equal(calls, []string{"StartUnit " + primary}) {
		t.Errorf("it did %q", calls)
	}
}

func TestTargetsFollowTheRole(t *testing.T) {
	p, targets := scene(t, "parser.service")
	p.unit(gate, func(u *fakeUnit) { u.active = "active" })
	// The role has moved on meanwhile: what fits the one before is not asked for.
	if err := targets.Settle(t.Context(), func() bool { return false }); err != nil || len(p.called()) != 0 {
		t.Errorf("settled in the wrong role: %v, %q", err, p.called())
	}
	if err := targets.Settle(t.Context(), func() bool { return true }); err != nil {
		t.Errorf("settle: %v", err)
	}
	eventually(t, func() bool { return p.active(standby) == "active" && p.active(gate) == "inactive" })
	// A check that comes late starts nothing any more.
	if r := targets.Do(t.Context(), act(sdk.Demote, sdk.Planned, 20*time.Second), nil); !r.Outcome.OK() {
		t.Errorf("demote: %+v", r)
	}
	before := len(p.called())
	if h, err := targets.Check(t.Context(), sdk.RolePrimary, 1); !h.Fit || err != nil || len(p.called()) != before {
		t.Errorf("check after the demotion: %+v, %v, %q", h, err, p.called()[before:])
	}
	// One whose start PID 1 has not answered yet is waited for.
	p.unit(standby, func(u *fakeUnit) { u.leaving, u.active = 1000000, "inactive" })
	var moved atomic.Bool
	settled := make(chan error, 1)
	go func() { settled <- targets.Settle(t.Context(), func() bool { return !moved.Load() }) }()
	eventually(t, func() bool { return len(p.called()) > before+2 })
	moved.Store(true)
	if err := <-settled; err != nil {
		t.Errorf("settle while another job is in the way: %v", err)
	}
}

// A start of the primary's target by hand stops that of the standby, before it is
// refused.
func TestStandbyTargetThatWasStoppedIsStartedAgain(t *testing.T) {
	p, targets := scene(t, "parser.service")
	check := func() {
		t.Helper()
		if h, err := targets.Check(t.Context(), sdk.RoleStandby, 1); !h.Fit || err != nil {
			t.Errorf("check of a standby: %+v, %v", h, err)
		}
	}
	p.unit(Supervisor("db"), func(u *fakeUnit) { u.active = "deactivating" })
	if check(); len(p.called()) != 0 {
		t.Errorf("with a supervisor that is being stopped it did %q", p.called())
	}
	p.unit(Supervisor("db"), func(u *fakeUnit) { u.active = "active" })
	check()
	eventually(t, func() bool { return p.active(standby) == "active" })
	before := len(p.called())
	if check(); len(p.called()) != before {
		t.Errorf("with a target that is active it did %q", p.called()[before:])
	}
}

// What cannot be listed cannot be stopped for sure either.
func TestTargetsWithTooManyMembersAreNotStarted(t *testing.T) {
	p, targets := scene(t)
	for i := range maxMembers + 1 {
		p.depends(primary, "Wants", fmt.Sprintf("job-%d.service", i))
	}
	if err := targets.Settle(t.Context(), func() bool { return false }); err != nil {
		t.Fatal(err)
	}
	if h, _ := targets.Check(t.Context(), sdk.RoleStandby, 1); h.Fit || !strings.Contains(h.Detail, "more than 256") {
		t.Errorf("check of a standby: %+v, want unfit for too many units", h)
	}
	if r := targets.Do(t.Context(), act(sdk.Promote, sdk.Planned, 20*time.Second), nil); r.Outcome != sdk.OutcomeUnchanged || !r.Refused || len(p.called()) != 0 {
		t.Errorf("promote: %+v, %q, want it refused with nothing done", r, p.called())
	}
	p.unit(primary, func(u *fakeUnit) { u.deps["Wants"] = nil })
	if h, _ := targets.Check(t.Context(), sdk.RoleStandby, 1); !h.Fit {
		t.Errorf("check after it was put right: %+v", h)
	}
}

func TestTargetsThatGotAMemberSinceTheyLooked(t *testing.T) {
	p, targets := scene(t)
	if err := targets.Settle(t.Context(), func() bool { return false }); err != nil {
		t.Fatal(err)
	}
	p.depends(primary, "Wants", "late.service")
	if r := targets.Do(t.Context(), act(sdk.Promote, sdk.Planned, 20*time.Second), nil); r.Outcome != sdk.OutcomeAlready {
		t.Errorf("promote: %+v", r)
	}
	calmed(targets)
	if h, _ := targets.Check(t.Context(), sdk.RolePrimary, 1); !h.Fit {
		t.Errorf("check: %+v", h)
	}
	eventually(t, func() bool { return p.active("late.service") == "active" && p.active(primary) == "active" })
	p.unit(primary, func(u *fakeUnit) { u.active = "inactive" })
	if h, _ := targets.Check(t.Context(), sdk.RolePrimary, 1); h.Fit {
		t.Errorf("check after it was there and is not any more: %+v", h)
	}
	if r := targets.Do(t.Context(), act(sdk.Demote, sdk.Planned, 20*time.Second), nil); r.Outcome != sdk.OutcomeDone || p.active("late.service") != "inactive" {
		t.Errorf("demote: %+v, and the member is %s", r, p.active("late.service"))
	}
}

func TestTargetsWithAMemberThatFails(t *testing.T) {
	p, targets := scene(t, "wanted.service")
	p.unit("wanted.service", func(u *fakeUnit) { u.result = "failed" })
	r := targets.Do(t.Context(), act(sdk.Promote, sdk.Planned, 20*time.Second), nil)
	if r.Outcome != sdk.OutcomeDone || !strings.Contains(r.Detail, "wanted.service") {
		t.Errorf("one that is wanted: %+v", r)
	}

	p, targets = scene(t)
	p.depends(primary, "Requires", "needed.service")
	p.unit("needed.service", func(u *fakeUnit) { u.result = "failed" })
	r = targets.Do(t.Context(), act(sdk.Promote, sdk.Planned, 20*time.Second), nil)
	if r.Outcome != sdk.OutcomeUnknown || !strings.Contains(r.Detail, "needed.service") || !strings.Contains(r.Detail, "depends on") {
		t.Errorf("one that is required: %+v", r)
	}
}

func TestTargetsRefusedByTheGate(t *testing.T) {
	p, targets := scene(t, "parser.service")
	p.unit(gate, func(u *fakeUnit) { u.result = "failed" })
	r := targets.Do(t.Context(), act(sdk.Promote, sdk.Planned, 20*time.Second), nil)
	if r.Outcome != sdk.OutcomeUnknown || !strings.Contains(r.Detail, gate) {
		t.Errorf("promote: %+v", r)
	}
}

func TestTargetsDemoteByForce(t *testing.T) {
	p, targets := scene(t, "stuck.service", "quick.service")
	if r := targets.Do(t.Context(), act(sdk.Promote, sdk.Planned, 20*time.Second), nil); !r.Outcome.OK() {
		t.Fatalf("promote: %+v", r)
	}
	p.unit("stuck.service", func(u *fakeUnit) { u.hangs = true })
	r := targets.Do(t.Context(), act(sdk.Demote, sdk.Planned, 50*time.Millisecond), nil)
	if r.Outcome != sdk.OutcomeUnknown || !strings.Contains(r.Detail, "stuck.service (deactivating)") || strings.Contains(r.Detail, "quick") {
		t.Errorf("planned: %+v", r)
	}
	if slices.Contains(p.called(), "KillUnit stuck.service") {
		t.Error("planned: killed")
	}
	began := time.Now()
	r = targets.Do(t.Context(), act(sdk.Demote, sdk.Forced, 20*time.Second), nil) // without a lease
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("forced: killed after %s", took)
	}
	if r.Outcome != sdk.OutcomeDone || p.active("stuck.service") != "inactive" {
		t.Errorf("forced: %+v, and the member is %s", r, p.active("stuck.service"))
	}
	if slices.Contains(p.called(), "KillUnit quick.service") {
		t.Error("forced: killed one that was down")
	}
}

func TestTargetsDemoteWhatSystemdSpares(t *testing.T) {
	p, targets := scene(t, "forks.service")
	if r := targets.Do(t.Context(), act(sdk.Promote, sdk.Planned, 20*time.Second), nil); !r.Outcome.OK() {
		t.Fatalf("promote: %+v", r)
	}
	p.unit("forks.service", func(u *fakeUnit) { u.spared = 3 })
	r := targets.Do(t.Context(), act(sdk.Demote, sdk.Planned, 20*time.Second), nil)
	if r.Outcome != sdk.OutcomeDone || !slices.Contains(p.called(), "KillUnit forks.service") {
		t.Errorf("demote: %+v after %v", r, p.called())
	}
}

func TestTargetsOfAUserWithoutRights(t *testing.T) {
	// Nothing belongs to the target: the service is as good without it.
	p, targets := scene(t)
	p.unit(primary, func(u *fakeUnit) { u.denied = true })
	r := targets.Do(t.Context(), act(sdk.Promote, sdk.Planned, 20*time.Second), nil)
	if r.Outcome != sdk.OutcomeAlready {
		t.Errorf("promote nothing: %+v", r)
	}
	calmed(targets)
	for range 2 {
		if h, _ := targets.Check(t.Context(), sdk.RolePrimary, 1); !h.Fit || !strings.Contains(h.Detail, "deputy enable db") {
			t.Errorf("check: %+v", h)
		}
	}
	if calls := p.called(); len(calls) != 1 {
		t.Errorf("asked again and again: %q", calls)
	}

	p, targets = scene(t, "parser.service")
	p.unit(primary, func(u *fakeUnit) { u.denied = true })
	if r := targets.Do(t.Context(), act(sdk.Promote, sdk.Planned, 20*time.Second), nil); r.Outcome != sdk.OutcomeUnknown || !strings.Contains(r.Detail, "deputy enable db") {
		t.Errorf("promote: %+v", r)
	}

	// The target may be stopped, its members may not: those that are part of it
	// stop all the same, and another is told.
	p, targets = scene(t, "parser.service")
	p.depends(primary, "Wants", "stranger.service")
	if r := targets.Do(t.Context(), act(sdk.Promote, sdk.Planned, 20*time.Second), nil); !r.Outcome.OK() {
		t.Fatalf("promote: %+v", r)
	}
	p.unit("parser.service", func(u *fakeUnit) { u.denied, u.slow = true, 20*time.Millisecond })
	p.unit("stranger.service", func(u *fakeUnit) { u.denied = true })
	r = targets.Do(t.Context(), act(sdk.Demote, sdk.Planned, 200*time.Millisecond), nil)
	if r.Outcome != sdk.OutcomeUnknown || !strings.Contains(r.Detail, "stop stranger.service (active): ") || !strings.Contains(r.Detail, "deputy enable db") {
		t.Errorf("demote: %+v", r)
	}
	if slices.Contains(p.called(), "StopUnit parser.service") || p.active("parser.service") != "inactive" {
		t.Errorf("one that stops by itself is asked: %v", p.called())
	}
}

func TestTargetsTellAtOnceThatTheyAreDown(t *testing.T) {
	p, targets := scene(t, "parser.service")
	ctx, cancel := context.WithCancelCause(t.Context())
	changes := make(chan struct{}, 1)
	var watching sync.WaitGroup
	watching.Go(func() {
		if err := targets.Watch(ctx, func() {
			select {
			case changes <- struct{}{}:
			default:
			}
		}); err != nil {
			t.Error(err)
		}
	})
	defer watching.Wait()
	defer cancel(nil)
	unfit := func() bool {
		select {
		case <-changes:
			h, err := targets.Check(t.Context(), sdk.RolePrimary, 1)
			return !h.Fit && h.Certain && err == nil
		default:
			return false
		}
	}
	if r := targets.Do(t.Context(), act(sdk.Promote, sdk.Planned, 20*time.Second), nil); !r.Outcome.OK() {
		t.Fatalf("promote: %+v", r)
	}
	if err := p.bus().Stop(soon(t), gate); err != nil { // somebody else does
		t.Fatal(err)
	}
	eventually(t, unfit)
	p.drop() // and after the connection broke it tells again
	eventually(t, unfit)
}

func TestTargetsTakeUnitsOfAStandbyDown(t *testing.T) {
	p, targets := scene(t, "parser.service")
	p.depends("backup.service", "PartOf", standby)
	p.unit("backup.service", func(u *fakeUnit) { u.active, u.slow = "active", 30*time.Millisecond })
	p.unit(standby, func(u *fakeUnit) { u.active = "active" })
	p.unit("parser.service", func(u *fakeUnit) {})
	if r := targets.Do(t.Context(), act(sdk.Promote, sdk.Planned, 20*time.Second), nil); r.Outcome != sdk.OutcomeDone || p.active("backup.service") != "inactive" {
		t.Errorf("promote: %+v, and the standby's unit is %s", r, p.active("backup.service"))
	}
}

func TestTargetsAreKilled(t *testing.T) {
	p, targets := scene(t, "slow.service")
	p.unit("slow.service", func(u *fakeUnit) { u.slow = time.Second })
	ended := make(chan sdk.Result, 1)
	go func() { ended <- targets.Do(t.Context(), act(sdk.Promote, sdk.Planned, 20*time.Second), nil) }()
	eventually(t, func() bool { return slices.Contains(p.called(), "StartUnit "+primary) })
	if err := targets.Kill(soon(t)); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-ended:
		if r.Outcome != sdk.OutcomeUnknown || !strings.Contains(r.Detail, "killed") {
			t.Errorf("promote: %+v", r)
		}
	default:
		t.Error("the act had not ended when Kill returned")
	}
	// What was being started does not come after the proof.
	if r := targets.Do(t.Context(), act(sdk.Demote, sdk.Forced, 5*time.Second), nil); r.Outcome != sdk.OutcomeDone || p.active("slow.service") != "inactive" {
		t.Errorf("demote: %+v, and the member is %s", r, p.active("slow.service"))
	}
}

func TestTargetsWithoutABus(t *testing.T) {
	p, targets := scene(t, "parser.service")
	if r := targets.Do(t.Context(), act(sdk.Promote, sdk.Planned, 20*time.Second), nil); !r.Outcome.OK() {
		t.Fatalf("promote: %+v", r)
	}
	p.mu.Lock()
	p.deaf = true
	p.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("late"))
	defer cancel()
	if h, err := targets.Check(ctx, sdk.RolePrimary, 1); !h.Fit || err != nil {
		t.Errorf("check: what is not known is no reason to stop anything: %+v, %v", h, err)
	}
	if r := targets.Do(t.Context(), act(sdk.Demote, sdk.Forced, 50*time.Millisecond), nil); r.Outcome != sdk.OutcomeUnknown {
		t.Errorf("demote: %+v", r)
	}
}
