package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// What names may look like. They become file names, systemd instances and key
// segments, so all of them are held to what is harmless in each.
var (
	namePattern = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\z`)
	userPattern = regexp.MustCompile(`\A(?:[A-Za-z_][A-Za-z0-9_.-]{0,30}\$?|[0-9]{1,10})\z`)
)

const nameRule = "a name has up to 64 letters, digits, dots, dashes and underscores, and begins with a letter or digit"

// CheckName returns nil for what can be the name of a plugin, as of a service or a
// node, else what a name has to be.
func CheckName(name string) error {
	if namePattern.MatchString(name) {
		return nil
	}
	return fmt.Errorf("%q is no name: %s", name, nameRule)
}

// absolute says what is wrong with a path that has to be absolute.
func absolute(path string) error {
	switch {
	case path == "":
		return fmt.Errorf("is empty; write an absolute path")
	case strings.ContainsRune(path, 0):
		return fmt.Errorf("has a NUL byte in it; write a plain path")
	case !filepath.IsAbs(path):
		return fmt.Errorf("%q is not absolute; write the whole path from /", path)
	}
	return nil
}
