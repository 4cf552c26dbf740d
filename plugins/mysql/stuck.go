package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
)

// unanswered decides what becomes of a server that did not do as it was asked;
// why tells what it did. One that does not run is no primary, and comes back
// read-only. One that does not listen yet, or no longer, is waited for, if there
// is time. What else there is, is ended.
func (m *mysql) unanswered(ctx context.Context, forced bool, why error) error {
	down := isDown(why)
	if m.Unit == "" {
		if down {
			return fmt.Errorf("nobody listens at %s, so that it serves nobody: %w", m.server, sdk.ErrAlready)
		}
		return fmt.Errorf("%w; name the server's unit (unit = \"mariadb.service\"), and it is ended when it does not obey", why)
	}
	pids, err := m.processes()
	switch {
	case err != nil:
		return errors.Join(why, err)
	case len(pids) == 0 && down:
		return fmt.Errorf("%s has no process: %w", m.Unit, sdk.ErrAlready)
	case len(pids) == 0:
		return fmt.Errorf("%w; and %s has no process: is that the unit of this server", why, m.Unit)
	case !forced && !errors.Is(why, errFrozen):
		return why
	case m.OnStuck != "kill":
		return fmt.Errorf("%w; on_stuck = %q leaves it to whatever fences this node", why, m.OnStuck)
	}
	m.log.Error("the server is killed", "unit", m.Unit, "cause", why)
	if err := m.killServer(ctx); err != nil {
		return errors.Join(why, err)
	}
	sdk.Note(ctx, "the processes of %s are killed, for %s", m.Unit, why)
	return nil
}

// isDown reports whether nobody listens where the server should be.
func isDown(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}

// killServer kills the processes of the server's unit and returns when none of
// them will run its program any more: a big one takes seconds to give its memory
// back. It needs CAP_KILL, and nobody's help. What systemd starts afterwards
// starts read-only.
func (m *mysql) killServer(ctx context.Context) error {
	pids, err := m.processes()
	if err != nil {
		return err
	}
	held := map[int]int{}
	defer func() {
		for _, fd := range held {
			unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return fmt.Errorf("hold process %d of %s: %w", pid, m.Unit, err)
		}
		held[pid] = fd
	}
	// What is in the group still is what is held: a number may have become
	// another's before.
	if pids, err = m.processes(); err != nil {
		return err
	}
	for _, pid := range pids {
		fd, ok := held[pid]
		if !ok {
			continue
		}
		err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("kill process %d of %s: %w: give deputy CAP_KILL", pid, m.Unit, err)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d of %s: %w", pid, m.Unit, err)
		}
	}
	for pid, fd := range held {
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(pollEvery/time.Millisecond))
			if n > 0 && err == nil || exiting("/proc", pid) {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("wait for the end of process %d of %s: %w", pid, m.Unit, context.Cause(ctx))
			}
		}
	}
	return nil
}

// exiting reports whether each thread of a process is on its way out of the
// kernel, from where none comes back (PF_EXITING, proc_pid_stat(5)).
func exiting(proc string, pid int) bool {
	stats, err := filepath.Glob(filepath.Join(proc, strconv.Itoa(pid), "task/*/stat"))
	if err != nil || len(stats) == 0 {
		return false
	}
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // gone meanwhile
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if err != nil || len(fields) < 7 {
			return false
		}
		const flagExiting = 0x4
		if flags, err := strconv.ParseUint(fields[6], 10, 64); err != nil || flags&flagExiting == 0 {
			return false
		}
	}
	return true
}

// processes are those of the server's unit.
func (m *mysql) processes() ([]int, error) {
	top := m.cgroups
	for _, at := range []string{"systemd", "unified"} { // version 1 of control groups, or both
		if _, err := os.Stat(filepath.Join(m.cgroups, at, "system.slice")); err == nil {
			top = filepath.Join(m.cgroups, at)
			break
		}
	}
	var all []int
	within := false
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV):
			return fs.SkipDir // meanwhile
		case err != nil:
			return err
		case !d.IsDir() || path == top:
			return nil
		}
		unit := d.Name() == m.Unit
		within = strings.Contains(path+"/", "/"+m.Unit+"/")
		if !within && (!strings.HasSuffix(d.Name(), ".slice") || d.Name() == "user.slice") {
			return fs.SkipDir
		}
		if !within && !unit {
			return nil
		}
		text, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			return err
		}
		for _, field := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				return err
			}
			all = append(all, pid)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the processes of %s: %w", m.Unit, err)
	}
	return all, nil
}
