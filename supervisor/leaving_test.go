package supervisor_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	. "github.com/deputy-ha/deputy/supervisor/supervisortest"
)

// The stories of "Leaving the role" in the design's page on safety.

func TestPlannedDemotionGoesInReverse(t *testing.T) {
	story(t, func(s *scene) {
		db1 := s.machine("db1")
		for _, part := range []string{"disk", "vip"} {
			db1.parts[part].Always(sdk.Promote, Behaviour{Takes: 100 * time.Millisecond})
		}
		s.run("db1")
		s.wait(time.Second)
		for _, part := range []string{"disk", "vip"} {
			db1.parts[part].Always(sdk.Demote, Behaviour{Takes: 100 * time.Millisecond})
		}
		db1.down(supervisor.ErrStop)
		first, last := db1.parts["vip"].Acts(), db1.parts["disk"].Acts()
		if a := first[len(first)-1]; a.Action != sdk.Demote || a.Mode != sdk.Planned || a.Timeout != 5*time.Second || a.Reason != sdk.ReasonStop {
			t.Errorf("vip: last act is %+v", a)
		}
		if a := last[len(last)-1]; a.Action != sdk.Demote {
			t.Errorf("disk: last act is %+v", a)
		}
	})
}

func TestForcedDemotionIsAllAtOnce(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		db1 := s.machine("db1")
		for _, part := range []string{"disk", "vip"} {
			db1.parts[part].Always(sdk.Demote, Behaviour{Takes: 300 * time.Millisecond})
		}
		db1.Cut()
		s.wait(5 * time.Second)
		for _, part := range []string{"disk", "vip"} {
			acts := db1.parts[part].Acts()
			a := acts[len(acts)-1]
			// From s + 0.75 T to s + 0.95 T.
			if a.Mode != sdk.Forced || a.Timeout != 600*time.Millisecond {
				t.Errorf("%s: last act is %s with %s", part, a.Mode, a.Timeout)
			}
		}
		s.machine("db2").is(sdk.RolePrimary)
	})
}

func TestStopInterruptsAPromotion(t *testing.T) {
	story(t, func(s *scene) {
		db1 := s.machine("db1")
		db1.parts["vip"].Always(sdk.Promote, Behaviour{Takes: 9 * time.Second})
		s.run("db1")
		s.wait(time.Second)
		db1.is(sdk.RolePromoting)
		db1.down(supervisor.ErrStop)
		db1.acts("disk", false)
		db1.acts("vip", false)
	})
}

func TestDemotionThatFailsIsTriedAgainByForce(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		s.machine("db1").parts["vip"].Next(sdk.Demote, Behaviour{Outcome: sdk.OutcomeUnknown, Detail: "exit status 1"})
		s.machine("db1").down(supervisor.ErrStop)
		s.wait(time.Second)
		s.machine("db2").is(sdk.RolePrimary)
	})
}

func TestBlockedKeepsTheRoleUntilCleared(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		db1 := s.machine("db1")
		db1.parts["disk"].Always(sdk.Demote, Behaviour{Outcome: sdk.OutcomeUnknown, Detail: "target is busy"})
		if err := db1.member.StepDown(sdk.ReasonDrain, "an operator wants it"); err != nil {
			t.Error(err)
		}
		s.wait(time.Minute)
		db1.is(sdk.RoleBlocked)
		s.machine("db2").is(sdk.RoleCandidate)
		s.says("an operator clears before it is put right")
		if err := db1.member.Clear(); err != nil {
			t.Error(err)
		}
		s.wait(time.Minute)
		db1.is(sdk.RoleBlocked)
		s.says("an operator puts it right, and clears")
		db1.parts["disk"].Always(sdk.Demote, Behaviour{})
		if err := db1.member.Clear(); err != nil {
			t.Error(err)
		}
		s.wait(time.Second)
		db1.is(sdk.RoleCandidate)
		s.machine("db2").is(sdk.RolePrimary)
	})
}

func TestBlockedDoesNotStop(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		db1 := s.machine("db1")
		db1.parts["disk"].Always(sdk.Demote, Behaviour{Outcome: sdk.OutcomeUnknown, Detail: "target is busy"})
		s.says("deputy on db1 is told to stop")
		db1.stop(supervisor.ErrStop)
		s.wait(10 * time.Second)
		db1.is(sdk.RoleBlocked)
		s.machine("db2").is(sdk.RoleCandidate)
		s.says("the target is not busy any more")
		db1.parts["disk"].Always(sdk.Demote, Behaviour{})
		<-db1.ended
		s.wait(time.Second)
		s.machine("db2").is(sdk.RolePrimary)
	})
}

