package plugin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/wire"
	"github.com/deputy-ha/deputy/supervisor"
)

// during runs f in a context that ends, because the lease is lost, once the
// plugin has made the file "began".
func (s *stage) during(f func(ctx context.Context)) {
	s.t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	var ending sync.WaitGroup
	ending.Go(func() {
		eventually(s.t, "the act to begin", func() bool { return s.exists("began") })
		cancel(errors.New("lease lost"))
	})
	f(ctx)
	ending.Wait()
}

func TestActOfAProcessCutShort(t *testing.T) {
	for _, c := range []struct {
		mood   string
		mode   sdk.Mode
		detail string
		within time.Duration
	}{
		{"hang", sdk.Planned, "cut short: lease lost: the plugin is told to end", graceTime * 3 / 4},
		{"deaf", sdk.Planned, "cut short: lease lost", 5 * graceTime},
		{"deaf", sdk.Forced, "cut short: lease lost", graceTime * 3 / 4},
		{"child deaf", sdk.Forced, "cut short: lease lost", graceTime * 3 / 4},
	} {
		t.Run(c.mood+" "+string(c.mode), func(t *testing.T) {
			s := opened(t, map[string]any{"promote": "touch=began " + c.mood})
			pid := s.answers()
			tr := act(sdk.Promote, long)
			tr.Mode = c.mode
			s.during(func(ctx context.Context) {
				within(t, c.within, func() {
					if got, want := s.Do(ctx, tr, nil), (sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: c.detail}); got != want {
						t.Errorf("got %+v, want %+v", got, want)
					}
				})
			})
			if again := s.answers(); again == pid {
				t.Error("what was cut short answers")
			}
			if pids := marked(s.dir); len(pids) != 1 {
				t.Errorf("processes %v, want one", pids)
			}
		})
	}
}

func TestActOfAProcessPastItsDeadline(t *testing.T) {
	s := opened(t, map[string]any{"promote": "hang", "demote": "deaf"})
	pid := s.answers()
	within(t, graceTime+400*time.Millisecond, func() { // it ends by itself
		s.does(act(sdk.Promote, 400*time.Millisecond), sdk.OutcomeUnknown, "not done within .*ms")
	})
	if s.answers() != pid {
		t.Error("a process was killed that has kept the deadline")
	}
	within(t, 2*time.Second, func() {
		s.does(forced(act(sdk.Demote, 100*time.Millisecond)), sdk.OutcomeUnknown, "cut short: its time is over")
	})
	if again := s.answers(); again == pid {
		t.Error("what was cut short answers")
	}
	over, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("lease lost"))
	notes := len(s.notes())
	for _, c := range []struct {
		ctx     context.Context
		timeout time.Duration
		detail  string
	}{
		{t.Context(), 0, "not started: no time is left for it"},
		{over, long, "not started: lease lost"},
	} {
		want := sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: c.detail}
		if got := s.Do(c.ctx, act(sdk.Promote, c.timeout), nil); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	if got := s.notes(); len(got) != notes {
		t.Errorf("an act without time was asked for: %s", got[notes:])
	}
}

func TestActWhoseProcessEnds(t *testing.T) {
	for mood, detail := range map[string]string{
		"die":          "ended by SIGKILL",
		"exit=3":       "exit code 3",
		"say=oops die": "ended by SIGKILL: oops",
		"crash=boom":   "exit code 2: panic: mood: boom",
	} {
		t.Run(mood, func(t *testing.T) {
			s := opened(t, map[string]any{"promote": "child " + mood})
			pid := s.PID()
			within(t, 5*time.Second, func() { s.does(act(sdk.Promote, long), sdk.OutcomeUnknown, detail) })
			if again := s.answers(); again == pid {
				t.Error("the process answers that has ended")
			}
			s.does(act(sdk.Demote, long), sdk.OutcomeDone, "")
			if pids := marked(s.dir); len(pids) != 1 {
				t.Errorf("processes %v, want one: its child is left", pids)
			}
		})
	}
}

