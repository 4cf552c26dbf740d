package sdk

// A Health is a plugin's answer to a check: fit for the role, or not.
type Health struct {
	Fit      bool   `json:"fit"`
	Detail   string `json:"detail,omitempty"`
	Position string `json:"position,omitempty"` // opaque; only the plugin's own Rank compares it
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
