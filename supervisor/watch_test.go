package supervisor_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/deputy-ha/deputy/sdk"
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
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		defer s.close()
		db1 := watched(s)
		db1.parts["unit"].Healths(sdk.Health{Detail: "a.service has failed", Certain: true})
		s.wait(100 * time.Millisecond)
		s.machine("db2").is(sdk.RolePrimary)
		s.journal.NeverTwo(t)
	})
}

func TestWatchedFailureThatIsNotCertainCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		defer s.close()
		db1 := watched(s)
		unit := db1.parts["unit"]
		unit.Healths(sdk.Health{Detail: "a.service restarts"}) // asked at once: the first of three
		s.wait(100 * time.Millisecond)
		db1.is(sdk.RolePrimary)
		unit.Healths(sdk.Health{Fit: true}) // and so is this: it counts from the beginning again
		s.wait(100 * time.Millisecond)
		unit.Healths(sdk.Health{Detail: "a.service restarts"})
		s.wait(1900 * time.Millisecond)
		db1.is(sdk.RolePrimary)
		s.wait(400 * time.Millisecond)
		s.machine("db2").is(sdk.RolePrimary)
		s.journal.NeverTwo(t)
	})
}
