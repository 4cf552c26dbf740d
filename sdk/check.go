package sdk

// A Health is a plugin's answer to a check: fit for the role, or not.
type Health struct {
	Fit    bool   `json:"fit"`
	Detail string `json:"detail,omitempty"`
	// Position is opaque; only the plugin's own Rank compares it. Where it is empty
	// the one that was told last counts, and nobody waits for a node that never
	// told one.
	Position string `json:"position,omitempty"`
	// Certain says of a node that is not fit that this is known for sure, as
	// that a process has ended is, and not a matter of one answer: it counts at
	// once, however many failures in a row the service asks for.
	Certain bool `json:"certain,omitempty"`
}

// An Order is how one position compares with another.
type Order string

// The orders of positions.
const (
	Ahead        Order = "ahead"
	Equal        Order = "equal"
	Behind       Order = "behind"
	Incomparable Order = "unknown"
)
