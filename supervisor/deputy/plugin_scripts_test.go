package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/deputy-ha/deputy/sdk/sdktest"
)

// goodScript keeps a file on the primary, "$1".
const goodScript = `#!/bin/sh
case $DEPUTY_ACTION in
promote)
	test ! -e "$1" || exit 10
	sleep 0.1
	: >"$1" ;;
demote)
	test -e "$1" || exit 10
	sleep 0.05
	rm "$1" ;;
check) echo looked ;;
esac
`

// TestScriptsAreExamined changes one thing in a good script, and sees which
// cases find it.
func TestScriptsAreExamined(t *testing.T) {
	for _, c := range []struct {
		name     string
		old, new string // in the script
		only     string // the cases to run
		fails    string // those that find it
	}{
		{"good", "", "", "^(settings|demote.*|promote.*|adopt|repeat|cancel|kill-.*|host-death|ten-checks|check-.*)$", ""},
		{"needs its own process", `test -e "$1" || exit 10`, `test -e "$1" || exit 1`, "^(demote-first|promote|adopt)$", "demote-first"},
		{"not again", `test ! -e "$1" || exit 10`, `test ! -e "$1" || exit 75`, "^(demote.*|promote.*)$", "promote-twice"},
		{"does not look", `test ! -e "$1" || exit 10`, ``, "^(demote.*|promote.*|adopt|repeat)$", "adopt"},
		{"too early", "\tsleep 0.1\n\t: >\"$1\" ;;", "\t(sleep 0.5; : >\"$1\") >/dev/null 2>&1 & ;;", "^(demote.*|promote)$", "promote"},
		{"leaves a lock", "case $DEPUTY_ACTION in\npromote)", "mkdir \"$1.lock\" || exit 1\ntrap 'rmdir \"$1.lock\"' EXIT\ncase $DEPUTY_ACTION in\npromote)", "^(demote.*|promote.*|adopt|kill-promote)$", "kill-promote"},
		{"escapes", "\tsleep 0.1\n", "\tsetsid -f sh -c 'sleep 0.08; : >\"$0\"' \"$1\" >/dev/null 2>&1; sleep 0.1\n", "^(demote.*|promote|kill-promote|cancel)$", "cancel kill-promote"},
		{"checks with a hammer", "echo looked", `rm -f "$1"`, "^(promote|adopt|check-.*)$", "check-changes-nothing"},
		{"checks one at a time", "echo looked", `mkdir "$1.check" || exit 9; sleep 0.05; rmdir "$1.check"`, "^(promote|check-.*|ten-checks)$", "ten-checks"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(goodScript, c.old) {
				t.Fatalf("the script has no %q", c.old)
			}
			dir := t.TempDir()
			hook, file := filepath.Join(dir, "hook"), filepath.Join(dir, "primary")
			if err := os.WriteFile(hook, []byte(strings.Replace(goodScript, c.old, c.new, 1)), 0o755); err != nil {
				t.Fatal(err)
			}
			argv := `["` + hook + `", "` + file + `"]`
			settings := filepath.Join(dir, "hooks.toml")
			if err := os.WriteFile(settings, []byte("promote = "+argv+"\ndemote = "+argv+"\ncheck = "+argv+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			a := &app{env: os.Getenv, paths: paths{state: dir, services: dir}}
			o := origin{file: settings, node: "db1"}
			host, part, _, err := o.of(a, picked{use: execPlugin})
			if err != nil {
				t.Fatal(err)
			}
			results, err := sdktest.Examine(t.Context(), &scripts{app: a, host: host, part: part, origin: o}, sdktest.Config{
				Settings: part.Config,
				Only:     regexp.MustCompile(c.only),
				Promoted: func() (bool, error) {
					_, err := os.Stat(file)
					if errors.Is(err, fs.ErrNotExist) {
						return false, nil
					}
					return err == nil, err
				},
			}, nil)
			if err != nil {
				t.Fatal(err)
			}
			var failed []string
			var all strings.Builder
			for _, r := range results {
				all.WriteString(r.String() + "\n")
				if r.Verdict == sdktest.Failed {
					failed = append(failed, r.Case)
				}
			}
			if !slices.Equal(failed, strings.Fields(c.fails)) {
				t.Errorf("cases that fail: %v, want %s\n%s", failed, c.fails, all.String())
			}
		})
	}
}

var _ sdktest.Subject = (*scripts)(nil)
