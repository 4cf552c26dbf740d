package supervisor

import "errors"

// What callers branch on.
var (
	ErrRefused   = errors.New("the records have changed")           // a compare failed
	ErrBusy      = errors.New("another order is being carried out") // wait for it, or let it run out
	ErrNoService = errors.New("no such service")
	ErrNotHere   = errors.New("not in that role on this node")
	ErrTold      = errors.New("has been told already")
	// ErrUnreachable: nothing is known about what was asked for or sent.
	ErrUnreachable = errors.New("the records cannot be reached")

	// ErrLost is why a role is left whose lease could not be renewed in time, or
	// proved somebody else's.
	ErrLost = errors.New("lease lost")

	// ErrStop ends a member: it hands over and demotes.
	ErrStop = errors.New("told to stop")
	// ErrRestart ends a member's process and keeps the role: the next process
	// adopts the lease.
	ErrRestart = errors.New("told to restart")
)
