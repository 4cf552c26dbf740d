package sdk

import "slices"

// A Term numbers the tenures of a service's primaries. Terms only grow: the
// term is the fencing token. Zero is before the first term.
type Term uint64

// A Role is what this node is, at this moment, to one service.
type Role string

// The roles of a member.
const (
	RoleUnknown   Role = "unknown"   // nothing can be vouched for yet: this process has not demoted
	RoleStandby   Role = "standby"   // demoted, and not asking for the lease
	RoleCandidate Role = "candidate" // demoted, fit, and asking for the lease
	RolePromoting Role = "promoting" // holds the lease; plugins are promoting
	RolePrimary   Role = "primary"   // holds the lease; every plugin has promoted
	RoleDemoting  Role = "demoting"  // plugins are demoting; the lease, unless lost, is still renewed
	RoleBlocked   Role = "blocked"   // a demotion failed; the lease is kept so that nobody starts; waits for an operator
	RoleFailed    Role = "failed"    // a demotion failed and no lease protects it; waits for an operator
)

var moves = map[Role][]Role{
	RoleUnknown:   {RoleStandby, RolePrimary, RoleDemoting, RoleFailed},
	RoleStandby:   {RoleCandidate, RolePromoting, RoleDemoting},
	RoleCandidate: {RoleStandby, RolePromoting, RoleDemoting},
	RolePromoting: {RolePrimary, RoleDemoting},
	RolePrimary:   {RoleDemoting},
	RoleDemoting:  {RoleStandby, RolePrimary, RoleBlocked, RoleFailed},
	RoleBlocked:   {RoleDemoting},
	RoleFailed:    {RoleDemoting},
}

// CanBecome reports whether a member may go from r to next. A role that this
// version does not know goes nowhere.
func (r Role) CanBecome(next Role) bool { return slices.Contains(moves[r], next) }
