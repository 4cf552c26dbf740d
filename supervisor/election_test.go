package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	. "github.com/deputy-ha/deputy/supervisor/supervisortest"
)

// The stories of "The election" in the design's page on safety.

func TestFirstElection(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2", "db3")
		s.wait(time.Second)
		s.machine("db1").is(sdk.RolePrimary)
		s.machine("db2").is(sdk.RoleCandidate)
		s.machine("db3").is(sdk.RoleCandidate)
	})
}

func TestPrimaryIsKilled(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2", "db3")
		s.wait(time.Second)
		s.says("the machine db1 loses its power")
		s.machine("db1").powerOff()
		s.wait(4 * time.Second)
		s.machine("db2").is(sdk.RolePrimary)
		s.machine("db3").is(sdk.RoleCandidate)
	})
}

func TestPriorityDecides(t *testing.T) {
	story(t, func(s *scene) {
		s.machine("db3").priority = 200
		s.run("db1", "db2", "db3")
		s.wait(time.Second)
		s.machine("db1").down(supervisor.ErrStop)
		s.wait(time.Second)
		s.machine("db3").is(sdk.RolePrimary)
		s.machine("db2").is(sdk.RoleCandidate)
	})
}

func TestPriorityZeroNeverLeads(t *testing.T) {
	story(t, func(s *scene) {
		s.machine("db1").priority = 0
		s.run("db1")
		s.wait(time.Minute)
		s.machine("db1").is(sdk.RoleStandby)
	})
}

func TestSwitchover(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2", "db3")
		s.wait(time.Second)
		s.switchover("db3")
		s.wait(time.Second)
		s.machine("db3").is(sdk.RolePrimary)
		s.machine("db1").is(sdk.RoleCandidate)
	})
}

func TestSwitchoverIsDeclined(t *testing.T) {
	story(t, func(s *scene) {
		s.part("probe", sdk.CanCheck)
		s.machine("db2").parts["probe"].Unfit("disk is broken")
		s.run("db1", "db2")
		s.wait(time.Second)
		s.switchover("db2")
		s.wait(time.Second)
		s.machine("db1").is(sdk.RolePrimary)
		if len(s.machine("db1").parts["vip"].Acts()) > 2 {
			t.Error("the primary began to leave before the target had accepted")
		}
	})
}

func TestSwitchoverIsUndone(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		s.machine("db1").parts["disk"].Always(sdk.Demote, Behaviour{Outcome: sdk.OutcomeUnchanged, Refused: true, Detail: "a backup is running"})
		s.switchover("db2")
		s.wait(time.Second)
		s.machine("db1").is(sdk.RolePrimary)
		s.machine("db2").is(sdk.RoleCandidate)
	})
}

func TestSwitchoverTargetIsLost(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2", "db3")
		s.wait(time.Second)
		s.machine("db1").parts["disk"].Always(sdk.Demote, Behaviour{Takes: time.Second})
		s.switchover("db3")
		s.wait(500 * time.Millisecond)
		s.machine("db3").kill()
		s.wait(10 * time.Second)
		s.machine("db2").is(sdk.RolePrimary)
	})
}

func TestPreempt(t *testing.T) {
	story(t, func(s *scene) {
		s.service.Preempt = true
		s.machine("db2").priority = 200
		s.run("db1", "db2")
		s.wait(2 * time.Second)
		s.machine("db2").is(sdk.RolePrimary)
	})
}

func TestPreemptLeavesAloneWhatAnOperatorMoved(t *testing.T) {
	story(t, func(s *scene) {
		s.service.Preempt = true
		s.machine("db2").priority = 200
		s.run("db2", "db1")
		s.wait(time.Second)
		s.switchover("db1")
		s.wait(time.Minute)
		s.machine("db1").is(sdk.RolePrimary)
		s.says("an operator resumes")
		s.order(func(ctx context.Context, c supervisor.Cluster) error { return c.Resume(ctx, "db") })
		s.wait(time.Second)
		s.machine("db2").is(sdk.RolePrimary)
	})
}

func TestPauseKeepsTheRoleVacant(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		s.says("an operator pauses for a minute")
		s.order(func(ctx context.Context, c supervisor.Cluster) error {
			return c.Pause(ctx, "db", supervisor.Pause{Since: time.Now(), Until: time.Now().Add(time.Minute), By: "ann", Reason: "upgrade"})
		})
		s.machine("db1").down(supervisor.ErrStop)
		s.wait(50 * time.Second)
		s.machine("db2").is(sdk.RoleCandidate)
		s.wait(11 * time.Second)
		s.machine("db2").is(sdk.RolePrimary)
	})
}

