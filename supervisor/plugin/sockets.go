package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// maxSocket is the most bytes that the path of a socket can have (unix(7)).
const maxSocket = 107

// socketName is room for the name that a plugin gives its socket. go-plugin
// makes it of "plugin" and up to ten digits.
const socketName = len("plugin") + 10

// sockets are the directories of one part's processes, each with one of its
// own, which only the supervisor's user can enter.
type sockets struct {
	dir string // holds them, and nothing of anybody else; empty: a temporary one

	mu   sync.Mutex
	next int
}

// clear ends the processes of a supervisor before this one, and then removes
// what they have left. It returns soon after ctx ends.
func (s *sockets) clear(ctx context.Context) error {
	if s.dir == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, deathTime)
	defer cancel()
	orphans, err := s.orphans()
	if err != nil {
		return fmt.Errorf("find what is left of an earlier process: %w", err)
	}
	var left []error
	for _, o := range orphans {
		left = append(left, o.end(ctx))
	}
	if err := errors.Join(left...); err != nil {
		return err
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("remove what is left of an earlier process: %w", err)
	}
	return nil
}

// add makes the directory of one process.
func (s *sockets) add() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	holder := s.dir
	if holder == "" {
		var err error
		if holder, err = os.MkdirTemp("", "deputy-plugin-"); err != nil {
			return "", fmt.Errorf("make a directory for a socket: %w", err)
		}
	}
	s.next++
	dir := filepath.Join(holder, strconv.Itoa(s.next))
	if over := len(dir) + 1 + socketName - maxSocket; over > 0 {
		shorten := "the plugin's name, the service's or --run-dir"
		if s.dir == "" {
			_ = os.Remove(holder)
			shorten = "TMPDIR"
		}
		return "", fmt.Errorf("make a socket in %s: its path could be %d bytes too long: shorten %s: %w", dir, over, shorten, syscall.ENAMETOOLONG)
	}
	for _, d := range []string{holder, dir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return "", fmt.Errorf("make a directory for a socket: %w", err)
		}
	}
	return dir, nil
}

// remove removes the directory of a process that is gone, and with the last
// one what holds them.
func (s *sockets) remove(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = os.RemoveAll(dir) // what stays is removed at the next start
	_ = os.Remove(dir + recordSuffix)
	_ = os.Remove(filepath.Dir(dir))
}
