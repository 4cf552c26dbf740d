package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// killByHand kills the processes of units from an instant on until ctx ends,
// without PID 1, the bus and polkit, which may all be late: whoever holds a unit
// without a lease has no time for them. It needs CAP_KILL; without it PID 1 is
// the only one who can.
func (s *systemd) killByHand(ctx context.Context, units []string, from time.Time) {
	sleep(ctx, time.Until(from))
	for wait := again; ctx.Err() == nil; wait = min(2*wait, mostAway) {
		for _, unit := range units {
			n, err := killUnit(s.place.cgroups, unit)
			switch {
			case errors.Is(err, unix.EPERM):
				s.log.Debug("processes of the unit not killed directly: CAP_KILL is missing", "unit", unit)
				return
			case err != nil:
				s.log.Warn("processes of the unit not killed directly", "unit", unit, "cause", err)
			case n > 0:
				s.log.Info("processes of the unit killed directly", "unit", unit, "count", n)
			}
		}
		sleep(ctx, wait)
	}
}

// killUnit kills all processes in the control group of a unit, and returns how
// many there were.
func killUnit(mounted, unit string) (killed int, err error) {
	group, err := find(mounted, unit)
	if err != nil || group == "" {
		return 0, err
	}
	pids, err := processes(mounted, group)
	if err != nil {
		return 0, err
	}
	held := make(map[string]int, len(pids))
	defer func() {
		for _, fd := range held {
			unix.Close(fd)
		}
	}()
	for _, text := range pids {
		pid, err := strconv.Atoi(text)
		if err != nil {
			return 0, fmt.Errorf("read the processes of %s: %w", group, err)
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue // it has ended by itself
		}
		if err != nil {
			return 0, fmt.Errorf("hold process %d of %s: %w", pid, unit, err)
		}
		held[text] = fd
	}
	// What is in the group still is what is held: a number may have become
	// another's before.
	if pids, err = processes(mounted, group); err != nil {
		return 0, err
	}
	for _, pid := range pids {
		fd, ok := held[pid]
		if !ok {
			continue // it is new, and has its turn the next time
		}
		err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		if err == nil {
			killed++
		} else if !errors.Is(err, unix.ESRCH) {
			return killed, fmt.Errorf("kill process %s of %s: %w", pid, unit, err)
		}
	}
	return killed, nil
}

// find returns the control group of a unit of the system, empty where it has
// none: it lies below slices alone, and not below those of users, who may have
// units of the same name.
func find(mounted, unit string) (group string, err error) {
	top := tree(mounted)
	err = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case gone(err):
			return fs.SkipDir // meanwhile
		case err != nil:
			return err
		case !d.IsDir() || path == top:
			return nil
		case d.Name() == unit:
			group = strings.TrimPrefix(path, top)
			return fs.SkipAll
		case !strings.HasSuffix(d.Name(), ".slice") || d.Name() == "user.slice":
			return fs.SkipDir
		}
		return nil
	})
	if err != nil && !gone(err) {
		return "", fmt.Errorf("look for the control group of %s: %w", unit, err)
	}
	return group, nil
}
