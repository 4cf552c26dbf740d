package supervisor_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	. "github.com/deputy-ha/deputy/supervisor/supervisortest"
)

// The stories of "The supervisor's own death" in the design's page on safety.

func TestAdoptsAfterACrash(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		s.machine("db1").kill()
		s.wait(200 * time.Millisecond)
		s.says("deputy is started again on db1")
		s.machine("db1").run()
		s.wait(10 * time.Second)
		s.machine("db1").is(sdk.RolePrimary)
		s.machine("db1").acts("vip", true)
		if term := s.machine("db1").member.Status().Term; term != 1 {
			t.Errorf("term is %d, want the one of before", term)
		}
	})
}

// What a tenure began with stays in the history, whoever ends it.
func TestHistoryOfAnAdoptedTenure(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		s.switchover("db2")
		s.wait(time.Second)
		s.machine("db2").kill()
		s.machine("db2").run()
		s.wait(time.Second)
		s.machine("db2").down(supervisor.ErrStop)
		s.wait(5 * time.Second)
		s.order(func(ctx context.Context, c supervisor.Cluster) error {
			history, err := c.History(ctx, "db")
			if err != nil || len(history) != 3 {
				t.Fatalf("history has %d tenures: %v", len(history), err)
			}
			for _, h := range history {
				s.says(fmt.Sprintf("term %d: %s to %s, %s: %s; %d steps; ended %s: %s; %d steps", h.Term, h.From, h.Node, h.Reason, h.Cause, len(h.Steps), h.EndReason, h.EndCause, len(h.EndSteps)))
			}
			return nil
		})
	})
}

func TestDoesNotAdoptWhatIsNotPromoted(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		s.machine("db1").kill()
		s.machine("db1").parts["vip"].Break(false, "taken away by somebody")
		s.machine("db1").run()
		s.wait(5 * time.Second)
		s.machine("db2").is(sdk.RolePrimary)
		s.machine("db1").acts("disk", false)
	})
}

// A process that demotes at its start what the one before had demoted already
// does not note it as primary: a clean-up behind that one would take it for late.
func TestStartAfterACleanEndNotesNothingPrimary(t *testing.T) {
	stage(t, func(s *scene) {
		db1 := s.run("db1")
		s.wait(time.Second)
		noted := func(want ...string) {
			t.Helper()
			note, err := db1.Disk().Load()
			if err != nil || note.Tenure != nil || !slices.Equal(note.Promoted, want) {
				t.Errorf("the note is %+v (%v), want no tenure and %q promoted", note, err, want)
			}
		}
		db1.down(supervisor.ErrStop)
		noted()
		db1.parts["disk"].Next(sdk.Demote, Behaviour{Takes: 2 * time.Second})
		db1.run()
		s.wait(time.Second)
		if is := db1.member.Status(); is.Role != "unknown" || !is.Parts[0].Promoted {
			t.Fatalf("the status is %+v, want disk to be demoted just now", is)
		}
		noted() // vip was seen to, disk is not yet
		s.wait(5 * time.Second)
		db1.is(sdk.RolePrimary)

		// What then cannot be demoted is noted.
		db1.down(supervisor.ErrStop)
		for range 10 {
			db1.parts["disk"].Next(sdk.Demote, Behaviour{Outcome: sdk.OutcomeUnknown})
		}
		db1.run()
		s.wait(5 * time.Second)
		db1.is(sdk.RoleFailed)
		noted("disk")
	})
}

func TestCrashWhilePromoting(t *testing.T) {
	story(t, func(s *scene) {
		db1 := s.machine("db1")
		db1.parts["vip"].Next(sdk.Promote, Behaviour{Takes: 5 * time.Second})
		s.run("db1", "db2")
		s.wait(time.Second)
		db1.is(sdk.RolePromoting)
		db1.kill()
		db1.run()
		s.wait(time.Second)
		s.machine("db2").is(sdk.RolePrimary)
	})
}

