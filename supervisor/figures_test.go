package supervisor_test

import (
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	. "github.com/deputy-ha/deputy/supervisor/supervisortest"
)

func TestFiguresTellWhatHappened(t *testing.T) {
	stage(t, func(s *scene) {
		db1 := s.run("db1", "db2")
		db2 := s.machine("db2")
		s.wait(2 * time.Second)
		db1.is(sdk.RolePrimary)

		f := db1.member.Figures()
		if !f.Held || f.LeaseUntil == 0 || !f.Seen || !f.Fit || f.Members != 2 || f.Definitions != 1 {
			t.Errorf("of a primary of two got %+v", f)
		}
		if f.Tenures[sdk.ReasonElection] != 1 || f.Promotions[supervisor.ResultSuccess] != 1 || f.Demotions[supervisor.ResultSuccess] != 0 {
			t.Errorf("after a promotion got %v, %v, %v", f.Tenures, f.Promotions, f.Demotions)
		}
		if n := hooks(f, "disk", sdk.Promote, sdk.OutcomeDone); n != 1 {
			t.Errorf("got %d promotions of disk, want 1", n)
		}
		for _, p := range f.Parts {
			if !p.Promoted || !p.Fit || len(p.Checks) != 1 || p.Checks[0].Result != supervisor.ResultSuccess || p.Checks[0].Count == 0 {
				t.Errorf("of %s got %+v", p.Name, p)
			}
		}
		if f := db2.member.Figures(); f.Held || f.LeaseUntil != 0 || !f.Seen || f.Term != 1 {
			t.Errorf("of a standby got %+v", f)
		}

		without := db2.member.Figures().Leaderless
		db1.parts["vip"].Next(sdk.Demote, Behaviour{Takes: time.Second})
		s.switchover("db2")
		s.wait(3 * time.Second)
		db2.is(sdk.RolePrimary)
		if f := db1.member.Figures(); f.Demotions[supervisor.ResultSuccess] != 1 || f.Held || hooks(f, "vip", sdk.Demote, sdk.OutcomeDone) != 1 {
			t.Errorf("after a switchover got %v of who left", f.Demotions)
		}
		f = db2.member.Figures()
		if f.Tenures[sdk.ReasonSwitchover] != 1 {
			t.Errorf("after a switchover got %v of who took the role", f.Tenures)
		}
		if took := f.Leaderless - without; took < 800*time.Millisecond || took > 1500*time.Millisecond {
			t.Errorf("got %s without a primary, want about what the demotion took, 1s", took)
		}
		if now := db2.member.Figures().Leaderless; now != f.Leaderless {
			t.Errorf("time without a primary grows under one: %s after %s", now, f.Leaderless)
		}

		db2.powerOff()
		s.wait(5 * time.Second)
		db1.is(sdk.RolePrimary)
		if f := db1.member.Figures(); f.Tenures[sdk.ReasonFailover] != 1 {
			t.Errorf("after a loss got %v", f.Tenures)
		}
	})
}

func TestFiguresTellOfFailures(t *testing.T) {
	stage(t, func(s *scene) {
		db1 := s.machine("db1")
		db1.parts["vip"].Next(sdk.Promote, Behaviour{Outcome: sdk.OutcomeUnchanged, Refused: true})
		s.run("db1")
		s.wait(2 * time.Second)
		f := db1.member.Figures()
		if f.Promotions[supervisor.ResultFailure] != 1 || f.Demotions[supervisor.ResultSuccess] != 1 || hooks(f, "vip", sdk.Promote, sdk.OutcomeUnchanged) != 1 {
			t.Errorf("after a promotion that failed got %v, %v", f.Promotions, f.Demotions)
		}
		if f.Leaderless < time.Second {
			t.Errorf("got %s without a primary, though there was none", f.Leaderless)
		}

		s.wait(time.Minute)
		db1.is(sdk.RolePrimary)
		db1.parts["vip"].Always(sdk.Demote, Behaviour{Outcome: sdk.OutcomeUnknown})
		db1.parts["disk"].Unfit("broken")
		s.wait(10 * time.Second)
		if f := db1.member.Figures(); f.Demotions[supervisor.ResultFailure] != 1 || f.Role != sdk.RoleBlocked {
			t.Errorf("of who cannot demote got %v, %s", f.Demotions, f.Role)
		}
		db1.parts["vip"].Always(sdk.Demote, Behaviour{})
	})
}

// hooks counts the acts of a part with an outcome.
func hooks(f supervisor.Figures, part string, a sdk.Action, o sdk.Outcome) (n uint64) {
	for _, p := range f.Parts {
		for _, h := range p.Hooks {
			if p.Name == part && h.Act == a && h.Outcome == o {
				for _, c := range h.Took.Counts {
					n += c
				}
			}
		}
	}
	return n
}

func TestHistogramCountsByBounds(t *testing.T) {
	bounds := []time.Duration{time.Second, time.Minute}
	var h, before supervisor.Histogram
	for _, d := range []time.Duration{0, time.Second, time.Second + 1, time.Minute, time.Hour} {
		h.Add(bounds, d)
		if before.Counts == nil {
			before = h.Clone()
		}
	}
	if h.Counts[0] != 2 || h.Counts[1] != 2 || h.Counts[2] != 1 || h.Sum != time.Hour+time.Minute+2*time.Second+1 {
		t.Errorf("got %v, %s", h.Counts, h.Sum)
	}
	if before.Counts[0] != 1 {
		t.Error("a clone changes with what it is of")
	}
}