func TestPauseDoesNotSuspendDemotion(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		s.order(func(ctx context.Context, c supervisor.Cluster) error {
			return c.Pause(ctx, "db", supervisor.Pause{Since: time.Now(), By: "ann"})
		})
		s.says("paused; then db1 is cut off from etcd")
		s.machine("db1").Cut()
		s.wait(5 * time.Second)
		s.machine("db1").acts("vip", false)
		s.machine("db2").is(sdk.RoleCandidate)
	})
}

func TestBan(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		s.says("an operator bans db1 from the service for a while")
		ban := func(node string, span time.Duration) {
			now := time.Now()
			s.order(func(ctx context.Context, c supervisor.Cluster) error {
				return c.Ban(ctx, "db", supervisor.Ban{Node: node, Since: now, Until: now.Add(span), By: "ann", Reason: "noisy disk"})
			})
		}
		ban("db1", time.Minute)
		s.wait(10 * time.Second)
		s.machine("db1").is(sdk.RoleStandby)
		s.machine("db2").is(sdk.RolePrimary)
		s.switchover("db1")
		s.wait(time.Second)
		s.says("db2 is lost, and still the banned node does not lead")
		s.machine("db2").powerOff()
		s.wait(20 * time.Second)
		s.machine("db1").is(sdk.RoleStandby)
		s.says("the ban ends by itself")
		s.wait(30 * time.Second)
		s.machine("db1").is(sdk.RolePrimary)
		s.says("an operator bans db1 where nobody else could lead, and lets it lead again")
		ban("db1", time.Hour)
		s.wait(10 * time.Second)
		s.machine("db1").is(sdk.RoleStandby)
		s.order(func(ctx context.Context, c supervisor.Cluster) error { return c.Unban(ctx, "db", "db1") })
		s.wait(10 * time.Second)
		s.machine("db1").is(sdk.RolePrimary)
	})
}

// TestDrainEnds is of a drain for a while.
func TestDrainEnds(t *testing.T) {
	stage(t, func(s *scene) {
		s.run("db1")
		s.wait(time.Second)
		s.order(func(ctx context.Context, c supervisor.Cluster) error {
			return c.Drain(ctx, supervisor.Drain{Node: "db1", Until: time.Now().Add(time.Minute)})
		})
		s.wait(50 * time.Second)
		s.machine("db1").is(sdk.RoleStandby)
		s.wait(20 * time.Second)
		s.machine("db1").is(sdk.RolePrimary)
	})
}

func TestDrain(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		s.says("an operator drains db1")
		s.order(func(ctx context.Context, c supervisor.Cluster) error {
			return c.Drain(ctx, supervisor.Drain{Node: "db1", By: "ann"})
		})
		s.wait(10 * time.Second)
		s.machine("db1").is(sdk.RoleStandby)
		s.machine("db2").is(sdk.RolePrimary)
		s.says("an operator undrains db1")
		s.order(func(ctx context.Context, c supervisor.Cluster) error { return c.Undrain(ctx, "db1") })
		s.wait(time.Second)
		s.machine("db1").is(sdk.RoleCandidate)
	})
}

func TestPromotionLongerThanTheLease(t *testing.T) {
	story(t, func(s *scene) {
		db1 := s.machine("db1")
		db1.parts["disk"].Always(sdk.Promote, Behaviour{Takes: 9 * time.Second})
		s.run("db1")
		s.wait(250 * time.Millisecond)
		db1.is(sdk.RolePromoting)
		if n := db1.parts["disk"].Renewals(); n != 0 {
			t.Errorf("asked %d times, beside the promotion, for what that has said", n)
		}
		s.wait(4750 * time.Millisecond)
		db1.is(sdk.RolePromoting)
		if left := db1.parts["disk"].Renewed().Sub(db1.Clock().Now()); left < time.Second {
			t.Errorf("a promotion that runs is renewed for another %s", left)
		}
		s.wait(5 * time.Second)
		db1.is(sdk.RolePrimary)
	})
}

