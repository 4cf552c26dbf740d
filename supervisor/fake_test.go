package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/sdktest"
	"github.com/deputy-ha/deputy/supervisor"
	. "github.com/deputy-ha/deputy/supervisor/supervisortest"
)

// The fake supervisor that plugins are tested with has its own small role
// machine. These tests hold it against this one.

// A follower is a plugin that the fake can have do whatever a script says.
type follower struct {
	promoted *bool
	demotes  *[]error // what the next demotes come to
}

func (f follower) Promote(context.Context, *sdk.Transition) error {
	if *f.promoted {
		return sdk.ErrAlready
	}
	*f.promoted = true
	return nil
}

func (f follower) Demote(context.Context, *sdk.Transition) error {
	if len(*f.demotes) > 0 {
		err := (*f.demotes)[0]
		*f.demotes = (*f.demotes)[1:]
		return err
	}
	if !*f.promoted {
		return sdk.ErrAlready
	}
	*f.promoted = false
	return nil
}

func (f follower) Renew(context.Context, sdk.Instant) error { return nil }

func (f follower) Follow(context.Context, *sdk.Transition) error { return nil }

// fake runs a story of the fake supervisor.
func fake(t *testing.T, service sdktest.Service, demotes []error, play func(s *sdktest.Supervisor)) (acts []sdktest.Call) {
	t.Helper()
	type none struct{}
	promoted := false
	p := sdk.New("disk", func(context.Context, none, sdk.Host) (follower, error) { return follower{&promoted, &demotes}, nil })
	Bubble(t, func(t *testing.T) {
		s := sdktest.NewSupervisor(t, p, service)
		play(s)
		acts = s.Calls()
	})
	return acts
}

// told are acts as a plugin is told of them, one a line. IDs and terms are each
// supervisor's own.
func told(acts []sdk.Transition) string {
	var b strings.Builder
	for _, t := range acts {
		fmt.Fprintf(&b, "%s %s %s %q attempt=%d timeout=%s previous=%s primary=%s\n",
			t.Action, t.Mode, t.Reason, t.Cause, t.Attempt, t.Timeout.Round(10*time.Millisecond), t.Previous.Node, t.Primary.Node)
	}
	return b.String()
}

func TestTheFakeSupervisorAsksAsTheRealOne(t *testing.T) {
	busy := sdk.Unchanged(errors.New("busy"))
	var want []sdk.Transition
	stage(t, func(s *scene) {
		s.service.Parts = nil
		part := s.part("disk", sdk.CanPromote, sdk.CanDemote, sdk.CanRenew, sdk.CanFollow)
		part.Demote.Retries = 1
		db1 := s.run("db1", "db2")
		disk := db1.parts["disk"]
		order := func(to string) {
			s.order(func(ctx context.Context, c supervisor.Cluster) error {
				return c.Request(ctx, "db", supervisor.Reservation{
					ID: fmt.Sprint("order ", time.Now()), To: to, Reason: sdk.ReasonSwitchover, State: supervisor.Asked, For: time.Minute,
				})
			})
			s.wait(5 * time.Second)
		}
		s.wait(5 * time.Second)
		disk.Next(sdk.Demote, Behaviour{Outcome: sdk.OutcomeUnchanged, Detail: "busy"})
		order("db2")
		order("db1")
		disk.Next(sdk.Demote, Behaviour{Outcome: sdk.OutcomeUnchanged, Refused: true, Detail: "no"})
		order("db2") // which is undone
		disk.Next(sdk.Demote, Behaviour{Outcome: sdk.OutcomeUnchanged, Detail: "busy"})
		db1.Cut()
		s.wait(2900 * time.Millisecond)
		want = disk.Acts()
	})
	service := sdktest.Service{
		TTL: 3 * time.Second, Others: []sdk.Peer{{Node: "db2"}},
		Promote: sdktest.Policy{Timeout: 10 * time.Second}, Demote: sdktest.Policy{Timeout: 5 * time.Second, Retries: 1},
	}
	refused := sdk.Refuse(errors.New("no"))
	calls := fake(t, service, []error{sdk.ErrAlready, busy, nil, refused, busy}, func(s *sdktest.Supervisor) {
		s.Promote()
		s.Pass(5 * time.Second)
		s.Switchover("db2")
		s.Switchover("db1")
		s.Pass(5 * time.Second)
		s.Switchover("db2")
		s.Pass(5 * time.Second)
		s.Lose()
	})
	var got []sdk.Transition
	for _, c := range calls {
		if c.What != sdk.CanRenew {
			got = append(got, c.Act)
		}
	}
	if got, want := told(got), told(want); got != want {
		t.Errorf("the fake supervisor asks for\n%s\nand the real one for\n%s", got, want)
	}
}

func TestTheFakeSupervisorKeepsTheTimetable(t *testing.T) {
	for _, ttl := range []time.Duration{supervisor.MinTTL, time.Second, 3 * time.Second, 4 * time.Second, supervisor.MaxTTL} {
		timing := supervisor.NewTiming(ttl)
		late := errors.New("not yet")
		var began sdk.Instant
		calls := fake(t, sdktest.Service{TTL: ttl}, []error{nil, late, late, late, late, late}, func(s *sdktest.Supervisor) {
			began = s.Now()
			s.Promote()
			s.Pass(timing.Renew)
			s.Lose()
		})
		var pulse time.Duration
		for _, c := range calls {
			switch {
			case c.What == sdk.CanRenew:
				if pulse = c.At; pulse != timing.Renew || c.Until != began.Add(pulse+timing.Until) {
					t.Errorf("ttl %s: renewed after %s until %s", ttl, pulse, c.Until.Sub(began))
				}
			case c.Act.Mode == sdk.Forced && c.Act.Attempt == 1:
				if c.At != pulse+timing.Lost || c.Act.Timeout != timing.Until-timing.Lost || c.Act.LeaseUntil != began.Add(pulse+timing.Until) {
					t.Errorf("ttl %s: forced after %s, with %s", ttl, c.At, c.Act.Timeout)
				}
			case c.Act.Mode == sdk.Forced && c.Act.Timeout < timing.Forced():
				t.Errorf("ttl %s: attempt %d has %s, want %s at least", ttl, c.Act.Attempt, c.Act.Timeout, timing.Forced())
			}
		}
		if last := calls[len(calls)-1]; last.Act.Mode != sdk.Forced || pulse == 0 {
			t.Errorf("ttl %s: %v", ttl, calls)
		}
	}
}
