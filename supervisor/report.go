package supervisor

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// ReportFormat names the shape of a Report's JSON. Another number means that
// what was there has changed; what is only added keeps it.
const ReportFormat = "deputy.status/1"

// A Report is what is known of one service, for people and for programs: what
// `deputy status` shows, what its JSON is, and what HTTP answers. Durations are
// nanoseconds. Its JSON also has the format and the remarks of the moment.
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
	Place     int           `json:"place,omitempty"` // who would follow, from 1; none for who may not
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
		r.Service, r.Source, r.Description = local.Service, "daemon", local.Description
	}
	hashes := map[string]bool{}
	places := places(s)
	for _, c := range s.Candidates {
		n := candidateReport(s, c)
		n.Place = places[c.Name]
		r.Nodes = append(r.Nodes, n)
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
	if local != nil {
		r.missing(local.Absent)
	}
	for _, d := range s.Drained {
		if !r.has(d.Node) {
			r.Nodes = append(r.Nodes, NodeReport{Node: d.Node, Role: sdk.RoleUnknown, Drained: true, Verdict: "not present; " + s.Barred(d.Node)})
		}
	}
	for _, b := range s.Banned {
		if !r.has(b.Node) {
			r.Nodes = append(r.Nodes, NodeReport{Node: b.Node, Role: sdk.RoleUnknown, Banned: true, Verdict: "not present; " + s.Barred(b.Node)})
		}
	}
	if local != nil {
		r.here(*local)
	}
	slices.SortFunc(r.Nodes, func(a, b NodeReport) int { return cmp.Compare(a.Node, b.Node) })
	return r
}

// places tells who would follow, from 1.
func places(s State) map[string]int {
	places := map[string]int{}
	for _, p := range Ranking(s) {
		if p.Eligible {
			places[p.Name] = len(places) + 1
		}
	}
	return places
}

func (r *Report) has(node string) bool {
	return slices.ContainsFunc(r.Nodes, func(n NodeReport) bool { return n.Node == node })
}

// missing puts in who took part before.
func (r *Report) missing(absent []Absence) {
	for _, a := range absent {
		if !r.has(a.Node) {
			r.Nodes = append(r.Nodes, NodeReport{
				Node: a.Node, Role: sdk.RoleUnknown, Since: a.Since,
				Verdict: "missing: took part before",
			})
		}
	}
}

// MarshalJSON adds the format and what Remarks says now.
func (r Report) MarshalJSON() ([]byte, error) {
	type plain Report
	remarks := r.Remarks(time.Now())
	if remarks == nil {
		remarks = []Remark{}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // that is up to the one who embeds it
	err := enc.Encode(struct {
		Format string `json:"format"`
		plain
		Remarks []Remark `json:"remarks"` // what is wrong first
	}{ReportFormat, plain(r), remarks})
	return b.Bytes(), err
}

func candidateReport(s State, c Candidate) NodeReport {
	n := NodeReport{
		Node: c.Name, Address: c.Address, Present: true, Role: c.Role, Fit: c.Fit, Health: c.Health, Term: c.Term,
		Since: c.Since, Priority: c.Priority, Held: c.Held, Verdict: c.Verdict, Hash: c.Hash, Version: c.Version,
		Drained: s.IsDrained(c.Name), Banned: s.IsBanned(c.Name),
	}
	if was := lost(s, c); was != "" {
		n.Role, n.Fit, n.Term, n.Verdict = sdk.RoleUnknown, false, 0, was
	}
	return n
}

// Holds reports whether a role is one of a node that holds the lease.
func Holds(r sdk.Role) bool {
	return r == sdk.RolePromoting || r == sdk.RolePrimary || r == sdk.RoleBlocked
}

// lost tells of a candidate that holds the lease by its own record alone, and is ""
// for any other. A node that is cut off or dead stays in the records for a while
// as it was.
func lost(s State, c Candidate) string {
	p := s.Primary
	if !Holds(c.Role) || p != nil && !s.Vacant && p.Node == c.Name && p.Term == c.Term {
		return ""
	}
	return fmt.Sprintf("was lost as primary in term %d, and silent since", c.Term)
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

// Enumerate joins words as a sentence does: "a", "a and b", "a, b and c".
func Enumerate(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
