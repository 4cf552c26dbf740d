package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// build builds what the demo runs and returns where it is.
func build(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	for _, what := range [][]string{
		{bin + "/", "../../supervisor/deputy", "../binlog", "."},
		{filepath.Join(bin, "deputy-plugin-vip"), "../../plugins/vip"},
	} {
		cmd := exec.CommandContext(t.Context(), "go", append([]string{"build", "-o"}, what...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as make builds them
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
	}
	return bin
}

// A performance is a running demo.
type performance struct {
	cmd *exec.Cmd
	out *output
	tmp string
}

// An output can be read while it is written.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func start(t *testing.T, bin string, args ...string) *performance {
	t.Helper()
	tmp, err := os.MkdirTemp("", "demo") // short, for the sockets in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	p := &performance{out: &output{}, tmp: tmp}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	p.cmd = exec.CommandContext(ctx, filepath.Join(bin, "demo"), args...)
	p.cmd.Env = append(os.Environ(), "TMPDIR="+p.tmp, "STAY=", "TERM=dumb")
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	p.cmd.WaitDelay = 10 * time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// leftovers returns the processes that have the demo's directory in their
// command line or environment. Where there is none, there is no namespace of
// the demo either: they have no name and last as long as their processes.
func (p *performance) leftovers(t *testing.T) (found []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range all {
		command, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue // it has ended
		}
		environ, _ := os.ReadFile(filepath.Join(dir, "environ")) // that of others is not ours to read
		if bytes.Contains(command, []byte(p.tmp)) || bytes.Contains(environ, []byte(p.tmp)) {
			found = append(found, string(bytes.ReplaceAll(command, []byte{0}, []byte(" "))))
		}
	}
	return found
}

// away waits until nothing is left of the demo but, where it could not do
// that, its directory.
func (p *performance) away(t *testing.T, dirToo bool) {
	t.Helper()
	var processes []string
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		if processes = p.leftovers(t); processes == nil {
			break
		}
	}
	if processes != nil {
		t.Errorf("these processes remain: %q", processes)
	}
	left, err := filepath.Glob(filepath.Join(p.tmp, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if dirToo && len(left) > 0 {
		t.Errorf("these files remain: %q", left)
	}
}

// modes are the ways in which the demo can run here.
func modes(t *testing.T, run func(t *testing.T, args []string)) {
	t.Run("namespaces", func(t *testing.T) {
		if os.Geteuid() != 0 {
			if os.Getenv("CI") == "true" {
				t.Fatal("needs root for namespaces of its own")
			}
			t.Skip("needs root for namespaces of its own")
		}
		run(t, nil)
	})
	t.Run("loopback", func(t *testing.T) { run(t, []string{"-loopback"}) })
}

func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	bin := build(t)
	modes(t, func(t *testing.T, args []string) {
		t.Run("to its end", func(t *testing.T) { endsWell(t, bin, args) })
		t.Run("told to stop", func(t *testing.T) { endsEarly(t, bin, args, syscall.SIGTERM) })
		t.Run("killed", func(t *testing.T) { endsEarly(t, bin, args, syscall.SIGKILL) })
	})
}

func endsWell(t *testing.T, bin string, args []string) {
	p := start(t, bin, append(args, "-quick")...)
	err := p.cmd.Wait()
	out := p.out.String()
	if err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	if strings.Contains(out, "no namespaces here") {
		t.Fatalf("the demo made no namespaces:\n%s", out)
	}
	for _, want := range []string{
		`(?m)^  switchover +\d[\d.]* ms   never +1 -> 2 +n\d -> n\d$`,
		`(?m)^  supervisor killed +0 ms   never +2 -> 2 +n\d -> n\d$`,
		`(?m)^  node lost +\d{3,} ms   never +2 -> 3 +n\d -> n\d$`,
		`(?m)^  The parser went through \d{3,} events, each exactly once\.$`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("the summary has no line like %s:\n%s", want, out)
		}
	}
	p.away(t, true)
}

// endsEarly ends the demo while a primary serves.
func endsEarly(t *testing.T, bin string, args []string, sig syscall.Signal) {
	p := start(t, bin, args...)
	for until := time.Now().Add(time.Minute); !strings.Contains(p.out.String(), "is primary in term 1"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("no primary:\n%s", p.out)
		}
	}
	// What is looked for afterwards can be found.
	if found := strings.Join(p.leftovers(t), "\n"); len(args) == 0 && !strings.Contains(found, "/deputy-plugin-vip") {
		t.Errorf("no plugin among the processes of the demo:\n%s", found)
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err == nil {
		t.Errorf("the demo ended well:\n%s", p.out)
	}
	p.away(t, sig != syscall.SIGKILL)
}

func TestNextRunRemovesWhatAKilledOneLeft(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	dead := exec.CommandContext(t.Context(), "true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(tmp, fmt.Sprintf("deputy-demo-%d-1", dead.Process.Pid))
	running := filepath.Join(tmp, fmt.Sprintf("deputy-demo-%d-1", os.Getppid()))
	foreign := filepath.Join(tmp, "deputy-demo-of-somebody")
	for _, dir := range []string{left, running, foreign} {
		if err := os.MkdirAll(filepath.Join(dir, "n1"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := makeDir()
	if err != nil {
		t.Fatal(err)
	}
	got, err := filepath.Glob(filepath.Join(tmp, "*"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{running, foreign, dir}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
