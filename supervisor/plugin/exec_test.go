package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// hooks are what the test binary does as a hook, by name.
var hooks = map[string]func(args []string) int{
	// tell writes its environment, its input and its descriptors to a folder.
	"tell": func(args []string) int {
		env := os.Environ()
		slices.Sort(env)
		in, _ := os.ReadFile("/dev/stdin")
		var fds []string
		entries, _ := os.ReadDir("/proc/self/fd")
		for _, e := range entries {
			to, _ := os.Readlink("/proc/self/fd/" + e.Name())
			kind, _, _ := strings.Cut(to, ":")
			if n, _ := strconv.Atoi(e.Name()); n <= 4 && (kind == "pipe" || kind == "/dev/null") { // the runtime opens some, too
				fds = append(fds, e.Name()+" "+kind)
			}
		}
		cwd, _ := os.Getwd()
		told, _ := json.Marshal(told{Env: env, In: string(in), Files: fds, Dir: cwd, Session: session(os.Getpid()) == os.Getpid()})
		if err := os.WriteFile(filepath.Join(args[0], "told"), told, 0o644); err != nil {
			return 1
		}
		return 0
	},
	// long writes one line of the length given, without an end.
	"long": func(args []string) int {
		n, _ := strconv.Atoi(args[0])
		os.Stdout.Write(bytes.Repeat([]byte("x"), n))
		os.Stderr.Write(bytes.Repeat([]byte("y"), n))
		return 0
	},
	// stray has a child begin a session of its own, as a daemon does, and
	// waits; nothing ends either but SIGKILL.
	"stray": func(args []string) int {
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
		attr := &os.ProcAttr{Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}}
		if args[0] == "session" {
			attr.Sys = &syscall.SysProcAttr{Setsid: true}
		} else {
			attr.Sys = &syscall.SysProcAttr{Setpgid: true}
		}
		if _, err := os.StartProcess("/bin/sleep", []string{"sleep", "600"}, attr); err != nil {
			return 1
		}
		os.WriteFile(filepath.Join(args[1], "began"), nil, 0o644)
		time.Sleep(10 * time.Minute)
		return 0
	},
}

type told struct {
	Env     []string
	In      string
	Files   []string
	Dir     string
	Session bool
}

func session(pid int) int {
	sid, err := unix.Getsid(pid)
	if err != nil {
		return -1
	}
	return sid
}

func (b *bench) told(t *testing.T) told {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(b.dir, "told"))
	if err != nil {
		t.Fatal(err)
	}
	var said told
	if err := json.Unmarshal(raw, &said); err != nil {
		t.Fatal(err)
	}
	return said
}

func TestOutcomeOfAnAct(t *testing.T) {
	for _, c := range []struct {
		body string
		want sdk.Result
	}{
		{"exit 0", sdk.Result{Outcome: sdk.OutcomeDone}},
		{"echo one; echo two; exit 0", sdk.Result{Outcome: sdk.OutcomeDone, Detail: "two"}},
		{"echo it is; exit 10", sdk.Result{Outcome: sdk.OutcomeAlready, Detail: "it is"}},
		{"echo not me >&2; exit 20", sdk.Result{Outcome: sdk.OutcomeUnchanged, Refused: true, Detail: "not me"}},
		{"exit 75", sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: "exit code 75"}},
		{"exit 40", sdk.Result{Outcome: sdk.OutcomeStaleTerm, Detail: "exit code 40"}},
		{"echo oops >&2; exit 1", sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "exit code 1: oops"}},
		{"exit 126", sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "exit code 126"}},
		{"exit 127", sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "exit code 127"}},
		{"kill -SEGV $$", sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "ended by SIGSEGV"}},
		{"kill -KILL $$", sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "ended by SIGKILL"}},
		{"for i in 1 2 3 4 5; do echo $i; done; exit 3", sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "exit code 3: 3; 4; 5"}},
	} {
		t.Run(c.body, func(t *testing.T) {
			b := newBench(t, map[string]any{"promote": c.body, "demote": c.body})
			for _, a := range []sdk.Action{sdk.Promote, sdk.Demote} {
				if got := b.Do(t.Context(), act(a, long), nil); got != c.want {
					t.Errorf("%s: got %+v, want %+v", a, got, c.want)
				}
			}
		})
	}
}

