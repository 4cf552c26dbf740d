package main

import (
	"fmt"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// A story is a change of role as it happens, told from one state to the next.
type story struct {
	to, id string // the reservation
	term   sdk.Term
	last   supervisor.State
	seen   bool      // the reservation
	left   time.Time // when nobody was fully primary any more
	back   time.Time // when somebody was again
}

// An event is one line of a story.
type event struct {
	After time.Duration `json:"after_ns"` // since the order
	Text  string        `json:"text"`
}

// tell compares a state with the one before. Done is true when the story has
// ended; err tells why it did not end well.
func (y *story) tell(s supervisor.State, now time.Time) (lines []string, done bool, err error) {
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	was := y.last
	y.last = s

	switch {
	case s.Unreachable != "" && was.Unreachable == "":
		say("etcd cannot be reached: %s", s.Unreachable)
		return lines, false, nil
	case s.Unreachable != "":
		return nil, false, nil
	}
	ours := s.Reservation != nil && s.Reservation.ID == y.id
	y.seen = y.seen || ours
	if r := s.Reservation; ours && (was.Reservation == nil || was.Reservation.ID != y.id || was.Reservation.State != r.State) {
		switch r.State {
		case supervisor.Accepted:
			say("%s is ready", r.To)
		case supervisor.Declined:
			return lines, true, fmt.Errorf("%s declined: %s", r.To, r.Why)
		case supervisor.Undone:
			return lines, true, fmt.Errorf("undone, %s stays primary: %s", r.From, r.Why)
		}
	}
	p, q := was.Primary, s.Primary
	if p != nil && p.State == sdk.RolePrimary && (q == nil || q.State != sdk.RolePrimary || q.Term != p.Term) && y.left.IsZero() {
		y.left = now
	}
	switch {
	case q == nil && p != nil:
		say("%s has left the role", p.Node)
	case q != nil && (p == nil || p.Term != q.Term || p.State != q.State):
		switch q.State {
		case sdk.RolePromoting:
			say("%s promotes, term %d", q.Node, q.Term)
		case sdk.RoleDemoting:
			say("%s demotes", q.Node)
		case sdk.RolePrimary:
			if q.Term != y.term {
				say("%s is primary, term %d", q.Node, q.Term)
			} else if p != nil {
				say("%s is primary again", q.Node)
			}
		default:
			say("%s is %s", q.Node, q.State)
		}
	}
	switch {
	case q == nil && s.Term.Term > y.term && s.Term.Node == y.to && s.Term.Resigned:
		return lines, true, fmt.Errorf("%s took the role in term %d and could not become primary: `deputy history %s` tells why", y.to, s.Term.Term, s.Service)
	case q == nil || s.Vacant:
		return lines, false, nil
	case q.Term == y.term && q.State == sdk.RolePrimary && y.seen && !ours:
		return lines, true, fmt.Errorf("undone, %s stays primary: it had not left in time; --timeout gives it longer", q.Node)
	case q.Term == y.term:
		return lines, false, nil
	}
	switch {
	case q.Node != y.to && q.State == sdk.RolePrimary:
		return lines, true, fmt.Errorf("%s took the role instead of %s", q.Node, y.to)
	case q.Node == y.to && q.State == sdk.RolePrimary:
		y.back = now
		return lines, true, nil
	}
	return lines, false, nil
}