func TestKillOfAProcess(t *testing.T) {
	s := opened(t, map[string]any{"promote": "touch=began child=group deaf"})
	pid := s.answers()
	if err := s.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if again := s.answers(); again != pid {
		t.Error("a process that does nothing and answers was killed")
	}

	var promoted sdk.Result
	var running sync.WaitGroup
	running.Go(func() { promoted = s.Do(t.Context(), act(sdk.Promote, long), nil) })
	eventually(t, "the act to begin", func() bool { return s.exists("began") })
	took := within(t, 5*time.Second, func() {
		if err := s.Kill(t.Context()); err != nil {
			t.Error(err)
		}
		s.does(forced(act(sdk.Demote, long)), sdk.OutcomeDone, "")
	})
	t.Logf("killed and demoted in %s", took)
	running.Wait()
	if want := (sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "cut short: killed"}); promoted != want {
		t.Errorf("promote: got %+v, want %+v", promoted, want)
	}

	pid = s.PID()
	freeze(t, pid)
	took = within(t, 5*time.Second, func() {
		if err := s.Kill(t.Context()); err != nil {
			t.Error(err)
		}
		s.does(forced(act(sdk.Demote, long)), sdk.OutcomeDone, "")
	})
	t.Logf("stopped, killed and demoted in %s", took)
	if s.PID() == pid {
		t.Error("the stopped process is there")
	}
}

func TestFrozenProcessIsNoticedWithoutAnAct(t *testing.T) {
	s := opened(t, nil)
	for _, call := range []func(ctx context.Context) error{
		func(ctx context.Context) error { return s.Renew(ctx, 1) },
		func(ctx context.Context) error { _, err := s.Check(ctx, sdk.RolePrimary, 7); return err },
		func(ctx context.Context) error { _, err := s.Rank(ctx, "", nil); return err },
	}[:2] { // moody cannot rank
		pid := s.PID()
		freeze(t, pid)
		ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errors.New("no answer within 100ms"))
		began := time.Now()
		if err := call(ctx); err == nil || !strings.Contains(err.Error(), "no answer within 100ms") {
			t.Errorf("got %v", err)
		}
		cancel()
		eventually(t, "the process to be another", func() bool { now := s.PID(); return now != 0 && now != pid })
		took := time.Since(began)
		t.Logf("another %s after the call, with a stall time of %s", took, s.host.Stall)
		if took < s.host.Stall*3/4 {
			t.Errorf("held for frozen after %s", took)
		}
	}
	if got, want := s.Restarts(), (supervisor.Restarts{Freezes: 2}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	// A call that takes long is no sign of that.
	s = opened(t, map[string]any{"check": "busy=1500ms"})
	pid := s.PID()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := s.Check(ctx, sdk.RolePrimary, 7); err == nil {
		t.Error("a check that takes too long has an answer")
	}
	if again := s.answers(); again != pid {
		t.Error("the process was killed for being slow")
	}
}

// A supervisor that was frozen itself does not hold its plugin for frozen.
func TestFrozenHostBlamesNobody(t *testing.T) {
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "host")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("TMPDIR", dir)
	noLeaks(t, dir)
	host := exec.Command(os.Args[0], "hook", "host", "slow", bin, dir)
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		host.Process.Kill()
		host.Wait()
	}()
	eventually(t, "the act to begin", func() bool { _, err := os.Stat(filepath.Join(dir, "began")); return err == nil })
	for range 3 {
		host.Process.Signal(unix.SIGSTOP)
		time.Sleep(600 * time.Millisecond)
		host.Process.Signal(unix.SIGCONT)
		time.Sleep(20 * time.Millisecond)
	}
	os.WriteFile(filepath.Join(dir, "go"), nil, 0o600)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(line) != string(sdk.OutcomeDone) {
		t.Errorf("the act came to %q, %v", line, err)
	}
}

