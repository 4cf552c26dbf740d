package sdktest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A world is what the plugin of these tests works on. What is open closes by
// itself at an instant, as a rule in the kernel does. It outlives the plugin's
// processes.
type world struct {
	mu     sync.Mutex
	open   bool
	until  sdk.Instant
	closed int // processes that were closed

	promote, demote, follow, fence func(context.Context, *sdk.Transition) error
	renew                          func(sdk.Instant) error
	check                          func() (sdk.Health, error)
	changed                        chan struct{}
}

type worldSettings struct {
	Port int `toml:"port" doc:"what is open" min:"1" default:"80"`
}

// A door is one process's view of the world.
type door struct {
	*world
	worldSettings
	host sdk.Host
}

func (w *world) plugin(o ...sdk.Option) sdk.Plugin {
	return sdk.New("door", func(_ context.Context, c worldSettings, h sdk.Host) (*door, error) {
		if c.Port == 81 {
			return nil, &sdk.KeyError{Key: "port", Err: errors.New("is taken")}
		}
		return &door{w, c, h}, nil
	}, o...)
}

func (d *door) isOpen(now sdk.Instant) bool { return d.open && now < d.until }

func (d *door) Promote(ctx context.Context, t *sdk.Transition) error {
	if d.promote != nil {
		if err := d.promote(ctx, t); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isOpen(d.host.Now()) {
		return fmt.Errorf("port %d is open: %w", d.Port, sdk.ErrAlready)
	}
	d.open, d.until = true, t.LeaseUntil
	return nil
}

func (d *door) Demote(ctx context.Context, t *sdk.Transition) error {
	if d.demote != nil {
		if err := d.demote(ctx, t); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.isOpen(d.host.Now()) {
		return sdk.ErrAlready
	}
	d.open = false
	return nil
}

func (d *door) Renew(_ context.Context, until sdk.Instant) error {
	if d.renew != nil {
		return d.renew(until)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !d.open: // not yet, or not any more
		return nil
	case !d.isOpen(d.host.Now()):
		d.open = false
		return fmt.Errorf("port %d is closed: %w", d.Port, sdk.ErrExpired)
	}
	d.until = until
	return nil
}

func (d *door) Follow(ctx context.Context, t *sdk.Transition) error {
	if d.follow == nil {
		return nil
	}
	return d.follow(ctx, t)
}

func (d *door) Fence(ctx context.Context, _ sdk.Peer, t *sdk.Transition) error {
	if d.fence == nil {
		return nil
	}
	return d.fence(ctx, t)
}

func (d *door) Check(context.Context, sdk.Role) (sdk.Health, error) {
	if d.check == nil {
		return sdk.Health{Fit: true, Position: "7"}, nil
	}
	return d.check()
}

func (d *door) Watch(ctx context.Context, changed func()) error {
	for {
		select {
		case <-d.changed:
			changed()
		case <-ctx.Done():
			return nil
		}
	}
}

func (d *door) Rank(_ context.Context, mine string, others map[string]string) (map[string]sdk.Order, error) {
	orders := map[string]sdk.Order{}
	for node, position := range others {
		if orders[node] = sdk.Behind; position == mine {
			orders[node] = sdk.Equal
		}
	}
	return orders, nil
}

func (d *door) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed++
	return nil
}

// play runs a story of a door on virtual time.
func play(t *testing.T, w *world, service Service, story func(t *testing.T, s *Supervisor)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w.changed = make(chan struct{})
		story(t, NewSupervisor(t, w.plugin(), service))
	})
}

func wantResult(t *testing.T, what string, got sdk.Result, outcome sdk.Outcome, detail string) {
	t.Helper()
	if got.Outcome != outcome || !strings.Contains(got.Detail, detail) {
		t.Errorf("%s: got %s %q, want %s with %q in it", what, got.Outcome, got.Detail, outcome, detail)
	}
}

func wantRole(t *testing.T, s *Supervisor, role sdk.Role) {
	t.Helper()
	if got := s.Role(); got != role {
		t.Errorf("role: got %s, want %s\n%s", got, role, s.Story())
	}
}

func wantStory(t *testing.T, s *Supervisor, want string) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(want) {
		if line = strings.TrimLeft(line, "\t"); strings.TrimSpace(line) != "" {
			lines = append(lines, line)
		}
	}
	if got := s.Story(); got != strings.Join(lines, "") {
		t.Errorf("the story is\n%s\nwant\n%s", got, strings.Join(lines, ""))
	}
}

