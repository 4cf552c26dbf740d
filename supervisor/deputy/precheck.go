package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// errAlready ends a switchover that has nothing to do.
var errAlready = errors.New("is primary already")

// planSwitchover checks that a switchover can work, and returns who takes the
// role; to is empty where the best candidate should.
func planSwitchover(s supervisor.State, to string, now time.Time) (string, error) {
	p := s.Primary
	switch {
	case s.Unreachable != "":
		return "", unreached(s)
	case p == nil || s.Vacant:
		return "", fmt.Errorf("there is no primary that could hand over: the election goes on by itself, or `deputy failover %s --to NODE`", s.Service)
	case p.Node == to && p.State == sdk.RolePrimary:
		return to, errAlready
	case p.State != sdk.RolePrimary:
		return "", fmt.Errorf("%s is %s%s", p.Node, p.State, advice(s, p.State))
	case to == "" && s.Pause != nil && (s.Pause.Until.IsZero() || s.Pause.Until.After(now)):
		return "", fmt.Errorf("paused %s: name the node with --to, or `deputy resume %s`", s.Pause, s.Service)
	}
	if err := free(s); err != nil {
		return "", err
	}
	if to == "" {
		return best(s)
	}
	return to, fit(s, to)
}

// planFailover checks that a failover can work.
func planFailover(s supervisor.State, to string, fenced []string) error {
	switch p := s.Primary; {
	case s.Unreachable != "":
		return unreached(s)
	case p != nil && !s.Vacant && p.State == sdk.RoleBlocked:
		return fmt.Errorf("%s is alive and blocked: it may still act as primary%s", p.Node, advice(s, p.State))
	case p != nil && !s.Vacant && p.State == sdk.RolePromoting && len(fenced) > 0:
		// It tries to fence them, and gives the role up when it cannot.
	case p != nil && !s.Vacant && p.State == sdk.RolePromoting:
		return fmt.Errorf("%s is promoting%s", p.Node, advice(s, p.State))
	case p != nil && !s.Vacant:
		return fmt.Errorf("%s is alive: its lease is being renewed; use `deputy switchover %s --to %s`", p.Node, s.Service, to)
	}
	if err := errors.Join(free(s), down(s, fenced)); err != nil {
		return err
	}
	return fit(s, to)
}

// unreached tells that nothing can be ordered now.
func unreached(s supervisor.State) error {
	return fmt.Errorf("%w: %s; roles move again when etcd answers: `deputy check --deep` tells what is wrong with it", supervisor.ErrUnreachable, s.Unreachable)
}

// down checks what an operator says of nodes: that they were lost, and are down.
func down(s supervisor.State, fenced []string) error {
	owed := s.Term.Victims
	if s.Vacant {
		owed = s.Term.Lost()
	}
	var lost []string
	for _, v := range owed {
		lost = append(lost, v.Node)
	}
	for _, node := range fenced {
		c := s.Candidate(node)
		switch {
		case len(lost) == 0:
			return fmt.Errorf("--fenced %s: no node was lost that did not resign; leave --fenced out", node)
		case !slices.Contains(lost, node):
			return fmt.Errorf("--fenced %s: it was not lost as primary, so it needs no fence; that was %s", node, supervisor.Enumerate(lost))
		case c != nil && !supervisor.Holds(c.Role):
			return fmt.Errorf("--fenced %s: it is not down: it takes part, as %s. Give it the role by --to %s, or turn it off and wait until it is not in `deputy status %s` any more", node, c.Role, node, s.Service)
		}
	}
	return nil
}

// advice is what to do about a primary that is not fully one.
func advice(s supervisor.State, r sdk.Role) string {
	switch r {
	case sdk.RoleBlocked:
		return fmt.Sprintf(": put it right there, then `deputy clear %s` on that node", s.Service)
	case sdk.RolePromoting, sdk.RoleDemoting:
		return ": wait until it is done"
	}
	return ""
}

// free checks that no other order is being carried out.
func free(s supervisor.State) error {
	r := s.Reservation
	if !r.Binds() {
		return nil
	}
	by := ""
	if r.By != "" {
		by = " asked by " + r.By
	}
	return fmt.Errorf("%w: a %s to %s%s: wait until it is done, which takes %s at most; `deputy watch` shows it", supervisor.ErrBusy, r.Reason, r.To, by, r.For)
}

// best returns the candidate that ranks first.
func best(s supervisor.State) (string, error) {
	var why []string
	for _, p := range supervisor.Ranking(s) {
		if p.Eligible {
			return p.Name, nil
		}
		if s.Primary == nil || p.Name != s.Primary.Node {
			why = append(why, p.Name+": "+reason(s, p))
		}
	}
	if len(why) == 0 {
		return "", errors.New("no other node takes part: " + begin(s))
	}
	return "", errors.New("no other node can lead: " + strings.Join(why, "; "))
}

// fit checks that a node may lead, as far as the records tell.
func fit(s supervisor.State, node string) error {
	for _, p := range supervisor.Ranking(s) {
		switch {
		case p.Name != node:
		case !p.Eligible:
			return fmt.Errorf("%s cannot lead: %s", node, reason(s, p))
		default:
			return nil
		}
	}
	return fmt.Errorf("%s is not present: %s; name one of them, or %s", node, present(s), begin(s))
}

// present tells who takes part.
func present(s supervisor.State) string {
	var names []string
	for _, p := range supervisor.Ranking(s) {
		names = append(names, p.Name)
	}
	switch len(names) {
	case 0:
		return "no node takes part"
	case 1:
		return "the only one who takes part is " + names[0]
	}
	return "those who take part are " + supervisor.Enumerate(names)
}

// begin is how a node comes to take part.
func begin(s supervisor.State) string {
	return fmt.Sprintf("`systemctl start deputy@%s` on the node", s.Service)
}

// reason tells why a candidate may not lead, and what would change that.
func reason(s supervisor.State, p supervisor.Place) string {
	switch {
	case s.Barred(p.Name) != "":
		return p.Why // which says so
	case p.Priority == 0:
		return fmt.Sprintf("%s: give it another in its definition, then `deputy reload %s` there", p.Why, s.Service)
	case s.Unclean && p.Name == s.Term.Node:
		return p.Why + ": name another node; back again, it takes the role by itself if nobody else does"
	case p.Role == sdk.RoleBlocked, p.Role == sdk.RoleFailed:
		return fmt.Sprintf("%s: `deputy clear %s` there when it is put right", p.Why, s.Service)
	case p.Role == sdk.RoleCandidate && !p.Fit, p.Role == sdk.RoleStandby:
		return fmt.Sprintf("%s: `deputy status %s` there shows its checks", p.Why, s.Service)
	}
	return fmt.Sprintf("%s: `deputy explain %s` tells when that changes", p.Why, s.Service)
}
