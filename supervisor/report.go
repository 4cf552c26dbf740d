package supervisor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A Report is what is known of one service, for people and for programs: what
// `deputy status` shows, what its JSON is, and what HTTP answers. Durations are
// nanoseconds.
type Report struct {
	Service     string `json:"service"`
	Description string `json:"description,omitempty"`
	// Source tells who said so: "daemon" of this node, "etcd" itself, or
	// "none" when neither answers.
	Source  string       `json:"source"`
	Primary *Primary     `json:"primary,omitempty"` // as recorded; it may be lost already
	Vacant  bool         `json:"vacant"`            // the role is free to be taken
	Term    sdk.Term     `json:"term"`              // the last one that began
	Nodes   []NodeReport `json:"nodes"`             // by name

	Pause        *Pause       `json:"pause,omitempty"`
	Reservation  *Reservation `json:"reservation,omitempty"`
	Frozen       string       `json:"frozen,omitempty"`
	Unreachable  string       `json:"unreachable,omitempty"` // etcd, since when and why; the rest is what was last known
	HashesDiffer bool         `json:"hashes_differ"`         // the nodes have different definitions
	Problem      string       `json:"problem,omitempty"`     // why so little is known
	Local        *Status      `json:"local,omitempty"`       // the member on this node
}

// A NodeReport is one node of a service.
type NodeReport struct {
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
	Banned    bool          `json:"banned,omitempty"`
	Held      bool          `json:"held,omitempty"`
	Verdict   string        `json:"verdict"` // why it can or cannot lead
	Hash      string        `json:"hash,omitempty"`
	Version   string        `json:"version,omitempty"`
}

// NewReport tells what the records say. Local is nil where this node's daemon
// was not asked.
func NewReport(s State, local *Status) Report {
	r := Report{
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
		n := NodeReport{
			Node: p.Node, Address: p.Address, Role: p.State, Term: p.Term, Since: p.Since,
			Verdict: "not present: dead, or cut off from etcd",
		}
		if s.Vacant {
			n.Role, n.Since, n.Verdict = sdk.RoleUnknown, time.Time{}, "was lost as primary; not present"
		}
		r.Nodes = append(r.Nodes, n)
	}
	for _, d := range s.Drained {
		if !slices.ContainsFunc(r.Nodes, func(n NodeReport) bool { return n.Node == d.Node }) {
			r.Nodes = append(r.Nodes, NodeReport{Node: d.Node, Role: sdk.RoleUnknown, Drained: true, Verdict: "not present; " + s.Barred(d.Node)})
		}
	}
	for _, b := range s.Banned {
		if !slices.ContainsFunc(r.Nodes, func(n NodeReport) bool { return n.Node == b.Node }) {
			r.Nodes = append(r.Nodes, NodeReport{Node: b.Node, Role: sdk.RoleUnknown, Banned: true, Verdict: "not present; " + s.Barred(b.Node)})
		}
	}
	if local != nil {
		r.here(*local)
	}
	slices.SortFunc(r.Nodes, func(a, b NodeReport) int { return cmp.Compare(a.Node, b.Node) })
	return r
}

func candidateReport(s State, c Candidate) NodeReport {
	n := NodeReport{
		Node: c.Name, Address: c.Address, Present: true, Role: c.Role, Fit: c.Fit, Health: c.Health, Term: c.Term,
		Since: c.Since, Priority: c.Priority, Held: c.Held, Verdict: c.Verdict, Hash: c.Hash, Version: c.Version,
		Drained: s.IsDrained(c.Name), Banned: s.IsBanned(c.Name),
	}
	if Holds(c.Role) && !held(s, c) {
		n.Role, n.Fit, n.Term = sdk.RoleUnknown, false, 0
		n.Verdict = fmt.Sprintf("was lost as primary in term %d, and silent since", c.Term)
	}
	return n
}

// Holds reports whether a role is one of a node that holds the lease.
func Holds(r sdk.Role) bool {
	return r == sdk.RolePromoting || r == sdk.RolePrimary || r == sdk.RoleBlocked
}

