package shell

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// shells are those that the kit is for, where they are installed.
func shells(t *testing.T) map[string][]string {
	all := map[string][]string{"dash": {"dash"}, "bash": {"bash"}, "busybox": {"busybox", "sh"}}
	for name, argv := range all {
		if _, err := exec.LookPath(argv[0]); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Logf("not tried in %s: %v", name, err)
			delete(all, name)
		}
	}
	return all
}

// A ran is what came of a script.
type ran struct {
	exit     int
	out, err string
	progress string
}

// run runs a script that has read the kit, as deputy does, or by hand where env
// has no DEPUTY_ACTION.
func run(t *testing.T, sh []string, body string, env []string, args ...string) ran {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\n# A script that tries the kit.\n#\n# With a second paragraph.\n. \"${0%/*}/deputy.sh\"\n" + body + "\ndeputy_main \"$@\"\n"
	for name, text := range map[string]string{"hook": script, "deputy.sh": Kit} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	said, err := os.Create(filepath.Join(dir, "progress"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	argv := append(append(sh, filepath.Join(dir, "hook")), args...)
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	cmd.ExtraFiles = []*os.File{said}
	var out, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	told, err := os.ReadFile(said.Name())
	if err != nil {
		t.Fatal(err)
	}
	return ran{cmd.ProcessState.ExitCode(), out.String(), stderr.String(), string(told)}
}

// asked is what deputy tells a script of an act, or of a check.
func asked(action string, more ...string) []string {
	return append([]string{
		"DEPUTY_ACTION=" + action, "DEPUTY_SERVICE=db", "DEPUTY_NODE=a", "DEPUTY_TERM=7", "DEPUTY_MODE=planned",
		"DEPUTY_TIMEOUT_MS=4000", "DEPUTY_PRIMARY_NODE=b", "DEPUTY_PREVIOUS_NODE=b",
	}, more...)
}

func TestOutcomes(t *testing.T) {
	const primary, standby = `is_primary() { [ -e primary ]; }; : >primary; `, `is_primary() { [ -e primary ]; }; `
	for _, c := range []struct {
		name   string
		action string
		body   string
		exit   int
		out    string // the last line
		err    string // a part of it
	}{
		{"done", "promote", `promote() { :; }`, 0, "", ""},
		{"done, with words", "promote", `promote() { succeed it serves; false; }`, 0, "it serves", ""},
		{"already", "promote", `promote() { already it serves; }`, 10, "it serves", ""},
		{"unchanged", "promote", `promote() { unchanged the disk is full; }`, 75, "the disk is full", ""},
		{"refused", "follow", `follow() { refuse no replica; }`, 20, "no replica", ""},
		{"stale", "promote", `promote() { stale term 9 was seen; }`, 40, "term 9 was seen", ""},
		{"failed", "promote", `promote() { fail it is half done; }`, 1, "it is half done", ""},
		{"words in a pipe", "promote", `promote() { echo x | refuse no; }`, 20, "no", ""},

		// What commands return is nobody's promise.
		{"a command fails", "promote", `promote() { false; echo on; }`, 1, "", ""},
		{"with the code of already", "demote", `demote() { sh -c 'exit 10'; }`, 1, "", "status 10"},
		{"with the code of unchanged", "promote", `promote() { sh -c 'exit 75'; }`, 1, "", "status 75"},
		{"with the code of refused", "fence", `fence() { sh -c 'exit 20'; }`, 1, "", "status 20"},
		{"with the code of stale", "promote", `promote() { return 40; }`, 1, "", "status 40"},
		{"a variable is missing", "promote", `promote() { echo "$nothing"; }`, 1, "", ""},

		// Looking.
		{"is it already", "promote", primary + `promote() { echo ran; }`, 10, "acts as primary, as seen by looking", ""},
		{"becomes", "promote", standby + `promote() { : >primary; }`, 0, "", ""},
		{"does not become", "promote", standby + `promote() { :; }`, 1, "", "does not act as primary"},
		{"says that it is", "promote", standby + `promote() { already; }`, 1, "", "does not act as primary"},
		{"unchanged, yet is", "promote", standby + `promote() { : >primary; unchanged; }`, 1, "", "it acts as primary"},
		{"unchanged, as seen", "promote", standby + `promote() { unchanged; }`, 75, "", ""},
		{"leaves", "demote", primary + `demote() { rm primary; }`, 0, "", ""},
		{"does not leave", "demote", primary + `demote() { :; }`, 1, "", "it acts as primary"},
		{"had left", "demote", standby + `demote() { echo ran >>tidied; }`, 10, "", ""},
		{"nobody can see", "demote", `is_primary() { return 7; }; demote() { :; }`, 1, "", "is_primary returned 7"},
		{"no look", "demote", `demote() { :; }`, 0, "", ""},

		// What was asked.
		{"has no such function", "follow", `promote() { :; }`, 20, "", "no function follow"},
		{"a program of that name", "check", `PATH=$PWD:$PATH; printf '#!/bin/sh\n' >check; chmod +x check`, 3, "", "no function check"},
		{"another word", "swim", ``, 20, "", `not "swim"`},

		{"fit", "check", `check() { fit 3 replicas; }`, 0, "3 replicas", ""},
		{"fit by its command", "check", `check() { true; }`, 0, "", ""},
		{"warning", "check", `check() { warning slow; }`, 1, "slow", ""},
		{"unfit", "check", `check() { unfit no replica; }`, 2, "no replica", ""},
		{"unfit by its command", "check", `check() { sh -c 'exit 3'; }`, 2, "", ""},
		{"no answer", "check", `check() { unanswered; }`, 3, "", ""},
	} {
		for name, sh := range shells(t) {
			t.Run(c.name+" in "+name, func(t *testing.T) {
				t.Parallel()
				got := run(t, sh, c.body, asked(c.action))
				lines := strings.Split(strings.TrimRight(got.out, "\n"), "\n")
				if last := lines[len(lines)-1]; got.exit != c.exit || last != c.out || !strings.Contains(got.err, c.err) {
					t.Errorf("got exit code %d, %q, %q, want %d, %q, and %q in it", got.exit, got.out, got.err, c.exit, c.out, c.err)
				}
			})
		}
	}
}

func TestForcedDemotionLooksOnce(t *testing.T) {
	const body = `is_primary() { echo >>looks; return 1; }; demote() { ! [ -e looks ]; forced; }; trap 'wc -l <looks' EXIT`
	for name, sh := range shells(t) {
		if got := run(t, sh, body, asked("demote", "DEPUTY_MODE=forced")); got.exit != 0 || strings.TrimSpace(got.out) != "1" {
			t.Errorf("%s: got %+v, want that it acts first and looks once", name, got)
		}
	}
}

func TestWhatDeputyTellsIsJudged(t *testing.T) {
	for name, sh := range shells(t) {
		for env, want := range map[string]string{
			"DEPUTY_SERVICE=":       "DEPUTY_SERVICE is empty",
			"DEPUTY_NODE=":          "DEPUTY_NODE is empty",
			"DEPUTY_TERM=x":         `DEPUTY_TERM is "x", not a number`,
			"DEPUTY_TIMEOUT_MS=":    `DEPUTY_TIMEOUT_MS is "", not a number`,
			"DEPUTY_MODE=gentle":    `DEPUTY_MODE is "gentle"`,
			"DEPUTY_PRIMARY_NODE=a": `fence: "a" is not another node`,
			"DEPUTY_PRIMARY_NODE=":  `fence: "" is not another node`,
		} {
			got := run(t, sh, `fence() { echo ran; }`, asked("fence", env))
			if got.exit != 20 || got.out != "" || !strings.Contains(got.err, want) {
				t.Errorf("%s: with %s got %+v, want refused with %q", name, env, got, want)
			}
		}
	}
}

func TestArgumentsReachEachFunction(t *testing.T) {
	const body = `is_primary() { echo "looks $1" >&2; return 1; }; demote() { echo "$# $1 $2"; }`
	for name, sh := range shells(t) {
		for by, got := range map[string]ran{
			"deputy": run(t, sh, body, asked("demote"), "a b", "c"),
			"hand":   run(t, sh, body, nil, "demote", "a b", "c"),
		} {
			if got.out != "2 a b c\n" || !strings.Contains(got.err, "looks a b") || got.exit != 10 {
				t.Errorf("%s, by %s: got %+v", name, by, got)
			}
		}
	}
}

func TestProgressAndLog(t *testing.T) {
	const body = `promote() { progress 40 redo of "$DEPUTY_TERM"; log_error e; log_warning w; log_info i; log_debug d; }`
	for name, sh := range shells(t) {
		got := run(t, sh, body, asked("promote"))
		if got.progress != "40% redo of 7\n" || got.err != "<3>e\n<4>w\n<6>i\n<7>d\n" {
			t.Errorf("%s: got %+v", name, got)
		}
		if got := run(t, sh, body, nil, "promote"); got.progress != "" || !strings.Contains(got.err, " 40% redo of 1\n") {
			t.Errorf("%s, by hand: got %+v", name, got)
		}
	}
}

func TestBounds(t *testing.T) {
	for _, c := range []struct {
		name    string
		body    string
		timeout string
		exit    int
		out     string // a regular expression
		least   time.Duration
		most    time.Duration
	}{
		{"in time", `bounded -t 2 echo in time`, "4000", 0, "^in time\n$", 0, 10 * time.Second},
		{"cut short", `bounded -t 0.2 sleep 20 || fail "status $?"`, "4000", 1, `^status (124|143)\n$`, 200 * time.Millisecond, 10 * time.Second}, // of coreutils, of busybox
		{"by what remains", `bounded -t 20 sleep 20 || fail "status $?"`, "400", 1, `^status (124|143)\n$`, 250 * time.Millisecond, 10 * time.Second},
		{"without a number", `bounded sleep 20 || fail "status $?"`, "400", 1, `^status (124|143)\n$`, 250 * time.Millisecond, 10 * time.Second},
		{"nothing remains", `sleep 0.2; bounded echo ran || fail "status $?"`, "100", 1, "^status 124\n$", 200 * time.Millisecond, 10 * time.Second},
		{"a strange number", `bounded -t 1s echo ran`, "4000", 1, "^$", 0, 10 * time.Second},
		{"waited for", `{ sleep 0.3; : >there; } & wait_for -t 3 test -e there; echo came`, "8000", 0, "^came\n$", 300 * time.Millisecond, 10 * time.Second},
		{"waited in vain", `wait_for -t 0.2 not true || fail no`, "8000", 1, "^no\n$", 200 * time.Millisecond, 10 * time.Second},
		{"waited to the end", `wait_for test -e there || fail no`, "400", 1, "^no\n$", 250 * time.Millisecond, 10 * time.Second},
	} {
		for name, sh := range shells(t) {
			t.Run(c.name+" in "+name, func(t *testing.T) {
				t.Parallel()
				began := time.Now()
				got := run(t, sh, "promote() { "+c.body+"; }", asked("promote", "DEPUTY_TIMEOUT_MS="+c.timeout))
				took := time.Since(began)
				if got.exit != c.exit || !regexp.MustCompile(c.out).MatchString(got.out) || took < c.least || took > c.most {
					t.Errorf("got %+v after %s, want exit code %d, %q, after %s to %s", got, took, c.exit, c.out, c.least, c.most)
				}
			})
		}
	}
}

// What a group of its own would keep alive goes on behind a deputy that died.
func TestWhatIsBoundedStaysInTheGroup(t *testing.T) {
	for name, sh := range shells(t) {
		got := run(t, sh, `promote() { cut -d' ' -f5 /proc/self/stat; bounded cut -d' ' -f5 /proc/self/stat; }`, asked("promote"))
		groups := strings.Fields(got.out)
		if got.exit != 0 || len(groups) != 2 || groups[0] != groups[1] {
			t.Errorf("%s: %+v, want one process group, twice", name, got)
		}
	}
}

func TestRemaining(t *testing.T) {
	for name, sh := range shells(t) {
		for timeout, most := range map[string]float64{"8000": 7, "400": 0.3} {
			got := run(t, sh, `promote() { remaining; sleep 0.3; remaining; }`, asked("promote", "DEPUTY_TIMEOUT_MS="+timeout))
			var before, after float64
			if _, err := fmt.Sscanf(got.out, "%f\n%f\n", &before, &after); err != nil || got.exit != 0 {
				t.Fatalf("%s: %+v: %v", name, got, err)
			}
			// Uptime is told in hundredths.
			if before > most+0.011 || after > max(0, before-0.28) || after < 0 {
				t.Errorf("%s, of %s ms: %v remained, and 0.3 s later %v; want %v at first, at most", name, timeout, before, after, most)
			}
		}
	}
}

func TestByHand(t *testing.T) {
	const body = `is_primary() { [ -e primary ]; }
promote() { : >primary; }
demote() { rm -f primary; }
check() { fit "$DEPUTY_ROLE of $DEPUTY_SERVICE"; }`
	for name, sh := range shells(t) {
		t.Run(name, func(t *testing.T) {
			for _, args := range [][]string{nil, {"--help"}, {"-h"}, {"help"}} {
				got := run(t, sh, body, nil, args...)
				for _, want := range []string{
					"A script that tries the kit.\n\nWith a second paragraph.\n\n", "promote|demote|check [ARG…]", `use    = "exec"`, `check = ["`, "75 unchanged",
				} {
					if got.exit != 0 || !strings.Contains(got.out, want) {
						t.Errorf("%q: got exit code %d, want %q in:\n%s", args, got.exit, want, got.out)
					}
				}
			}
			for _, c := range []struct{ action, out, err, exit string }{
				{"promote", "", "promote: done (exit code 0)\n", "0"},
				{"demote", "", "demote: already (exit code 10)\n", "10"},
				{"check", "primary of by-hand\n", "check: fit (exit code 0)\n", "0"},
				{"fly", "", `not "fly"`, "64"},
			} {
				if got := run(t, sh, body, nil, c.action); fmt.Sprint(got.exit) != c.exit || got.out != c.out || !strings.Contains(got.err, c.err) {
					t.Errorf("%s: got %+v", c.action, got)
				}
			}
		})
	}
}

func TestShellcheckFindsNothing(t *testing.T) {
	if _, err := exec.LookPath("shellcheck"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if out, err := exec.Command("shellcheck", "deputy.sh").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
