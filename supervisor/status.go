package supervisor

import (
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A Status is a snapshot of a member, for people and for the control socket.
type Status struct {
	Service   string        `json:"service"`
	Node      string        `json:"node"`
	Role      sdk.Role      `json:"role"`
	Term      sdk.Term      `json:"term"`  // of the tenure here, else the last one known
	Since     time.Time     `json:"since"` // in this role; wall time
	Cause     string        `json:"cause"` // why it is in this role
	Fit       bool          `json:"fit"`
	Verdict   string        `json:"verdict"` // why it can or cannot lead
	TTL       time.Duration `json:"ttl_ns"`
	LeaseLeft time.Duration `json:"lease_left_ns,omitempty"` // until the lease's local deadline; of a primary
	Doing     string        `json:"doing,omitempty"`         // the act that runs, and what it says
	Parts     []PartStatus  `json:"parts"`
	State     State         `json:"state"` // the election as last seen
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