func TestSupervisorTellsAStory(t *testing.T) {
	w := &world{}
	play(t, w, Service{TTL: 3 * time.Second}, func(t *testing.T, s *Supervisor) {
		w.promote = func(ctx context.Context, _ *sdk.Transition) error {
			time.Sleep(2 * time.Second)
			return ctx.Err()
		}
		wantResult(t, "promote", s.Promote(), sdk.OutcomeDone, "")
		s.Pass(time.Minute)
		if !w.open || w.until != s.Until() {
			t.Errorf("after a minute: open %v until %d, want true until %d", w.open, w.until, s.Until())
		}
		wantResult(t, "switchover", s.Switchover("db3"), sdk.OutcomeDone, "")
		s.Pass(time.Minute)
		wantResult(t, "back", s.Switchover("db1"), sdk.OutcomeDone, "")
		s.Pass(time.Second)
		wantResult(t, "lost", s.Lose(), sdk.OutcomeDone, "")
		wantStory(t, s, `
			    0.00s  demote term 0 (start): already
			    0.00s  -> standby: started
			    0.00s  -> promoting term 1: there was no primary
			    0.00s  promote term 1 (election): done after 2s
			    2.00s  -> primary: there was no primary
			   62.00s  -> demoting: switchover to db3
			   62.00s  demote term 1 (switchover): done
			   62.00s  -> standby: switchover to db3
			   62.00s  follow term 2 (election) db3: done
			  122.00s  -> promoting term 3: switchover to this node
			  122.00s  promote term 3 (switchover): done after 2s
			  124.00s  -> primary: switchover to this node
			  127.25s  -> demoting: lease lost: no pulse acknowledged for 2.25s
			  127.25s  demote forced term 3 (lost): done
			  127.25s  -> standby: lease lost: no pulse acknowledged for 2.25s
		`)
	})
	if w.closed != 1 {
		t.Errorf("the plugin was closed %d times, want once, when the test ended", w.closed)
	}
}

// What an act is told is what a supervisor would tell.
func TestSupervisorTellsActsWhole(t *testing.T) {
	play(t, &world{}, Service{Name: "billing", StateDir: "/state"}, func(t *testing.T, s *Supervisor) {
		s.Promote()
		s.Switchover("db2")
		db1, db2, db3 := sdk.Peer{Node: "db1", Address: "192.0.2.1"}, sdk.Peer{Node: "db2", Address: "192.0.2.2"}, sdk.Peer{Node: "db3", Address: "192.0.2.3"}
		base := sdk.Transition{Mode: sdk.Planned, Service: "billing", Node: "db1", Attempt: 1, Members: []sdk.Peer{db1, db2, db3}, StateDir: "/state"}
		want := []sdk.Transition{base, base, base, base}
		for i, more := range []sdk.Transition{
			{ID: "db1-0-1-demote-door", Action: sdk.Demote, Reason: sdk.ReasonStart, Cause: "started", Timeout: 10 * time.Second},
			{ID: "db1-1-2-promote-door", Action: sdk.Promote, Term: 1, Reason: sdk.ReasonElection, Cause: "there was no primary", Timeout: 30 * time.Second, LeaseUntil: epoch.Add(3800 * time.Millisecond), Primary: db1},
			{ID: "db1-1-3-demote-door", Action: sdk.Demote, Term: 1, Reason: sdk.ReasonSwitchover, Cause: "switchover to db2", Timeout: 10 * time.Second, LeaseUntil: epoch.Add(3800 * time.Millisecond), Primary: db2},
			{ID: "db1-2-4-follow-door", Action: sdk.Follow, Term: 2, Reason: sdk.ReasonElection, Cause: "db2 is primary", Timeout: 30 * time.Second, Primary: db2, Previous: db2},
		} {
			w := &want[i]
			w.ID, w.Action, w.Term, w.Reason, w.Cause, w.Timeout = more.ID, more.Action, more.Term, more.Reason, more.Cause, more.Timeout
			w.LeaseUntil, w.Primary, w.Previous = more.LeaseUntil, more.Primary, more.Previous
		}
		calls := s.Calls(sdk.CanPromote, sdk.CanDemote, sdk.CanFollow)
		if len(calls) != len(want) {
			t.Fatalf("got %v", calls)
		}
		for i, c := range calls {
			if got, want := fmt.Sprintf("%+v", c.Act), fmt.Sprintf("%+v", want[i]); got != want {
				t.Errorf("act %d:\ngot  %s\nwant %s", i, got, want)
			}
		}
	})
}

