package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// stateDir is where a part keeps what has to last. The directory above it is the
// supervisor's own.
func (h Host) stateDir(part string) string {
	if h.StateDir == "" {
		return ""
	}
	dir := filepath.Join(h.StateDir, "plugins", part)
	if whole, err := filepath.Abs(dir); err == nil { // a plugin is in another directory
		dir = whole
	}
	return dir
}

// stateTime is how long the making of a state directory may take: a demotion may
// wait for it, and needs no such directory.
const stateTime = 500 * time.Millisecond

// keepState makes sure of a part's state directory, for that user alone; without
// a name for the supervisor's own. A file system that cannot be written, or does
// not answer, costs no demotion: that is the error's reader to see to.
func keepState(ctx context.Context, dir, user string) error {
	if dir == "" {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, stateTime, errors.New("its file system does not answer"))
	defer cancel()
	return onDisk(ctx, "make state directory "+dir, func() error { return makeState(dir, user) })
}

func makeState(dir, name string) error {
	// Others only pass through: each sees its own.
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	// Whatever the umask, and whoever it was made for before.
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o711), os.Chmod(dir, 0o700)); err != nil {
		return fmt.Errorf("close state directory: %w", err)
	}
	if name == "" {
		return nil
	}
	cred, _, err := become(name)
	if err == nil && cred != nil {
		err = os.Chown(dir, int(cred.Uid), int(cred.Gid))
	}
	if err != nil {
		return fmt.Errorf("give state directory %s to %s: %w", dir, name, err)
	}
	return nil
}
