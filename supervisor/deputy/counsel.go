package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// wouldBe is the place that a node would have if it were as edit makes it; 0
// when it still could not lead.
func wouldBe(s supervisor.State, node string, edit func(*supervisor.Candidate)) int {
	s.Candidates = slices.Clone(s.Candidates)
	edit(s.Candidate(node))
	for i, p := range supervisor.Ranking(s) {
		if p.Name == node && p.Eligible {
			return i + 1
		}
	}
	return 0
}

// toLead tells what would have to change for a candidate to lead, or to come
// first; empty where nothing has to.
func toLead(s supervisor.State, ranking []supervisor.Place, p supervisor.Place) (text string) {
	ready := func(c *supervisor.Candidate) {
		c.Role, c.Fit, c.Held = sdk.RoleCandidate, true, false
		c.Priority = max(c.Priority, 1)
	}
	place := func() string {
		if n := wouldBe(s, p.Name, ready); n > 0 {
			return fmt.Sprintf("; it would then be place %d", n)
		}
		return ""
	}
	held := s.Primary != nil && !s.Vacant
	first := ranking[0]
	switch {
	case held && p.Name == s.Primary.Node:
		return ""
	case p.Role == sdk.RoleBlocked || p.Role == sdk.RoleFailed:
		return fmt.Sprintf("put right what it names, then on it `deputy clear %s`", s.Service)
	case p.Priority == 0:
		return fmt.Sprintf("set its priority above 0 in its definition, then `deputy reload %s` there", s.Service)
	case s.IsDrained(p.Name):
		s.Drained = slices.DeleteFunc(slices.Clone(s.Drained), func(d supervisor.Drain) bool { return d.Node == p.Name })
		return fmt.Sprintf("`deputy undrain %s`%s", p.Name, place())
	case s.IsBanned(p.Name):
		s.Banned = slices.DeleteFunc(slices.Clone(s.Banned), func(b supervisor.Ban) bool { return b.Node == p.Name })
		return fmt.Sprintf("`deputy unban %s %s`, or the end of the ban%s", s.Service, p.Name, place())
	case s.Unclean && p.Name == s.Term.Node:
		return "its supervisor has to come back, or another node has to take the role first"
	case supervisor.Holds(p.Role):
		return "its supervisor has to come back" + place()
	case !p.Fit:
		return "its checks have to pass again" + place()
	case !p.Eligible:
		return ""
	case p.Held:
		return "the time for which it sits out ends by itself" + place()
	case p.Name == first.Name:
		return ""
	case p.Priority < first.Priority:
		text = fmt.Sprintf("%s comes before it by priority: above %d in its definition and `deputy reload %s` there would put it first", first.Name, first.Priority, s.Service)
	default:
		text = fmt.Sprintf("%s comes before it by name, at the same priority: a higher one would put it first", first.Name)
	}
	if held {
		text += fmt.Sprintf("; or at once `deputy switchover %s --to %s`", s.Service, p.Name)
	}
	return text
}

// heirs are who may lead, as far as the records tell, first first.
func heirs(ranking []supervisor.Place) (names []string) {
	for _, p := range ranking {
		if p.Eligible {
			names = append(names, p.Name)
		}
	}
	return names
}

// ifLost tells what would happen if the primary died now. The ttl is zero where
// it is not known.
func ifLost(s supervisor.State, ranking []supervisor.Place, ttl time.Duration) string {
	after := "once its lease has run out"
	if ttl > 0 {
		after = fmt.Sprintf("once its lease has run out, at most %s later", ttl)
	}
	names := heirs(ranking)
	switch {
	case s.Unreachable != "":
		return "nobody would take over while etcd cannot be reached"
	case s.Frozen != "":
		return "nobody here would take over: " + s.Frozen
	case s.Pause != nil:
		return "nobody would take over while the service is paused"
	case s.Reservation.Binds() && s.Reservation.Reason != sdk.ReasonFailover:
		return fmt.Sprintf("%s would take over %s: it is reserved for it", s.Reservation.To, after)
	case len(names) == 0:
		return "nobody would take over"
	}
	text := names[0] + " would take over " + after
	if s.Candidate(names[0]).Positions != nil {
		text += ", unless another then proves to have more data"
	}
	return text
}

// unblock is the one thing to do for a service that has no primary, or nil when
// it needs nobody.
func unblock(s supervisor.State, ranking []supervisor.Place) *supervisor.Remark {
	do := func(command, on, format string, args ...any) *supervisor.Remark {
		return &supervisor.Remark{Text: fmt.Sprintf(format, args...), Weight: supervisor.WeightWrong, Command: command, On: on}
	}
	names := heirs(ranking)
	find := func(ok func(supervisor.Place) bool) *supervisor.Place {
		if i := slices.IndexFunc(ranking, ok); i >= 0 {
			return &ranking[i]
		}
		return nil
	}
	switch {
	case s.Primary != nil && !s.Vacant:
		return nil
	case s.Unreachable != "":
		return do("deputy check --deep", "", "bring etcd back: roles follow by themselves")
	case s.Frozen != "":
		return do("deputy check --deep "+s.Service, "", "what keeps this node from campaigning has to end, or to be put right")
	case s.Pause != nil:
		return do("deputy resume "+s.Service, "", "end the pause")
	case len(ranking) == 0:
		return do("systemctl start deputy@"+s.Service, "", "start its supervisor on a node")
	case len(names) > 0:
		best := s.Candidate(names[0])
		if i := slices.IndexFunc(names, func(n string) bool { return !strings.Contains(s.Candidate(n).Verdict, "deputy failover") }); i >= 0 {
			return nil // takes the role by itself
		}
		return do(fmt.Sprintf("deputy failover %s --to %s", s.Service, best.Name), "", "bring the node with the newest data back; or accept that what %s lacks is lost", best.Name)
	}
	if p := find(func(p supervisor.Place) bool { return p.Role == sdk.RoleBlocked || p.Role == sdk.RoleFailed }); p != nil {
		return do("deputy clear "+s.Service, p.Name, "put right on %s: %s", p.Name, p.Why)
	}
	if p := find(func(p supervisor.Place) bool { return p.Fit && s.IsDrained(p.Name) && p.Priority > 0 }); p != nil {
		return do("deputy undrain "+p.Name, "", "let %s lead again", p.Name)
	}
	if p := find(func(p supervisor.Place) bool { return p.Fit && s.IsBanned(p.Name) && p.Priority > 0 }); p != nil {
		return do(fmt.Sprintf("deputy unban %s %s", s.Service, p.Name), "", "let %s lead this service again", p.Name)
	}
	if p := find(func(p supervisor.Place) bool { return p.Fit && p.Priority == 0 }); p != nil {
		return do("deputy reload "+s.Service, p.Name, "give %s a priority above 0", p.Name)
	}
	if p := find(func(p supervisor.Place) bool { return !p.Fit && p.Priority > 0 && s.Barred(p.Name) == "" }); p != nil {
		return do("deputy status "+s.Service, p.Name, "make %s fit: %s", p.Name, p.Why)
	}
	return do("", "", "%s: %s", ranking[0].Name, ranking[0].Why)
}
