package sdk

import "testing"

var roles = []Role{RoleUnknown, RoleStandby, RoleCandidate, RolePromoting, RolePrimary, RoleDemoting, RoleBlocked, RoleFailed}

// reach returns the roles that a member in r can come to.
func reach(r Role) map[Role]bool {
	seen := map[Role]bool{}
	for next := []Role{r}; len(next) > 0; next = next[1:] {
		for _, to := range roles {
			if next[0].CanBecome(to) && !seen[to] {
				seen[to] = true
				next = append(next, to)
			}
		}
	}
	return seen
}

func TestEveryRoleIsReachedAndLeft(t *testing.T) {
	start := reach(RoleUnknown)
	for _, r := range roles {
		if r != RoleUnknown && !start[r] {
			t.Errorf("no way leads to %s", r)
		}
		if !reach(r)[RoleStandby] {
			t.Errorf("no way leads from %s to standby", r)
		}
	}
}

// Whoever may act as primary demotes before it is anything else.
func TestPrimariesOnlyDemote(t *testing.T) {
	for _, from := range []Role{RolePromoting, RolePrimary, RoleBlocked, RoleFailed} {
		for _, to := range []Role{RoleUnknown, RoleStandby, RoleCandidate} {
			if from.CanBecome(to) {
				t.Errorf("%s can become %s without demoting", from, to)
			}
		}
	}
	for _, from := range []Role{RoleStandby, RoleCandidate, RoleBlocked, RoleFailed} {
		if from.CanBecome(RolePrimary) {
			t.Errorf("%s can become primary without promoting", from)
		}
	}
}
