package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asBinlog makes the test binary the program that it tests.
const asBinlog = "BINLOG_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asBinlog) == "1" {
		main()
	}
	os.Exit(m.Run())
}

// A host is a node on which hooks are called.
type host struct {
	t    *testing.T
	dir  string
	port string
}

func newHost(t *testing.T) host {
	h := host{t, t.TempDir(), strconv.Itoa(20000 + os.Getpid()%20000)}
	t.Cleanup(func() {
		if code, out := h.call(9999, "", "stop"); code != exitDone && code != exitAlready {
			t.Errorf("stop at the end: exit code %d: %s", code, out)
		}
	})
	return h
}

func (h host) positions() string { return filepath.Join(h.dir, "positions") }

func (h host) command(term int, mode string, args ...string) *exec.Cmd {
	args = append(args[:1:1], append([]string{"-positions", h.positions(), "-port", h.port}, args[1:]...)...)
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = []string{
		asBinlog + "=1", "DEPUTY_NODE=n1", "DEPUTY_TERM=" + strconv.Itoa(term), "DEPUTY_MODE=" + mode,
		"DEPUTY_PRIMARY_ADDRESS=127.0.0.11", "DEPUTY_STATE_DIR=" + filepath.Join(h.dir, "state"), "DEPUTY_TIMEOUT_MS=5000",
		"GORACE=atexit_sleep_ms=0",
	}
	return cmd
}

// call runs a hook and returns its exit code and what it said.
func (h host) call(term int, mode string, args ...string) (int, string) {
	h.t.Helper()
	out, err := h.command(term, mode, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	if exit != nil {
		return exit.ExitCode(), string(out)
	}
	return 0, string(out)
}

func (h host) want(code, term int, mode string, args ...string) {
	h.t.Helper()
	if got, out := h.call(term, mode, args...); got != code {
		h.t.Fatalf("%s in term %d: got exit code %d, want %d: %s", args[0], term, got, code, out)
	}
}

// holder returns what the lock says, and whether anybody holds it.
func (h host) holder() (holder, bool) {
	h.t.Helper()
	f, err := parser{stateDir: filepath.Join(h.dir, "state")}.lock()
	if err != nil && !errors.Is(err, errHeld) {
		h.t.Fatal(err)
	}
	defer f.Close()
	return readHolder(f), err != nil
}

func TestParserKeepsTheContract(t *testing.T) {
	h := newHost(t)
	h.want(exitAlready, 0, "planned", "stop") // it never ran
	h.want(exitCritical, 0, "", "check")
	h.want(exitDone, 1, "planned", "start")
	first, running := h.holder()
	if !running || first.Term != 1 {
		t.Fatalf("got %+v, %v, want a parser of term 1", first, running)
	}
	h.want(exitAlready, 1, "planned", "start")
	h.want(exitDone, 1, "", "check")
	if again, _ := h.holder(); again != first {
		t.Errorf("got %+v after a second start, want still %+v", again, first)
	}
	h.want(exitDone, 2, "planned", "start") // of a newer term: the old one goes first
	h.want(exitStale, 1, "planned", "start")
	h.want(exitDone, 1, "planned", "stop") // never refused for its term
	h.want(exitAlready, 1, "planned", "stop")
	h.want(exitDone, 3, "planned", "start")
	h.want(exitDone, 3, "forced", "stop")
}

func TestParserGoesOnWhereTheLastOneStopped(t *testing.T) {
	h := newHost(t)
	for term := 1; term <= 3; term++ {
		h.want(exitDone, term, "planned", "start")
		want := 5 * term
		for until := time.Now().Add(10 * time.Second); len(h.parsed()) < want; time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				t.Fatalf("got %d positions, want %d", len(h.parsed()), want)
			}
		}
		h.want(exitDone, term, "forced", "stop")
	}
	for i, got := range h.parsed() {
		if got != i+1 {
			t.Fatalf("got position %d where %d was due", got, i+1)
		}
	}
}

func (h host) parsed() (all []int) {
	h.t.Helper()
	data, err := os.ReadFile(h.positions())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		h.t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		word, _, _ := strings.Cut(line, " ")
		n, err := strconv.Atoi(word)
		if err != nil {
			h.t.Fatal(err)
		}
		all = append(all, n)
	}
	return all
}

// The lock is the proof that no parser runs, so a parser has it to its end: a
// file that nothing refers to any more is closed by the garbage collector.
func TestParserKeepsItsLock(t *testing.T) {
	h := newHost(t)
	start := h.command(1, "planned", "start")
	start.Env = append(start.Env, "GOGC=1") // the parser collects garbage all the time
	if out, err := start.CombinedOutput(); err != nil {
		t.Fatalf("start: %v: %s", err, out)
	}
	p := parser{port: h.port}
	for range 3000 {
		if _, err := p.ask("127.0.0.11", 5*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if _, running := h.holder(); !running {
		t.Error("the parser answers, and its lock is free: a stop would call it stopped")
	}
	h.want(exitDone, 1, "planned", "stop")
}

func TestStopAfterStartWasKilled(t *testing.T) {
	h := newHost(t)
	for after := range 12 {
		cmd := h.command(1, "planned", "start")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(after) * time.Millisecond)
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		cmd.Wait() // killed, or done before
		if code, out := h.call(1, "forced", "stop"); code != exitDone && code != exitAlready {
			t.Fatalf("stop %d ms after start: exit code %d: %s", after, code, out)
		}
		before := len(h.parsed())
		if who, running := h.holder(); running {
			t.Fatalf("%d ms after start: %+v runs after the stop", after, who)
		}
		time.Sleep(20 * time.Millisecond) // four events
		if parsed := len(h.parsed()); parsed != before {
			t.Fatalf("%d ms after start: %d positions were parsed after the stop", after, parsed-before)
		}
	}
}

func TestNothingServesWithoutALease(t *testing.T) {
	h := newHost(t)
	for _, args := range [][]string{{"start"}, {"show", "up"}} {
		cmd := h.command(1, "planned", args...)
		cmd.Env = append(cmd.Env, "DEPUTY_LEASE_UNTIL_MS=1")
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != exitUnchanged {
			t.Errorf("%v: got %v, want exit code %d: %s", args, err, exitUnchanged, out)
		}
	}
	if _, running := h.holder(); running {
		t.Error("a parser runs")
	}
}

func TestShow(t *testing.T) {
	h := newHost(t)
	if err := os.Mkdir(filepath.Join(h.dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		to   string
		want int
	}{{"down", exitAlready}, {"up", exitDone}, {"up", exitAlready}, {"down", exitDone}, {"down", exitAlready}} {
		h.want(c.want, 1, "planned", "show", c.to)
	}
}
