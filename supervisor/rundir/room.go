package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// takeRoom opens a file of a fixed size all of whose blocks are there, so that
// writing to it needs none. A missing one begins with the given content, and
// is never seen with less; one that is there keeps its own.
func takeRoom(file string, content []byte) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return newRoom(file, content)
	}
	if err != nil {
		return nil, err
	}
	if err := allocate(f, len(content)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func newRoom(file string, content []byte) (*os.File, error) {
	f, err := os.OpenFile(file+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return nil, err
	}
	if err = allocate(f, len(content)); err == nil {
		_, err = f.WriteAt(content, 0)
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		f.Close()
		os.Remove(file + ".new")
		return nil, err
	}
	return f, nil
}

// allocate gives a file exactly so many bytes, all backed by blocks.
func allocate(f *os.File, size int) error {
	if err := f.Truncate(int64(size)); err != nil {
		return err
	}
	err := unix.Fallocate(int(f.Fd()), 0, 0, int64(size))
	if errors.Is(err, unix.EOPNOTSUPP) {
		// What is written once has its blocks where files are written in place.
		content := make([]byte, size)
		if _, err := f.ReadAt(content, 0); err != nil {
			return err
		}
		_, err := f.WriteAt(content, 0)
		return err
	}
	if err != nil {
		return fmt.Errorf("take room for %s: %w", f.Name(), err)
	}
	return nil
}

// hold locks a file for this process, and writes its pid there. The lock ends
// with the process, and is not handed on to what it starts.
func hold(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w: %s holds %s", ErrHeld, holder(f), file)
	} else if err != nil {
		err = fmt.Errorf("lock %s: %w", file, err)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	// The pid is for people; a full disk must not keep a supervisor from
	// starting, as it may have something to demote.
	pid := []byte(strconv.Itoa(os.Getpid()) + "\n")
	if _, err := f.WriteAt(pid, 0); err == nil {
		_ = f.Truncate(int64(len(pid)))
	}
	return f, nil
}

// holder names who wrote its pid into a lock.
func holder(f *os.File) string {
	b := make([]byte, 16)
	n, _ := f.ReadAt(b, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		return "a process that could not say its pid"
	}
	return "pid " + strconv.Itoa(pid)
}

// group may read what is in run directories, where it exists.
const group = "deputy"

// makeDir makes a directory with its parents. The group may look into it, where
// there is one; everybody may pass, for the control socket in it tells by
// itself who may do what, and nothing else in it is for others. Where this
// process may not give it to the group, somebody else (systemd) has made it as wanted.
func makeDir(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	err := os.Mkdir(path, 0o751)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o751); err != nil { // whatever the umask is
		return err
	}
	if g, err := user.LookupGroup(group); err == nil {
		if gid, err := strconv.Atoi(g.Gid); err == nil {
			_ = os.Chown(path, -1, gid) // only root, and members of the group, may
		}
	}
	return nil
}