func TestAnswerOfACheck(t *testing.T) {
	for _, c := range []struct {
		body string
		want sdk.Health
		err  string
	}{
		{body: "exit 0", want: sdk.Health{Fit: true}},
		{body: "echo 'TCP OK - 1 ms|time=0.001s;;;0'; echo more", want: sdk.Health{Fit: true, Detail: "TCP OK - 1 ms"}},
		{body: "echo 'DISK WARNING - 90%|/=9'; exit 1", want: sdk.Health{Fit: true, Detail: "DISK WARNING - 90%"}},
		{body: "echo '90% full'; exit 1", want: sdk.Health{Fit: true, Detail: "warning: 90% full"}},
		{body: "exit 1", want: sdk.Health{Fit: true, Detail: "warning"}},
		{body: "echo chatter >&2; echo refused; exit 2", want: sdk.Health{Detail: "refused"}},
		{body: "echo only this >&2; exit 2", want: sdk.Health{Detail: "only this"}},
		{body: "exit 2", want: sdk.Health{Detail: "critical"}},
		{body: "exit 3", want: sdk.Health{Detail: "unknown"}},
		{body: "echo usage; exit 4", err: "exit code 4: usage"},
		{body: "exit 10", err: "exit code 10"},
		{body: "kill -TERM $$", err: "ended by SIGTERM"},
	} {
		t.Run(c.body, func(t *testing.T) {
			b := newBench(t, map[string]any{"check": c.body})
			got, err := b.Check(t.Context(), sdk.RolePrimary, 7)
			if said := fmt.Sprint(err); got != c.want || (err != nil || c.err != "") && said != c.err {
				t.Errorf("got %+v, %s, want %+v, %q", got, said, c.want, c.err)
			}
		})
	}
}

func TestWhatAnActGets(t *testing.T) {
	t.Setenv("DEPUTY_SERVICE", "the supervisor's own")
	t.Setenv("ETCD_PASSWORD", "secret")
	for name, value := range map[string]string{"PATH": "/bin:/usr/bin", "LANG": "C.UTF-8", "HOME": "/root", "TZ": "UTC"} {
		t.Setenv(name, value)
	}
	b := newBench(t, map[string]any{"promote": hook(t, "tell", "DIR"), "demote": hook(t, "tell", "DIR")})
	want := act(sdk.Promote, 15500*time.Millisecond)
	want.LeaseUntil = sdk.Instant(123456789 * time.Microsecond)
	want.Previous = sdk.Peer{Node: "b", Address: "192.0.2.12"}
	want.Primary = sdk.Peer{Node: "a", Address: "192.0.2.11"}
	want.Members = []sdk.Peer{{Node: "a", Address: "192.0.2.11"}, {Node: "b"}}
	want.Cause, want.Attempt = "b is silent", 2
	if r := b.Do(t.Context(), want, nil); r.Outcome != sdk.OutcomeDone {
		t.Fatal(r)
	}
	got := b.told(t)
	wantEnv := []string{
		"DEPUTY_ACTION=promote",
		"DEPUTY_ATTEMPT=2",
		"DEPUTY_LEASE_UNTIL_MS=123456",
		"DEPUTY_MODE=planned",
		"DEPUTY_NODE=a",
		"DEPUTY_PREVIOUS_NODE=b",
		"DEPUTY_PRIMARY_ADDRESS=192.0.2.11",
		"DEPUTY_PRIMARY_NODE=a",
		"DEPUTY_REASON=election",
		"DEPUTY_SERVICE=db",
		"DEPUTY_STATE_DIR=" + filepath.Join(b.dir, "state/plugins/hook"),
		"DEPUTY_TERM=7",
		"DEPUTY_TIMEOUT_MS=15500",
		"HOME=/root",
		"LANG=C.UTF-8",
		"PATH=/bin:/usr/bin",
		"TMPDIR=" + b.dir,
		"TZ=UTC",
	}
	if diff := cmp.Diff(wantEnv, got.Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	var in sdk.Transition
	if err := json.Unmarshal([]byte(got.In), &in); err != nil {
		t.Errorf("standard input: %v", err)
	}
	want.StateDir = filepath.Join(b.dir, "state/plugins/hook")
	if diff := cmp.Diff(want, in); diff != "" {
		t.Errorf("transition on standard input (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"0 pipe", "1 pipe", "2 pipe", "3 pipe", "4 pipe"}, got.Files); diff != "" {
		t.Errorf("descriptors (-want +got):\n%s", diff)
	}
	if got.Dir != "/" || !got.Session {
		t.Errorf("in %s, in a session of its own %t; want /, true", got.Dir, got.Session)
	}
}

func TestWhatACheckGets(t *testing.T) {
	b := newBench(t, map[string]any{"check": hook(t, "tell", "DIR")})
	if h, err := b.Check(t.Context(), sdk.RoleStandby, 7); err != nil || !h.Fit {
		t.Fatal(h, err)
	}
	got := b.told(t)
	env := slices.DeleteFunc(got.Env, func(s string) bool { return !strings.HasPrefix(s, "DEPUTY_") })
	want := []string{
		"DEPUTY_ACTION=check",
		"DEPUTY_NODE=a",
		"DEPUTY_ROLE=standby",
		"DEPUTY_SERVICE=db",
		"DEPUTY_STATE_DIR=" + filepath.Join(b.dir, "state/plugins/hook"),
		"DEPUTY_TERM=7",
		"DEPUTY_TIMEOUT_MS=10000",
	}
	if diff := cmp.Diff(want, env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"0 /dev/null", "1 pipe", "2 pipe"}, got.Files); diff != "" {
		t.Errorf("descriptors (-want +got):\n%s", diff)
	}
}

func TestActTakesNoLongerThanItsContextHas(t *testing.T) {
	b := newBench(t, map[string]any{"demote": hook(t, "tell", "DIR")})
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if r := b.Do(ctx, act(sdk.Demote, time.Hour), nil); !r.Outcome.OK() {
		t.Fatal(r)
	}
	for _, v := range b.told(t).Env {
		if ms, ok := strings.CutPrefix(v, "DEPUTY_TIMEOUT_MS="); ok {
			if n, _ := strconv.Atoi(ms); n < 5000 || n > 15000 {
				t.Errorf("told to end within %s ms, want 15000 at most", ms)
			}
			return
		}
	}
	t.Error("DEPUTY_TIMEOUT_MS is not set")
}

func TestActWithoutTimeIsNotStarted(t *testing.T) {
	b := newBench(t, map[string]any{"demote": `touch "$TMPDIR/ran"`})
	over, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("lease lost"))
	for _, c := range []struct {
		ctx     context.Context
		timeout time.Duration
		detail  string
	}{
		{t.Context(), 0, "not started: no time is left for it"},
		{over, long, "not started: lease lost"},
	} {
		want := sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: c.detail}
		if got := b.Do(c.ctx, act(sdk.Demote, c.timeout), nil); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	if b.exists("ran") {
		t.Error("it ran")
	}
}

