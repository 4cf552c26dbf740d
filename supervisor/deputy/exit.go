package main

import (
	"errors"
	"io/fs"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/control"
)

// What a command exits with: those of sysexits(3) where it has one.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 64 // EX_USAGE
	exitUnreachable = 69 // EX_UNAVAILABLE: etcd or the daemon
	exitDenied      = 77 // EX_NOPERM
	exitConfig      = 78 // EX_CONFIG
)

var (
	errUsage  = errors.New("wrong usage")
	errConfig = errors.New("wrong configuration")
)

// A marked error reads as the one it holds and is of a kind besides.
type marked struct {
	error
	kind error
}

func (m marked) Unwrap() []error { return []error{m.error, m.kind} }

func mark(err, kind error) error {
	if err == nil {
		return nil
	}
	return marked{err, kind}
}

// exitCode returns what a command ends with that ended with err.
func exitCode(err error) int {
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, errConfig), errors.Is(err, control.ErrDefinition):
		return exitConfig
	case errors.Is(err, control.ErrDenied), errors.Is(err, fs.ErrPermission):
		return exitDenied
	case errors.Is(err, supervisor.ErrUnreachable), errors.Is(err, control.ErrNoDaemon), errors.Is(err, control.ErrSilent):
		return exitUnreachable
	}
	return exitFailed
}
