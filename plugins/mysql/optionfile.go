package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// options are what option files say, by group and by name with - for _. What
// stands later counts (MySQL manual, "Using Option Files").
type options map[string]map[string]string

// The bounds of option files.
const (
	maxOptionFile  = 1 << 20
	maxOptionFiles = 200
)

// readOptions reads an option file and those that it includes. With private it
// refuses one that everybody may read: there are passwords in it.
func readOptions(file string, private bool) (options, error) {
	r := optionReader{into: options{}, private: private}
	return r.into, r.read(file)
}

type optionReader struct {
	into    options
	private bool
	files   int
}

func (r *optionReader) read(file string) error {
	if r.files++; r.files > maxOptionFiles {
		return fmt.Errorf("read option file %s: more than %d files include one another", file, maxOptionFiles)
	}
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return fmt.Errorf("read option file: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("read option file %s: it is no regular file", file)
	case info.Size() > maxOptionFile:
		return fmt.Errorf("read option file %s: it is larger than %d KiB", file, maxOptionFile>>10)
	case r.private && info.Mode().Perm()&0o007 != 0:
		return fmt.Errorf("read option file %s: everybody on this machine may read or change it (mode %04o): chmod 600 %s, then change the password", file, info.Mode().Perm(), file)
	case info.Mode().Perm()&0o002 != 0:
		return nil // the server itself ignores one that everybody may change
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read option file: %w", err)
	}
	group := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '!':
			if err := r.include(line); err != nil {
				return err
			}
		case line[0] == '[':
			name, _, _ := strings.Cut(line[1:], "]")
			group = strings.ToLower(strings.TrimSpace(name))
		case group != "":
			key, value, _ := strings.Cut(line, "=")
			if r.into[group] == nil {
				r.into[group] = map[string]string{}
			}
			key = strings.ReplaceAll(strings.ToLower(strings.TrimSpace(key)), "_", "-")
			r.into[group][key] = optionValue(value)
		}
	}
	return nil
}

// include reads what a line !include or !includedir names.
func (r *optionReader) include(line string) error {
	word, path, _ := strings.Cut(line, " ")
	path = strings.TrimSpace(path)
	switch word {
	case "!include":
		if err := r.read(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	case "!includedir":
		files, _ := filepath.Glob(filepath.Join(path, "*.cnf"))
		slices.Sort(files)
		for _, file := range files {
			if err := r.read(file); err != nil {
				return err
			}
		}
	}
	return nil
}

// optionValue is a value without its quotes, escapes and comment.
func optionValue(s string) string {
	s = strings.TrimSpace(s)
	quote := byte(0)
	if s != "" && (s[0] == '"' || s[0] == '\'') {
		quote = s[0]
		s = s[1:]
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			switch s[i] {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case 'r':
				b.WriteByte('\r')
			case 's':
				b.WriteByte(' ')
			default:
				b.WriteByte(s[i])
			}
		case quote != 0 && c == quote:
			return b.String()
		case quote == 0 && c == '#' && i > 0 && (s[i-1] == ' ' || s[i-1] == '\t'):
			return strings.TrimSpace(b.String())
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// startsReadOnly reports what the server's option files say of how it starts;
// known is false where they do not tell.
func startsReadOnly(files []string) (readOnly, known bool) {
	for _, file := range files {
		found, err := readOptions(file, false)
		if err != nil {
			continue
		}
		for group, values := range found {
			if !isServerGroup(group) {
				continue
			}
			known = true
			for key, value := range values {
				switch strings.TrimPrefix(key, "loose-") {
				case "read-only", "super-read-only":
					readOnly = readOnly || isOn(value)
				}
			}
		}
	}
	return readOnly, known
}

// isServerGroup reports whether the server reads a group, of one of its
// versions at least.
func isServerGroup(group string) bool {
	return group == "server" || strings.HasPrefix(group, "mysqld") || strings.HasPrefix(group, "mariadb") && !strings.Contains(group, "client")
}

func isOn(value string) bool {
	switch strings.ToLower(value) {
	case "", "1", "on", "true", "no_lock", "no_lock_no_admin": // an option without a value is on
		return true
	}
	return false
}