func TestSupervisorRenews(t *testing.T) {
	w := &world{}
	play(t, w, Service{TTL: 3 * time.Second}, func(t *testing.T, s *Supervisor) {
		s.Promote()
		s.Pass(1600 * time.Millisecond)
		calls := s.Calls(sdk.CanRenew)
		if len(calls) != 3 {
			t.Fatalf("renewals in 1.6s: %v, want 3", calls)
		}
		for i, c := range calls {
			at := time.Duration(i+1) * 500 * time.Millisecond
			if c.At != at || c.Until != epoch.Add(at+2850*time.Millisecond) || c.Err != nil {
				t.Errorf("renewal %d: got %s at %s (%v)", i, c, c.At, c.Err)
			}
		}
		w.mu.Lock()
		w.until = 1 // the kernel has closed it
		w.mu.Unlock()
		s.Pass(time.Second)
		wantRole(t, s, sdk.RoleStandby)
		if last := s.Calls(sdk.CanDemote)[1]; last.Act.Reason != sdk.ReasonUnfit || last.Act.Mode != sdk.Planned || !strings.Contains(last.Act.Cause, "port 80 is closed: expired") {
			t.Errorf("demoted by %+v", last.Act)
		}
	})
}

// Renewals that do not arrive cost the role when what was extended has run out.
func TestSupervisorCannotRenew(t *testing.T) {
	w := &world{renew: func(sdk.Instant) error { return errors.New("no netlink") }}
	play(t, w, Service{TTL: 3 * time.Second}, func(t *testing.T, s *Supervisor) {
		s.Promote()
		s.Pass(2900 * time.Millisecond)
		wantRole(t, s, sdk.RolePrimary)
		s.Pass(200 * time.Millisecond)
		wantRole(t, s, sdk.RoleStandby)
		wantStory(t, s, `
			    0.00s  demote term 0 (start): already
			    0.00s  -> standby: started
			    0.00s  -> promoting term 1: there was no primary
			    0.00s  promote term 1 (election): done
			    0.00s  -> primary: there was no primary
			    0.50s  renew until 3.35s: no netlink
			    3.00s  -> demoting: not fit: door: renewals do not arrive: no netlink
			    3.00s  demote term 1 (unfit): already
			    3.00s  -> standby: not fit: door: renewals do not arrive: no netlink
		`)
	})
}

// The timetable of a lost lease, and what becomes of a part that cannot leave.
func TestSupervisorLoses(t *testing.T) {
	w := &world{}
	play(t, w, Service{TTL: 10 * time.Second}, func(t *testing.T, s *Supervisor) {
		s.Promote()
		s.Pass(time.Second)
		w.demote = func(ctx context.Context, _ *sdk.Transition) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		wantResult(t, "lose", s.Lose(), sdk.OutcomeUnknown, "not done within")
		wantRole(t, s, sdk.RoleFailed)
		calls := s.Calls(sdk.CanDemote)[1:]
		want := []struct{ at, timeout time.Duration }{
			{7500 * time.Millisecond, 2 * time.Second}, // what is left until 9.5 s
			{9550 * time.Millisecond, 1500 * time.Millisecond},
			{11150 * time.Millisecond, 1500 * time.Millisecond},
		}
		if len(calls) != len(want) {
			t.Fatalf("demotes: %v", calls)
		}
		for i, c := range calls {
			if c.At.Round(time.Millisecond) != want[i].at || c.Act.Timeout != want[i].timeout || c.Act.Mode != sdk.Forced ||
				c.Act.LeaseUntil != epoch.Add(9500*time.Millisecond) || c.Act.Attempt != i+1 || c.Act.Reason != sdk.ReasonLost {
				t.Errorf("demote %d at %s: %+v", i, c.At, c.Act)
			}
		}
		if story := s.Story(); !strings.Contains(story, "    9.00s  not proven demoted in time") {
			t.Errorf("nothing at 0.9 of the ttl:\n%s", story)
		}
		w.demote = nil
		wantResult(t, "clear", s.Clear(), sdk.OutcomeAlready, "") // it has closed by itself
		wantRole(t, s, sdk.RoleStandby)
		// Nobody has resigned, so the next tenure follows a loss.
		s.Promote()
		if c := s.Calls(sdk.CanPromote)[1]; c.Act.Reason != sdk.ReasonFailover || c.Act.Previous.Node != "db1" || c.Act.Term != 2 {
			t.Errorf("promoted by %+v", c.Act)
		}
	})
}

