package plugin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// cancelled runs f with a context that ends for the cause once the condition
// holds, so that no test depends on how soon a hook gets going.
func cancelled(t *testing.T, what string, condition func() bool, f func(context.Context)) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() {
		eventually(t, what, condition)
		cancel(errors.New("lease lost"))
	})
	f(ctx)
}

func TestHookDeafToSignalsIsKilled(t *testing.T) {
	b := newBench(t, map[string]any{"demote": `trap "" TERM; while :; do sleep 60; done`})
	took := within(t, 10*time.Second, func() {
		got := b.Do(t.Context(), act(sdk.Demote, 100*time.Millisecond), nil)
		if want := (sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "cut short: not done within 100ms"}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
	if took < 100*time.Millisecond+graceTime {
		t.Errorf("took %s, but has a grace of %s after its deadline", took, graceTime)
	}
}

func TestHookIsToldToEndBeforeItIsKilled(t *testing.T) {
	b := newBench(t, map[string]any{"promote": `trap 'echo tidied; exit 0' TERM; echo working; touch "$TMPDIR/began"; while :; do sleep 0.02; done`, "demote": "exit 0"})
	cancelled(t, "the promotion to begin", func() bool { return b.exists("began") }, func(ctx context.Context) {
		got := b.Do(ctx, act(sdk.Promote, long), nil)
		// Its own word that it was done is not taken: it was told to stop.
		if got.Outcome != sdk.OutcomeUnknown || !strings.HasPrefix(got.Detail, "cut short: lease lost: working; ") || !strings.Contains(got.Detail, "; tidied") {
			t.Errorf("got %+v, want unknown, with what it said", got)
		}
	})
}

func TestForcedActHasNoGrace(t *testing.T) {
	b := newBench(t, map[string]any{"demote": `trap 'touch "$TMPDIR/told"' TERM; touch "$TMPDIR/began"; while :; do sleep 0.01; done`})
	cancelled(t, "the demotion to begin", func() bool { return b.exists("began") }, func(ctx context.Context) {
		tr := act(sdk.Demote, long)
		tr.Mode = sdk.Forced
		if got, want := b.Do(ctx, tr, nil), (sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "cut short: lease lost"}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
	if b.exists("told") {
		t.Error("got SIGTERM")
	}
}

func TestStoppedHookIsEnded(t *testing.T) {
	b := newBench(t, map[string]any{"demote": `kill -STOP $$`, "check": `kill -STOP $$`})
	within(t, 10*time.Second, func() {
		if got := b.Do(t.Context(), act(sdk.Demote, 100*time.Millisecond), nil); got.Outcome != sdk.OutcomeUnknown {
			t.Errorf("got %+v, want unknown", got)
		}
	})
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errors.New("no answer within 100ms"))
	defer cancel()
	within(t, 10*time.Second, func() {
		if h, err := b.Check(ctx, sdk.RolePrimary, 7); err == nil || h.Fit {
			t.Errorf("got %+v, %v, want an error", h, err)
		}
	})
}

// What timeout(1) does takes a program out of the hook's group, what setsid(1)
// does out of its session as well; and one whose parents have ended descends
// from nobody.
func TestStraysAreKilledToo(t *testing.T) {
	for kind, demote := range map[string]any{
		"group":   hook(t, "stray", "group", "DIR"),
		"session": hook(t, "stray", "session", "DIR"),
		"orphan":  `trap "" TERM; (timeout 600 sleep 600 & touch "$TMPDIR/began"); while :; do sleep 60; done`,
	} {
		t.Run(kind, func(t *testing.T) {
			b := newBench(t, map[string]any{"demote": demote})
			begun := func() bool { return b.exists("began") && len(marked(b.dir)) >= 2 }
			cancelled(t, "the stray to begin", begun, func(ctx context.Context) {
				tr := act(sdk.Demote, long)
				tr.Mode = sdk.Forced
				if got := b.Do(ctx, tr, nil); got.Outcome != sdk.OutcomeUnknown {
					t.Errorf("got %+v, want unknown", got)
				}
			})
			if pids := marked(b.dir); len(pids) > 0 {
				t.Errorf("still there when the act is over: %v", pids)
			}
		})
	}
}

func TestWhatAHookLeavesRunning(t *testing.T) {
	const leave = `sleep 600 & touch "$TMPDIR/began"; exit `
	for _, c := range []struct {
		key, body string
		stays     bool
	}{
		{"promote", leave + "0", true}, // it may be what was promoted
		{"promote", leave + "10", true},
		{"promote", leave + "1", false}, // it may still be at it
		{"promote", leave + "75", false},
		{"check", leave + "0", false},
	} {
		t.Run(c.key+c.body[len(leave)-1:], func(t *testing.T) {
			b := newBench(t, map[string]any{c.key: c.body, "demote": "exit 0"})
			// It holds on to the outputs as well, and nobody waits for that.
			within(t, 10*time.Second, func() {
				if c.key == "check" {
					b.Check(t.Context(), sdk.RolePrimary, 7)
				} else {
					b.Do(t.Context(), act(sdk.Promote, long), nil)
				}
			})
			if c.key == "check" {
				eventually(t, "the check's child to end", func() bool { return len(marked(b.dir)) == 0 })
			}
			if pids := marked(b.dir); (len(pids) == 1) != c.stays {
				t.Errorf("left running: %v, want one: %t", pids, c.stays)
			}
			if warned := strings.Contains(b.log.String(), "level=WARN msg=\"plugin left its outputs open\""); warned != c.stays {
				t.Errorf("warned of outputs that nobody reads: %t, want %t", warned, c.stays)
			}
			for _, pid := range marked(b.dir) {
				kill(pid, unix.SIGKILL)
			}
		})
	}
}

func TestOutputBeforeTheEndIsNotLost(t *testing.T) {
	// The child keeps the pipe open, so it is not its end that tells where the
	// output ends.
	b := newBench(t, map[string]any{"check": `sleep 600 & i=0; while [ $i -lt 200 ]; do echo "line $i of a text that is not short" >&2; i=$((i+1)); done; echo the answer; exit 2`})
	for range 5 {
		if h, err := b.Check(t.Context(), sdk.RolePrimary, 7); err != nil || h.Detail != "the answer" {
			t.Fatalf("got %+v, %v", h, err)
		}
	}
}

func TestLineOfAMebibyte(t *testing.T) {
	b := newBench(t, map[string]any{"demote": hook(t, "long", strconv.Itoa(1<<20))})
	got := b.Do(t.Context(), act(sdk.Demote, long), nil)
	if got.Outcome != sdk.OutcomeDone || len(got.Detail) > maxKept {
		t.Errorf("got %s with %d bytes of detail, want done with %d at most", got.Outcome, len(got.Detail), maxKept)
	}
	if n := len(b.log.String()); n < 2*maxLine-100 || n > 2*maxLine+1000 {
		t.Errorf("logged %d bytes, want about %d", n, 2*maxLine)
	}
}

func TestHookThatSaysTooMuch(t *testing.T) {
	b := newBench(t, map[string]any{"demote": `i=0; while [ $i -lt 20000 ]; do echo "line $i"; i=$((i+1)); done`})
	if got, want := b.Do(t.Context(), act(sdk.Demote, long), nil), (sdk.Result{Outcome: sdk.OutcomeDone, Detail: "line 19999"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if n := strings.Count(b.log.String(), "\n"); n != maxLogged+1 {
		t.Errorf("logged %d lines, want %d", n, maxLogged+1)
	}
}

func TestPriorityOfALine(t *testing.T) {
	b := newBench(t, map[string]any{"demote": `echo '<3>broken'; echo '<4>odd'; echo '<7>detail'; echo plain; echo '<8>no priority'; printf 'a\033[31mred\001\n'; echo`, "check": "echo fine"})
	got := b.Do(t.Context(), act(sdk.Demote, long), nil)
	if want := "a?[31mred?"; got.Detail != want {
		t.Errorf("detail %q, want %q", got.Detail, want)
	}
	b.Check(t.Context(), sdk.RolePrimary, 7)
	for _, want := range []string{
		`level=ERROR msg="plugin says" plugin=hook action=demote term=7 attempt=1 line=broken`,
		`level=WARN msg="plugin says" plugin=hook action=demote term=7 attempt=1 line=odd`,
		`level=DEBUG msg="plugin says" plugin=hook action=demote term=7 attempt=1 line=detail`,
		`level=INFO msg="plugin says" plugin=hook action=demote term=7 attempt=1 line=plain`,
		`level=INFO msg="plugin says" plugin=hook action=demote term=7 attempt=1 line="<8>no priority"`,
		`level=DEBUG msg="plugin says" plugin=hook action=check line=fine`,
	} {
		if !strings.Contains(b.log.String(), want+"\n") {
			t.Errorf("log lacks %s\n%s", want, b.log)
		}
	}
}

func TestInputThatNobodyReads(t *testing.T) {
	tr := act(sdk.Demote, long)
	for i := range 20000 { // more than fits into a pipe
		tr.Members = append(tr.Members, sdk.Peer{Node: fmt.Sprint("node", i)})
	}
	for _, body := range []string{"exit 0", "exec <&-; sleep 0.1", "head -c 1 >/dev/null", "sleep 0.1"} {
		t.Run(body, func(t *testing.T) {
			b := newBench(t, map[string]any{"demote": body})
			within(t, 10*time.Second, func() {
				if got := b.Do(t.Context(), tr, nil); got.Outcome != sdk.OutcomeDone {
					t.Errorf("got %+v, want done", got)
				}
			})
		})
	}
	b := newBench(t, map[string]any{"demote": "wc -c"})
	if got := b.Do(t.Context(), tr, nil); got.Outcome != sdk.OutcomeDone || len(got.Detail) < 6 {
		t.Errorf("one that reads all of it: got %+v", got)
	}
}

func TestKillDuringAPromotionThenDemote(t *testing.T) {
	b := newBench(t, map[string]any{
		"promote": `trap "" TERM; touch "$TMPDIR/began"; sleep 600 & timeout 600 sleep 601 & while :; do sleep 60; done`,
		"demote":  `exit 0`, "check": `touch "$TMPDIR/checking"; sleep 600`,
	})
	var promoted sdk.Result
	var checked error
	var running sync.WaitGroup
	running.Go(func() { promoted = b.Do(t.Context(), act(sdk.Promote, long), nil) })
	running.Go(func() { _, checked = b.Check(t.Context(), sdk.RolePromoting, 7) })
	eventually(t, "both to begin", func() bool { return b.exists("began") && b.exists("checking") && len(marked(b.dir)) >= 7 })

	killed := within(t, 10*time.Second, func() {
		if err := b.Kill(t.Context()); err != nil {
			t.Error(err)
		}
	})
	if pids := marked(b.dir); len(pids) > 0 {
		t.Errorf("still there after Kill: %v", pids)
	}
	demote := act(sdk.Demote, long)
	demote.Mode = sdk.Forced
	demoted := within(t, 10*time.Second, func() {
		if got := b.Do(t.Context(), demote, nil); got.Outcome != sdk.OutcomeDone {
			t.Errorf("demote: got %+v, want done", got)
		}
	})
	t.Logf("killed in %s, demoted in %s", killed, demoted)
	running.Wait()
	if want := (sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "cut short: killed"}); promoted != want {
		t.Errorf("promote: got %+v, want %+v", promoted, want)
	}
	if checked == nil {
		t.Error("the check that was killed has given an answer")
	}
	if err := b.Kill(t.Context()); err != nil {
		t.Errorf("kill with nothing running: %v", err)
	}
}

func TestActCutShortByKillInItsGrace(t *testing.T) {
	b := newBench(t, map[string]any{"promote": `trap 'touch "$TMPDIR/told"' TERM; touch "$TMPDIR/began"; while :; do sleep 0.02; done`, "demote": "exit 0"})
	var running sync.WaitGroup
	running.Go(func() {
		eventually(t, "the hook to be told", func() bool { return b.exists("told") })
		if err := b.Kill(t.Context()); err != nil {
			t.Error(err)
		}
		if pids := marked(b.dir); len(pids) > 0 {
			t.Errorf("still there after Kill: %v", pids)
		}
	})
	cancelled(t, "the promotion to begin", func() bool { return b.exists("began") }, func(ctx context.Context) {
		if got := b.Do(ctx, act(sdk.Promote, long), nil); got.Outcome != sdk.OutcomeUnknown {
			t.Errorf("got %+v, want unknown", got)
		}
	})
	running.Wait()
}

func TestKillAtAnyMomentOfAnAct(t *testing.T) {
	b := newBench(t, map[string]any{"promote": "sleep 60", "demote": "exit 0"})
	seen := map[string]int{}
	for i := range 60 {
		ctx, cancel := context.WithCancelCause(t.Context())
		var promoted sdk.Result
		var running sync.WaitGroup
		running.Go(func() { promoted = b.Do(ctx, act(sdk.Promote, long), nil) })
		time.Sleep(time.Duration(i) * 100 * time.Microsecond)
		if err := b.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		demoted := b.Do(t.Context(), act(sdk.Demote, long), nil)
		cancel(errors.New("the test goes on"))
		running.Wait()
		said, _, _ := strings.Cut(promoted.Detail, ": could not be killed") // in time, on a busy machine
		switch said {
		case "cut short: killed", "not started: killed":
			if demoted.Outcome != sdk.OutcomeDone {
				t.Fatalf("demote after a kill: got %+v, want done", demoted)
			}
		default: // it began only after the kill, with the demotion or after it
			if promoted.Outcome.OK() || promoted.Outcome == sdk.OutcomeUnknown && !strings.HasSuffix(promoted.Detail, "the test goes on") {
				t.Fatalf("promote after a kill: got %+v", promoted)
			}
		}
		seen[said]++
	}
	t.Log(seen)
	if seen["cut short: killed"] == 0 {
		t.Error("no promotion was killed")
	}
}

// A process that waits for a frozen file system cannot be killed: fsfreeze(8)
// makes one that can be had back.
func TestHookThatCannotBeKilled(t *testing.T) {
	mount, thaw := frozen(t)
	b := newBench(t, map[string]any{
		"promote": `trap "" TERM; exec touch ` + mount + `/x`,
		"demote":  "exit 0", "check": `exec touch ` + mount + `/y`,
	})
	t.Cleanup(thaw)
	// A program that is read from a busy disk looks stuck, too, but not for long.
	stuck := func(want int) func() bool {
		seen := 0
		return func() bool {
			n := 0
			for _, pid := range marked(b.dir) {
				if stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); strings.Contains(string(stat), "(touch) D ") {
					n++
				}
			}
			if seen++; n < want {
				seen = 0
			}
			return seen > 20
		}
	}
	cancelled(t, "the promotion to be stuck", stuck(1), func(ctx context.Context) {
		got := b.Do(ctx, act(sdk.Promote, long), nil)
		if got.Outcome != sdk.OutcomeUnknown || !strings.Contains(got.Detail, "could not be killed: "+b.dir+"/promote, pid ") {
			t.Errorf("got %+v, want unknown with the pid", got)
		}
	})
	b.part.Check.Timeout = long
	cancelled(t, "the check to be stuck", stuck(2), func(ctx context.Context) {
		if _, err := b.Check(ctx, sdk.RolePrimary, 7); err == nil || !strings.Contains(err.Error(), "could not be killed") {
			t.Errorf("check: got %v", err)
		}
	})
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errors.New("its processes do not end"))
	defer cancel()
	if err := b.Kill(ctx); err == nil || !strings.Contains(err.Error(), "/promote, pid ") || !strings.Contains(err.Error(), "/check, pid ") {
		t.Errorf("kill: got %v, want both", err)
	}
	// What cannot be killed could come after what another act sees.
	if got := b.Do(t.Context(), act(sdk.Demote, long), nil); got.Outcome != sdk.OutcomeUnchanged || !strings.Contains(got.Detail, ErrActing.Error()) {
		t.Errorf("an act beside it: got %+v, want unchanged: %v", got, ErrActing)
	}
	thaw()
	if err := b.Kill(t.Context()); err != nil {
		t.Errorf("kill, now that they can die: %v", err)
	}
	if got := b.Do(t.Context(), act(sdk.Demote, long), nil); got.Outcome != sdk.OutcomeDone {
		t.Errorf("an act after it: got %+v, want done", got)
	}
}

// An act that was begun by the definition of before is one of the part's.
func TestReloadedHookIsKilled(t *testing.T) {
	b := newBench(t, map[string]any{"promote": `trap "" TERM; touch "$TMPDIR/began"; while :; do sleep 0.02; done`, "demote": "exit 0"})
	done := make(chan sdk.Result, 1)
	go func() { done <- b.Do(t.Context(), act(sdk.Promote, long), nil) }()
	eventually(t, "the promotion to begin", func() bool {
		_, err := os.Stat(filepath.Join(b.dir, "began"))
		return err == nil
	})
	next, _, err := b.Configure(t.Context(), b.part)
	if err != nil {
		t.Fatal(err)
	}
	if got := next.Do(t.Context(), act(sdk.Demote, long), nil); got.Outcome != sdk.OutcomeUnchanged || !strings.Contains(got.Detail, ErrActing.Error()) {
		t.Errorf("an act beside it: got %+v, want unchanged: %v", got, ErrActing)
	}
	if err := next.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if left := marked(b.dir); len(left) > 0 {
		t.Errorf("processes %v live after the kill", left)
	}
	if got := <-done; got.Outcome != sdk.OutcomeUnknown {
		t.Errorf("the promotion: got %+v, want unknown", got)
	}
	if got := next.Do(t.Context(), act(sdk.Demote, long), nil); got.Outcome != sdk.OutcomeDone {
		t.Errorf("an act after it: got %+v, want done", got)
	}
}

// An act that was given up before it began does not begin.
func TestActGivenUpDoesNotBegin(t *testing.T) {
	b := newBench(t, map[string]any{"promote": `touch "$TMPDIR/began"`, "demote": "exit 0"})
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the lease is lost"))
	if _, err := b.begin(ctx, program{argv: []string{filepath.Join(b.dir, "promote")}, kind: acting}); err == nil {
		t.Error("it has begun")
	}
}

func frozen(t *testing.T) (mount string, thaw func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		needsRoot(t)
	}
	dir := t.TempDir()
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "mount")
	os.Mkdir(mount, 0o755)
	run := func(argv ...string) {
		t.Helper()
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
			}
			t.Skipf("%s: %v: %s", strings.Join(argv, " "), err, out)
		}
	}
	run("truncate", "-s", "4M", image)
	run("/sbin/mkfs.ext4", "-q", "-F", image)
	run("mount", "-o", "loop", image, mount)
	t.Cleanup(func() { exec.Command("umount", mount).Run() })
	run("/sbin/fsfreeze", "-f", mount)
	return mount, sync.OnceFunc(func() {
		if out, err := exec.Command("/sbin/fsfreeze", "-u", mount).CombinedOutput(); err != nil {
			t.Errorf("thaw: %v: %s", err, out)
		}
	})
}