func TestLeaseLostWhilePromoting(t *testing.T) {
	story(t, func(s *scene) {
		db1 := s.machine("db1")
		db1.parts["vip"].Always(sdk.Promote, Behaviour{Takes: 9 * time.Second, Deaf: true})
		s.run("db1", "db2")
		s.wait(time.Second)
		db1.Cut()
		s.wait(10 * time.Second)
		db1.acts("vip", false)
		s.machine("db2").is(sdk.RolePrimary)
	})
}

func TestPromotionFails(t *testing.T) {
	story(t, func(s *scene) {
		s.service.Parts[1].Promote.Retries = 1
		s.machine("db1").parts["vip"].Always(sdk.Promote, Behaviour{Outcome: sdk.OutcomeUnknown, Detail: "exit status 1"})
		s.run("db1", "db2")
		s.wait(5 * time.Second)
		s.machine("db2").is(sdk.RolePrimary)
		s.machine("db1").acts("disk", false)
	})
}

func TestPromotionFailsEverywhere(t *testing.T) {
	story(t, func(s *scene) {
		s.machine("db1").parts["vip"].Next(sdk.Promote, Behaviour{Outcome: sdk.OutcomeUnchanged, Refused: true, Detail: "no carrier"})
		s.run("db1")
		s.says("nobody else takes the role, so db1 tries again within a ttl")
		s.wait(5 * time.Second)
		s.machine("db1").is(sdk.RolePrimary)
	})
}

func TestDataDecides(t *testing.T) {
	story(t, func(s *scene) {
		s.ranked("5", "7", "9")
		s.run("db3", "db1", "db2")
		s.wait(time.Second)
		s.says("db3 is stopped; db1 comes first by name, db2 has more data")
		s.machine("db3").down(supervisor.ErrStop)
		s.wait(5 * time.Second)
		s.machine("db2").is(sdk.RolePrimary)
	})
}

func TestIncomparableDataWaitsForAnOperator(t *testing.T) {
	story(t, func(s *scene) {
		s.ranked("a1", "b1", "a1")
		s.run("db3", "db1", "db2")
		s.wait(time.Second)
		s.machine("db3").down(supervisor.ErrStop)
		s.wait(20 * time.Second)
		s.machine("db1").is(sdk.RoleCandidate)
		s.machine("db2").is(sdk.RoleCandidate)
		s.says("an operator decides for db2")
		s.order(func(ctx context.Context, c supervisor.Cluster) error {
			return c.Request(ctx, "db", supervisor.Reservation{ID: "f", To: "db2", Reason: sdk.ReasonFailover, Force: true, By: "ann", State: supervisor.Asked, For: time.Minute})
		})
		s.wait(time.Second)
		s.machine("db2").is(sdk.RolePrimary)
	})
}

func TestCheckThatOnlyPassesOnAPrimary(t *testing.T) {
	story(t, func(s *scene) {
		db1 := s.machine("db1")
		db1.parts["vip"].Healths(sdk.Health{Fit: true})
		s.run("db1")
		s.wait(time.Second)
		db1.is(sdk.RolePrimary)
		s.says("its check begins to fail, and passes again as standby only because nobody asks")
		db1.parts["vip"].Unfit("nobody answers")
		s.wait(4 * time.Second)
		db1.parts["vip"].Fit("")
		s.wait(5 * time.Second)
		db1.is(sdk.RolePrimary)
	})
}

func TestUnfitNodeDoesNotCampaign(t *testing.T) {
	story(t, func(s *scene) {
		s.part("probe", sdk.CanCheck)
		db1 := s.machine("db1")
		db1.parts["probe"].Unfit("no route")
		s.run("db1")
		s.wait(10 * time.Second)
		db1.is(sdk.RoleStandby)
		s.says("the route is back")
		db1.parts["probe"].Fit("")
		s.wait(3 * time.Second)
		db1.is(sdk.RolePrimary)
	})
}

func TestWinWhoseReplyWasLost(t *testing.T) {
	story(t, func(s *scene) {
		s.machine("db1").run()
		s.machine("db1").LoseReply()
		s.wait(5 * time.Second)
		s.machine("db1").is(sdk.RolePrimary)
	})
}

func TestEtcdIsGoneForGood(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		s.says("etcd is gone")
		s.cluster.Down()
		s.wait(time.Minute)
		s.machine("db1").acts("vip", false)
		s.machine("db2").is(sdk.RoleCandidate)
		s.says("etcd is back")
		s.cluster.Up()
		s.wait(5 * time.Second)
	})
}