func TestActThatThePluginHasNot(t *testing.T) {
	b := newBench(t, map[string]any{"check": "exit 0"})
	if r := b.Do(t.Context(), act(sdk.Promote, long), nil); r.Outcome != sdk.OutcomeUnchanged || !r.Refused {
		t.Errorf("promote: got %+v, want refused", r)
	}
	if err := b.Renew(t.Context(), 1); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("renew: got %v", err)
	}
	if _, err := b.Rank(t.Context(), "", nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("rank: got %v", err)
	}
	b = newBench(t, map[string]any{"demote": "exit 0"})
	if _, err := b.Check(t.Context(), sdk.RoleStandby, 0); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("check: got %v", err)
	}
}

func TestDescribe(t *testing.T) {
	b := newBench(t, map[string]any{"promote": "exit 0", "demote": "exit 0", "fence": "exit 0", "forced_bound": "150ms"})
	want := supervisor.Description{Name: "exec", Capabilities: []sdk.Capability{sdk.CanPromote, sdk.CanDemote, sdk.CanFence}, ForcedBound: 150 * time.Millisecond}
	if diff := cmp.Diff(want, b.Describe()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A script that fences is told whom, and never to fence its own node.
func TestFenceHook(t *testing.T) {
	b := newBench(t, map[string]any{"fence": `echo "$DEPUTY_ACTION $DEPUTY_PREVIOUS_NODE $DEPUTY_PRIMARY_NODE"; exit 10`})
	a := act(sdk.Fence, long)
	a.Previous, a.Primary = sdk.Peer{Node: "b"}, sdk.Peer{Node: "b"}
	if got, want := b.Do(t.Context(), a, nil), (sdk.Result{Outcome: sdk.OutcomeAlready, Detail: "fence b b"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, victim := range []string{a.Node, ""} {
		a.Primary.Node = victim
		if got := b.Do(t.Context(), a, nil); got.Outcome != sdk.OutcomeUnchanged || !got.Refused {
			t.Errorf("fence of %q: got %+v, want refused", victim, got)
		}
	}
}

func TestHookRunsAsAnotherUser(t *testing.T) {
	nobody, err := user.Lookup("nobody")
	if os.Geteuid() != 0 || err != nil {
		needsRoot(t)
	}
	b := newBench(t, map[string]any{"demote": `echo "$(id -u):$(id -g) $HOME"`, "user": "nobody"})
	os.Chmod(filepath.Dir(b.dir), 0o755)
	want := sdk.Result{Outcome: sdk.OutcomeDone, Detail: nobody.Uid + ":" + nobody.Gid + " " + nobody.HomeDir}
	if got := b.Do(t.Context(), act(sdk.Demote, long), nil); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	b = newBench(t, map[string]any{"promote": `exit 0`, "demote": "exit 0", "user": "nobody-of-that-name"})
	if got := b.Do(t.Context(), act(sdk.Promote, long), nil); got.Outcome != sdk.OutcomeUnchanged || !strings.Contains(got.Detail, "unknown user") {
		t.Errorf("got %+v, want not started, for want of the user", got)
	}
	var mistake *sdk.KeyError
	if err := b.Verify(t.Context()); !errors.As(err, &mistake) || mistake.Key != "user" {
		t.Errorf("verify: got %v, want a mistake in user", err)
	}
}

// needsRoot ends a test that only root can run.
func needsRoot(t *testing.T) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("only root can run this test")
	}
	t.Skip("only root can run this test")
}

func TestProgressReachesTheCaller(t *testing.T) {
	b := newBench(t, map[string]any{"promote": `
echo "replaying the log" >&3
echo '{"progress": 40, "msg": "redo"}' >&3
echo '{"msg": "nearly"}' >&3
echo '{"progress": 99.6}' >&3
printf 'no end of line' >&3`, "demote": "exit 0"})
	var got []string
	if r := b.Do(t.Context(), act(sdk.Promote, long), func(s string) { got = append(got, s) }); r.Outcome != sdk.OutcomeDone {
		t.Fatal(r)
	}
	want := []string{"replaying the log", "40% redo", "nearly", "100%", "no end of line"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOneActAtATime(t *testing.T) {
	b := newBench(t, map[string]any{
		"promote": `touch "$TMPDIR/began"; while ! [ -e "$TMPDIR/go" ]; do sleep 0.01; done`,
		"demote":  `touch "$TMPDIR/demoted"`, "check": "exit 0",
	})
	var first sdk.Result
	var running sync.WaitGroup
	running.Go(func() { first = b.Do(t.Context(), act(sdk.Promote, long), nil) })
	eventually(t, "the promotion to begin", func() bool { return b.exists("began") })

	got := b.Do(t.Context(), act(sdk.Demote, long), nil)
	if got.Outcome != sdk.OutcomeUnchanged || got.Refused || !strings.Contains(got.Detail, "another act still runs") {
		t.Errorf("a second act: got %+v, want unchanged", got)
	}
	if b.exists("demoted") {
		t.Error("the second act ran beside the first")
	}
	if h, err := b.Check(t.Context(), sdk.RolePromoting, 7); err != nil || !h.Fit {
		t.Errorf("a check beside an act: got %+v, %v", h, err)
	}
	os.WriteFile(filepath.Join(b.dir, "go"), nil, 0o644)
	running.Wait()
	if first.Outcome != sdk.OutcomeDone {
		t.Errorf("the first act: got %+v, want done", first)
	}
	if got := b.Do(t.Context(), act(sdk.Demote, long), nil); got.Outcome != sdk.OutcomeDone {
		t.Errorf("an act after it: got %+v, want done", got)
	}
}

func TestManyChecksAtOnce(t *testing.T) {
	b := newBench(t, map[string]any{"check": `while ! [ -e "$TMPDIR/go" ]; do sleep 0.02; done; echo fine`})
	var running sync.WaitGroup
	for range maxChecks {
		running.Go(func() {
			if h, err := b.Check(t.Context(), sdk.RolePrimary, 7); err != nil || h.Detail != "fine" {
				t.Errorf("got %+v, %v", h, err)
			}
		})
	}
	eventually(t, "all checks to run", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.all) == maxChecks
	})
	if _, err := b.Check(t.Context(), sdk.RolePrimary, 7); err == nil || !strings.Contains(err.Error(), "16 checks still run") {
		t.Errorf("one check too many: got %v, want an error", err)
	}
	os.WriteFile(filepath.Join(b.dir, "go"), nil, 0o644)
	running.Wait()
	if h, err := b.Check(t.Context(), sdk.RolePrimary, 7); err != nil || !h.Fit {
		t.Errorf("a check after them: got %+v, %v", h, err)
	}
}