func TestSupervisorRevokes(t *testing.T) {
	w := &world{}
	play(t, w, Service{TTL: 10 * time.Second}, func(t *testing.T, s *Supervisor) {
		s.Promote()
		s.Pass(time.Second)
		wantResult(t, "revoke", s.Revoke(), sdk.OutcomeDone, "")
		c := s.Calls(sdk.CanDemote)[1]
		if c.At != time.Second || c.Act.Mode != sdk.Forced || c.Act.Timeout != 1500*time.Millisecond || c.Act.LeaseUntil != 0 {
			t.Errorf("at %s: %+v", c.At, c.Act)
		}
		s.Pass(time.Minute)
		if n := len(s.Calls(sdk.CanRenew)); n != 0 {
			t.Errorf("%d renewals of a lease that was taken away", n)
		}
	})
}

// A lost lease cuts short what runs, and a fresh process demotes.
func TestSupervisorLosesDuringAPromote(t *testing.T) {
	w := &world{}
	var ended error
	w.promote = func(ctx context.Context, _ *sdk.Transition) error {
		<-ctx.Done()
		ended = context.Cause(ctx)
		return ended
	}
	play(t, w, Service{TTL: 3 * time.Second}, func(t *testing.T, s *Supervisor) {
		promoted := make(chan sdk.Result, 1)
		go func() { promoted <- s.Promote() }()
		s.Pass(5200 * time.Millisecond)
		wantResult(t, "lose", s.Lose(), sdk.OutcomeAlready, "")
		wantResult(t, "promote", <-promoted, sdk.OutcomeUnknown, "cut short: the lease is lost")
		if ended == nil || w.closed != 0 {
			t.Errorf("the promote ended by %v, and %d processes were closed; want one killed", ended, w.closed)
		}
		if c := s.Calls(sdk.CanDemote)[1]; c.At != 7250*time.Millisecond { // renewed at 5.0
			t.Errorf("demoted at %s", c.At)
		}
		wantRole(t, s, sdk.RoleStandby)
	})
}

func TestSupervisorUndoesASwitchover(t *testing.T) {
	w := &world{}
	play(t, w, Service{Demote: Policy{Timeout: 2 * time.Second}}, func(t *testing.T, s *Supervisor) {
		s.Promote()
		w.demote = func(context.Context, *sdk.Transition) error { return sdk.Refuse(errors.New("a writer is left")) }
		wantResult(t, "switchover", s.Switchover("db2"), sdk.OutcomeUnchanged, "a writer is left")
		wantRole(t, s, sdk.RolePrimary)
		last := s.Calls(sdk.CanPromote)[1]
		if last.Act.Reason != sdk.ReasonUndo || last.Act.Term != 1 || last.Act.Primary.Node != "db1" || last.Result.Outcome != sdk.OutcomeAlready {
			t.Errorf("undone by %+v: %s", last.Act, last)
		}
		s.Pass(time.Minute)
		wantRole(t, s, sdk.RolePrimary)
		// One that cannot be undone either is demoted by force.
		w.promote = func(context.Context, *sdk.Transition) error { return sdk.Refuse(errors.New("not again")) }
		w.demote = func(_ context.Context, t *sdk.Transition) error {
			if t.Mode == sdk.Forced {
				return nil
			}
			return sdk.Refuse(errors.New("a writer is left"))
		}
		wantResult(t, "switchover", s.Switchover("db2"), sdk.OutcomeDone, "")
		wantRole(t, s, sdk.RoleStandby)
	})
}

// A failed promote is retried as the policy says, and then the role is left.
func TestSupervisorRetries(t *testing.T) {
	w := &world{promote: func(context.Context, *sdk.Transition) error { return sdk.Retry(errors.New("busy"), 3*time.Second) }}
	play(t, w, Service{}, func(t *testing.T, s *Supervisor) {
		wantResult(t, "promote", s.Promote(), sdk.OutcomeUnchanged, "busy")
		wantRole(t, s, sdk.RoleStandby)
		calls := s.Calls(sdk.CanPromote)
		if len(calls) != 3 || calls[2].Act.Attempt != 3 || calls[2].At != 6*time.Second || calls[2].Act.ID != calls[0].Act.ID {
			t.Errorf("attempts: %v", calls)
		}
		w.promote = func(context.Context, *sdk.Transition) error { panic("nil map") }
		wantResult(t, "a panic", s.Promote(), sdk.OutcomeUnknown, "panic in promote: nil map")
		w.promote = func(context.Context, *sdk.Transition) error { return sdk.Stale(errors.New("term 9 was here")) }
		wantResult(t, "stale", s.Promote(), sdk.OutcomeStaleTerm, "term 9 was here")
		if n := len(s.Calls(sdk.CanPromote)); n != 3+3+1 {
			t.Errorf("%d promotes, want 7: what is stale is not tried again", n)
		}
	})
}

