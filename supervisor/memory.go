package supervisor

import (
	"github.com/deputy-ha/deputy/sdk"
)

// A Tenure names a lease so that the next process on this node can take it over.
type Tenure struct {
	Service string      `json:"service"`
	Term    sdk.Term    `json:"term"`
	Pulse   string      `json:"pulse"`
	Boot    string      `json:"boot"`
	Node    string      `json:"node"`
	Until   sdk.Instant `json:"until"` // the lease held at least until then when this was written
}

// A Note is what a member remembers across its own death: the role, and which
// plugins may be primary.
type Note struct {
	Role     sdk.Role   `json:"role"`
	Cause    string     `json:"cause,omitempty"`
	Tenure   *Tenure    `json:"tenure,omitempty"`   // nil when no lease is held
	Promoted []string   `json:"promoted,omitempty"` // parts that may act as primary
	Last     TermRecord `json:"last,omitzero"`
	// Keep: the process ended in order to be started again, and the next one
	// adopts. Otherwise whoever cleans up behind it demotes.
	Keep bool `json:"keep,omitempty"`
}

// A Memory keeps a member's Note where it outlives the process but not the
// boot. Save returns once the note would survive SIGKILL.
type Memory interface {
	// Load returns the zero Note when there is none. Its Tenure's Until is
	// the last one given to SaveUntil, where that is later.
	Load() (Note, error)
	Save(Note) error
	// SaveUntil keeps the end of the lease as last acknowledged, for the gate
	// that lives outside this process. It writes 8 bytes and never allocates.
	SaveUntil(sdk.Instant) error
}

// An Escalator is the force outside of this process. A nil Escalator has none.
type Escalator interface {
	// Trigger has this process killed and its parts demoted from outside.
	Trigger(cause error)
	// Reboot forces this node down.
	Reboot(cause error)
}

// A Seen is what a node remembers of a service's election across reboots, so
// that records that went back in time are noticed.
type Seen struct {
	Cluster  string   `json:"cluster"`  // id of the etcd cluster
	Revision int64    `json:"revision"` // highest seen
	Term     sdk.Term `json:"term"`     // highest seen
	// Prefix and Origin are where the records are in etcd, and their own mark,
	// which a copy of them has and others have not.
	Prefix string `json:"prefix,omitempty"`
	Origin string `json:"origin,omitempty"`
}

// A Witness keeps what was seen of each service's election for good.
type Witness interface {
	LoadSeen(service string) (Seen, error) // the zero Seen when there is none
	SaveSeen(service string, s Seen) error
	File(service string) string // where it is kept, for messages
}