func TestRestoredRecords(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		backup := s.cluster.Snapshot()
		s.switchover("db2")
		s.wait(time.Second)
		s.machine("db2").is(sdk.RolePrimary)
		s.says("etcd is restored from the backup taken before the switchover")
		s.cluster.Restore(backup)
		s.wait(20 * time.Second)
	})
}

func TestPrimaryDeletedByHand(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		s.says("somebody deletes the primary's record")
		s.cluster.DeletePrimary("db")
		s.wait(10 * time.Second)
	})
}

func TestFollowers(t *testing.T) {
	story(t, func(s *scene) {
		s.part("replica", sdk.CanFollow)
		s.run("db1", "db2")
		s.wait(time.Second)
		s.switchover("db2")
		s.wait(time.Second)
		acts := s.machine("db1").parts["replica"].Acts()
		if len(acts) == 0 || acts[len(acts)-1].Primary.Node != "db2" {
			t.Errorf("db1 does not follow db2: %v", acts)
		}
	})
}

// Whose primary has left by itself follows a part before the rest is promoted.
func TestFollowersDoNotWaitForTheRest(t *testing.T) {
	story(t, func(s *scene) {
		s.followed()
		s.switchover("db2")
		s.wait(50 * time.Millisecond)
		s.machine("db2").is(sdk.RolePromoting)
		for _, name := range []string{"db1", "db3"} {
			if !s.machine(name).follows("db2") {
				t.Errorf("%s does not follow db2, whose data is promoted", name)
			}
		}
		s.wait(time.Second)
		s.machine("db2").is(sdk.RolePrimary)
		s.says("db2 is powered off; what comes next may lack what it had")
		s.machine("db2").powerOff()
		s.wait(3 * time.Second)
		s.machine("db3").is(sdk.RolePromoting) // db1, which has led just now, sits out
		if s.machine("db1").follows("db3") {
			t.Error("db1 follows db3, which is not primary yet, after a loss")
		}
		s.wait(time.Second)
		if !s.machine("db1").follows("db3") {
			t.Error("db1 does not follow db3")
		}
	})
}

// followed has db1 to db3 run with data that is followed, before a part that
// takes half a second; db1 is primary.
func (s *scene) followed() {
	s.part("data", sdk.CanPromote, sdk.CanDemote, sdk.CanFollow)
	s.part("name")
	for _, name := range []string{"db1", "db2", "db3"} {
		s.machine(name).parts["name"].Always(sdk.Promote, Behaviour{Takes: 500 * time.Millisecond})
	}
	s.run("db1", "db2", "db3")
	s.wait(time.Second)
}

// follows reports whether the machine's data was last told to follow a node.
func (m *machine) follows(node string) bool {
	acts := m.parts["data"].Acts()
	last := len(acts) - 1
	return last >= 0 && acts[last].Action == sdk.Follow && acts[last].Primary.Node == node
}

// Nobody waits for data that cannot be asked any more, such as a server's that has
// crashed: what counts is what it told last.
func TestDataThatCannotBeAskedAnyMore(t *testing.T) {
	story(t, func(s *scene) {
		s.ranked("8", "8", "8")
		s.run("db3", "db1", "db2")
		s.wait(time.Second)
		s.machine("db3").parts["data"].Healths(sdk.Health{Detail: "refused", Certain: true})
		s.wait(2 * time.Second)
		s.machine("db1").is(sdk.RolePrimary)
	})
}

// Where that is more than anybody else has, it is waited for.
func TestDataThatOthersLack(t *testing.T) {
	story(t, func(s *scene) {
		s.ranked("8", "8", "9")
		s.run("db3", "db1", "db2")
		s.wait(time.Second)
		s.machine("db3").parts["data"].Healths(sdk.Health{Detail: "refused", Certain: true})
		s.wait(10 * time.Second)
		s.machine("db1").is(sdk.RoleCandidate)
		s.says(s.machine("db1").member.Status().Verdict)
	})
}

// A server that never could be asked keeps nobody from the role.
func TestDataThatCouldNeverBeAsked(t *testing.T) {
	story(t, func(s *scene) {
		s.ranked("9", "", "9")
		s.machine("db2").parts["data"].Healths(sdk.Health{Detail: "no server"})
		s.run("db3", "db1", "db2")
		s.wait(time.Second)
		s.machine("db3").down(supervisor.ErrStop)
		s.wait(100 * time.Millisecond) // nor does one that stops
		s.machine("db1").is(sdk.RolePrimary)
	})
}

