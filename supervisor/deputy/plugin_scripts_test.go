package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/sdktest"
	"github.com/deputy-ha/deputy/sdk/wire"
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
	sleep 0.1
	rm "$1" ;;
follow) echo "$DEPUTY_PRIMARY_ADDRESS" >"$1.follows" ;;
fence) test "$DEPUTY_PREVIOUS_NODE" = victim || exit 20 ;;
check) echo looked ;;
esac
`

// A scriptBreach is the good script with something changed.
type scriptBreach struct {
	name   string
	change []string // old, new, ...
	breaks string   // the cases that find it, and no other does
}

func scriptBreaches() []scriptBreach {
	const work, undo = "\tsleep 0.1\n\t: >", "\tsleep 0.1\n\trm"
	const lock = "\ttest ! -e \"$1.lock\" || exit 1\n\ttrap 'rmdir \"$1.lock\"' EXIT\n\ttrap 'exit 1' TERM\n\tmkdir \"$1.lock\"\n"
	const knows = `= victim || exit 20`
	return []scriptBreach{
		{"needs its own process", []string{`test -e "$1" || exit 10`, `test -e "$1" || exit 1`}, "demote-first"},
		{ // and undone, what is still to come too, or another case would find that
			"too early",
			[]string{
				work + `"$1" ;;`, "\t: >\"$1.soon\"\n\t(sleep 0.5; mv \"$1.soon\" \"$1\") >/dev/null 2>&1 & ;;",
				"demote)\n", "demote)\n\trm -f \"$1.soon\"\n",
			},
			"promote",
		},
		{"not again", []string{`test ! -e "$1" || exit 10`, `test ! -e "$1" || exit 75`}, "promote-twice"},
		{"does not look", []string{`test ! -e "$1" || exit 10`, ``}, "adopt"},
		{"not a third attempt", []string{"case $DEPUTY_ACTION in\np", "test \"$DEPUTY_ATTEMPT\" != 3 || exit 1\ncase $DEPUTY_ACTION in\np"}, "repeat"},
		{ // whatever ends it
			"escapes",
			[]string{work, "\tsetsid -f sh -c 'sleep 0.08; : >\"$0\"' \"$1\" >/dev/null 2>&1\n" + work},
			"cancel deadline kill-promote host-death",
		},
		{"slow when forced", []string{undo, "\ttest $DEPUTY_MODE = planned || sleep 1\n" + undo}, "forced"},
		{"fences once", []string{knows, knows + `; mkdir "$1.fenced" || exit 1`}, "fence"},
		{"fences anybody", []string{knows, `!= "$DEPUTY_NODE" || exit 20`}, "fence-stranger"},
		{"follows by promoting", []string{`>"$1.follows"`, `>"$1"`}, "follow"},
		{ // where it could not tidy up
			"leaves a promote's lock",
			[]string{work, lock + work, "demote)\n", "demote)\n\ttest ! -e \"$1.lock\" || exit 1\n"},
			"kill-promote",
		},
		{"leaves a demote's lock", []string{undo, lock + undo}, "kill-demote"},
		{"checks with a hammer", []string{"echo looked", `rm -f "$1"`}, "check-changes-nothing"},
		{"checks one at a time", []string{"echo looked", `mkdir "$1.check" || exit 9; sleep 0.05; rmdir "$1.check"`}, "ten-checks"},
	}
}

// withoutBreach are the cases that no script breaks, and why.
func withoutBreach() map[string]string {
	return map[string]string{
		"start":        "exec is there already",
		"settings":     "exec judges its settings itself",
		"describe":     "exec says itself what it is",
		"demote-twice": "a script remembers nothing: its second demote is as its first, which is demote-first",
		"fence-self":   "exec refuses it itself",
		"output":       "its host reads what it prints",
	}
}

// scripted is the good script, or another one, for the examiner, with the file
// that it keeps on the primary.
func scripted(t *testing.T, script string) (s *scripts, file string) {
	t.Helper()
	dir := t.TempDir()
	hook, file := filepath.Join(dir, "hook"), filepath.Join(dir, "primary")
	if err := os.WriteFile(hook, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	argv := `["` + hook + `", "` + file + `"]`
	settings := filepath.Join(dir, "hooks.toml")
	text := "forced_bound = \"600ms\"\n"
	for _, act := range []string{"promote", "demote", "follow", "fence", "check"} {
		text += act + " = " + argv + "\n"
	}
	if err := os.WriteFile(settings, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	a := &app{env: os.Getenv, paths: paths{state: dir, services: dir}}
	o := origin{file: settings, node: "db1"}
	host, part, _, err := o.of(a, picked{use: execPlugin})
	if err != nil {
		t.Fatal(err)
	}
	return &scripts{app: a, host: host, part: part, origin: o}, file
}

// examineScript begins to run all cases on a script, and returns what waits for
// the results. They mostly wait, so more run at once than there are processors.
func examineScript(t *testing.T, busy chan struct{}, script string) func() []sdktest.Result {
	t.Helper()
	subject, file := scripted(t, script)
	c := sdktest.Config{
		Settings: subject.part.Config,
		Node:     sdk.Peer{Node: "db1"},
		Victim:   sdk.Peer{Node: "victim"},
		Promoted: func() (bool, error) {
			_, err := os.Stat(file)
			if errors.Is(err, fs.ErrNotExist) {
				return false, nil
			}
			return err == nil, err
		},
	}
	examined := make(chan error, 1)
	var results []sdktest.Result
	go func() {
		busy <- struct{}{}
		defer func() { <-busy }()
		var err error
		results, err = sdktest.Examine(t.Context(), subject, c, nil)
		examined <- err
	}()
	return func() []sdktest.Result {
		if err := <-examined; err != nil {
			t.Fatal(err)
		}
		return results
	}
}

// A host that is killed while a call is about to begin, as in the case
// kill-promote on a busy machine, neither starts the script nor panics.
func TestCallsOfAnEndedScriptHostStartNothing(t *testing.T) {
	subject, file := scripted(t, goodScript)
	for n := range 20 {
		h, err := subject.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Configure(t.Context(), wire.Setup{Service: "orders", Node: "db1", Config: subject.part.Config}); err != nil {
			t.Fatal(err)
		}
		promote := sdk.Transition{ID: strconv.Itoa(n), Action: sdk.Promote, Mode: sdk.Planned, Service: "orders", Node: "db1", Term: 1, Attempt: 1, Timeout: 10 * time.Second}
		var calls sync.WaitGroup
		calls.Go(func() { h.Do(t.Context(), promote, time.Second, func(string) {}) })
		if err := h.Kill(t.Context()); err != nil {
			t.Error(err)
		}
		calls.Wait()
		if r := h.Do(t.Context(), promote, time.Second, func(string) {}); r.Outcome != sdk.OutcomeUnchanged {
			t.Errorf("after the end: %v", r)
		}
		if _, err := h.Check(t.Context(), sdk.RolePrimary, 1); !errors.Is(err, errHostEnded) {
			t.Errorf("after the end: %v", err)
		}
		if _, err := os.Stat(file); err == nil {
			t.Fatal("the script has gone on after the end of its host")
		}
	}
}

// TestScriptsAreExamined sees that a good script passes, and that each case that
// applies to scripts is broken by one, or has its reason.
func TestScriptsAreExamined(t *testing.T) {
	t.Parallel()
	excused := withoutBreach()
	for _, r := range examineScript(t, make(chan struct{}, 1), goodScript)() {
		broken := slices.ContainsFunc(scriptBreaches(), func(b scriptBreach) bool {
			return slices.Contains(strings.Fields(b.breaks), r.Case)
		})
		switch _, is := excused[r.Case]; {
		case r.Verdict == sdktest.Failed:
			t.Errorf("the good script fails: %s", r)
		case r.Verdict == sdktest.Passed && !broken && !is:
			t.Errorf("case %s has no script that breaks its rule: add one to scriptBreaches", r.Case)
		case r.Verdict == sdktest.Skipped && (broken || is), broken && is:
			t.Errorf("case %s is %s, and needs no breach or no excuse", r.Case, r.Verdict)
		}
		delete(excused, r.Case)
	}
	for name := range excused {
		t.Errorf("there is no case %s", name)
	}
}

// TestBrokenScriptsAreFound changes one thing in the good script, and sees which
// of all cases find it.
func TestBrokenScriptsAreFound(t *testing.T) {
	busy := make(chan struct{}, 8)
	for _, b := range scriptBreaches() {
		t.Run(b.name, func(t *testing.T) {
			for i := 0; i < len(b.change); i += 2 {
				if strings.Count(goodScript, b.change[i]) != 1 {
					t.Fatalf("the script does not have %q once", b.change[i])
				}
			}
			results := examineScript(t, busy, strings.NewReplacer(b.change...).Replace(goodScript))
			t.Parallel() // so that all have begun before one is waited for
			var failed []string
			var all strings.Builder
			for _, r := range results() {
				if r.Verdict == sdktest.Failed {
					failed = append(failed, r.Case)
					all.WriteString(r.String() + "\n")
				}
			}
			if !slices.Equal(failed, strings.Fields(b.breaks)) {
				t.Errorf("cases that fail: %v, want %s\n%s", failed, b.breaks, all.String())
			}
		})
	}
}

var _ sdktest.Subject = (*scripts)(nil)
