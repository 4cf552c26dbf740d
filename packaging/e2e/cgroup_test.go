package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroupMounts returns where cgroups are mounted, those of version 2 first. On
// hosts with both, systemd-nspawn uses the tree of systemd's own as well.
func cgroupMounts() (v2, v1 []string, err error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, nil, err
	}
	for line := range strings.Lines(string(data)) {
		where, what, ok := strings.Cut(line, " - ")
		if !ok {
			continue
		}
		at := strings.Fields(where)[4]
		switch strings.Fields(what)[0] {
		case "cgroup2":
			v2 = append(v2, at)
		case "cgroup":
			v1 = append(v1, at)
		}
	}
	if len(v2) == 0 {
		return nil, nil, errors.New("no cgroups of version 2 are mounted: hosts need them")
	}
	return v2, v1, nil
}

// makeCgroup makes a cgroup of version 2 and opens it.
func makeCgroup(name string) (*os.File, error) {
	v2, _, err := cgroupMounts()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(v2[0], name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make a cgroup: %w", err)
	}
	return os.Open(dir)
}

// sweepCgroups removes all cgroups whose names begin so, in which no process is.
func sweepCgroups(prefix string) error {
	v2, v1, err := cgroupMounts()
	if err != nil {
		return err
	}
	for _, mount := range append(v2, v1...) {
		ours, err := filepath.Glob(filepath.Join(mount, prefix+"*"))
		if err != nil {
			return err
		}
		for _, dir := range ours {
			if err := removeCgroup(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeCgroup removes a cgroup with all below it, the deepest first.
func removeCgroup(dir string) error {
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all = append(all, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look into a cgroup: %w", err)
	}
	for _, path := range slices.Backward(all) {
		if err := unix.Rmdir(path); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove cgroup %s: %w", path, err)
		}
	}
	return nil
}
