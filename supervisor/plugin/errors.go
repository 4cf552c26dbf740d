package plugin

import "errors"

// What callers branch on.
var (
	// ErrNotFound is a part whose `use` names no plugin of this host.
	ErrNotFound = errors.New("no such plugin")
	// ErrUnsafe is a program that others than root and the supervisor's user
	// could change.
	ErrUnsafe = errors.New("others could change it")
	// ErrActing is an act asked for while another runs.
	ErrActing = errors.New("another act still runs")
	// ErrKilled is an act that Kill has ended.
	ErrKilled = errors.New("killed")
)

// A KeyError is a mistake in one setting of a part.
type KeyError struct {
	Key string // of the part's config table
	Err error
}

func (e *KeyError) Error() string { return e.Key + ": " + e.Err.Error() }

func (e *KeyError) Unwrap() error { return e.Err }
