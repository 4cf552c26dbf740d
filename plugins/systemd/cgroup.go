package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// processes returns those in a control group and below it. systemd says of a
// unit that it is inactive while some are left there: with KillMode=process,
// with SendSIGKILL=no, after a fork that came in between. A group that is gone
// has none.
//
// The path is the unit's as systemd has it; the groups are those of version 2,
// or systemd's own of version 1 (cgroups(7)).
func processes(mounted, group string) ([]string, error) {
	if group == "" || group == "/" {
		return nil, nil
	}
	top := filepath.Join(tree(mounted), group)
	var all []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			return nil
		}
		if err == nil {
			var text []byte
			text, err = os.ReadFile(filepath.Join(path, "cgroup.procs"))
			all = append(all, strings.Fields(string(text))...)
		}
		if gone(err) {
			return fs.SkipDir // meanwhile
		}
		return err
	})
	if err != nil && !gone(err) {
		return nil, fmt.Errorf("read the processes of %s: %w", group, err)
	}
	return all, nil
}

// tree is where systemd's own groups begin.
func tree(mounted string) string {
	for _, at := range []string{"", "unified", "systemd"} {
		if _, err := os.Stat(filepath.Join(mounted, at, "cgroup.procs")); err == nil {
			return filepath.Join(mounted, at)
		}
	}
	return mounted
}

// groupOf is the control group of a unit for which systemd does not tell one:
// below its slice, whose own name tells what it is below (systemd.slice(5)).
func groupOf(slice, unit string) string {
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok {
		return ""
	}
	path := "/"
	if name != "-" {
		for i, r := range name + "-" {
			if r == '-' {
				path = filepath.Join(path, name[:i]+".slice")
			}
		}
	}
	return filepath.Join(path, unit)
}

// gone reports whether a control group is not there any more.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }
