package plugin

import (
	"errors"
	"os"
	"syscall"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// What callers branch on.
var (
	// ErrNotFound is a part whose `use` names no plugin of this host.
	ErrNotFound = errors.New("no such plugin")
	// ErrUnsafe is a program that others than root and the supervisor's user
	// could change.
	ErrUnsafe = errors.New("others could change it")
	// ErrVersion is a plugin that speaks no version of the protocol that this
	// host does.
	ErrVersion = errors.New("speaks another protocol")
	// ErrContract is a plugin that cannot be hosted for what it says it is.
	ErrContract = errors.New("breaks the contract")
	// ErrActing is an act asked for while another runs.
	ErrActing = errors.New("another act still runs")
	// ErrKilled is an act that Kill has ended.
	ErrKilled = errors.New("killed")
	// ErrFrozen is a process that has given no sign of life for too long.
	ErrFrozen = errors.New("frozen")
	// ErrClosed is a call of a plugin that is not open.
	ErrClosed = errors.New("not open")
)

// Lasting reports whether a plugin that could not be opened for err will not
// open later either, unless somebody changes something first.
func Lasting(err error) bool {
	for _, lasting := range []error{ErrNotFound, ErrUnsafe, ErrVersion, ErrContract, os.ErrNotExist, os.ErrPermission, syscall.ENOEXEC, syscall.ENAMETOOLONG} {
		if errors.Is(err, lasting) {
			return true
		}
	}
	var key *sdk.KeyError
	var mistakes wire.Mistakes
	return errors.As(err, &key) || errors.As(err, &mistakes)
}