func TestActsOfAProcessComeOneAtATime(t *testing.T) {
	s := opened(t, map[string]any{"promote": "touch=began progress=redo hang"})
	var promoted sdk.Result
	var said []string
	var running sync.WaitGroup
	running.Go(func() {
		promoted = s.Do(t.Context(), act(sdk.Promote, long), func(text string) { said = append(said, text) })
	})
	eventually(t, "the promotion to begin", func() bool { return s.exists("began") })
	second := act(sdk.Promote, long)
	second.ID = "another"
	s.does(second, sdk.OutcomeUnchanged, "not started: another act still runs")
	if err := s.Renew(t.Context(), 1); err != nil {
		t.Errorf("renew beside an act: %v", err)
	}
	pid := s.answers()
	// A demotion interrupts what runs, and comes after it.
	s.does(act(sdk.Demote, long), sdk.OutcomeDone, "")
	running.Wait()
	if promoted.Outcome != sdk.OutcomeUnknown || !strings.Contains(promoted.Detail, sdk.ErrSuperseded.Error()) {
		t.Errorf("promote: got %+v", promoted)
	}
	if s.PID() != pid {
		t.Error("the process was killed")
	}
	if diff := cmp.Diff([]string{"40% redo"}, said); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
}

func TestProcessThatKeepsEnding(t *testing.T) {
	s := newStage(t, "bare", nil)
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.write("start", "ends")
	kill(s.PID(), unix.SIGKILL)
	ended := "ended before it said where it listens: exit code 3: no database"
	eventually(t, "a start to fail", func() bool { return strings.Contains(s.log.String(), ended) })
	eventually(t, "a delay to be longer", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := s.Check(ctx, sdk.RolePrimary, 7)
		return err != nil && strings.HasPrefix(err.Error(), "check: starts again in ") && strings.HasSuffix(err.Error(), ended)
	})
	// An act does not wait for that.
	within(t, 5*time.Second, func() { s.does(act(sdk.Promote, long), sdk.OutcomeUnchanged, "not started: "+ended) })
	s.write("start", "")
	within(t, 5*time.Second, func() { s.does(act(sdk.Promote, long), sdk.OutcomeDone, "") })
	if d := s.Describe(); !d.Can(sdk.CanPromote) || d.Name != "bare" {
		t.Errorf("forgets what it is: %+v", d)
	}
	if r := s.Restarts(); r.Crashes != 1 || r.Starts == 0 || r.Freezes+r.Kills != 0 {
		t.Errorf("counted %+v, want one crash, and starts that came to nothing", r)
	}
}

func TestProcessThatCannotBeHosted(t *testing.T) {
	for start, c := range map[string]struct {
		err     string
		lasting bool
	}{
		"newer":       {"open bare: speaks another protocol: version 2 of deputy's, and this deputy version 1: upgrade deputy on this node", true},
		"older":       {"open bare: speaks another protocol: version 0 of deputy's, and this deputy version 1: upgrade the plugin", true},
		"core":        {"open bare: speaks another protocol: version 9 of go-plugin's handshake, and this deputy version 1: build the plugin with deputy's SDK", true},
		"netrpc":      {"open bare: speaks another protocol: netrpc, and deputy gRPC: build the plugin with deputy's SDK", true},
		"tcp":         {"open bare: breaks the contract: it listens on tcp 127.0.0.1:*, and a plugin listens on a unix socket in $PLUGIN_UNIX_SOCKET_DIR", true},
		"elsewhere":   {"open bare: breaks the contract: it listens on unix */s, and a plugin listens on a unix socket in $PLUGIN_UNIX_SOCKET_DIR", true},
		"silent":      {"open bare: too late: no handshake is this", false},
		"unconnected": {"open bare: too late", false},
		"ends":        {"open bare: ended before it said where it listens: exit code 3: no database", false},
	} {
		t.Run(start, func(t *testing.T) {
			s := newStage(t, "bare", nil)
			s.write("start", start)
			ctx, cancel := context.WithTimeoutCause(t.Context(), 700*time.Millisecond, errors.New("too late"))
			defer cancel()
			var err error
			within(t, 5*time.Second, func() { err = s.Open(ctx) })
			if !looksLike(fmt.Sprint(err), c.err) {
				t.Errorf("got  %v\nwant %s", err, c.err)
			}
			if Lasting(err) != c.lasting {
				t.Errorf("%v: lasting %t, want %t", err, Lasting(err), c.lasting)
			}
			if s.PID() != 0 || s.isOpen() {
				t.Error("it is open")
			}
		})
	}
}

