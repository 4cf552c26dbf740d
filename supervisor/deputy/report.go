package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// A report is what is known of one service: what `deputy status -o json`
// prints, in an array, and what its table shows. Durations are nanoseconds.
type report struct {
	Service     string `json:"service"`
	Description string `json:"description,omitempty"`
	// Source tells who said so: "daemon" of this node, "etcd" itself, or
	// "none" when neither answers.
	Source  string              `json:"source"`
	Primary *supervisor.Primary `json:"primary,omitempty"` // as recorded; it may be lost already
	Vacant  bool                `json:"vacant"`            // the role is free to be taken
	Term    sdk.Term            `json:"term"`              // the last one that began
	Nodes   []nodeReport        `json:"nodes"`             // by name

	Pause        *supervisor.Pause       `json:"pause,omitempty"`
	Reservation  *supervisor.Reservation `json:"reservation,omitempty"`
	Frozen       string                  `json:"frozen,omitempty"`
	Unreachable  string                  `json:"unreachable,omitempty"` // etcd, since when and why; the rest is what was last known
	HashesDiffer bool                    `json:"hashes_differ"`         // the nodes have different definitions
	Problem      string                  `json:"problem,omitempty"`     // why so little is known
	Local        *supervisor.Status      `json:"local,omitempty"`       // the member on this node
}

// A nodeReport is one node of a service.
type nodeReport struct {
	Node      string        `json:"node"`
	Address   string        `json:"address,omitempty"`
	Present   bool          `json:"present"` // its supervisor takes part
	Role      sdk.Role      `json:"role"`
	Fit       bool          `json:"fit"`
	Health    string        `json:"health,omitempty"`
	Term      sdk.Term      `json:"term,omitempty"`
	Since     time.Time     `json:"since,omitzero"`
	LeaseLeft time.Duration `json:"lease_left_ns,omitempty"` // only the primary itself knows
	Priority  int           `json:"priority"`
	Drained   bool          `json:"drained,omitempty"`
	Held      bool          `json:"held,omitempty"`
	Verdict   string        `json:"verdict"` // why it can or cannot lead
	Hash      string        `json:"hash,omitempty"`
	Version   string        `json:"version,omitempty"`
}

// newReport tells what the records say. Local is nil where this node's daemon
// was not asked.
func newReport(s supervisor.State, local *supervisor.Status) report {
	r := report{
		Service: s.Service, Source: "etcd", Primary: s.Primary, Vacant: s.Vacant, Term: s.Term.Term,
		Pause: s.Pause, Reservation: s.Reservation, Frozen: s.Frozen, Unreachable: s.Unreachable, Local: local,
	}
	if local != nil {
		r.Service, r.Source = local.Service, "daemon"
	}
	hashes := map[string]bool{}
	for _, c := range s.Candidates {
		r.Nodes = append(r.Nodes, candidateReport(s, c))
		hashes[c.Hash] = true
	}
	r.HashesDiffer = len(hashes) > 1
	if p := s.Primary; p != nil && s.Candidate(p.Node) == nil {
		n := nodeReport{
			Node: p.Node, Address: p.Address, Role: p.State, Term: p.Term, Since: p.Since,
			Verdict: "not present: dead, or cut off from etcd",
		}
		if s.Vacant {
			n.Role, n.Since, n.Verdict = sdk.RoleUnknown, time.Time{}, "was lost as primary; not present"
		}
		r.Nodes = append(r.Nodes, n)
	}
	for _, d := range s.Drained {
		if !slices.ContainsFunc(r.Nodes, func(n nodeReport) bool { return n.Node == d.Node }) {
			r.Nodes = append(r.Nodes, nodeReport{Node: d.Node, Role: sdk.RoleUnknown, Drained: true, Verdict: "not present; drained"})
		}
	}
	if local != nil {
		r.here(*local)
	}
	slices.SortFunc(r.Nodes, func(a, b nodeReport) int { return cmp.Compare(a.Node, b.Node) })
	return r
}

func candidateReport(s supervisor.State, c supervisor.Candidate) nodeReport {
	n := nodeReport{
		Node: c.Name, Address: c.Address, Present: true, Role: c.Role, Fit: c.Fit, Health: c.Health, Term: c.Term,
		Since: c.Since, Priority: c.Priority, Held: c.Held, Verdict: c.Verdict, Hash: c.Hash, Version: c.Version,
		Drained: s.IsDrained(c.Name),
	}
	if holds(c.Role) && !held(s, c) {
		n.Role, n.Fit, n.Term = sdk.RoleUnknown, false, 0
		n.Verdict = fmt.Sprintf("was lost as primary in term %d, and silent since", c.Term)
	}
	return n
}

// holds reports whether a role is one of a node that holds the lease.
func holds(r sdk.Role) bool {
	return r == sdk.RolePromoting || r == sdk.RolePrimary || r == sdk.RoleBlocked
}

// held reports whether the records agree that a candidate holds the lease. A
// node that is cut off or dead stays in the records for a while as it was.
func held(s supervisor.State, c supervisor.Candidate) bool {
	p := s.Primary
	return p != nil && !s.Vacant && p.Node == c.Name && p.Term == c.Term
}

// here puts in what the daemon of this node knows of itself, which may be
// newer than what it could publish.
func (r *report) here(local supervisor.Status) {
	i := slices.IndexFunc(r.Nodes, func(n nodeReport) bool { return n.Node == local.Node })
	if i < 0 {
		i = len(r.Nodes)
		r.Nodes = append(r.Nodes, nodeReport{Node: local.Node, Present: true})
	}
	n := &r.Nodes[i]
	n.Role, n.Fit, n.Since, n.LeaseLeft, n.Verdict = local.Role, local.Fit, local.Since, local.LeaseLeft, local.Verdict
	if n.Term = 0; local.LeaseLeft > 0 {
		n.Term = local.Term
	}
}