func TestRebootWhereADemotionFails(t *testing.T) {
	story(t, func(s *scene) {
		s.service.OnDemoteFailure = supervisor.Reboot
		s.run("db1", "db2")
		s.wait(time.Second)
		db1 := s.machine("db1")
		db1.parts["disk"].Always(sdk.Demote, Behaviour{Outcome: sdk.OutcomeUnknown, Detail: "target is busy"})
		db1.escalator.OnReboot = func(error) {
			db1.parts["disk"].Break(false, "off")
			db1.Kill()
		}
		if err := db1.member.StepDown(sdk.ReasonDrain, "an operator wants it"); err != nil {
			t.Error(err)
		}
		s.wait(10 * time.Second)
		if n := len(db1.escalator.Reboots()); n != 1 {
			t.Errorf("reboots: %d, want 1", n)
		}
		s.machine("db2").is(sdk.RolePrimary)
	})
}

func TestDemotionHangsWithTheLeaseLost(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		db1 := s.machine("db1")
		db1.parts["disk"].Always(sdk.Demote, Behaviour{Hangs: true, Deaf: true})
		db1.escalator.OnTrigger = func(error) { db1.parts["disk"].Break(false, "taken down from outside") }
		s.says("db1 is cut off, and its disk cannot be demoted")
		db1.Cut()
		s.wait(3 * time.Second)
		// s is the last pulse before the cut, so s + 0.9 T has passed.
		if n := len(db1.escalator.Triggers()); n != 1 {
			t.Errorf("triggers: %d, want 1", n)
		}
		s.wait(2 * time.Second)
		s.machine("db2").is(sdk.RolePrimary)
	})
}

func TestUndeliverableRenewalsMakeUnfit(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		s.says("renewals do not reach vip on db1 any more")
		s.machine("db1").parts["vip"].FailRenewals(errors.New("no such set element"))
		s.wait(5 * time.Second)
		s.machine("db2").is(sdk.RolePrimary)
	})
}

func TestExpiredPartLeavesAtOnce(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		s.says("the guard of vip on db1 has expired")
		s.machine("db1").parts["vip"].FailRenewals(fmt.Errorf("guard of 192.0.2.10: %w", sdk.ErrExpired))
		s.wait(time.Second)
		s.machine("db2").is(sdk.RolePrimary)
	})
}

// Whoever answers again once its guard has expired has nothing to renew.
func TestExpiredPartDoesNotComeBack(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		db1 := s.machine("db1")
		db1.parts["disk"].Next(sdk.Promote, Behaviour{Takes: 2 * time.Second})
		s.says("db1 promotes disk again, and meanwhile the guard of vip expires, which is said once")
		db1.alter("disk")
		s.wait(200 * time.Millisecond)
		db1.parts["vip"].FailRenewals(fmt.Errorf("guard of 192.0.2.10: %w", sdk.ErrExpired))
		s.wait(600 * time.Millisecond)
		db1.parts["vip"].FailRenewals(nil)
		s.wait(3 * time.Second)
		s.machine("db2").is(sdk.RolePrimary)
	})
}

func TestKernelGuardBehindAFrozenProcess(t *testing.T) {
	story(t, func(s *scene) {
		s.machine("db1").guard()
		s.machine("db2").guard()
		s.run("db1", "db2")
		s.wait(time.Second)
		s.says("the supervisor on db1 is stopped by SIGSTOP")
		s.machine("db1").Freeze()
		s.wait(4 * time.Second)
		s.machine("db1").acts("vip", false)
		s.machine("db2").is(sdk.RolePrimary)
		s.says("it goes on")
		s.machine("db1").Thaw()
		s.wait(5 * time.Second)
		s.machine("db1").is(sdk.RoleCandidate)
	})
}

func TestProcessThatCannotBeKilledIsNoProof(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		db1 := s.machine("db1")
		db1.parts["disk"].Always(sdk.Demote, Behaviour{Hangs: true, Deaf: true})
		db1.parts["disk"].Unkillable(true)
		db1.stop(supervisor.ErrStop)
		s.wait(14 * time.Second)
		db1.is(sdk.RoleBlocked)
		s.machine("db2").is(sdk.RoleCandidate)
		s.says("the disk comes back to life")
		db1.parts["disk"].Unkillable(false)
		db1.parts["disk"].Always(sdk.Demote, Behaviour{})
		<-db1.ended
	})
}

// A promotion that nobody can kill could come after the proof.
func TestPromotionThatCannotBeKilled(t *testing.T) {
	story(t, func(s *scene) {
		db1 := s.machine("db1")
		db1.parts["vip"].Always(sdk.Promote, Behaviour{Takes: time.Hour, Deaf: true})
		db1.parts["vip"].Unkillable(true)
		s.run("db1", "db2")
		s.wait(20 * time.Second)
		s.says("the promotion was given up, but its process sleeps in the kernel")
		db1.is(sdk.RoleBlocked)
		s.machine("db2").is(sdk.RoleCandidate)
		db1.parts["vip"].Unkillable(false)
		if err := db1.member.Clear(); err != nil {
			t.Error(err)
		}
		s.wait(time.Second)
		s.machine("db2").is(sdk.RolePrimary)
	})
}
