package supervisor

import (
	"cmp"
	"slices"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A Status is a snapshot of a member, for people and for the control socket.
type Status struct {
	Service     string        `json:"service"`
	Description string        `json:"description,omitempty"` // as defined
	Node        string        `json:"node"`
	Role        sdk.Role      `json:"role"`
	Term        sdk.Term      `json:"term"`  // of the tenure here, else the last one known
	Since       time.Time     `json:"since"` // in this role; wall time
	Cause       string        `json:"cause"` // why it is in this role
	Fit         bool          `json:"fit"`
	Verdict     string        `json:"verdict"` // why it can or cannot lead
	TTL         time.Duration `json:"ttl_ns"`
	LeaseLeft   time.Duration `json:"lease_left_ns,omitempty"` // until the lease's local deadline; of a primary
	// LeaseUntil is that deadline itself, on this machine's CLOCK_BOOTTIME: it
	// does not age with the snapshot. Zero where no lease is held, or it proved not
	// ours.
	LeaseUntil sdk.Instant  `json:"lease_until_ns,omitempty"`
	Doing      string       `json:"doing,omitempty"` // the act that runs, and what it says
	Parts      []PartStatus `json:"parts"`
	State      State        `json:"state"` // the election as last seen
	// Absent are nodes that took part while this process has watched, and do not
	// now: dead, cut off from etcd, or stopped by somebody.
	Absent []Absence `json:"absent,omitempty"`
}

// An Absence tells since when a node does not take part.
type Absence struct {
	Node  string    `json:"node"`
	Since time.Time `json:"since"` // wall time
}

// absent returns who does not take part any more, by name, where was and now
// are two States, one after the other. What is seen without etcd tells nothing.
func absent(known []Absence, was, now State, self string, at time.Time) []Absence {
	if now.Unreachable != "" {
		return known
	}
	var all []Absence
	for _, a := range known {
		if now.Candidate(a.Node) == nil {
			all = append(all, a)
		}
	}
	for _, c := range was.Candidates {
		if c.Name != self && now.Candidate(c.Name) == nil && !slices.ContainsFunc(all, func(a Absence) bool { return a.Node == c.Name }) {
			all = append(all, Absence{c.Name, at.UTC().Truncate(time.Second)})
		}
	}
	slices.SortFunc(all, func(a, b Absence) int { return cmp.Compare(a.Node, b.Node) })
	return all
}

// A PartStatus is a snapshot of one plugin of a member.
type PartStatus struct {
	Name     string    `json:"name"`
	Use      string    `json:"use"`
	Promoted bool      `json:"promoted"` // may act as primary here
	Checked  bool      `json:"checked"`  // a check has answered in this role
	Fit      bool      `json:"fit"`
	Warning  bool      `json:"warning,omitempty"` // not fit, which costs no role by its severity
	Detail   string    `json:"detail,omitempty"`
	At       time.Time `json:"at,omitzero"`
}
