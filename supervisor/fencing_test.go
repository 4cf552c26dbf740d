package supervisor_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	. "github.com/deputy-ha/deputy/supervisor/supervisortest"
)

// fencing gives the service a plugin that can fence and nothing else.
func (s *scene) fencing() {
	s.service.OnUnclean = supervisor.UncleanFence
	s.part("power", sdk.CanFence)
}

// fenced are the nodes that a machine has been asked to fence, in order.
func (m *machine) fenced() (nodes []string) {
	for _, t := range m.parts["power"].Acts() {
		nodes = append(nodes, t.Primary.Node)
		if t.Previous != t.Primary {
			m.scene.Errorf("a fence of %s names %s as who was primary before", t.Primary.Node, t.Previous.Node)
		}
	}
	return nodes
}

func TestFencesTheLostPrimary(t *testing.T) {
	story(t, func(s *scene) {
		s.fencing()
		s.run("db1", "db2")
		s.wait(time.Second)
		s.machine("db1").powerOff()
		s.machine("db2").parts["power"].Next(sdk.Fence, Behaviour{Outcome: sdk.OutcomeUnchanged, Refused: true, Detail: "no answer from the power switch"})
		s.wait(20 * time.Second)
		s.machine("db2").is(sdk.RolePrimary)
	})
}

// A fence may take ten times as long as the lease: that is renewed.
func TestFenceThatTakesLong(t *testing.T) {
	story(t, func(s *scene) {
		s.fencing()
		s.run("db1", "db2")
		s.wait(time.Second)
		s.machine("db1").powerOff()
		s.machine("db2").parts["power"].Next(sdk.Fence, Behaviour{Takes: 30 * time.Second})
		s.wait(20 * time.Second)
		s.machine("db2").is(sdk.RolePromoting)
		if said := s.machine("db2").member.Status().Verdict; said != "fences db1" {
			s.Errorf("its verdict is %q", said)
		}
		s.wait(20 * time.Second)
		s.machine("db2").is(sdk.RolePrimary)
	})
}

// Who fences may be lost itself: whoever comes after it has two to fence.
func TestFencesAllThatWereLost(t *testing.T) {
	story(t, func(s *scene) {
		s.fencing()
		s.run("db1", "db2", "db3")
		s.wait(time.Second)
		s.machine("db2").parts["power"].Always(sdk.Fence, Behaviour{Takes: 10 * time.Second})
		s.machine("db1").kill()
		s.says("db1 is frozen, and may go on at any time")
		s.wait(6 * time.Second)
		s.machine("db2").is(sdk.RolePromoting)
		s.machine("db2").powerOff()
		s.machine("db1").breakParts()
		s.wait(10 * time.Second)
		s.machine("db3").is(sdk.RolePrimary)
		if got := fmt.Sprint(s.machine("db3").fenced()); got != "[db1 db2]" {
			s.Errorf("db3 fenced %s, want db1 and db2", got)
		}
		s.says("once there is a primary, nobody is owed a fence any more")
		s.machine("db3").down(supervisor.ErrStop)
		s.machine("db1").run()
		s.wait(5 * time.Second)
		s.machine("db1").is(sdk.RolePrimary)
		if got := s.machine("db1").fenced(); got != nil {
			s.Errorf("db1 fenced %s after a clean hand-over", got)
		}
	})
}