// An act that is past its time is told to end, and its process with it.
func TestSupervisorEndsWhatIsLate(t *testing.T) {
	w := &world{}
	w.promote = func(ctx context.Context, _ *sdk.Transition) error {
		sdk.Progress(ctx, 50, "waits")
		<-ctx.Done()
		time.Sleep(500 * time.Millisecond) // it takes its time
		return context.Cause(ctx)
	}
	play(t, w, Service{Promote: Policy{Timeout: 5 * time.Second}}, func(t *testing.T, s *Supervisor) {
		wantResult(t, "promote", s.Promote(), sdk.OutcomeUnknown, "cut short: its time is over: not done within 5s")
		c := s.Calls(sdk.CanPromote)[0]
		if c.Took != 5500*time.Millisecond || len(c.Progress) != 1 || c.Progress[0] != "50% waits" {
			t.Errorf("%s: took %s, said %q", c, c.Took, c.Progress)
		}
	})
}

func TestSupervisorSupersedes(t *testing.T) {
	w := &world{}
	var cause error
	w.promote = func(ctx context.Context, _ *sdk.Transition) error {
		<-ctx.Done()
		cause = context.Cause(ctx)
		return cause
	}
	play(t, w, Service{Promote: Policy{Timeout: time.Minute}}, func(t *testing.T, s *Supervisor) {
		promoted := make(chan sdk.Result, 1)
		go func() { promoted <- s.Promote() }()
		s.Pass(0)
		wantResult(t, "demote", s.Do(sdk.Transition{Action: sdk.Demote}), sdk.OutcomeAlready, "")
		wantResult(t, "promote", <-promoted, sdk.OutcomeUnknown, "a demotion was asked for")
		if !errors.Is(cause, sdk.ErrSuperseded) {
			t.Errorf("the promote ended by %v", cause)
		}
	})
}

func TestSupervisorAsksForStaleTerms(t *testing.T) {
	w := &world{}
	play(t, w, Service{Term: 7}, func(t *testing.T, s *Supervisor) {
		s.Promote()
		if s.Term() != 8 {
			t.Errorf("term %d, want 8", s.Term())
		}
		for _, a := range []sdk.Action{sdk.Promote, sdk.Follow} {
			wantResult(t, string(a), s.Do(sdk.Transition{Action: a, Term: 7}), sdk.OutcomeStaleTerm, "term 7: term 8 was seen")
		}
		wantResult(t, "a demote of an older term", s.Do(sdk.Transition{Action: sdk.Demote, Term: 7}), sdk.OutcomeDone, "")
		wantResult(t, "a fence of this node", s.Do(sdk.Transition{Action: sdk.Fence, Primary: sdk.Peer{Node: "db1"}}), sdk.OutcomeUnchanged, "that is this node")
	})
}

func TestSupervisorCrashes(t *testing.T) {
	w := &world{}
	play(t, w, Service{}, func(t *testing.T, s *Supervisor) {
		wantResult(t, "a standby's crash", s.Crash(), sdk.OutcomeAlready, "")
		wantRole(t, s, sdk.RoleStandby)
		s.Promote()
		s.Pass(time.Minute)
		wantResult(t, "adoption", s.Crash(), sdk.OutcomeAlready, "port 80 is open")
		wantRole(t, s, sdk.RolePrimary)
		if c := s.Calls(sdk.CanPromote)[1]; c.Act.Term != 1 || c.Act.Reason != sdk.ReasonStart {
			t.Errorf("adopted by %+v", c.Act)
		}
		s.Pass(time.Minute)
		if !w.open || w.until != s.Until() {
			t.Error("renewals do not go on")
		}
		w.mu.Lock()
		w.open = false
		w.mu.Unlock()
		wantResult(t, "what has changed", s.Crash(), sdk.OutcomeDone, "") // the promote has opened it again
		wantRole(t, s, sdk.RoleStandby)
		if w.open || w.closed != 0 {
			t.Errorf("open %v, %d processes closed", w.open, w.closed)
		}
	})
}

