package plugin

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// TestMain makes the test binary a hook as well, for behaviour that a shell
// does not have.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "hook" {
		switch os.Args[2] {
		case "supervise":
			os.Exit(supervise(os.Args[3:]))
		case "library":
			os.Exit(library(os.Args[3:]))
		case "host":
			os.Exit(host(os.Args[3:]))
		}
		os.Exit(hooks[os.Args[2]](os.Args[3:]))
	}
	dir, err := built() // before any test has a TMPDIR of its own
	if err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// boot is CLOCK_BOOTTIME.
type boot struct{}

func (boot) Now() sdk.Instant {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err)
	}
	return sdk.Instant(t.Nano())
}

func (b boot) Timer(at sdk.Instant) supervisor.Timer {
	t := &bootTimer{c: make(chan struct{})}
	t.Timer = time.AfterFunc(at.Sub(b.Now()), func() { close(t.c) })
	return t
}

type bootTimer struct {
	*time.Timer
	c chan struct{}
}

func (t *bootTimer) C() <-chan struct{} { return t.c }
func (t *bootTimer) Stop()              { t.Timer.Stop() }

// A journal is a log that can be read.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

// logger writes to the journal, without times.
func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// A bench is one exec plugin under test, and the folder of its scripts. Its
// test fails if anything is left behind.
type bench struct {
	*Exec
	dir string
	log *journal
}

// newBench makes scripts of the bodies of the keys given. In an argv, DIR
// stands for the folder.
func newBench(t testing.TB, config map[string]any) *bench {
	t.Helper()
	dir := t.TempDir()
	// Every process that this test starts inherits it, and is found by it.
	t.Setenv("TMPDIR", dir)
	noLeaks(t, dir)
	b := &bench{dir: dir, log: &journal{}}
	made := map[string]any{}
	for key, value := range config {
		if body, ok := value.(string); ok && key != forcedBound && key != asUser && key != onUnknown {
			value = []any{b.script(t, key, body)}
		}
		if argv, ok := value.([]any); ok {
			if at := slices.Index(argv, any("DIR")); at >= 0 {
				argv[at] = dir
			}
		}
		made[key] = value
	}
	h := Host{Service: "db", Node: "a", StateDir: filepath.Join(dir, "state"), UID: os.Geteuid(), Clock: boot{}, Log: b.log.logger()}
	p, err := New(h, supervisor.Part{Use: "exec", Name: "hook", Config: made})
	if err != nil {
		t.Fatal(err)
	}
	b.Exec = p.(*Exec)
	return b
}

func (b *bench) script(t testing.TB, name, body string) string {
	t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// hook is the argv of a hook in the test binary.
func hook(t testing.TB, args ...string) []any {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	argv := []any{self, "hook"}
	for _, a := range args {
		argv = append(argv, a)
	}
	return argv
}

func act(a sdk.Action, timeout time.Duration) sdk.Transition {
	return sdk.Transition{ID: "a-7-1", Action: a, Mode: sdk.Planned, Service: "db", Node: "a", Term: 7, Reason: sdk.ReasonElection, Attempt: 1, Timeout: timeout}
}

// long is a time that no test may need.
const long = time.Minute

// within fails the test if what f does takes longer than the bound.
func within(t *testing.T, bound time.Duration, f func()) time.Duration {
	t.Helper()
	began := time.Now()
	f()
	took := time.Since(began)
	if took > bound {
		t.Errorf("took %s, want %s at most", took, bound)
	}
	return took
}

// eventually waits for something that another process does.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited 10s for %s", what)
		}
	}
}

// exists reports whether a hook has made a file.
func (b *bench) exists(name string) bool {
	_, err := os.Stat(filepath.Join(b.dir, name))
	return err == nil
}

// marked returns the living processes whose environment names the folder.
func marked(dir string) []int {
	var pids []int
	for _, r := range processes() {
		has, known := r.has("TMPDIR=" + dir)
		for !known {
			has, known = r.has("TMPDIR=" + dir)
		}
		if has && r.pid != os.Getpid() {
			pids = append(pids, r.pid)
		}
	}
	return pids
}

func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// noLeaks fails the test if it leaves a process, a goroutine or a descriptor.
func noLeaks(t testing.TB, dir string) {
	t.Helper()
	if r, w, err := os.Pipe(); err == nil { // the first one makes the runtime open two descriptors for itself
		r.Close()
		w.Close()
	}
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	t.Cleanup(func() {
		t.Helper()
		var left []string
		for end := time.Now().Add(2 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			left = nil
			if pids := marked(dir); len(pids) > 0 {
				left = append(left, fmt.Sprintf("processes %v", pids))
			}
			if n := runtime.NumGoroutine(); n > goroutines {
				var stacks [1 << 16]byte
				left = append(left, fmt.Sprintf("%d goroutines, %d before:\n%s", n, goroutines, stacks[:runtime.Stack(stacks[:], true)]))
			}
			if n := openFiles(t); n > files {
				left = append(left, fmt.Sprintf("%d descriptors, %d before", n, files))
			}
			if left == nil {
				return
			}
			if time.Now().After(end) {
				break
			}
		}
		t.Errorf("left behind: %s", strings.Join(left, "; "))
		for _, pid := range marked(dir) {
			kill(pid, unix.SIGKILL)
		}
	})
}

func TestUnknownPluginNamesWhereItWasSought(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"deputy-plugin-vip", "deputy-plugin-mysql", "README"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h := Host{Dirs: []string{dir, "/nowhere/plugins"}}

	_, err := New(h, supervisor.Part{Use: "mysq1", Name: "db"})
	if !errors.Is(err, ErrNotFound) {
		t.Fatalf("got %v, want ErrNotFound", err)
	}
	for _, want := range []string{`"mysq1"`, dir, "/nowhere/plugins", "known: exec, mysql, vip"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not tell %q", err, want)
		}
	}
}