// looksLike compares with a text in which * is anything.
func looksLike(got, want string) bool {
	for i, part := range strings.Split(want, "*") {
		at := strings.Index(got, part)
		if at < 0 || i == 0 && at > 0 {
			return false
		}
		got = got[at+len(part):]
	}
	return got == ""
}

func TestProcessMadeWithoutTheSDK(t *testing.T) {
	s := openedBare(t)
	if err := s.Renew(t.Context(), 1); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("renew: got %v", err)
	}
	if _, err := s.Rank(t.Context(), "", nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("rank: got %v", err)
	}
	tr := act(sdk.Promote, long)
	// Without heartbeats nothing tells a slow one from a frozen one but its deadline.
	tr.Cause = "quiet=1200ms"
	pid := s.PID()
	s.does(tr, sdk.OutcomeDone, "")
	if s.PID() != pid {
		t.Error("a slow process was held for frozen")
	}
	tr.Cause = "noresult"
	s.does(tr, sdk.OutcomeUnknown, "ended without a result")
	if s.answersBare(); s.PID() == pid {
		t.Error("a process goes on of whose act nobody knows what came")
	}
	tr.Cause = "print=hello"
	s.does(tr, sdk.OutcomeDone, "")
	eventually(t, "what it prints to be logged", func() bool { return strings.Count(s.log.String(), "line=hello") == 2 })
	// One that cannot drain hears of it all the same, and has its grace.
	tr.Cause = "hang"
	s.during(func(ctx context.Context) {
		if got := s.Do(ctx, tr, nil); got.Outcome != sdk.OutcomeUnknown || !strings.HasPrefix(got.Detail, "cut short: lease lost") {
			t.Errorf("got %+v", got)
		}
	})
	if !s.exists("ended") {
		t.Error("the act was not told to end")
	}
	tr.Action, tr.Cause = sdk.Follow, ""
	if got := s.Do(t.Context(), tr, nil); got.Outcome != sdk.OutcomeUnchanged || !got.Refused {
		t.Errorf("an act that it cannot: got %+v", got)
	}
}

func TestSettingsOfAProcess(t *testing.T) {
	s := opened(t, map[string]any{"color": "red"})
	key := func(err error) string {
		var mistake *sdk.KeyError
		var mistakes wire.Mistakes
		if !errors.As(err, &mistake) || !errors.As(err, &mistakes) || !Lasting(err) {
			return fmt.Sprint(err)
		}
		return "key " + mistake.Key
	}
	if err := s.Validate(t.Context(), s.part(map[string]any{"color": "blue"})); err != nil {
		t.Error(err)
	}
	if got := key(s.Validate(t.Context(), s.part(map[string]any{"colour": "blue"}))); got != "key colour" {
		t.Errorf("an unknown key: got %s", got)
	}
	configure := func(color string) error {
		p, _, err := s.Configure(t.Context(), s.part(map[string]any{"color": color}))
		if err == nil && p != Plugin(s.Process) {
			t.Errorf("another plugin has the settings: %v", p)
		}
		return err
	}
	for color, want := range map[string]string{"blue": "<nil>", "bad": "key color"} {
		if got := key(configure(color)); got != want {
			t.Errorf("%s: got %s, want %s", color, got, want)
		}
	}
	if err := configure("blue"); err != nil {
		t.Error(err)
	}
	if err := configure("worse"); !Lasting(err) || fmt.Sprint(err) != "is worse" {
		t.Errorf("a mistake of no key: got %v", err)
	}
	before := len(s.notes())
	if err := configure("blue"); err != nil {
		t.Error(err)
	}
	if got := s.notes()[before:]; len(got) > 0 {
		t.Errorf("the same settings again: it was asked %s", got)
	}
	// The next process has what was in force.
	pid := s.PID()
	kill(pid, unix.SIGKILL)
	eventually(t, "another process", func() bool { now := s.PID(); return now != 0 && now != pid })
	if notes := s.notes(); notes[len(notes)-1] != "configure blue" {
		t.Errorf("after a crash it is configured anew: %s", notes)
	}
	s.does(act(sdk.Promote, long), sdk.OutcomeDone, "")
	if notes := s.notes(); notes[len(notes)-1] != "promote 7 election blue" {
		t.Errorf("promoted with %s", notes)
	}
}

