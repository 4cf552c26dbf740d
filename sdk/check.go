package sdk

// A Health is a plugin's answer to a check: fit for the role, or not.
type Health struct {
	Fit    bool   `json:"fit"`              // for the role that was asked about
	Detail string `json:"detail,omitempty"` // what was seen, in one line for people
	// Position tells how far this node's data goes, as a GTID set does. It is opaque,
	// at most 4 KiB, and only the plugin's own Rank compares it, with those that the
	// plugin on other nodes has told. Where it is empty the one that was told last
	// counts, and nobody waits for a node that never told one.
	Position string `json:"position,omitempty"`
	// Certain says of a node that is not fit that this is known for sure, as
	// that a process has ended is, and not a matter of one answer: it counts at
	// once, however many failures in a row the service asks for.
	Certain bool `json:"certain,omitempty"`
}

// An Order is how this node's position compares with another's.
type Order string

// The orders of positions.
const (
	Ahead        Order = "ahead"   // this node has all that the other has, and more
	Equal        Order = "equal"   // both have the same
	Behind       Order = "behind"  // the other has all that this node has, and more
	Incomparable Order = "unknown" // each may have something that the other lacks, or it cannot be told
)