// A crash in the middle of a promote ends it; the next process demotes.
func TestSupervisorCrashesDuringAPromote(t *testing.T) {
	w := &world{promote: func(ctx context.Context, _ *sdk.Transition) error { <-ctx.Done(); return context.Cause(ctx) }}
	play(t, w, Service{}, func(t *testing.T, s *Supervisor) {
		promoted := make(chan sdk.Result, 1)
		go func() { promoted <- s.Promote() }()
		s.Pass(time.Second)
		wantResult(t, "crash", s.Crash(), sdk.OutcomeAlready, "")
		wantResult(t, "promote", <-promoted, sdk.OutcomeUnknown, "its process was killed")
		wantRole(t, s, sdk.RoleStandby)
		if n := len(s.Calls(sdk.CanPromote)); n != 1 {
			t.Errorf("%d promotes, want 1", n)
		}
	})
}

func TestSupervisorKillsThePlugin(t *testing.T) {
	w := &world{}
	play(t, w, Service{}, func(t *testing.T, s *Supervisor) {
		s.Promote()
		s.Pass(time.Second)
		s.Kill()
		s.Pass(time.Minute)
		wantRole(t, s, sdk.RolePrimary)
		if !w.open || w.until != s.Until() {
			t.Error("renewals do not go on")
		}
	})
}

// An act whose process was killed is asked again, of the new one.
func TestSupervisorKillsThePluginDuringAPromote(t *testing.T) {
	w := &world{promote: func(ctx context.Context, t *sdk.Transition) error {
		if t.Attempt == 1 {
			<-ctx.Done()
			time.Sleep(200 * time.Millisecond) // it takes its time
		}
		return ctx.Err()
	}}
	play(t, w, Service{}, func(t *testing.T, s *Supervisor) {
		promoted := make(chan sdk.Result, 1)
		go func() { promoted <- s.Promote() }()
		s.Pass(time.Second)
		s.Kill()
		wantResult(t, "promote", <-promoted, sdk.OutcomeDone, "")
		calls := s.Calls(sdk.CanPromote)
		if len(calls) != 2 || calls[1].Act.ID != calls[0].Act.ID || calls[0].Result.Outcome != sdk.OutcomeUnknown {
			t.Errorf("attempts: %v", calls)
		}
	})
}

func TestSupervisorStops(t *testing.T) {
	w := &world{}
	play(t, w, Service{}, func(t *testing.T, s *Supervisor) {
		var cause error
		w.promote = func(ctx context.Context, _ *sdk.Transition) error {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return cause
		}
		promoted := make(chan sdk.Result, 1)
		go func() { promoted <- s.Promote() }()
		s.Pass(time.Second)
		wantResult(t, "stop", s.Stop(), sdk.OutcomeAlready, "")
		wantResult(t, "promote", <-promoted, sdk.OutcomeUnknown, "the supervisor stops")
		if !errors.Is(cause, sdk.ErrDrained) || w.closed != 2 {
			t.Errorf("the promote ended by %v, and %d processes were closed; want ErrDrained and 2", cause, w.closed)
		}
		if c := s.Calls(sdk.CanDemote)[1]; c.Act.Reason != sdk.ReasonStop || c.Act.Mode != sdk.Planned {
			t.Errorf("demoted by %+v", c.Act)
		}
		wantRole(t, s, sdk.RoleStandby)
	})
}

func TestSupervisorReloads(t *testing.T) {
	w := &world{}
	play(t, w, Service{Settings: map[string]any{"port": 80}}, func(t *testing.T, s *Supervisor) {
		if err := s.Reload(map[string]any{"port": 443}); err != nil {
			t.Error(err)
		}
		if c := s.Calls(sdk.CanDemote); len(c) != 2 || c[1].Act.Reason != sdk.ReasonReload {
			t.Errorf("a standby's reload: %v", c)
		}
		s.Promote()
		if err := s.Reload(map[string]any{"port": 443}); err != nil || len(s.Calls(sdk.CanPromote)) != 1 {
			t.Errorf("the same again: %v, %v", err, s.Calls(sdk.CanPromote))
		}
		for _, bad := range []map[string]any{{"port": 0}, {"port": 81}, {"prot": 1}} {
			var wrong *sdk.KeyError
			if err := s.Reload(bad); !errors.As(err, &wrong) || wrong.Key != strings.Join(sorted(bad), "") {
				t.Errorf("%v: got %v", bad, err)
			}
		}
		if err := s.Reload(map[string]any{"port": 8080}); err != nil {
			t.Error(err)
		}
		c := s.Calls(sdk.CanPromote)
		if len(c) != 2 || c[1].Act.Reason != sdk.ReasonReload || c[1].Act.Term != 1 || !strings.Contains(c[1].Result.Detail, "port 8080") {
			t.Errorf("a primary's reload: %v", c)
		}
		w.promote = func(context.Context, *sdk.Transition) error { return sdk.Refuse(errors.New("no such port")) }
		if err := s.Reload(map[string]any{"port": 22}); err != nil {
			t.Error(err)
		}
		wantRole(t, s, sdk.RoleStandby)
	})
}

