package sdktest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/sdktest"
)

type none struct{}

// A flag is a plugin whose world is a Go value.
type flag struct{ up *bool }

func (f flag) Promote(context.Context, *sdk.Transition) error {
	if *f.up {
		return sdk.ErrAlready
	}
	*f.up = true
	return nil
}

func (f flag) Demote(context.Context, *sdk.Transition) error {
	if !*f.up {
		return sdk.ErrAlready
	}
	*f.up = false
	return nil
}

// testFlag is a whole unit test: it takes no time, and no process.
func testFlag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := false // the world outlives the plugin's processes
		plugin := sdk.New("flag", func(context.Context, none, sdk.Host) (flag, error) { return flag{&up}, nil })
		s := sdktest.NewSupervisor(t, plugin, sdktest.Service{TTL: 3 * time.Second})

		s.Promote()
		s.Pass(time.Minute) // of renewals
		if !up {
			t.Errorf("a primary's flag is down\n%s", s.Story())
		}
		if r := s.Crash(); r.Outcome != sdk.OutcomeAlready {
			t.Errorf("after a crash the role is not kept: %v\n%s", r.Err(), s.Story())
		}
		if r := s.Switchover("db2"); !r.Outcome.OK() || up {
			t.Errorf("switchover: %v, up %v\n%s", r.Err(), up, s.Story())
		}
		s.Switchover("db1")
		s.Lose() // etcd cannot be reached
		if demote := s.Calls(sdk.CanDemote)[2]; demote.Act.Mode != sdk.Forced || up {
			t.Errorf("lost: %v, up %v\n%s", demote, up, s.Story())
		}
	})
}

func ExampleNewSupervisor() {
	// In a file of tests it is called TestFlag.
	_ = testFlag
}

func TestExample(t *testing.T) { testFlag(t) }

func ExampleRun() {
	// One test proves the contract, case by case.
	_ = func(t *testing.T) {
		sdktest.Run(t, sdktest.Binary(sdktest.Build(t, ".")), sdktest.Config{Settings: map[string]any{"file": "/tmp/greeting"}})
	}
}
