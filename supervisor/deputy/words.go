package main

import (
	"fmt"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// age is a time span for people, in at most two units.
func age(d time.Duration) string { return supervisor.Age(d) }

// short is a duration that was measured, with three digits.
func short(d time.Duration) string { return supervisor.Short(d) }

// since is how long ago t was; "-" for never.
func since(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return age(now.Sub(t))
}

// term is a term in a table; "-" for none.
func termText(t sdk.Term) string {
	if t == 0 {
		return "-"
	}
	return fmt.Sprint(uint64(t))
}

// roleStyle is how a role stands out.
func roleStyle(r sdk.Role) style {
	switch r {
	case sdk.RolePrimary:
		return good
	case sdk.RolePromoting, sdk.RoleDemoting:
		return moving
	case sdk.RoleBlocked, sdk.RoleFailed:
		return bad
	}
	return plain
}
