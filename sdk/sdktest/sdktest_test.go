package sdktest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/deputy-ha/deputy/sdk"
)

func TestExampleKeepsTheContract(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "greeting")
	Run(t, Binary(Build(t, "../../examples/plugin-go")), Config{
		Settings: map[string]any{"file": file},
		Promoted: func() (bool, error) {
			_, err := os.Stat(file)
			if errors.Is(err, fs.ErrNotExist) {
				return false, nil
			}
			return err == nil, err
		},
	})
}

// A broken plugin is one in testdata, by the rule that it breaks.
func broken(t *testing.T, program, rule string, c Config) (Subject, Config) {
	dir := t.TempDir()
	path := filepath.Join(dir, "deputy-plugin-"+rule)
	if err := os.Symlink(program, path); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "primary")
	c.Settings = map[string]any{"file": file}
	c.Promoted = func() (bool, error) {
		b, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		until, err := strconv.ParseInt(string(b), 10, 64)
		return sdk.Now() < sdk.Instant(until), err
	}
	return Binary(path), c
}

// TestCases runs the suite on the plugins of testdata, which is built once.
func TestCases(t *testing.T) {
	t.Parallel()
	program := Build(t, "testdata/broken")
	for _, part := range []struct {
		name string
		run  func(*testing.T, string)
	}{
		{"good", goodOnesKeepTheContract}, {"broken", brokenOnesAreFound}, {"interrupted", interruptedOneIsDemoted},
	} {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel()
			part.run(t, program)
		})
	}
}

func goodOnesKeepTheContract(t *testing.T, program string) {
	for _, rule := range []string{"good", "prints", "no-sdk", "only-checks", "only-fences"} {
		t.Run(rule, func(t *testing.T) {
			t.Parallel()
			c := Config{Expires: true, Victim: sdk.Peer{Node: "victim"}}
			switch rule { // what is as in the good one is left out
			case "prints":
				c.Only = regexp.MustCompile("^(start|promote|adopt|output)$")
			case "no-sdk":
				c.Only = regexp.MustCompile("^(start|end|settings|adopt|repeat.*|stale-term|supersede|freeze.*|host-death)$")
			}
			s, c := broken(t, program, rule, c)
			Run(t, s, c)
		})
	}
}

// A breach is a plugin that breaks one rule, by the name of its program.
type breach struct {
	rule   string
	breaks string            // the case that proves the rule
	saw    string            // what that case sees
	also   map[string]string // the cases that cannot pass either, and why
}

// breaches has one at least for each case.
func breaches() []breach {
	return []breach{
		{rule: "prints-first", breaks: "start", saw: `no handshake: "hello"`},
		{rule: "socket-elsewhere", breaks: "start", saw: "not in the folder"},
		{rule: "no-sdk-never-ends", breaks: "end", saw: "not gone within"},
		{rule: "no-sdk-takes-anything", breaks: "settings", saw: "no_such_setting"},
		{rule: "no-sdk-tells-one-mistake", breaks: "settings", saw: "does not name both"},
		{rule: "no-sdk-needs-no-settings", breaks: "no-settings", saw: "answered with done"},
		{rule: "no-sdk-ends-without-settings", breaks: "no-settings", saw: "did not answer a ping"},
		{rule: "only-its-own", breaks: "demote-first", saw: "this process promoted nothing"},
		{rule: "never", breaks: "promote", saw: "it is not to be"},
		{rule: "too-early", breaks: "promote", saw: "does not act as primary"},
		{rule: "demotes-early", breaks: "promote", saw: "acts as primary", also: map[string]string{
			"demote-first": "it demotes a part that is primary as well, and comes before",
		}},
		{rule: "never-again", breaks: "promote-twice", saw: "it is there"},
		{rule: "demotes-once", breaks: "demote-twice", saw: "it is demoted"},
		{rule: "new-each-time", breaks: "describe", saw: "in another process"},
		{rule: "tidies-when-asked", breaks: "describe", saw: "does not act as primary", also: map[string]string{
			"adopt": "the process that is to adopt was asked what it is",
		}},
		{rule: "leaves-a-child", breaks: "leaves-nothing", saw: `processes that it started are left: process .* \(sleep 20\)`},
		{rule: "leaves-a-worker", breaks: "leaves-nothing", saw: `processes that it started are left: process .* \(sleep 20\)`},
		{rule: "never-already", breaks: "adopt", saw: "answered .* with done"},
		{rule: "takes-it-along", breaks: "adopt", saw: "does not act as primary"},
		{rule: "once-an-id", breaks: "repeat", saw: "attempt 2"},
		{rule: "no-sdk-twice-at-once", breaks: "repeat-at-once", saw: "both at once"},
		{rule: "no-sdk-stale", breaks: "stale-term", saw: "though term"},
		{rule: "ignores-demote", breaks: "supersede", saw: "went on when a demote was asked"},
		{rule: "ignores-cancel", breaks: "cancel", saw: "went on when it was cancelled"},
		{rule: "ignores-deadline", breaks: "deadline", saw: "went on at its deadline"},
		{rule: "claims-unchanged", breaks: "deadline", saw: "acts as primary"},
		{rule: "after-the-proof", breaks: "cancel", saw: "acts as primary", also: map[string]string{
			"supersede": "it goes on behind any act that has ended early",
			"deadline":  "it goes on behind any act that has ended early",
		}},
		{rule: "slow-force", breaks: "forced", saw: "took .* at best"},
		{rule: "no-sdk-fences-itself", breaks: "fence-self", saw: "its own node was answered with done"},
		{rule: "fences-once", breaks: "fence", saw: "could not be fenced again"},
		{rule: "fences-anybody", breaks: "fence-stranger", saw: "that there is not was answered with done"},
		{rule: "follows-by-promoting", breaks: "follow", saw: "acts as primary"},
		{rule: "follows-once", breaks: "follow", saw: "asked again"},
		{rule: "stays-half-promoted", breaks: "kill-promote", saw: "another process is at it"},
		{rule: "stays-half-demoted", breaks: "kill-demote", saw: "another process is at it"},
		{rule: "no-sdk-no-heartbeats", breaks: "freeze-act", saw: "sent 0 heartbeats"},
		{rule: "serves-elsewhere", breaks: "freeze-idle", saw: "answered a ping though it was stopped"},
		{rule: "no-sdk-outlives-its-host", breaks: "host-death", saw: "after its host died"},
		{rule: "ends-on-sigterm", breaks: "sigterm", saw: "after SIGTERM"},
		{rule: "checks-with-a-hammer", breaks: "check-changes-nothing", saw: "does not act as primary"},
		{rule: "checks-in-a-queue", breaks: "ten-checks", saw: "another check runs"},
		{rule: "leaks-memory", breaks: "growth", saw: "MiB of memory"},
		{rule: "leaks-descriptors", breaks: "growth", saw: `\+1000 descriptors`},
		{rule: "leaks-threads", breaks: "growth", saw: "threads"},
		{rule: "ranks-itself-ahead", breaks: "rank", saw: "compared with itself"},
		{rule: "ranks-anything", breaks: "rank", saw: "which is no position"},
		{rule: "bursts", breaks: "output", saw: "promoted"},
		{rule: "keeps-descriptors", breaks: "descriptors", saw: "sleep 20"},
		{rule: "renews-anything", breaks: "renew", saw: "acts as primary"},
		{rule: "renews-only-what-is-there", breaks: "renew", saw: "during a promote failed"},
		{rule: "renews-nothing", breaks: "expire", saw: "does not act as primary"},
		{rule: "beyond-the-lease", breaks: "expire", saw: "acts as primary"},
	}
}

