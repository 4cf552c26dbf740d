package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/deputy-ha/deputy/sdk"
)

// Leave to run is a file per unit: while it is not there, the condition in the
// unit's drop-in has systemd start it for nobody. It says for which term leave
// was given, in a form that the unit itself can read as its EnvironmentFile=,
// so that the term reaches what the unit writes to.

// allowPath is the file that gives a unit leave to run. The drop-in that deputy
// enable writes names it, too.
func (s *systemd) allowPath(unit string) string {
	return filepath.Join(s.place.run, s.service, "allow-"+unit)
}

// allow gives a unit leave to run.
func (s *systemd) allow(unit string, t *sdk.Transition) error {
	path := s.allowPath(unit)
	text := fmt.Sprintf("DEPUTY_SERVICE=%s\nDEPUTY_PART=%s\nDEPUTY_NODE=%s\nDEPUTY_TERM=%d\n", s.service, s.part, strconv.Quote(t.Node), t.Term)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("allow %s: %w", unit, err)
	}
	fresh := path + "~"
	err := os.WriteFile(fresh, []byte(text), 0o644)
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		_ = os.Remove(fresh)
		return fmt.Errorf("allow %s: %w", unit, err)
	}
	return nil
}

// allowed returns the term for which a unit has leave to run, and whether it
// has any.
func (s *systemd) allowed(unit string) (sdk.Term, bool) {
	text, err := os.ReadFile(s.allowPath(unit))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "DEPUTY_TERM="); ok {
			term, _ := strconv.ParseUint(n, 10, 64)
			return sdk.Term(term), true
		}
	}
	return 0, true
}

// forbid takes leave from units, so that nothing starts them any more, and
// reports whether one had it. What runs goes on running.
func (s *systemd) forbid(units []string) (had bool, err error) {
	var wrong []error
	for _, unit := range units {
		switch err := os.Remove(s.allowPath(unit)); {
		case err == nil:
			had = true
		case !errors.Is(err, fs.ErrNotExist):
			wrong = append(wrong, fmt.Errorf("forbid %s: %w", unit, err))
		}
	}
	return had, errors.Join(wrong...)
}

// leftover are the units that this part gave leave to with other settings than
// it has now.
func (s *systemd) leftover() []string {
	files, _ := filepath.Glob(filepath.Join(s.place.run, s.service, "allow-*.service"))
	var all []string
	for _, file := range files {
		unit := strings.TrimPrefix(filepath.Base(file), "allow-")
		text, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(text), "\nDEPUTY_PART="+s.part+"\n") && !slices.Contains(s.names(), unit) {
			all = append(all, unit)
		}
	}
	return all
}