// held reports whether the records agree that a candidate holds the lease. A
// node that is cut off or dead stays in the records for a while as it was.
func held(s State, c Candidate) bool {
	p := s.Primary
	return p != nil && !s.Vacant && p.Node == c.Name && p.Term == c.Term
}

// here puts in what the daemon of this node knows of itself, which may be
// newer than what it could publish.
func (r *Report) here(local Status) {
	i := slices.IndexFunc(r.Nodes, func(n NodeReport) bool { return n.Node == local.Node })
	if i < 0 {
		i = len(r.Nodes)
		r.Nodes = append(r.Nodes, NodeReport{Node: local.Node, Present: true})
	}
	n := &r.Nodes[i]
	n.Role, n.Fit, n.Since, n.LeaseLeft, n.Verdict = local.Role, local.Fit, local.Since, local.LeaseLeft, local.Verdict
	if n.Term = 0; local.LeaseLeft > 0 {
		n.Term = local.Term
	}
}

// A Remark is a sentence on what an operator should know of a service that is not
// about one node.
type Remark struct {
	Text   string `json:"text"`
	Weight Weight `json:"weight"`
}

// A Weight tells how much something matters.
type Weight string

// The weights.
const (
	WeightWrong Weight = "wrong" // needs somebody
	WeightOdd   Weight = "odd"   // as somebody wanted it, or on its way, and not as usual
	WeightPast  Weight = "past"  // over, for the record
)

// Remarks tells what an operator should know at a time, what is wrong first.
func (r Report) Remarks(now time.Time) (remarks []Remark) {
	remark := func(w Weight, format string, args ...any) {
		remarks = append(remarks, Remark{fmt.Sprintf(format, args...), w})
	}
	if r.Problem != "" {
		remark(WeightWrong, "%s", r.Problem)
	}
	if r.Unreachable != "" {
		remark(WeightWrong, "etcd cannot be reached: %s; this is what was last known", r.Unreachable)
	}
	if r.Problem == "" && r.Unreachable == "" && (r.Primary == nil || r.Vacant) {
		switch {
		case r.Primary != nil:
			remark(WeightWrong, "no primary: %s was lost, its lease ran out", r.Primary.Node)
		case r.Term == 0:
			remark(WeightWrong, "no primary: there was none yet")
		default:
			remark(WeightWrong, "no primary")
		}
	}
	if r.Frozen != "" {
		remark(WeightOdd, "nobody here campaigns: %s", r.Frozen)
	}
	if r.Pause != nil && (r.Pause.Until.IsZero() || r.Pause.Until.After(now)) {
		remark(WeightOdd, "paused %s", r.Pause)
	}
	if v := r.Reservation; v != nil {
		w, text := WeightOdd, fmt.Sprintf("%s to %s, %s", v.Reason, v.To, v.State)
		if v.By != "" {
			text += ", asked by " + v.By
		}
		if v.Why != "" {
			text += ": " + v.Why
		}
		if !v.Binds() {
			w = WeightPast
		}
		remark(w, "%s", text)
	}
	if l := r.Local; l != nil && l.Doing != "" {
		remark(WeightOdd, "%s: %s", l.Node, l.Doing)
	}
	if l := r.Local; l != nil && (l.Role == sdk.RoleBlocked || l.Role == sdk.RoleFailed) {
		remark(WeightWrong, "%s is %s: %s", l.Node, l.Role, l.Cause)
	}
	if r.HashesDiffer {
		remark(WeightOdd, "the definitions differ: %s; bring the files in line, then `deputy reload %s` on each node", r.hashes(), r.Service)
	}
	rank := map[Weight]int{WeightWrong: 0, WeightOdd: 1, WeightPast: 2}
	slices.SortStableFunc(remarks, func(a, b Remark) int { return cmp.Compare(rank[a.Weight], rank[b.Weight]) })
	return remarks
}

// hashes tells which nodes have which definition.
func (r Report) hashes() string {
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
		parts = append(parts, fmt.Sprintf("%s %s %.8s", Enumerate(nodes[h]), verb, h))
	}
	return strings.Join(parts, ", ")
}

// Enumerate joins words as a sentence does: "a", "a and b", "a, b and c".
func Enumerate(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
