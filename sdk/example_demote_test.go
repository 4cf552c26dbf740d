package sdk_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A worker is a process that works on the primary alone. While it lives it has a
// lock on a file (fcntl(2)) in a folder that only root writes, so that it can be
// seen, whoever has started it.
type worker struct {
	File string `toml:"file" doc:"which the worker has locked while it lives" required:"true"`
}

// look returns the worker's process, and nil when there is none.
func (w *worker) look() (*os.Process, error) {
	pid, err := w.holder()
	if err != nil || pid == 0 {
		return nil, err
	}
	p, err := os.FindProcess(pid) // by a pidfd: a process that gets the number later is not meant
	if err != nil {
		return nil, err
	}
	if again, err := w.holder(); err != nil || again != pid {
		return nil, errors.Join(err, fmt.Errorf("%s changes hands", w.File))
	}
	return p, nil
}

// holder is who has the lock; zero is nobody.
func (w *worker) holder() (int, error) {
	f, err := os.OpenFile(w.File, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	defer f.Close()
	lock := syscall.Flock_t{Type: syscall.F_WRLCK}
	err = syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &lock)
	if lock.Type == syscall.F_UNLCK {
		return 0, err
	}
	return int(lock.Pid), err
}

// Demote ends the worker: politely while there is time, and by force then.
func (w *worker) Demote(ctx context.Context, t *sdk.Transition) error {
	p, err := w.look()
	switch {
	case err != nil:
		return err // nobody can see it, so it may work: unknown
	case p == nil:
		return sdk.ErrAlready
	}
	if t.Mode == sdk.Planned {
		polite, cancel := context.WithTimeout(ctx, t.Timeout/2)
		defer cancel()
		_ = p.Signal(syscall.SIGTERM)
		if w.gone(polite) == nil {
			return nil
		}
	}
	if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return w.gone(ctx) // that it was killed is not that it is dead
}

// gone returns nil once the worker is seen to be gone.
func (w *worker) gone(ctx context.Context) error {
	return until(ctx, func() (bool, error) {
		p, err := w.look()
		return p == nil, err
	})
}

// until looks until it is so, or time is over.
func until(ctx context.Context, so func() (bool, error)) error {
	for {
		if is, err := so(); is || err != nil {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// endGroup ends all processes of a control group, also those that are born
// meanwhile, and returns nil once there is none (Linux's cgroup-v2.rst).
func endGroup(ctx context.Context, dir string) error {
	gone := func() (bool, error) {
		if _, err := os.Stat(filepath.Dir(dir)); err != nil {
			return false, err // nobody can look
		}
		events, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		if errors.Is(err, fs.ErrNotExist) {
			return true, nil // only an empty group can be removed
		}
		return strings.Contains(string(events), "populated 0"), err
	}
	if is, err := gone(); is || err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return until(ctx, gone)
}

func ExampleDemoter() {
	var _ sdk.Demoter = &worker{}
	_ = endGroup
}

// TestWorkerProcess is the worker, when one of the tests below has started it.
func TestWorkerProcess(t *testing.T) {
	file := os.Getenv("DEPUTY_TEST_WORKER")
	if file == "" {
		return
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK})
	}
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("DEPUTY_TEST_DEAF") != "" {
		signal.Ignore(syscall.SIGTERM)
	}
	fmt.Println("works")
	select {}
}

// starts has a worker work, that ends for SIGTERM or does not.
func (w *worker) starts(t *testing.T, deaf bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestWorkerProcess$")
	cmd.Env = append(os.Environ(), "DEPUTY_TEST_WORKER="+w.File)
	if deaf {
		cmd.Env = append(cmd.Env, "DEPUTY_TEST_DEAF=1")
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "works\n" {
		t.Fatalf("the worker says %q: %v", line, err)
	}
}

// What every demote is to be tried for: first, twice, politely, by force, and
// within its time.
func TestWorkerIsDemoted(t *testing.T) {
	for _, c := range []struct {
		name string
		mode sdk.Mode
		deaf bool
	}{
		{"planned", sdk.Planned, false},
		{"planned, deaf", sdk.Planned, true},
		{"forced", sdk.Forced, false},
		{"forced, deaf", sdk.Forced, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &worker{File: filepath.Join(t.TempDir(), "lock")}
			demote := func() error {
				act := &sdk.Transition{Action: sdk.Demote, Mode: c.mode, Timeout: 2 * time.Second}
				ctx, cancel := context.WithTimeout(t.Context(), act.Timeout)
				defer cancel()
				return w.Demote(ctx, act)
			}
			if err := demote(); !errors.Is(err, sdk.ErrAlready) {
				t.Errorf("where nothing ever worked: %v", err)
			}
			w.starts(t, c.deaf)
			began := time.Now()
			if err := demote(); err != nil {
				t.Errorf("%v after %s", err, time.Since(began))
			}
			if took, patient := time.Since(began), c.deaf && c.mode == sdk.Planned; (took > time.Second) != patient {
				t.Errorf("it took %s, of which it may be polite for a second", took)
			}
			if p, err := w.look(); p != nil || err != nil {
				t.Errorf("it works still: %v, %v", p, err)
			}
			if err := demote(); !errors.Is(err, sdk.ErrAlready) {
				t.Errorf("again: %v", err)
			}
		})
	}
}

// What cannot be seen is not called demoted.
func TestWorkerThatNobodySees(t *testing.T) {
	w := &worker{File: filepath.Join(t.TempDir(), "lock", "of", "a", "file")}
	if err := os.WriteFile(filepath.Dir(filepath.Dir(filepath.Dir(w.File))), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.Demote(t.Context(), &sdk.Transition{Mode: sdk.Forced}); err == nil || errors.Is(err, sdk.ErrAlready) {
		t.Errorf("where nobody can look: %v", err)
	}
}

func TestGroupIsEnded(t *testing.T) {
	dir := t.TempDir()
	if err := endGroup(t.Context(), filepath.Join(dir, "none")); err != nil {
		t.Errorf("one that is not there: %v", err)
	}
	if err := endGroup(t.Context(), filepath.Join(dir, "not", "mounted")); err == nil {
		t.Error("where nobody can look: it is said to be gone")
	}
	populated := func(n int) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.events"), fmt.Appendf(nil, "populated %d\nfrozen 0\n", n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	populated(1)
	kill := filepath.Join(dir, "cgroup.kill")
	if err := os.WriteFile(kill, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := endGroup(ctx, dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one whose processes stay: %v", err)
	}
	time.AfterFunc(20*time.Millisecond, func() { populated(0) })
	if err := endGroup(t.Context(), dir); err != nil {
		t.Error(err)
	}
	if said, err := os.ReadFile(kill); err != nil || string(said) != "1" {
		t.Errorf("it is told %q: %v", said, err)
	}
}

// The guide shows what is tried here.
func TestGuideHasTheDemote(t *testing.T) {
	guide, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("example_demote_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, begin := range []string{"// Demote ends the worker", "// endGroup ends all"} {
		_, text, found := strings.Cut(string(source), "\n"+begin)
		text, _, _ = strings.Cut(text, "\n}\n")
		if !found || !strings.Contains(string(guide), begin+text+"\n}\n") {
			t.Errorf("README.md does not have this as it is:\n%s%s\n}", begin, text)
		}
	}
}