// ranked adds a part whose positions are numbers, comparable only within what
// stands before the number: first those of db1, db2 and db3.
func (s *scene) ranked(positions ...string) {
	s.part("data", sdk.CanCheck, sdk.CanRank).Check.On = supervisor.OnBoth
	for i, position := range positions {
		data := s.machine(fmt.Sprintf("db%d", 1+i)).parts["data"]
		data.Fit(position)
		data.Ranks = func(mine string, others map[string]string) (map[string]sdk.Order, error) {
			orders := map[string]sdk.Order{}
			for node, theirs := range others {
				switch {
				case theirs == "" || mine == "":
					return nil, errors.New("no position")
				case theirs[:len(theirs)-1] != mine[:len(mine)-1]:
					orders[node] = sdk.Incomparable
				case theirs == mine:
					orders[node] = sdk.Equal
				case theirs > mine:
					orders[node] = sdk.Behind
				default:
					orders[node] = sdk.Ahead
				}
			}
			return orders, nil
		}
	}
}

func TestFirstInLineIsSilent(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2", "db3")
		s.wait(time.Second)
		s.says("db1 loses its power, and before its lease has run out db2, which would be next")
		s.machine("db1").powerOff()
		s.wait(2 * time.Second)
		s.machine("db2").powerOff()
		s.wait(2 * time.Second)
		s.machine("db3").is(sdk.RolePrimary)
	})
}

func TestBehindPromotesWhereToldTo(t *testing.T) {
	story(t, func(s *scene) {
		s.service.OnBehind = supervisor.BehindPromote
		s.ranked("5", "7", "9")
		s.machine("db2").parts["disk"].Always(sdk.Promote, Behaviour{Outcome: sdk.OutcomeUnchanged, Refused: true, Detail: "no space"})
		s.run("db3", "db1", "db2")
		s.wait(time.Second)
		s.machine("db3").down(supervisor.ErrStop)
		s.wait(10 * time.Second)
		s.machine("db1").is(sdk.RolePrimary)
	})
}

func TestBehindRefuses(t *testing.T) {
	story(t, func(s *scene) {
		s.ranked("5", "7", "9")
		s.machine("db2").parts["disk"].Always(sdk.Promote, Behaviour{Outcome: sdk.OutcomeUnchanged, Refused: true, Detail: "no space"})
		s.run("db3", "db1", "db2")
		s.wait(time.Second)
		s.machine("db3").down(supervisor.ErrStop)
		s.wait(10 * time.Second)
		s.machine("db1").is(sdk.RoleCandidate)
		s.says(s.machine("db1").member.Status().Verdict)
	})
}

func TestTargetBecomesUnfit(t *testing.T) {
	story(t, func(s *scene) {
		s.part("probe", sdk.CanCheck)
		s.run("db1", "db2", "db3")
		s.wait(time.Second)
		s.machine("db1").parts["disk"].Always(sdk.Demote, Behaviour{Takes: 4 * time.Second})
		s.switchover("db3")
		s.machine("db3").parts["probe"].Unfit("no route")
		s.wait(6 * time.Second)
		s.machine("db2").is(sdk.RolePrimary)
		s.machine("db3").is(sdk.RoleStandby)
	})
}

func TestWinTooLate(t *testing.T) {
	story(t, func(s *scene) {
		s.machine("db1").run()
		s.wait(500 * time.Millisecond)
		s.machine("db1").down(supervisor.ErrStop)
		s.says("pulses of db2 take longer than half a ttl")
		s.machine("db2").Node = s.cluster.Node("db2")
		s.machine("db2").Lag(1600 * time.Millisecond)
		s.machine("db2").run()
		s.wait(time.Second)
		// From here on it tries at known instants, whatever woke it before.
		s.order(func(ctx context.Context, c supervisor.Cluster) error {
			return c.Drain(ctx, supervisor.Drain{Node: "db3", By: "ann"})
		})
		s.wait(4 * time.Second)
		s.machine("db2").acts("disk", false)
	})
}

