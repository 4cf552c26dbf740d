package supervisor_test

import (
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	. "github.com/deputy-ha/deputy/supervisor/supervisortest"
)

// watched runs two machines with a part that says by itself when its health
// has changed, and returns the primary.
func watched(s *scene) *machine {
	s.part("unit", sdk.CanPromote, sdk.CanDemote, sdk.CanCheck, sdk.CanWatch)
	db1 := s.run("db1", "db2")
	s.wait(10300 * time.Millisecond) // between two checks
	db1.is(sdk.RolePrimary)
	return db1
}

func TestCertainFailureMovesTheRoleAtOnce(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		s := newScene(t)
		defer s.close()
		db1 := watched(s)
		db1.parts["unit"].Healths(sdk.Health{Detail: "a.service has failed", Certain: true})
		s.wait(100 * time.Millisecond)
		s.machine("db2").is(sdk.RolePrimary)
		s.journal.NeverTwo(t)
	})
}

func TestWatchedFailureThatIsNotCertainCountsAsOftenAsOneAsks(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		s := newScene(t)
		defer s.close()
		db1 := watched(s)
		unit := db1.parts["unit"]
		restarting := func() {
			for range 10 { // steps, each of which is told
				unit.Healths(sdk.Health{Detail: "a.service restarts"})
				s.wait(10 * time.Millisecond)
			}
		}
		for range 20 { // and it is back each time
			restarting()
			unit.Healths(sdk.Health{Fit: true})
			s.wait(200 * time.Millisecond)
		}
		db1.is(sdk.RolePrimary)
		restarting() // it does not come back: three checks in a row say so
		s.wait(700 * time.Millisecond)
		db1.is(sdk.RolePrimary)
		for range 20 {
			restarting() // which does not put them off
		}
		s.machine("db2").is(sdk.RolePrimary)
		s.journal.NeverTwo(t)
	})
}