// With a fence device that is dead for good nobody leads, everybody says why and
// tries less and less often, and an operator has a way out.
func TestNobodyCanFence(t *testing.T) {
	stage(t, func(s *scene) {
		s.fencing()
		s.run("db1", "db2", "db3")
		s.wait(time.Second)
		for _, name := range []string{"db2", "db3"} {
			s.machine(name).parts["power"].Always(sdk.Fence, Behaviour{Outcome: sdk.OutcomeUnchanged, Refused: true, Detail: "no route to the power switch"})
		}
		s.machine("db1").powerOff()
		s.wait(2 * time.Minute)
		db2, db3 := s.machine("db2"), s.machine("db3")
		early := len(db2.fenced()) + len(db3.fenced())
		if early < 6 || early > 14 {
			s.Errorf("%d attempts in two minutes", early)
		}
		s.wait(10 * time.Minute)
		// Each after ten ttls, so 20 each.
		if n := len(db2.fenced()) + len(db3.fenced()) - early; n < 20 || n > 42 {
			s.Errorf("%d attempts in ten minutes more", n)
		}
		for _, m := range []*machine{db2, db3} {
			m.is(sdk.RoleCandidate)
			m.acts("disk", false)
			said := m.member.Status().Verdict
			want := fmt.Sprintf("fence db1: power: refused: no route to the power switch; tries again by itself, or, when that is down for certain, `deputy failover db --to %s --fenced db1`", m.name)
			if said != want {
				s.Errorf("%s says %q\nwant %q", m.name, said, want)
			}
		}
		s.order(func(ctx context.Context, c supervisor.Cluster) error {
			return c.Request(ctx, "db", supervisor.Reservation{
				ID: "f", To: "db3", Reason: sdk.ReasonFailover, Force: true, By: "ann", Fenced: []string{"db1"}, State: supervisor.Asked, For: time.Minute,
			})
		})
		tried := len(db3.fenced())
		s.wait(time.Second)
		db3.is(sdk.RolePrimary)
		if n := len(db3.fenced()); n != tried {
			s.Errorf("db3 fenced %d times although an operator has vouched", n-tried)
		}
		if cause := db3.member.Status().Cause; !strings.Contains(cause, "asked by ann, who says that db1 is down") {
			s.Errorf("the cause is %q", cause)
		}
		s.wait(10 * time.Second)
		if said := db2.member.Status().Verdict; said != "primary is db3" {
			s.Errorf("db2 says %q", said)
		}
	})
}

// An operator's failover alone is no word about the node that was lost.
func TestFailoverStillFences(t *testing.T) {
	stage(t, func(s *scene) {
		s.fencing()
		s.run("db1", "db2")
		s.wait(time.Second)
		db2 := s.machine("db2")
		db2.parts["power"].Always(sdk.Fence, Behaviour{Outcome: sdk.OutcomeUnknown, Detail: "timeout"})
		s.machine("db1").powerOff()
		s.wait(10 * time.Second)
		for _, vouched := range [][]string{nil, {"db3"}} {
			s.order(func(ctx context.Context, c supervisor.Cluster) error {
				return c.Request(ctx, "db", supervisor.Reservation{ID: fmt.Sprint(vouched), To: "db2", Reason: sdk.ReasonFailover, Force: true, Fenced: vouched, State: supervisor.Asked, For: time.Minute})
			})
			tried := len(db2.fenced())
			s.wait(2 * time.Second)
			if len(db2.fenced()) == tried {
				s.Errorf("not fenced with %v vouched for", vouched)
			}
			db2.acts("disk", false)
		}
	})
}

// Who was lost, comes back and takes the role itself needs no fence: it has
// demoted before.
func TestVictimComesBack(t *testing.T) {
	story(t, func(s *scene) {
		s.fencing()
		s.run("db1", "db2")
		s.wait(time.Second)
		s.machine("db2").parts["power"].Always(sdk.Fence, Behaviour{Outcome: sdk.OutcomeUnknown, Detail: "no answer"})
		s.machine("db1").powerOff()
		s.wait(5 * time.Second)
		s.machine("db1").run()
		s.wait(10 * time.Second)
		s.machine("db1").is(sdk.RolePrimary)
		s.machine("db2").is(sdk.RoleCandidate)
	})
}