func TestSettingsThatGetNoAnswerAreNotInForce(t *testing.T) {
	s := opened(t, map[string]any{"promote": "touch=began await=go"})
	var running sync.WaitGroup
	running.Go(func() { s.does(act(sdk.Promote, long), sdk.OutcomeDone, "") })
	eventually(t, "the act to begin", func() bool { return s.exists("began") })
	pid := s.PID()
	// An act that runs is waited for, but not for ever.
	ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, errors.New("no answer within 200ms"))
	defer cancel()
	if _, _, err := s.Configure(ctx, s.part(map[string]any{"color": "blue"})); err == nil || Lasting(err) {
		t.Errorf("configure beside an act: got %v", err)
	}
	s.write("go", "")
	running.Wait()
	s.does(act(sdk.Promote, long), sdk.OutcomeDone, "")
	if notes := s.notes(); notes[len(notes)-1] != "promote 7 election" || s.PID() != pid {
		t.Errorf("process %d became %d, and was asked %s", pid, s.PID(), notes)
	}
	// One that freezes over it is replaced by one with the settings of before.
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := s.Configure(ctx, s.part(map[string]any{"color": "blue", "configure": "freeze"})); err == nil {
		t.Error("a process that freezes takes its settings")
	}
	s.answers()
	s.does(act(sdk.Promote, long), sdk.OutcomeDone, "")
	if notes := s.notes(); notes[len(notes)-1] != "promote 7 election" || s.PID() == pid {
		t.Errorf("process %d became %d, and was asked %s", pid, s.PID(), notes)
	}
}

func TestSettingsThatAProcessDoesNotTakeAtTheStart(t *testing.T) {
	s := newStage(t, "moody", map[string]any{"color": "bad"})
	err := s.Open(t.Context())
	var mistake *sdk.KeyError
	if !errors.As(err, &mistake) || mistake.Key != "color" || !Lasting(err) {
		t.Errorf("open: got %v", err)
	}
	if err := s.Verify(t.Context()); !errors.As(err, &mistake) || mistake.Key != "color" {
		t.Errorf("verify: got %v", err)
	}
	if pids := marked(s.dir); len(pids) > 0 {
		t.Errorf("still there: %v", pids)
	}
	if _, _, err := s.Configure(t.Context(), s.part(nil)); !errors.Is(err, ErrClosed) {
		t.Errorf("configure of what is not open: got %v", err)
	}
}

