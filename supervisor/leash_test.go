package supervisor_test

import (
	"errors"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	. "github.com/deputy-ha/deputy/supervisor/supervisortest"
)

// left is what a leash has left on the machine's own clock, from now.
func (m *machine) left(l supervisor.Leash) time.Duration { return l.Until.Sub(m.Clock().Now()) }

// within fails the test unless got is at most by more or less than want.
func (s *scene) within(what string, got, want, by time.Duration) {
	s.Helper()
	if (got - want).Abs() > by {
		s.Errorf("%s: got %s, want %s\n%s", what, got, want, s.journal)
	}
}

// The instants of the design's page on safety, at T = 3 s: renewed every 500 ms,
// lost at s + 2.25 s, trigger at s + 2.7 s.
func TestLeashOfAPrimary(t *testing.T) {
	stage(t, func(s *scene) {
		db1 := s.run("db1", "db2")
		s.wait(2 * time.Second)
		notice := supervisor.NewTiming(s.service.TTL).Notice()
		if l := s.machine("db2").member.Leash(); l != (supervisor.Leash{}) {
			t.Errorf("a candidate is on a leash: %+v", l)
		}
		for range 1000 {
			l := db1.member.Leash()
			s.within("silence", l.Silence, 600*time.Millisecond, 0)
			if left := db1.left(l) - notice; left < 1700*time.Millisecond || left > 2250*time.Millisecond {
				t.Fatalf("%s are left until s + 0.75 T of a lease that is renewed every 500 ms", left)
			}
			time.Sleep(3 * time.Millisecond)
		}
		db1.down(supervisor.ErrStop)
		s.wait(time.Second)
		if l := db1.member.Leash(); l != (supervisor.Leash{}) {
			t.Errorf("demoted, it is on a leash: %+v", l)
		}
	})
}

func TestLeashOfALostLease(t *testing.T) {
	stage(t, func(s *scene) {
		db1 := s.machine("db1")
		s.run("db1")
		s.wait(time.Second)
		db1.parts["vip"].Always(sdk.Demote, Behaviour{Takes: time.Minute})
		triggered := make(chan time.Time, 1)
		db1.escalator.OnTrigger = func(error) { triggered <- time.Now() }
		s.cluster.Down()
		var held supervisor.Leash
		for db1.member.Status().Role == sdk.RolePrimary {
			held = db1.member.Leash()
			time.Sleep(time.Millisecond)
		}
		notice := supervisor.NewTiming(s.service.TTL).Notice()
		s.within("left when the demotion begins", db1.left(held), notice, 3*time.Millisecond)
		l := db1.member.Leash()
		s.within("left when the demotion has begun", db1.left(l), 450*time.Millisecond, 3*time.Millisecond)
		end := time.Now().Add(db1.left(l))
		at := <-triggered
		s.within("trigger before the leash's end", end.Sub(at), 0, time.Millisecond)
	})
}

// A role that proves not ours ends at once, so its leash does not hang on s.
func TestLeashOfARoleThatIsGone(t *testing.T) {
	stage(t, func(s *scene) {
		db1 := s.machine("db1")
		s.run("db1")
		s.wait(time.Second)
		db1.parts["vip"].Always(sdk.Demote, Behaviour{Takes: time.Minute})
		s.cluster.DeletePrimary(s.service.Name)
		for db1.member.Status().Role == sdk.RolePrimary {
			time.Sleep(time.Millisecond)
		}
		s.within("left", db1.left(db1.member.Leash()), 450*time.Millisecond, 5*time.Millisecond)
		s.wait(300 * time.Millisecond)
		s.within("left later", db1.left(db1.member.Leash()), 150*time.Millisecond, 5*time.Millisecond)
	})
}

// Once force has failed nothing is gained by the end of the process, but much
// by one that renews in its place.
func TestLeashOfABlockedRole(t *testing.T) {
	stage(t, func(s *scene) {
		db1 := s.machine("db1")
		s.run("db1")
		s.wait(time.Second)
		db1.parts["vip"].Always(sdk.Demote, Behaviour{Outcome: sdk.OutcomeUnknown, Detail: "no"})
		if err := db1.member.StepDown(sdk.ReasonUnfit, "test"); err != nil {
			t.Fatal(err)
		}
		s.wait(30 * time.Second)
		db1.is(sdk.RoleBlocked)
		l := db1.member.Leash()
		s.within("silence", l.Silence, 600*time.Millisecond, 0)
		if left := db1.left(l); left < time.Second {
			t.Errorf("a blocked member that renews has only %s left", left)
		}
	})
}

func TestShorterLeash(t *testing.T) {
	none := supervisor.Leash{}
	a, b := supervisor.Leash{Silence: 2, Until: 9}, supervisor.Leash{Silence: 3, Until: 5}
	for _, c := range []struct{ a, b, want supervisor.Leash }{
		{none, none, none},
		{none, a, a},
		{a, none, a},
		{a, b, supervisor.Leash{Silence: 2, Until: 5}},
		{supervisor.Leash{Silence: 4}, b, b},
	} {
		if got := c.a.Shorter(c.b); got != c.want {
			t.Errorf("%+v and %+v: got %+v, want %+v", c.a, c.b, got, c.want)
		}
	}
}

// A member that withdraws hands over, leads nothing meanwhile, and comes back.
func TestWithdraw(t *testing.T) {
	stage(t, func(s *scene) {
		db1 := s.run("db1")
		s.wait(time.Second)
		if !db1.member.TakesPart() {
			t.Error("a primary does not take part")
		}
		db1.member.Withdraw(errors.New("the machine goes to sleep"))
		s.wait(20 * time.Second)
		db1.is(sdk.RoleStandby)
		db1.acts("vip", false)
		if got := db1.member.Status().Verdict; got != "the machine goes to sleep" {
			t.Errorf("verdict is %q", got)
		}
		db1.member.Withdraw(nil)
		s.wait(10 * time.Second)
		db1.is(sdk.RolePrimary)
	})
}