// A stop ends a fence, and what was owed stays owed.
func TestStoppedWhileItFences(t *testing.T) {
	story(t, func(s *scene) {
		s.fencing()
		s.run("db1", "db2", "db3")
		s.wait(time.Second)
		s.machine("db2").parts["power"].Always(sdk.Fence, Behaviour{Hangs: true})
		s.machine("db1").powerOff()
		s.wait(5 * time.Second)
		s.machine("db2").down(supervisor.ErrStop)
		s.wait(2 * time.Second)
		s.machine("db3").is(sdk.RolePrimary)
		if got := fmt.Sprint(s.machine("db3").fenced()); got != "[db1]" {
			s.Errorf("db3 fenced %s, want db1 alone", got)
		}
	})
}

// With the lease lost a fence is given up, and nothing is promoted after it.
func TestLeaseLostWhileItFences(t *testing.T) {
	stage(t, func(s *scene) {
		s.fencing()
		s.run("db1", "db2")
		s.wait(time.Second)
		db2 := s.machine("db2")
		db2.parts["power"].Next(sdk.Fence, Behaviour{Takes: 30 * time.Second})
		s.machine("db1").powerOff()
		s.wait(5 * time.Second)
		db2.is(sdk.RolePromoting)
		db2.Cut()
		s.wait(5 * time.Second)
		db2.acts("disk", false)
		if r := db2.member.Status().Role; r == sdk.RolePromoting || r == sdk.RolePrimary {
			s.Errorf("db2 is %s without a lease", r)
		}
		db2.Heal()
		s.wait(30 * time.Second)
		db2.is(sdk.RolePrimary)
	})
}

// Nobody is fenced who has resigned, nor one whose process comes back in time.
func TestFencesNobodyInPeace(t *testing.T) {
	stage(t, func(s *scene) {
		s.fencing()
		s.run("db1", "db2")
		s.wait(time.Second)
		s.switchover("db2")
		s.wait(2 * time.Second)
		db1, db2 := s.machine("db1"), s.machine("db2")
		db2.is(sdk.RolePrimary)
		db2.kill()
		s.wait(200 * time.Millisecond)
		db2.run() // adopts
		s.wait(2 * time.Second)
		db2.is(sdk.RolePrimary)
		db2.down(supervisor.ErrStop)
		s.wait(2 * time.Second)
		db1.is(sdk.RolePrimary)
		if got := append(db1.fenced(), db2.fenced()...); got != nil {
			s.Errorf("fenced %s", got)
		}
	})
}

// Without the policy nobody is fenced, though a plugin could.
func TestWaitFencesNobody(t *testing.T) {
	stage(t, func(s *scene) {
		s.fencing()
		s.service.OnUnclean = supervisor.UncleanWait
		s.run("db1", "db2")
		s.wait(time.Second)
		s.machine("db1").powerOff()
		s.wait(5 * time.Second)
		s.machine("db2").is(sdk.RolePrimary)
		if got := s.machine("db2").fenced(); got != nil {
			s.Errorf("fenced %s", got)
		}
	})
}

// Whom the next tenure has to fence.
func TestLost(t *testing.T) {
	peer := func(names ...string) (all []sdk.Peer) {
		for _, name := range names {
			all = append(all, sdk.Peer{Node: name})
		}
		return all
	}
	for _, c := range []struct {
		name string
		last supervisor.TermRecord
		want []sdk.Peer
	}{
		{"no tenure yet", supervisor.TermRecord{}, nil},
		{"resigned", supervisor.TermRecord{Term: 1, Node: "a", Resigned: true}, nil},
		{"lost", supervisor.TermRecord{Term: 1, Node: "a"}, peer("a")},
		{"resigned before it was primary", supervisor.TermRecord{Term: 2, Node: "b", Resigned: true, Victims: peer("a")}, peer("a")},
		{"lost before it was primary", supervisor.TermRecord{Term: 2, Node: "b", Victims: peer("a")}, peer("a", "b")},
		{"the victim itself, which resigned", supervisor.TermRecord{Term: 3, Node: "a", Resigned: true, Victims: peer("a", "b")}, peer("b")},
		{"the victim itself, lost again", supervisor.TermRecord{Term: 3, Node: "a", Victims: peer("a", "b")}, peer("b", "a")},
	} {
		if got := c.last.Lost(); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