func TestStepDownAndClearSayWhereTheyDoNotApply(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		if err := s.machine("db2").member.StepDown(sdk.ReasonDrain, "an operator wants it"); !errors.Is(err, supervisor.ErrNotHere) {
			t.Errorf("step down of a candidate: %v", err)
		}
		if err := s.machine("db1").member.Clear(); !errors.Is(err, supervisor.ErrNotHere) {
			t.Errorf("clear of a primary: %v", err)
		}
	})
}

func TestReloadChangesNoRole(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		db1 := s.machine("db1")
		plugins := []supervisor.Plugin{db1.Plugin(db1.parts["disk"]), db1.Plugin(db1.parts["vip"])}

		changed := s.service
		changed.TTL = 5 * time.Second
		if err := db1.member.Reload(changed, plugins, []bool{false, false}); err == nil {
			t.Error("a new ttl is put in force without a word")
		}
		changed = s.service
		changed.Parts = changed.Parts[:1]
		if err := db1.member.Reload(changed, plugins[:1], []bool{false}); err == nil {
			t.Error("a part is left out while it is primary")
		}
		changed = s.service
		changed.Priority = 7
		if err := db1.member.Reload(changed, plugins, []bool{false, false}); err != nil {
			t.Error(err)
		}
		s.wait(time.Second)
		db1.is(sdk.RolePrimary)
		s.order(func(ctx context.Context, c supervisor.Cluster) error {
			st, err := c.State(ctx, "db")
			if c := st.Candidate("db1"); err == nil && (c == nil || c.Priority != 7) {
				t.Errorf("published is %+v", c)
			}
			return err
		})
	})
}

func TestReloadPromotesAgainWhatHasChanged(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		for _, name := range []string{"db1", "db2"} {
			m := s.machine(name)
			m.parts["vip"].Next(sdk.Promote, Behaviour{Takes: 50 * time.Millisecond, Outcome: sdk.OutcomeDone})
			s.says(name + " reads the definition again: another address for vip")
			m.reload("192.0.2.11")
			s.wait(time.Second)
		}
		s.says("and once more, with nothing that is new")
		s.machine("db1").reload("192.0.2.11")
		s.wait(time.Second)
		acts := s.machine("db1").parts["vip"].Acts()
		if last := acts[len(acts)-1]; last.Term != 1 || last.Reason != sdk.ReasonReload {
			t.Errorf("promoted again with %+v", last)
		}
	})
}

func TestReloadThatCannotPromote(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		db1 := s.machine("db1")
		db1.parts["vip"].Next(sdk.Promote, Behaviour{Outcome: sdk.OutcomeUnchanged, Refused: true, Detail: "no such interface"})
		s.says("db1 reads the definition again: another address for vip")
		db1.reload("192.0.2.11")
		s.wait(time.Second)
		db1.is(sdk.RoleCandidate)
		s.machine("db2").is(sdk.RolePrimary)
	})
}

// What changed settings stand for may be here on a standby, too.
func TestReloadOnAStandbyDemotesAgain(t *testing.T) {
	story(t, func(s *scene) {
		s.run("db1", "db2")
		s.wait(time.Second)
		db2 := s.machine("db2")
		db2.parts["vip"].Next(sdk.Demote, Behaviour{Outcome: sdk.OutcomeUnknown, Detail: "no answer"})
		s.says("db2 reads the definition again: another address for vip")
		db2.reload("192.0.2.11")
		s.wait(time.Second)
		db2.is(sdk.RoleCandidate)
		acts := db2.parts["vip"].Acts()
		if last := acts[len(acts)-1]; last.Action != sdk.Demote || last.Reason != sdk.ReasonReload {
			t.Errorf("last act is %+v, want a demotion for the reload", last)
		}
		s.machine("db1").is(sdk.RolePrimary)
	})
}

// reload puts a definition in force that has another address for vip.
func (m *machine) reload(address string) { m.scene.Helper(); m.alter("vip", "address", address) }

// alter puts a definition in force that has other settings for a part.
func (m *machine) alter(part string, setting ...string) {
	m.scene.Helper()
	changed := m.scene.service
	changed.Parts = slices.Clone(changed.Parts)
	var plugins []supervisor.Plugin
	var altered []bool
	for i, p := range changed.Parts {
		if p.Name == part {
			changed.Parts[i].Config = map[string]any{"settings": setting}
		}
		altered = append(altered, p.Name == part)
		plugins = append(plugins, m.Plugin(m.parts[p.Name]))
	}
	if err := m.member.Reload(changed, plugins, altered); err != nil {
		m.scene.Error(err)
	}
}
