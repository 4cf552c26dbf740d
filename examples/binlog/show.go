package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// show makes or removes a file that shows where the role is. It stands in for
// the address where nobody may move one.
func show(a act, args []string, dir string) (int, error) {
	if len(args) != 1 || dir == "" {
		return exitUsage, errors.New("want up or down, and a state directory")
	}
	file := filepath.Join(dir, "role")
	_, err := os.Stat(file)
	have := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return exitUnknown, err
	}
	switch up := args[0] == "up"; {
	case !up && args[0] != "down":
		return exitUsage, fmt.Errorf("neither up nor down: %q", args[0])
	case up == have:
		return exitAlready, nil
	case up:
		if err := a.mayServe(); err != nil {
			return exitUnchanged, err
		}
		if err := os.WriteFile(file, []byte("primary\n"), 0o644); err != nil {
			return exitUnknown, err
		}
	default:
		if err := os.Remove(file); err != nil {
			return exitUnknown, err
		}
	}
	return exitDone, nil
}