func sorted(m map[string]any) (keys []string) {
	for k := range maps.Keys(m) {
		keys = append(keys, k)
	}
	return keys
}

func TestSupervisorChecks(t *testing.T) {
	w := &world{}
	service := Service{Check: CheckPolicy{Interval: time.Second, Fall: 2, StartGrace: 5 * time.Second}}
	play(t, w, service, func(t *testing.T, s *Supervisor) {
		w.check = func() (sdk.Health, error) { return sdk.Health{Detail: "starts"}, nil }
		s.Promote()
		s.Pass(4500 * time.Millisecond)
		wantRole(t, s, sdk.RolePrimary) // in its grace
		w.check = nil
		s.Pass(10 * time.Second)
		w.check = func() (sdk.Health, error) { return sdk.Health{}, errors.New("no answer") }
		s.Pass(time.Second)
		wantRole(t, s, sdk.RolePrimary) // once is not twice
		s.Pass(time.Second)
		wantRole(t, s, sdk.RoleStandby)
		n := len(s.Calls(sdk.CanCheck))
		s.Pass(time.Minute)
		if len(s.Calls(sdk.CanCheck)) != n {
			t.Error("a standby is checked")
		}
		// Certain, and at once.
		w.check = nil
		s.Promote()
		s.Pass(100 * time.Millisecond)
		w.check = func() (sdk.Health, error) { return sdk.Health{Certain: true, Detail: "has ended"}, nil }
		w.changed <- struct{}{}
		s.Pass(0)
		wantRole(t, s, sdk.RoleStandby)
		if c := s.Calls(sdk.CanDemote); !strings.Contains(c[len(c)-1].Act.Cause, "has ended") {
			t.Errorf("demoted for %s", c[len(c)-1].Act.Cause)
		}
		w.check = nil
		if h, err := s.Check(sdk.RoleCandidate); err != nil || !h.Fit || h.Position != "7" {
			t.Errorf("check: %+v, %v", h, err)
		}
		orders, err := s.Rank("7", map[string]string{"db2": "7", "db3": "8"})
		if want := map[string]sdk.Order{"db2": sdk.Equal, "db3": sdk.Behind}; err != nil || !maps.Equal(orders, want) {
			t.Errorf("rank: %v, %v", orders, err)
		}
	})
}

func TestSupervisorFailsOver(t *testing.T) {
	w := &world{}
	play(t, w, Service{Fence: Policy{Timeout: time.Second}}, func(t *testing.T, s *Supervisor) {
		wantResult(t, "follow", s.Follow("db2"), sdk.OutcomeDone, "")
		w.fence = func(context.Context, *sdk.Transition) error { return errors.New("no answer from its BMC") }
		wantResult(t, "failover", s.Failover("db2"), sdk.OutcomeUnknown, "no answer from its BMC")
		wantRole(t, s, sdk.RoleStandby)
		if n := len(s.Calls(sdk.CanPromote)); n != 0 {
			t.Errorf("promoted %d times, though the victim may be up", n)
		}
		w.fence = nil
		wantResult(t, "failover", s.Failover("db2"), sdk.OutcomeDone, "")
		wantRole(t, s, sdk.RolePrimary)
		fence, promote := s.Calls(sdk.CanFence)[1].Act, s.Calls(sdk.CanPromote)[0].Act
		if fence.Primary.Node != "db2" || fence.Term != promote.Term || promote.Reason != sdk.ReasonFailover {
			t.Errorf("fence %+v\npromote %+v", fence, promote)
		}
	})
}