// supervise is a supervisor that runs one promotion, says when it is over, and
// then waits to be killed.
func supervise(args []string) int {
	h := Host{Service: "db", Node: "a", UID: os.Geteuid(), Clock: boot{}, Log: slog.New(slog.DiscardHandler)}
	x, err := New(h, supervisor.Part{Use: "exec", Name: "hook", Config: map[string]any{"promote": []string{args[0]}, "demote": []string{args[0]}}})
	if err != nil {
		return 1
	}
	json.NewEncoder(os.Stdout).Encode(x.Do(context.Background(), act(sdk.Promote, time.Minute), nil))
	time.Sleep(time.Minute)
	return 0
}

func TestActEndsWithTheSupervisor(t *testing.T) {
	b := newBench(t, map[string]any{"promote": `trap "" TERM HUP INT IO; touch "$TMPDIR/began"; sleep 600 & while :; do sleep 60; done`, "demote": "exit 0"})
	super := exec.Command(os.Args[0], "hook", "supervise", filepath.Join(b.dir, "promote"))
	if err := super.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the promotion to begin", func() bool { return b.exists("began") && len(marked(b.dir)) >= 4 })
	began := time.Now()
	super.Process.Kill()
	super.Wait()
	eventually(t, "the hook to end", func() bool { return len(marked(b.dir)) == 0 })
	took := time.Since(began)
	if took > 10*time.Second {
		t.Errorf("the hook ended %s after its supervisor", took)
	}
	t.Logf("the hook was seen to have ended %s after its supervisor", took)
}

func TestWhatIsPromotedOutlivesTheSupervisor(t *testing.T) {
	b := newBench(t, map[string]any{"promote": `sleep 600 >/dev/null 2>&1 & exit 0`, "demote": "exit 0"})
	super := exec.Command(os.Args[0], "hook", "supervise", filepath.Join(b.dir, "promote"))
	out, err := super.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := super.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.Contains(line, `"done"`) {
		t.Fatalf("got %s, %v", line, err)
	}
	super.Process.Kill()
	io.Copy(io.Discard, out)
	super.Wait()
	for range 20 {
		if len(marked(b.dir)) != 1 {
			t.Fatal("what was promoted ended with the supervisor")
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, pid := range marked(b.dir) {
		kill(pid, unix.SIGKILL)
	}
}
