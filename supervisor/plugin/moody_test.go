package plugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// built is where this run of the tests builds its plugins.
var built = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "plugins") })

// build builds the plugins of testdata once, and returns the directory that
// they are installed in.
var build = sync.OnceValues(func() (string, error) {
	dir, err := built()
	if err != nil {
		return "", err
	}
	for _, name := range []string{"moody", "bare"} {
		cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, prefix+name), "./testdata/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return dir, nil
})

// A stage is one process plugin under test. Its test fails if anything is left
// behind.
type stage struct {
	*Process
	use string
	dir string // notes of the plugin, and marks of its processes
	log *journal
	t   testing.TB
}

// newStage returns the plugin, not open yet. Its stall time is short, but one
// that a busy machine keeps.
func newStage(t testing.TB, use string, config map[string]any) *stage {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "stage") // not that of t: the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &stage{use: use, dir: dir, log: &journal{}, t: t}
	t.Setenv("TMPDIR", s.dir) // every process that this test starts is found by it
	noLeaks(t, s.dir)
	h := Host{
		Service: "db", Node: "a", RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"), UID: os.Geteuid(),
		Dirs: []string{bin}, Stall: 500 * time.Millisecond, Clock: boot{}, Log: s.log.logger(),
	}
	p, err := New(h, s.part(config))
	if err != nil {
		t.Fatal(err)
	}
	s.Process = p.(*Process)
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "run/plugins/*")); left != nil {
			t.Errorf("left in the run directory: %s", left)
		}
		if t.Failed() {
			for line := range strings.Lines(s.log.String()) {
				t.Logf("log: %.300s", strings.TrimSpace(line))
			}
		}
	})
	return s
}

// opened returns moody, open.
func opened(t testing.TB, config map[string]any) *stage {
	t.Helper()
	s := newStage(t, "moody", config)
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// openedBare returns bare, open.
func openedBare(t testing.TB) *stage {
	t.Helper()
	s := newStage(t, "bare", nil)
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// part is the plugin's part with more settings.
func (s *stage) part(config map[string]any) supervisor.Part {
	all := map[string]any{"dir": s.dir}
	maps.Copy(all, config)
	return supervisor.Part{Use: s.use, Name: s.use, Config: all}
}

// notes are the calls that reached the plugin, without the processes.
func (s *stage) notes() []string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "notes"))
	var notes []string
	for line := range strings.Lines(string(text)) {
		_, note, _ := strings.Cut(strings.TrimSpace(line), " ")
		notes = append(notes, note)
	}
	return notes
}

func (s *stage) exists(name string) bool {
	_, err := os.Stat(filepath.Join(s.dir, name))
	return err == nil
}

func (s *stage) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// does fails the test unless an act has that outcome, and a detail that
// matches.
func (s *stage) does(tr sdk.Transition, outcome sdk.Outcome, detail string) {
	s.t.Helper()
	got := s.Do(context.Background(), tr, nil)
	if ok, err := regexp.MatchString("^(?:"+detail+")$", got.Detail); got.Outcome != outcome || !ok || err != nil {
		s.t.Errorf("%s: got %+v, want %s, %q", tr.Action, got, outcome, detail)
	}
}

// answers fails the test unless the plugin answers a check within a while, and
// returns the process that did.
func (s *stage) answers() int {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	h, err := s.Check(ctx, sdk.RoleStandby, 7)
	if err != nil || !h.Fit {
		s.t.Fatalf("check: got %+v, %v", h, err)
	}
	var pid int
	fmt.Sscanf(h.Detail, "pid %d", &pid)
	return pid
}

// freeze stops a process, and returns when that has taken effect.
func freeze(t testing.TB, pid int) {
	t.Helper()
	kill(pid, unix.SIGSTOP)
	eventually(t, "the process to be stopped", func() bool { return stopped(pid) })
}

// stopped reports whether no thread of a process runs any more: the signal has
// been sent before each of them has seen it.
func stopped(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	return len(threads) > 0 && !slices.ContainsFunc(threads, func(thread string) bool {
		stat, _ := os.ReadFile(thread)
		return !strings.Contains(string(stat), ") T ")
	})
}

// answersBare is answers for bare.
func (s *stage) answersBare() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if h, err := s.Check(ctx, sdk.RoleStandby, 7); err != nil || h.Detail != fmt.Sprintf("pid %d", s.PID()) {
		s.t.Fatalf("check: got %+v, %v, and the process is %d", h, err, s.PID())
	}
}

func forced(t sdk.Transition) sdk.Transition {
	t.Mode = sdk.Forced
	return t
}

func TestProcessFromOpenToClose(t *testing.T) {
	s := newStage(t, "moody", nil)
	if d := s.Describe(); d.Name != "" || s.PID() != 0 {
		t.Errorf("before it is open: got %+v, pid %d", d, s.PID())
	}
	if err := s.Renew(t.Context(), 1); !errors.Is(err, ErrClosed) {
		t.Errorf("renew before it is open: got %v", err)
	}
	s.does(act(sdk.Demote, long), sdk.OutcomeUnchanged, "not started: not open")
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := s.Describe()
	if d.Name != "moody" || d.Version != "1.2" || !d.Can(sdk.CanRenew) || d.Can(sdk.CanFence) || d.ForcedBound != 20*time.Millisecond {
		t.Errorf("described as %+v", d)
	}
	s.does(act(sdk.Promote, long), sdk.OutcomeDone, "")
	if pid := s.answers(); pid != s.PID() {
		t.Errorf("process %d answers, and its pid is %d", pid, s.PID())
	}
	if err := s.Renew(t.Context(), 12345); err != nil {
		t.Error(err)
	}
	s.does(act(sdk.Demote, long), sdk.OutcomeDone, "")
	if err := s.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	within(t, 5*time.Second, func() {
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	want := "configure;promote 7 election;check standby;renew 12345;demote 7 planned;close"
	if got := strings.Join(s.notes(), ";"); got != want {
		t.Errorf("the plugin was asked\n%s, want\n%s", got, want)
	}
	if err := s.Renew(t.Context(), 1); !errors.Is(err, ErrClosed) {
		t.Errorf("renew after it is closed: got %v", err)
	}
}

// kill sends a signal to a process that a test knows. The pid of one that is just
// not there is 0, which for kill(2) is all of the caller's own group: the tests,
// and whoever has started them.
func kill(pid int, s unix.Signal) error {
	if pid <= 1 {
		panic(fmt.Sprintf("send signal %d to process %d: it is not there", s, pid))
	}
	return unix.Kill(pid, s)
}