func TestSupervisorFollowsAgain(t *testing.T) {
	w := &world{follow: func(context.Context, *sdk.Transition) error { return errors.New("no route") }}
	play(t, w, Service{}, func(t *testing.T, s *Supervisor) {
		s.Follow("db2")
		s.Follow("db2")
		s.Follow("db3")
		var got []string
		for _, c := range s.Calls(sdk.CanFollow) {
			got = append(got, c.String())
		}
		want := "follow term 1 (election) db2: failed-unknown: no route\nfollow term 1 (election) db2 attempt 2: failed-unknown: no route\nfollow term 2 (election) db3: failed-unknown: no route"
		if strings.Join(got, "\n") != want {
			t.Errorf("got %s", strings.Join(got, "\n"))
		}
	})
}

// The state directory is there, and stays.
func TestSupervisorGivesAStateDirectory(t *testing.T) {
	w := &world{}
	play(t, w, Service{}, func(t *testing.T, s *Supervisor) {
		s.Promote()
		dir := s.Calls(sdk.CanPromote)[0].Act.StateDir
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			t.Errorf("state directory: %v, %v", info, err)
		}
		s.Crash()
		if again := s.Calls(sdk.CanPromote)[1].Act.StateDir; again != dir {
			t.Errorf("after a crash it is %s, and was %s", again, dir)
		}
	})
}

// A trial is a test that is expected to fail.
type trial struct {
	*testing.T
	cleanup []func()
	said    []string
}

func (f *trial) Cleanup(g func())             { f.cleanup = append(f.cleanup, g) }
func (f *trial) Errorf(s string, args ...any) { f.said = append(f.said, fmt.Sprintf(s, args...)) }
func (f *trial) Fatalf(s string, args ...any) {
	f.Errorf(s, args...)
	panic(f)
}

// fails runs a story that ends or fails its test, and returns what that says.
func fails(t *testing.T, p sdk.Plugin, service Service, story func(s *Supervisor)) (said string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &trial{T: t}
		defer func() {
			if r := recover(); r != nil && r != any(f) {
				panic(r)
			}
			for _, c := range f.cleanup {
				c()
			}
			time.Sleep(time.Minute) // for what is deaf to end
			said = strings.Join(f.said, "\n")
		}()
		story(NewSupervisor(f, p, service))
	})
	return said
}

func TestSupervisorFailsTests(t *testing.T) {
	w := &world{changed: nil}
	deaf := &world{promote: func(ctx context.Context, _ *sdk.Transition) error {
		<-ctx.Done()
		time.Sleep(5 * time.Second)
		return nil
	}}
	for _, test := range []struct {
		name    string
		plugin  sdk.Plugin
		service Service
		story   func(s *Supervisor)
		want    string
	}{
		{"settings", w.plugin(), Service{Settings: map[string]any{"prot": 1}}, func(*Supervisor) {}, `settings: prot: unknown key; did you mean "port"?`},
		{"bound", w.plugin(sdk.ForcedBound(900 * time.Millisecond)), Service{TTL: 3 * time.Second}, func(*Supervisor) {}, "a forced demotion then has 450ms, and the plugin needs 900ms (sdk.ForcedBound): give it a ttl of at least 6s"},
		{"role", w.plugin(), Service{}, func(s *Supervisor) { s.Switchover("db2") }, "Switchover to db2: the node is standby, and has to be primary"},
		{"no lease", w.plugin(), Service{}, func(s *Supervisor) { s.Lose() }, "Lose: no lease is held"},
		{"stranger", w.plugin(), Service{}, func(s *Supervisor) { s.Follow("db9") }, `"db9" is no other member`},
		{"after the end", w.plugin(), Service{}, func(s *Supervisor) { s.Stop(); s.Promote() }, "the supervisor was stopped"},
		{"a crash after the end", w.plugin(), Service{}, func(s *Supervisor) { s.Stop(); s.Crash() }, "Crash: the supervisor was stopped"},
		{"an act after the end", w.plugin(), Service{}, func(s *Supervisor) {
			s.Stop()
			s.t.Errorf("%s", s.Do(sdk.Transition{Action: sdk.Demote}).Detail)
		}, "not started: the plugin's process is gone"},
		{"deaf", deaf.plugin(), Service{Promote: Policy{Timeout: time.Second}}, func(s *Supervisor) { s.Promote() }, "a call of the plugin goes on 1s after its context ended (cut short: its time is over)"},
		{"none", w.plugin(), Service{}, func(s *Supervisor) { s.Promote(); s.Stop() }, ""},
	} {
		got := fails(t, test.plugin, test.service, test.story)
		if !strings.Contains(got, test.want) || test.want == "" && got != "" {
			t.Errorf("%s: got %q, want %q in it", test.name, got, test.want)
		}
	}
}