// notes are the sentences under a service's table: what an operator should
// know that is not about one node.
func (r report) notes(now time.Time) (notes []cell) {
	note := func(st style, format string, args ...any) {
		notes = append(notes, cell{fmt.Sprintf(format, args...), st})
	}
	if r.Problem != "" {
		note(bad, "%s", r.Problem)
	}
	if r.Unreachable != "" {
		note(bad, "etcd cannot be reached: %s; this is what was last known", r.Unreachable)
	}
	if r.Problem == "" && r.Unreachable == "" && (r.Primary == nil || r.Vacant) {
		switch {
		case r.Primary != nil:
			note(bad, "no primary: %s was lost, its lease ran out", r.Primary.Node)
		case r.Term == 0:
			note(bad, "no primary: there was none yet")
		default:
			note(bad, "no primary")
		}
	}
	if r.Frozen != "" {
		note(moving, "nobody here campaigns: %s", r.Frozen)
	}
	if r.Pause != nil && (r.Pause.Until.IsZero() || r.Pause.Until.After(now)) {
		note(moving, "paused %s", r.Pause)
	}
	if v := r.Reservation; v != nil {
		st, text := moving, fmt.Sprintf("%s to %s, %s", v.Reason, v.To, v.State)
		if v.By != "" {
			text += ", asked by " + v.By
		}
		if v.Why != "" {
			text += ": " + v.Why
		}
		if !v.Binds() {
			st = faint
		}
		note(st, "%s", text)
	}
	if l := r.Local; l != nil && l.Doing != "" {
		note(moving, "%s: %s", l.Node, l.Doing)
	}
	if l := r.Local; l != nil && (l.Role == sdk.RoleBlocked || l.Role == sdk.RoleFailed) {
		note(bad, "%s is %s: %s", l.Node, l.Role, l.Cause)
	}
	if r.HashesDiffer {
		note(moving, "the definitions differ: %s; bring the files in line, then `deputy reload %s` on each node", r.hashes(), r.Service)
	}
	return notes
}

// hashes tells which nodes have which definition.
func (r report) hashes() string {
	nodes := map[string][]string{}
	var order []string
	for _, n := range r.Nodes {
		if n.Hash == "" {
			continue
		}
		if nodes[n.Hash] == nil {
			order = append(order, n.Hash)
		}
		nodes[n.Hash] = append(nodes[n.Hash], n.Node)
	}
	var parts []string
	for _, h := range order {
		verb := "has"
		if len(nodes[h]) > 1 {
			verb = "have"
		}
		parts = append(parts, fmt.Sprintf("%s %s %.8s", list(nodes[h]), verb, h))
	}
	return strings.Join(parts, ", ")
}

// text shows the service. Detail adds the plugins on this node.
func (r report) text(b *strings.Builder, s screen, now time.Time, detail bool) {
	title := s.paint(bold, r.Service)
	if r.Description != "" {
		title += ": " + tidy(r.Description)
	}
	b.WriteString(title + "\n")
	if len(r.Nodes) > 0 {
		t := table{head: []string{"NODE", "ROLE", "HEALTH", "TERM", "SINCE", "LEASE", "VERDICT"}}
		for _, n := range r.Nodes {
			t.add(n.cells(now)...)
		}
		t.write(b, s, "  ")
	}
	if detail && r.Local != nil && len(r.Local.Parts) > 0 {
		t := table{head: []string{"PLUGIN on " + r.Local.Node, "USES", "PROMOTED", "CHECK", "DETAIL"}}
		for _, p := range r.Local.Parts {
			t.add(partCells(p)...)
		}
		t.write(b, s, "  ")
	}
	for _, n := range r.notes(now) {
		for _, line := range wrap(tidy(n.text), s.width-2) {
			b.WriteString("  " + s.paint(n.style, line) + "\n")
		}
	}
}

func (n nodeReport) cells(now time.Time) []cell {
	health, lease := cell{"fit", plain}, cell{"-", plain}
	switch {
	case !n.Present, n.Role == sdk.RoleUnknown:
		health = cell{"-", plain}
	case !n.Fit:
		health = cell{"unfit", bad}
	}
	if n.LeaseLeft > 0 {
		lease.text = fmt.Sprintf("%.1fs", n.LeaseLeft.Seconds())
	}
	verdict := n.Verdict
	if n.Drained && !strings.Contains(verdict, "drained") {
		verdict = strings.TrimPrefix(verdict+"; drained", "; ")
	}
	return []cell{
		{tidy(n.Node), plain},
		{string(n.Role), roleStyle(n.Role)},
		health,
		{termText(n.Term), plain},
		{since(n.Since, now), plain},
		lease,
		{verdict, plain},
	}
}

func partCells(p supervisor.PartStatus) []cell {
	promoted, check := "no", cell{"-", plain}
	if p.Promoted {
		promoted = "yes"
	}
	if p.Checked {
		check = cell{"fit", plain}
		switch {
		case p.Warning:
			check = cell{"warning", moving}
		case !p.Fit:
			check = cell{"unfit", bad}
		}
	}
	return []cell{{p.Name, plain}, {p.Use, plain}, {promoted, plain}, check, {p.Detail, plain}}
}
