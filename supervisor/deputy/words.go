package main

import (
	"fmt"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// age is a time span for people, in at most two units.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// short is a duration that was measured, with three digits.
func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

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
