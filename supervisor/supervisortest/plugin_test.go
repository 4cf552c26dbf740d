package supervisortest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

func TestPluginDoesAsItsScriptSays(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		p := NewPlugin(NewJournal(), "db1", "vip")
		do := func(a sdk.Action) sdk.Result {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, errors.New("lease lost"))
			defer cancel()
			return p.Do(ctx, sdk.Transition{Action: a, Timeout: 3 * time.Second}, nil)
		}
		for _, c := range []struct {
			name  string
			does  Behaviour
			act   sdk.Action
			want  sdk.Outcome
			takes time.Duration
			acts  bool // as primary, afterwards
		}{
			{"demote first", Behaviour{}, sdk.Demote, sdk.OutcomeAlready, 0, false},
			{"unchanged", Behaviour{Outcome: sdk.OutcomeUnchanged}, sdk.Promote, sdk.OutcomeUnchanged, 0, false},
			{"promote", Behaviour{Takes: time.Second}, sdk.Promote, sdk.OutcomeDone, time.Second, true},
			{"promote again", Behaviour{}, sdk.Promote, sdk.OutcomeAlready, 0, true},
			{"demote dies", Behaviour{Takes: time.Second, Dies: true}, sdk.Demote, sdk.OutcomeUnknown, time.Second, true},
			{"demote too slow", Behaviour{Takes: 4 * time.Second}, sdk.Demote, sdk.OutcomeUnknown, 3 * time.Second, true},
			{"promote after it is unknown", Behaviour{}, sdk.Promote, sdk.OutcomeDone, 0, true},
			{"demote", Behaviour{Takes: 3 * time.Second}, sdk.Demote, sdk.OutcomeDone, 3 * time.Second, false},
			{"promote hangs", Behaviour{Hangs: true}, sdk.Promote, sdk.OutcomeUnknown, 3 * time.Second, true},
		} {
			p.Next(c.act, c.does)
			began := time.Now()
			r := do(c.act)
			if r.Outcome != c.want || time.Since(began) != c.takes || p.ActsAsPrimary() != c.acts {
				t.Errorf("%s: %v after %s, acts=%t; want %s after %s, acts=%t",
					c.name, r, time.Since(began), p.ActsAsPrimary(), c.want, c.takes, c.acts)
			}
		}
	})
}

func TestKillEndsADeafAct(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		p := NewPlugin(NewJournal(), "db1", "vip")
		p.Next(sdk.Promote, Behaviour{Hangs: true, Deaf: true})
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan sdk.Result, 1)
		go func() {
			ended <- p.Do(ctx, sdk.Transition{Action: sdk.Promote, Timeout: time.Second}, nil)
		}()
		cancel(errors.New("lease lost"))
		time.Sleep(time.Hour)
		select {
		case r := <-ended:
			t.Fatalf("ended by itself: %v", r)
		default:
		}
		if err := p.Kill(t.Context()); err != nil {
			t.Errorf("kill: %v", err)
		}
		select { // Kill returns when the act has ended
		case r := <-ended:
			if r.Outcome != sdk.OutcomeUnknown {
				t.Errorf("killed, and the outcome is %s", r.Outcome)
			}
		default:
			synctest.Wait()
			if len(ended) == 0 {
				t.Error("goes on after Kill")
			}
		}

		p.Unkillable(true)
		bounded, cancelKill := context.WithTimeoutCause(t.Context(), time.Second, errors.New("no time left"))
		defer cancelKill()
		if err := p.Kill(bounded); err == nil {
			t.Error("killed what cannot be killed")
		}
	})
}

func TestGuardEndsByItself(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		clock := NewClock()
		p := NewPlugin(NewJournal(), "db1", "guard")
		p.Guard = clock
		at := func(d time.Duration) sdk.Instant { return clock.Now().Add(d) }
		p.Do(t.Context(), sdk.Transition{Action: sdk.Promote, LeaseUntil: at(3 * time.Second)}, nil)
		time.Sleep(2 * time.Second)
		p.Renew(t.Context(), at(3*time.Second))
		clock.freeze() // the supervisor; not the kernel
		time.Sleep(3*time.Second - time.Nanosecond)
		if !p.ActsAsPrimary() {
			t.Error("ended before its time")
		}
		time.Sleep(2 * time.Nanosecond)
		if p.ActsAsPrimary() {
			t.Error("goes on without renewal")
		}
	})
}

func TestMemoryOnAFullDisk(t *testing.T) {
	var m Memory
	promoting := supervisor.Note{Role: sdk.RolePromoting, Tenure: &supervisor.Tenure{Term: 1, Until: 5}, Promoted: []string{"vip"}}
	m.Fill(true)
	if err := m.Save(promoting); !errors.Is(err, ErrDiskFull) {
		t.Errorf("promote on a full disk: %v", err)
	}
	m.Fill(false)
	if err := m.Save(promoting); err != nil {
		t.Errorf("save: %v", err)
	}
	m.Fill(true)
	if err := m.SaveUntil(7); err != nil {
		t.Errorf("save until: %v", err)
	}
	if n, _ := m.Load(); n.Tenure.Until != 7 {
		t.Errorf("the lease is said to end at %d, want 7", n.Tenure.Until)
	}
	if err := m.Save(supervisor.Note{Role: sdk.RoleDemoting, Tenure: promoting.Tenure, Promoted: promoting.Promoted}); err != nil {
		t.Errorf("demote on a full disk: %v", err)
	}
	if n, _ := m.Load(); n.Role != sdk.RoleDemoting {
		t.Errorf("role is %s", n.Role)
	}
}

func TestClock(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		c := NewSkewedClock(10*time.Second, 1.01)
		began, real := c.Now(), time.Now()
		timer := c.Timer(began.Add(101 * time.Second))
		<-timer.C()
		if took := time.Since(real); took < 100*time.Second || took > 100*time.Second+time.Microsecond || c.Now() < began.Add(101*time.Second) {
			t.Errorf("101 s of a clock that is 1 %% fast took %s, and it says %d", took, c.Now())
		}

		stopped, late := c.Timer(c.Now().Add(time.Second)), c.Timer(c.Now().Add(time.Second))
		stopped.Stop()
		stopped.Stop()
		c.freeze()
		time.Sleep(time.Minute)
		if isClosed(late.C()) {
			t.Error("a timer fired while frozen")
		}
		c.thaw()
		if !isClosed(late.C()) || isClosed(stopped.C()) {
			t.Errorf("after the thaw: late fired=%t, stopped fired=%t", isClosed(late.C()), isClosed(stopped.C()))
		}
	})
}
