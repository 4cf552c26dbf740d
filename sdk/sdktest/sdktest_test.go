package sdktest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

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

// brokenOnesAreFound runs plugins that break one rule each: the case for it
// fails, and no other does that the same defect does not break as well.
func brokenOnesAreFound(t *testing.T, program string) {
	busy := make(chan struct{}, 6) // they mostly wait, so more at once than there are processors
	for _, b := range []struct {
		rule  string
		only  string // the cases to run
		fails string // those that find it
		saw   string // by the first of them
	}{
		{"prints-first", "^(start|promote|growth|output)$", "start", `no handshake: "hello"`},
		{"socket-elsewhere", "^(start|end|check-.*)$", "start", "not in the folder"},
		{"no-sdk-never-ends", "^(start|end|demote-first|promote|adopt|descriptors)$", "end", "not gone within"},
		{"tidies-when-asked", "^(start|end|demote.*|promote.*|describe)$", "describe", "does not act as primary"},
		{"leaves-a-child", "^(start|end|demote.*|promote|adopt|leaves-nothing)$", "leaves-nothing", `processes that it started are left: process .* \(sleep 20\)`},
		{"new-each-time", "^(start|end|describe|settings|adopt)$", "describe", "in another process"},
		{"no-sdk-takes-anything", "^(start|describe|settings|promote|adopt)$", "settings", "no_such_setting"},
		{"only-its-own", ".*", "demote-first", "this process promoted nothing"},
		{"never", ".*", "promote", "it is not to be"},
		{"too-early", "^(start|demote.*|promote.*)$", "promote promote-twice", "does not act as primary"},
		{"never-again", "^(start|demote.*|promote.*|adopt|repeat)$", "promote-twice adopt", "it is there"},
		{"demotes-once", "^(start|demote.*|promote.*|adopt|supersede|cancel|deadline|forced)$", "demote-twice", "it is demoted"},
		{"never-already", "^(demote.*|promote.*|adopt|repeat.*|host-death|check-.*)$", "adopt", "answered .* with done"},
		{"takes-it-along", "^(demote.*|promote.*|adopt|host-death|descriptors)$", "adopt", "does not act as primary"},
		{"once-an-id", "^(promote.*|demote.*|adopt|repeat.*|forced)$", "repeat", "attempt 2"},
		{"no-sdk-twice-at-once", "^(promote.*|demote.*|adopt|repeat.*|stale-term)$", "repeat-at-once", "both at once"},
		{"no-sdk-stale", "^(promote.*|demote.*|adopt|repeat.*|stale-term)$", "stale-term", "though term"},
		{"after-the-proof", "^(promote.*|demote.*|adopt|repeat.*|supersede|cancel|deadline|kill-.*)$", "supersede cancel deadline", "acts as primary"},
		{"ignores-cancel", "^(promote|supersede|cancel|deadline)$", "supersede cancel deadline", "the promote went on"},
		{"slow-force", "^(promote.*|demote.*|deadline|forced)$", "forced", "took .* at best"},
		{"stays-half", "^(promote.*|demote.*|adopt|cancel|kill-promote)$", "kill-promote", "another process is at it"},
		{"stays-half", "^(promote.*|demote.*|adopt|cancel|kill-demote)$", "kill-demote", "another process is at it"},
		{"no-sdk-no-heartbeats", "^(promote.*|demote.*|freeze.*)$", "freeze-act", "sent 0 heartbeats"},
		{"serves-elsewhere", "^(start|promote|freeze-idle)$", "freeze-idle", "answered a ping though it was stopped"},
		{"no-sdk-outlives-its-host", "^(promote.*|adopt|end|host-death|sigterm)$", "host-death", "after its host died"},
		{"ends-on-sigterm", "^(promote.*|adopt|end|host-death|sigterm)$", "sigterm", "after SIGTERM"},
		{"checks-with-a-hammer", "^(promote|adopt|check-.*|ten-checks|output)$", "check-changes-nothing", "does not act as primary"},
		{"checks-in-a-queue", "^(check-.*|ten-checks|growth|output)$", "ten-checks", "another check runs"},
		{"leaks-memory", "^growth$", "growth", "MiB of memory"},
		{"leaks-descriptors", "^growth$", "growth", `\+1000 descriptors`},
		{"leaks-threads", "^growth$", "growth", "threads"},
		{"bursts", "^(promote-twice|check-.*|output)$", "output", "promoted"},
		{"keeps-descriptors", "^(promote.*|adopt|end|output|descriptors)$", "descriptors", "sleep 20"},
		{"no-sdk-fences-itself", "^(start|promote|fence-self)$", "fence-self", "its own node was answered with done"},
		{"fences-once", "^(start|fence.*)$", "fence", "could not be fenced again"},
		{"fences-anybody", "^(start|fence.*)$", "fence-stranger", "that there is not was answered with done"},
		{"renews-anything", "^(promote.*|demote.*|renew|expire)$", "renew", "acts as primary"},
		{"renews-only-what-is-there", "^(promote.*|demote.*|renew|expire)$", "renew", "during a promote failed"},
		{"renews-nothing", "^(promote.*|renew|expire)$", "expire", "does not act as primary"},
		{"beyond-the-lease", "^(promote.*|renew|expire)$", "expire", "acts as primary"},
	} {
		s, c := broken(t, program, b.rule, Config{Expires: true, Victim: sdk.Peer{Node: "victim"}, Only: regexp.MustCompile(b.only), slack: 500 * time.Millisecond})
		var results []Result
		examined := make(chan error, 1)
		go func() {
			busy <- struct{}{}
			defer func() { <-busy }()
			var err error
			results, err = Examine(t.Context(), s, c, nil)
			examined <- err
		}()
		t.Run(b.rule, func(t *testing.T) {
			t.Parallel() // so that all have begun before one is waited for
			if err := <-examined; err != nil {
				t.Fatal(err)
			}
			var failed []string
			var all strings.Builder
			for _, r := range results {
				all.WriteString(r.String() + "\n")
				if r.Verdict != Failed {
					continue
				}
				if failed = append(failed, r.Case); len(failed) == 1 && !regexp.MustCompile(b.saw).MatchString(r.Saw) {
					t.Errorf("%s saw %q, want %q in it", r.Case, r.Saw, b.saw)
				}
			}
			want := strings.Fields(b.fails)
			if !slices.Equal(failed, want) {
				t.Errorf("cases that fail: %v, want %v\n%s", failed, want, all.String())
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
	if len(results) != 1 || results[0].Verdict != Skipped || !strings.Contains(results[0].Note, "at the door") {
		t.Errorf("got %v, want one case that was cut short", results)
	}
	if is, err := look(); is || err != nil {
		t.Errorf("got %v, %v, want that it is demoted", is, err)
	}
}
