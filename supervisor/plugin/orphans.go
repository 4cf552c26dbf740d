package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"
)

// An orphan is a process whose supervisor is dead. It ends by itself, but not
// at once, and not at all while it is stopped; until then it could go on with a
// promotion. So the supervisor records each process before its first call, and
// the next one ends what is left before it starts another. A process without a
// record has had no call.
type orphan struct {
	dir    string // of its socket
	leader relative
}

// recordSuffix makes the path of a record of that of the process's directory.
const recordSuffix = ".process"

// record notes which process has a directory. A symbolic link is there as a
// whole or not at all, and needs no room where the disk is full.
func (s *sockets) record(dir string, pid int) error {
	if s.dir == "" {
		return nil // nobody would look there
	}
	r, ok := look(pid)
	if !ok || r.parent != os.Getpid() {
		return fmt.Errorf("record process %d: it is not there", pid)
	}
	if err := os.Symlink(fmt.Sprintf("%d.%d", r.pid, r.start), dir+recordSuffix); err != nil {
		return fmt.Errorf("record process %d: %w", pid, err)
	}
	return nil
}

// orphans returns the processes that have a record.
func (s *sockets) orphans() ([]orphan, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []orphan
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), recordSuffix)
		if !ok {
			continue
		}
		text, err := os.Readlink(filepath.Join(s.dir, e.Name()))
		if err != nil {
			return nil, err
		}
		o := orphan{dir: filepath.Join(s.dir, name)}
		if _, err := fmt.Sscanf(text, "%d.%d", &o.leader.pid, &o.leader.start); err != nil {
			return nil, fmt.Errorf("read %s: not a record of a process: %q: remove it once the process is gone", filepath.Join(s.dir, e.Name()), text)
		}
		all = append(all, o)
	}
	return all, nil
}

// end kills the process with all its family, and returns when they are gone,
// or with an error when ctx ends.
func (o orphan) end(ctx context.Context) error {
	met := o.leader.lives()
	o.leader.signal(unix.SIGSTOP) // so that it starts nothing more while we look
	var left []relative
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		found, unclear := o.family(met)
		// A relative whose parents are dead is found no more, yet may live.
		for _, r := range left {
			if !slices.ContainsFunc(found, r.same) && r.lives() {
				found = append(found, r)
			}
		}
		if left = found; len(left)+len(unclear) == 0 {
			return nil
		}
		for _, r := range left {
			r.kill()
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			var pids []string
			for _, r := range slices.Concat(left, unclear) {
				pids = append(pids, strconv.Itoa(r.pid))
			}
			return fmt.Errorf("an earlier process, of the socket in %s, still runs: pid %s: kill it by hand", o.dir, strings.Join(pids, ", "))
		}
	}
}

// family returns the living among the process and its family. Unless it was
// met alive, its session may be a later one of its number: then those count
// that have inherited the directory in their environment, and those are unclear
// that cannot be asked for it yet.
func (o orphan) family(met bool) (found, unclear []relative) {
	now, ok := look(o.leader.pid)
	if ok && !now.same(o.leader) {
		return nil, nil // a number is not given away while anybody of its session lives
	}
	for _, r := range family(o.leader.pid) {
		ours, known := met, true
		if !met {
			ours, known = r.has(goplugin.EnvUnixSocketDir + "=" + o.dir)
		}
		switch {
		case !known:
			unclear = append(unclear, r)
		case ours:
			found = append(found, r)
		}
	}
	if ok {
		found = append(found, now)
	}
	return found, unclear
}

// has reports whether a process was started with that in its environment. That
// is not known while it is between two programs, when it has none or a part.
func (r relative) has(setting string) (has, known bool) {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(r.pid) + "/environ")
	if err != nil {
		return false, true // it has ended, or is not ours to look at
	}
	now, lives := look(r.pid)
	return slices.Contains(strings.Split(string(env), "\x00"), setting), !lives || !now.same(r) || now.environ == len(env)
}
