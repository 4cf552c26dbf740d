package rundir

import "errors"

// What callers branch on.
var (
	// ErrHeld tells that another supervisor of the service runs on this node.
	ErrHeld = errors.New("another supervisor of this service runs here")
	// ErrDamaged tells that a note cannot be relied on, so that nothing is
	// known of the process before.
	ErrDamaged = errors.New("the note is damaged")
	// ErrTooLarge tells that a note does not fit into the room kept for it.
	ErrTooLarge = errors.New("the note is too large")
)
