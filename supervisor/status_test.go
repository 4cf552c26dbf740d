package supervisor_test

import (
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A snapshot has the lease's deadline itself, which does not age with it, and what
// the definition says.
func TestStatus(t *testing.T) {
	stage(t, func(s *scene) {
		s.service.Description = "where the orders are kept"
		db1 := s.run("db1", "db2")
		s.wait(5 * time.Second)
		db1.is(sdk.RolePrimary)
		before := db1.member.Status()
		if before.Description != s.service.Description {
			t.Errorf("described as %q", before.Description)
		}
		if before.LeaseLeft <= 0 || before.LeaseUntil != db1.Setup().Clock.Now().Add(before.LeaseLeft) {
			t.Errorf("until %d with %s left at %d", before.LeaseUntil, before.LeaseLeft, db1.Setup().Clock.Now())
		}
		s.wait(10 * time.Second)
		if after := db1.member.Status(); after.LeaseUntil <= before.LeaseUntil {
			t.Errorf("until %d, and 10 s later %d", before.LeaseUntil, after.LeaseUntil)
		}
		if other := s.machine("db2").member.Status(); other.LeaseUntil != 0 {
			t.Errorf("a candidate has a lease until %d", other.LeaseUntil)
		}
	})
}