// TestEveryCaseIsProven fails for a case that no broken plugin fails.
func TestEveryCaseIsProven(t *testing.T) {
	broken := map[string]bool{}
	for _, b := range breaches() {
		broken[b.breaks] = true
		for name := range b.also {
			caseOf(name) // panics where there is none
		}
	}
	for _, k := range Cases() {
		if !broken[k.Name] {
			t.Errorf("case %s has no plugin that breaks its rule: add one to testdata/broken and to breaches", k.Name)
		}
		delete(broken, k.Name)
	}
	for name := range broken {
		t.Errorf("there is no case %s", name)
	}
}

// brokenOnesAreFound runs all cases on each breach: the case for its rule
// fails, and no other does that the same defect does not break as well. Two
// thousand checks are only done for those that break their rule. With -short
// the others are not looked at.
func brokenOnesAreFound(t *testing.T, program string) {
	busy := make(chan struct{}, 8) // they mostly wait, so more at once than there are processors
	for _, b := range breaches() {
		var names []string
		for _, k := range Cases() {
			if k.Name == b.breaks || k.Name != "growth" && !testing.Short() {
				names = append(names, k.Name)
			}
		}
		s, c := broken(t, program, b.rule, Config{
			Expires: true, Victim: sdk.Peer{Node: "victim"}, Only: regexp.MustCompile("^(" + strings.Join(names, "|") + ")$"),
		})
		t.Run(b.rule, func(t *testing.T) {
			var results []Result
			examined := make(chan error, 1)
			go func() {
				busy <- struct{}{}
				defer func() { <-busy }()
				var err error
				results, err = Examine(t.Context(), s, c, nil)
				examined <- err
			}()
			t.Parallel() // so that all have begun before one is waited for
			if err := <-examined; err != nil {
				t.Fatal(err)
			}
			for _, r := range results {
				_, also := b.also[r.Case]
				switch failed := r.Verdict == Failed; {
				case r.Case == b.breaks && !failed:
					t.Errorf("it is not found: %s", r)
				case r.Case == b.breaks && !regexp.MustCompile(b.saw).MatchString(r.Saw):
					t.Errorf("want %q to be seen: %s", b.saw, r)
				case also && !failed:
					t.Errorf("this passes, and needs no excuse: %s", r)
				case failed && r.Case != b.breaks && !also:
					t.Errorf("another case fails: %s", r)
				}
			}
		})
	}
}

// interruptedOneIsDemoted ends a suite in the middle of its first act.
func interruptedOneIsDemoted(t *testing.T, program string) {
	s, c := broken(t, program, "good", Config{Only: regexp.MustCompile("^(promote-twice|adopt)$")})
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	look := c.Promoted
	c.Promoted = func() (bool, error) {
		is, err := look()
		if is {
			cancel(errors.New("somebody is at the door"))
		}
		return is, err
	}
	results, err := Examine(ctx, s, c, nil)
	if err == nil || !strings.Contains(err.Error(), "at the door") {
		t.Errorf("got error %v, want why it ended", err)
	}
	if len(results) != 2 || results[0].Verdict != Skipped || results[1].Verdict != Skipped ||
		results[0].Note != "cut short: somebody is at the door" || results[1].Note != "not run: somebody is at the door" {
		t.Errorf("got %v, want one case that was cut short and one that was not run", results)
	}
	if is, err := look(); is || err != nil {
		t.Errorf("got %v, %v, want that it is demoted", is, err)
	}
}