func TestStartedTooLateAfterACrash(t *testing.T) {
	story(t, func(s *scene) {
		s.machine("db1").guard()
		s.machine("db2").guard()
		s.run("db1", "db2")
		s.wait(time.Second)
		s.machine("db1").kill()
		s.says("nobody starts deputy again in time; the guards close")
		s.wait(5 * time.Second)
		s.machine("db2").is(sdk.RolePrimary)
		s.machine("db1").run()
		s.wait(time.Second)
		s.machine("db1").is(sdk.RoleCandidate)
	})
}

func TestStartedAgainWhileEtcdIsDown(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		s.cluster.Down()
		s.machine("db1").kill()
		s.machine("db1").run()
		s.wait(1030 * time.Millisecond)
		s.says("etcd has a leader again, before s + 0.75 T")
		s.machine("db1").acts("vip", true)
		s.cluster.Up()
		s.wait(time.Second)
		s.machine("db1").is(sdk.RolePrimary)
	})
}

func TestStartedAgainWhileEtcdStaysDown(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		s.cluster.Down()
		s.machine("db1").kill()
		s.machine("db1").run()
		s.wait(3 * time.Second)
		s.machine("db1").acts("vip", false)
		s.says("etcd is back")
		s.cluster.Up()
		s.wait(5 * time.Second)
	})
}

func TestRestartKeepsTheRole(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		s.machine("db1").down(supervisor.ErrRestart)
		s.machine("db1").acts("vip", true)
		s.wait(100 * time.Millisecond)
		s.machine("db1").run()
		s.wait(10 * time.Second)
		s.machine("db1").is(sdk.RolePrimary)
		for _, a := range s.machine("db1").parts["vip"].Acts()[1:] {
			if a.Action == sdk.Demote {
				t.Errorf("demoted: %+v", a)
			}
		}
	})
}

func TestStopHandsOver(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		s.machine("db1").down(supervisor.ErrStop)
		s.wait(time.Second)
		s.machine("db2").is(sdk.RolePrimary)
		if s.machine("db1").err != nil {
			t.Error(s.machine("db1").err)
		}
	})
}

func TestFullDiskBlocksPromotingNotDemoting(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		s.says("the disk of db2 is full")
		s.machine("db2").Disk().Fill(true)
		s.machine("db1").stop(supervisor.ErrStop)
		s.wait(time.Second)
		s.machine("db2").acts("disk", false)
		s.says("there is room again")
		s.machine("db2").Disk().Fill(false)
		s.wait(5 * time.Second)
		s.machine("db2").is(sdk.RolePrimary)
		s.says("the disk is full again, and db2 is told to stop")
		s.machine("db2").Disk().Fill(true)
		s.machine("db2").down(supervisor.ErrStop)
		s.machine("db2").acts("disk", false)
	})
}

func TestStartTakesDownWhatIsLeft(t *testing.T) {
	story(t, func(s *scene) {
		s.machine("db1").parts["vip"].Break(true, "left behind by nobody knows whom")
		s.machine("db1").priority = 0
		s.run("db1")
		s.wait(time.Second)
		s.machine("db1").acts("vip", false)
		s.machine("db1").is(sdk.RoleStandby)
	})
}

func TestStartCannotTakeDownWhatIsLeft(t *testing.T) {
	story(t, func(s *scene) {
		s.machine("db1").parts["vip"].Break(true, "left behind by nobody knows whom")
		s.machine("db1").parts["vip"].Always(sdk.Demote, Behaviour{Outcome: sdk.OutcomeUnknown, Detail: "no permission"})
		s.run("db1")
		s.wait(time.Second)
		s.machine("db1").is(sdk.RoleFailed)
		s.machine("db1").parts["vip"].Always(sdk.Demote, Behaviour{})
		s.says("an operator puts it right, and clears")
		if err := s.machine("db1").member.Clear(); err != nil {
			t.Error(err)
		}
		s.wait(time.Second)
		s.machine("db1").is(sdk.RolePrimary)
	})
}