func TestVerifyOfAProcess(t *testing.T) {
	s := newStage(t, "moody", nil)
	if err := s.Verify(t.Context()); err != nil || s.PID() != 0 {
		t.Errorf("verify: got %v, pid %d", err, s.PID())
	}
	if _, err := os.Stat(s.host.RunDir + "/plugins"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("verify leaves something where a supervisor may run: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, "deputy-plugin-*")); left != nil {
		t.Errorf("verify leaves %s", left)
	}
	d, err := Describe(t.Context(), s.host, "moody")
	if err != nil || d.Name != "moody" || d.Doc != "Misbehaves." || !strings.Contains(string(d.Schema), `"color"`) {
		t.Errorf("describe: got %+v, %v", d, err)
	}
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	pid := s.PID()
	if err := s.Verify(t.Context()); err != nil || s.answers() != pid {
		t.Errorf("verify of what is open: got %v", err)
	}
	if err := s.Open(t.Context()); err == nil {
		t.Error("opened twice")
	}
	s.write("start", "exit=3")
	if _, err := Describe(t.Context(), s.host, "moody"); err == nil || !strings.Contains(err.Error(), "exit code 3") {
		t.Errorf("describe of what ends: got %v", err)
	}
	if _, err := Describe(t.Context(), s.host, "exec"); err == nil {
		t.Error("described what has no process")
	}
}

func TestProcessOpenedAgain(t *testing.T) {
	s := newStage(t, "moody", nil)
	for range 3 {
		if err := s.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.answers()
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestCloseDuringAnAct(t *testing.T) {
	s := opened(t, map[string]any{"promote": "touch=began deaf"})
	var running sync.WaitGroup
	running.Go(func() {
		if got := s.Do(t.Context(), act(sdk.Promote, long), nil); got.Outcome != sdk.OutcomeUnknown {
			t.Errorf("got %+v", got)
		}
	})
	eventually(t, "the act to begin", func() bool { return s.exists("began") })
	within(t, 5*time.Second, func() {
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	running.Wait()
	s.does(act(sdk.Promote, long), sdk.OutcomeUnchanged, "not started: not open")
}

func TestProcessWithoutRoomForItsSocket(t *testing.T) {
	s := newStage(t, "moody", nil)
	s.sockets.dir = filepath.Join(s.dir, strings.Repeat("x", 100))
	err := s.Open(t.Context())
	if !errors.Is(err, unix.ENAMETOOLONG) || !Lasting(err) || !strings.Contains(err.Error(), "shorten the plugin's name, the service's or --run-dir") {
		t.Errorf("got %v", err)
	}
}

func TestProcessOfWhichNothingIsInstalledAnyMore(t *testing.T) {
	s := newStage(t, "bare", nil)
	text, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	s.path = filepath.Join(s.dir, prefix+"gone")
	if err := os.WriteFile(s.path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	os.Chmod(s.path, 0o777)
	if err := s.Kill(t.Context()); err != nil { // which leaves it alone
		t.Error(err)
	}
	s.does(act(sdk.Promote, long), sdk.OutcomeDone, "")
	kill(s.PID(), unix.SIGKILL)
	eventually(t, "the process to be missed", func() bool { return s.PID() == 0 })
	r := s.Do(t.Context(), act(sdk.Promote, long), nil)
	if r.Outcome != sdk.OutcomeUnchanged || !r.Refused || !strings.Contains(r.Detail, ErrUnsafe.Error()) {
		t.Errorf("a program that others can change: got %+v", r)
	}
	os.Remove(s.path)
	r = s.Do(t.Context(), act(sdk.Demote, long), nil)
	if r.Outcome != sdk.OutcomeUnchanged || r.Refused || !strings.Contains(r.Detail, "is not there") {
		t.Errorf("a program that is gone: got %+v", r)
	}
}

func TestLogOfAProcess(t *testing.T) {
	s := opened(t, map[string]any{"promote": "log", "demote": "say=<4>odd say=plain", "check": "raw=lines"})
	s.write("lines", `{"@level":"warn","@message":"from hclog","@module":"lib","@timestamp":"2026-01-01T00:00:00Z","n":1}
{"time":"2026-01-01T00:00:00Z","level":"ERROR","msg":"from slog","plugin":"another","group":{"a":[1,2]},"stack":"one\ntwo"}
`)
	s.does(act(sdk.Promote, long), sdk.OutcomeDone, "")
	s.does(act(sdk.Demote, long), sdk.OutcomeDone, "")
	s.answers()
	for _, want := range []string{
		`level=INFO msg="plugin says" plugin=moody line="went up" address=192.0.2.10 tries=2`,
		`level=WARN msg="plugin says" plugin=moody line=odd`,
		`level=INFO msg="plugin says" plugin=moody line=plain`,
		`level=WARN msg="plugin says" plugin=moody line="from hclog" module=lib n=1`,
		`level=ERROR msg="plugin says" plugin=moody line="from slog" group="{\"a\":[1,2]}" plugin_plugin=another stack="one\ntwo"`,
	} {
		eventually(t, "the log to have "+want, func() bool { return strings.Contains(s.log.String(), want+"\n") })
	}
}

func TestWhatAProcessSaysOfARenewal(t *testing.T) {
	for mood, want := range map[string]error{"expired": sdk.ErrExpired, "busy=100ms": nil} {
		s := opened(t, map[string]any{"renew": mood})
		if err := s.Renew(t.Context(), 1); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", mood, err, want)
		}
	}
	s := opened(t, map[string]any{"renew": "fail=nobody-there"})
	if err := s.Renew(t.Context(), 1); fmt.Sprint(err) != "renew: nobody-there" {
		t.Errorf("got %v", err)
	}
}

func TestWatchOutlivesTheProcess(t *testing.T) {
	s := opened(t, nil)
	ctx, end := context.WithCancelCause(t.Context())
	changes, over := make(chan struct{}, 10), make(chan error, 1)
	go func() { over <- s.Watch(ctx, func() { changes <- struct{}{} }) }()
	change := func() {
		t.Helper()
		if err := os.WriteFile(filepath.Join(s.dir, "change"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changes:
		case <-time.After(10 * time.Second):
			t.Fatal("no change is told")
		}
	}
	change()
	if err := kill(s.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	change()
	part := s.part(map[string]any{"color": "red"})
	if _, _, err := s.Configure(t.Context(), part); err != nil {
		t.Fatal(err)
	}
	change()
	end(errors.New("seen enough"))
	if err := <-over; err == nil || !strings.Contains(err.Error(), "seen enough") {
		t.Errorf("watch ends with %v", err)
	}
}

func TestPositionThatIsTooLong(t *testing.T) {
	s := openedBare(t)
	s.write("check", "position=5000")
	if _, err := s.Check(t.Context(), sdk.RoleStandby, 7); err == nil || !strings.Contains(err.Error(), "5000 bytes") {
		t.Errorf("got %v", err)
	}
	s.write("check", "position=4000")
	if h, err := s.Check(t.Context(), sdk.RoleStandby, 7); err != nil || len(h.Position) != 4000 {
		t.Errorf("got %d bytes, %v", len(h.Position), err)
	}
}

// Whatever happens to it at whatever moment, a process plugin answers in the
// end, and leaves nothing.
func TestProcessKilledAtAnyMoment(t *testing.T) {
	s := opened(t, map[string]any{"promote": "busy=2ms"})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var running sync.WaitGroup
	loop := func(f func()) {
		running.Go(func() {
			for ctx.Err() == nil {
				f()
			}
		})
	}
	outcomes := map[sdk.Outcome]int{}
	loop(func() {
		r := s.Do(ctx, act(sdk.Promote, long), nil)
		outcomes[r.Outcome]++
	})
	loop(func() {
		asked, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		s.Renew(asked, 1)
	})
	loop(func() {
		asked, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		s.Check(asked, sdk.RolePrimary, 7)
	})
	for i := 0; ctx.Err() == nil; i++ {
		time.Sleep(time.Duration(i%40) * time.Millisecond)
		if pid := s.PID(); pid != 0 && i%3 == 0 {
			kill(pid, unix.SIGKILL)
		} else if i%3 == 1 {
			if err := s.Kill(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	running.Wait()
	t.Log(outcomes)
	if outcomes[sdk.OutcomeDone] == 0 || outcomes[sdk.OutcomeUnknown] == 0 {
		t.Errorf("outcomes %v, want some that are done and some that are unknown", outcomes)
	}
	eventually(t, "a demotion that the last kill does not meet", func() bool {
		return s.Do(t.Context(), act(sdk.Demote, long), nil).Outcome == sdk.OutcomeDone
	})
}
