package supervisor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A Remark is a sentence on what an operator should know of a service.
type Remark struct {
	Text   string `json:"text"`
	Weight Weight `json:"weight"`
	// Command is what to type, where there is such a thing; On the node on which,
	// empty for any.
	Command string `json:"command,omitempty"`
	On      string `json:"on,omitempty"`
}

// A Weight tells how much something matters.
type Weight string

// The weights.
const (
	WeightWrong Weight = "wrong" // needs somebody
	WeightOdd   Weight = "odd"   // as somebody wanted it, or on its way, and not as usual
	WeightPast  Weight = "past"  // over, for the record
)

// Heavier compares weights: what needs somebody comes first, no weight last.
func (w Weight) Heavier(than Weight) int {
	rank := map[Weight]int{WeightWrong: 0, WeightOdd: 1, WeightPast: 2, "": 3}
	return cmp.Compare(rank[w], rank[than])
}

// Remarks tells what an operator should know at a time, what is wrong first.
func (r Report) Remarks(now time.Time) []Remark {
	remarks := slices.Concat(r.wrong(now), r.stuck(), r.odd(now), r.drift())
	slices.SortStableFunc(remarks, func(a, b Remark) int { return a.Weight.Heavier(b.Weight) })
	return remarks
}

// known reports whether the report tells of the present.
func (r Report) known() bool { return r.Problem == "" && r.Unreachable == "" }

// alone reports whether there is a primary and nobody to follow it.
func (r Report) alone() bool {
	return r.known() && r.Frozen == "" && r.Primary != nil && !r.Vacant &&
		!slices.ContainsFunc(r.Nodes, func(n NodeReport) bool { return n.Place > 0 })
}

// wrong tells why there is no primary, or why that is not known.
func (r Report) wrong(now time.Time) []Remark {
	switch {
	case r.Problem != "" && r.Source == "etcd":
		return []Remark{{r.Problem, WeightWrong, "deputy enable " + r.Service, ""}}
	case r.Problem != "":
		return []Remark{{r.Problem, WeightWrong, "deputy check --deep " + r.Service, ""}}
	case r.Unreachable != "":
		return []Remark{{"etcd cannot be reached: " + r.Unreachable + "; this is what was last known", WeightWrong, "deputy check --deep", ""}}
	case r.Primary != nil && !r.Vacant:
		return nil
	}
	none := Remark{"no primary", WeightWrong, "deputy explain " + r.Service, ""}
	switch {
	case r.Primary != nil:
		none.Text += fmt.Sprintf(": %s was lost, its lease ran out", r.Primary.Node)
	case r.Term == 0:
		none.Text += ": there was none yet"
	}
	if r.Pause.active(now) {
		none.Command = "deputy resume " + r.Service
	}
	return []Remark{none}
}

// stuck tells which nodes wait for somebody to put things right.
func (r Report) stuck() (remarks []Remark) {
	for _, n := range r.Nodes {
		if n.Role != sdk.RoleBlocked && n.Role != sdk.RoleFailed {
			continue
		}
		why := n.Verdict
		if r.Local != nil && r.Local.Node == n.Node {
			why = r.Local.Cause
		}
		remarks = append(remarks, Remark{fmt.Sprintf("%s is %s: %s", n.Node, n.Role, why), WeightWrong, "deputy clear " + r.Service, n.Node})
	}
	return remarks
}

// odd tells what somebody wanted, and what is on its way.
func (r Report) odd(now time.Time) (remarks []Remark) {
	remark := func(command, format string, args ...any) {
		remarks = append(remarks, Remark{fmt.Sprintf(format, args...), WeightOdd, command, ""})
	}
	if r.Frozen != "" {
		remark("", "nobody here campaigns: %s", r.Frozen)
	}
	if r.Pause.active(now) {
		remark("deputy resume "+r.Service, "paused %s", r.Pause)
	}
	if v := r.Reservation; v != nil {
		text := fmt.Sprintf("%s to %s, %s", v.Reason, v.To, v.State)
		if v.By != "" {
			text += ", asked by " + v.By
		}
		if v.Why != "" {
			text += ": " + v.Why
		}
		remark("", "%s", text)
		if !v.Binds() {
			remarks[len(remarks)-1].Weight = WeightPast
		}
	}
	if l := r.Local; l != nil && l.Doing != "" {
		remark("", "%s: %s", l.Node, l.Doing)
	}
	return remarks
}

// drift tells how the nodes are not as they should be, though one is primary.
func (r Report) drift() (remarks []Remark) {
	remark := func(command, format string, args ...any) {
		remarks = append(remarks, Remark{fmt.Sprintf(format, args...), WeightOdd, command, ""})
	}
	if r.Local != nil {
		for _, a := range r.Local.Absent {
			remark("", "%s is missing: it took part until %s", a.Node, a.Since.Format(time.RFC3339))
		}
	}
	switch {
	case r.alone() && len(r.Nodes) == 1:
		remark("", "nobody could take over: no other node takes part")
	case r.alone():
		remark("deputy explain "+r.Service, "nobody could take over")
	}
	if r.HashesDiffer {
		remark("deputy reload "+r.Service, "the definitions differ: %s; bring the files in line, then `deputy reload %s` there",
			r.differing(func(n NodeReport) string { return fmt.Sprintf("%.8s", n.Hash) }), r.Service)
	}
	version := func(n NodeReport) string { return n.Version }
	if versions := r.differing(version); versions != "" {
		remark("", "the versions differ: %s", versions)
	}
	return remarks
}

// differing tells which nodes have which of what should be the same everywhere,
// and first what the primary has; empty when it is the same.
func (r Report) differing(what func(NodeReport) string) string {
	nodes := map[string][]string{}
	var order []string
	primary := ""
	for _, n := range r.Nodes {
		w := what(n)
		if w == "" {
			continue
		}
		if nodes[w] == nil {
			order = append(order, w)
		}
		nodes[w] = append(nodes[w], n.Node)
		if r.Primary != nil && !r.Vacant && r.Primary.Node == n.Node {
			primary = w
		}
	}
	if len(order) < 2 {
		return ""
	}
	slices.SortStableFunc(order, func(a, b string) int { return cmpBool(a == primary, b == primary) * -1 })
	var parts []string
	for _, w := range order {
		verb := "has"
		if len(nodes[w]) > 1 {
			verb = "have"
		}
		part := fmt.Sprintf("%s %s %s", Enumerate(nodes[w]), verb, w)
		if w == primary {
			part += " as the primary"
			if len(nodes[w]) == 1 {
				part = fmt.Sprintf("the primary %s has %s", nodes[w][0], w)
			}
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}
