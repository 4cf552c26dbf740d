package plugin

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
)

// The twelve rules of hosting. Each is also held against go-plugin's own runner
// where that can be done: it would not keep the rule. The twelfth, that a broken
// plugin stops only the services that use it, takes two services: see
// plugin_process.txtar of supervisor/deputy.

func TestRule01_ARecordThatIsNoneHurtsNobody(t *testing.T) {
	library := byLibrary(t, "bare", "wait", "panicky")
	s := openedBare(t)
	tr := act(sdk.Promote, long)
	for _, line := range []string{
		`{"@message": 5}`, `{"@message": "x", "@level": []}`, `{"@message": "x", "@timestamp": 7}`, `{"@message": null}`,
		`{"msg": {}}`, `{"msg": "x", "level": 3}`, `{"msg": "x", "level": "LOUD"}`, `{"msg": "x"`, `{`, `{}`, `[1]`, "\x00\xff",
		`{"@message": "` + strings.Repeat("x", 3*maxRecord) + `"}`,
	} {
		s.write("line", line+"\n")
		tr.Cause = "raw=line"
		s.does(tr, sdk.OutcomeDone, "")
	}
	s.answersBare()
	want := `level=INFO msg="plugin says" plugin=bare line="{\"@message\": 5}"`
	eventually(t, "the log to have "+want, func() bool { return strings.Contains(s.log.String(), want) })
	if by := library(); by.alive {
		t.Errorf("go-plugin's own runner has lived on: %q", by.said)
	}
}

func TestRule02_AStoppedProcessIsEndedWithinABound(t *testing.T) {
	library := byLibrary(t, "bare", "kill a stopped one", "")
	s := opened(t, nil)
	freeze(t, s.PID())
	took := within(t, 5*time.Second, func() {
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Logf("closed in %s, with a stall time of %s", took, s.host.Stall)
	if pids := marked(s.dir); len(pids) > 0 {
		t.Errorf("still there: %v", pids)
	}
	if by := library(); by.said != "" {
		t.Errorf("go-plugin's own has %s it", by.said)
	}
}

func TestRule03_AGrandchildThatKeepsTheOutputsBlocksNothing(t *testing.T) {
	library := byLibrary(t, "bare", "grandchild", "")
	s := opened(t, map[string]any{"promote": "child"})
	s.does(act(sdk.Promote, long), sdk.OutcomeDone, "")
	eventually(t, "the child to begin", func() bool { return len(marked(s.dir)) == 2 })
	pid := s.PID()
	kill(pid, unix.SIGKILL)
	took := within(t, 5*time.Second, func() {
		eventually(t, "the process to be missed", func() bool { return s.PID() != pid })
	})
	t.Logf("missed after %s", took)
	if again := s.answers(); again == pid {
		t.Error("the process answers that was killed")
	}
	if pids := marked(s.dir); len(pids) != 1 {
		t.Errorf("processes %v, want one: what an act has begun ends with its process", pids)
	}
	if by := library(); by.said != "exited false" {
		t.Errorf("go-plugin's own says %q", by.said)
	}
}

func TestRule04_TheProcessEndsWithItsHost(t *testing.T) {
	library := byLibrary(t, "bare", "orphan", "")
	for _, mood := range []string{"idle", "acting", "replaced"} {
		t.Run(mood, func(t *testing.T) {
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
			host := exec.Command(os.Args[0], "hook", "host", mood, bin, dir)
			if err := host.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				host.Process.Kill()
				host.Wait()
			}()
			is := func(name string) bool { _, err := os.Stat(filepath.Join(dir, name)); return err == nil }
			eventually(t, "the plugin to be hosted", func() bool { return is("hosted") && (mood != "acting" || is("began")) })
			count := len(marked(dir)) - 1 // the host itself has the mark, too
			if count != 1 {
				t.Fatalf("%d processes of the plugin, want 1", count)
			}
			began := time.Now()
			if mood == "replaced" {
				kill(host.Process.Pid, unix.SIGUSR1)
				eventually(t, "the host to be another program", func() bool { return is("another") })
			} else {
				host.Process.Kill()
				host.Wait()
			}
			eventually(t, "the plugin to end", func() bool {
				return !slices.ContainsFunc(marked(dir), func(pid int) bool { return pid != host.Process.Pid })
			})
			took := time.Since(began)
			t.Logf("ended %s after its host", took)
			if took > 2*time.Second {
				t.Errorf("ended %s after its host, want a second", took)
			}
			if sockets, _ := filepath.Glob(filepath.Join(dir, "run/plugins/moody/*/*")); sockets != nil {
				t.Errorf("left: %s", sockets)
			}
		})
	}
	if by := library(); by.said != "1" {
		t.Errorf("go-plugin's own leaves %s processes, and should leave one", by.said)
	}
}

func TestRule05_SignalsToTheProcessAreNotItsEnd(t *testing.T) {
	library := byLibrary(t, "bare", "terminate", "")
	s := opened(t, nil)
	pid := s.answers()
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
		kill(pid, sig)
	}
	time.Sleep(50 * time.Millisecond)
	if again := s.answers(); again != pid {
		t.Errorf("process %d answers, and %d was signalled", again, pid)
	}
	s.does(act(sdk.Demote, long), sdk.OutcomeDone, "")
	if by := library(); by.said == "<nil>" || by.said == "" {
		t.Errorf("a plugin of go-plugin alone goes on after SIGTERM: %q", by.said)
	}
}

func TestRule06_SocketsAreForTheSupervisorAloneAndGoWithTheProcess(t *testing.T) {
	library := byLibrary(t, "bare", "socket", "")
	s := opened(t, nil)
	find := func() []string {
		found, _ := filepath.Glob(filepath.Join(s.dir, "run/plugins/moody/*/*"))
		return found
	}
	before := find()
	if len(before) != 1 {
		t.Fatalf("sockets %s, want one", before)
	}
	for dir := filepath.Dir(before[0]); dir != filepath.Join(s.dir, "run/plugins"); dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v, want it to be 0700", dir, info.Mode(), err)
		}
	}
	kill(s.PID(), unix.SIGKILL)
	eventually(t, "the socket to be another", func() bool {
		now := find()
		return len(now) == 1 && now[0] != before[0]
	})
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "run/plugins/moody")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	if by := library(); by.said != "sockets left: 1" {
		t.Errorf("go-plugin's own says %q", by.said)
	}
}

func TestRule07_TheEnvironmentOfTheHostStaysItsOwn(t *testing.T) {
	library := byLibrary(t, "bare", "environment", "env")
	for name, value := range map[string]string{"NOTIFY_SOCKET": "/run/x", "ETCD_PASSWORD": "secret", "DEPUTY_SERVICE": "another", "PLUGIN_CLIENT_CERT": "x", "PLUGIN_MULTIPLEX_GRPC": "true"} {
		t.Setenv(name, value)
	}
	s := newStage(t, "bare", nil)
	s.write("start", "env")
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(s.dir, "env"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), "=")
		names = append(names, name)
	}
	known := append([]string{
		"DEPUTY_SERVICE", "DEPUTY_NODE", "DEPUTY_STATE_DIR", "DEPUTY_PLUGIN",
		"PLUGIN_MIN_PORT", "PLUGIN_MAX_PORT", "PLUGIN_PROTOCOL_VERSIONS", "PLUGIN_UNIX_SOCKET_DIR",
	}, inherited[:]...)
	for _, name := range names {
		if !slices.Contains(known, name) {
			t.Errorf("%s reaches the plugin", name)
		}
	}
	for _, want := range []string{"DEPUTY_SERVICE=db", "DEPUTY_NODE=a", "DEPUTY_STATE_DIR=" + filepath.Join(s.dir, "state/plugins", s.name)} {
		if !slices.Contains(strings.Split(string(text), "\n"), want) {
			t.Errorf("%s does not reach the plugin", want)
		}
	}
	if by := library(); by.said != "leaked: true" {
		t.Errorf("go-plugin's own says %q", by.said)
	}
}

func TestRule08_AnyOutputIsDrained(t *testing.T) {
	library := byLibrary(t, "bare", "shout", "")
	s := openedBare(t)
	tr := act(sdk.Promote, long)
	for _, mood := range []string{"shout=100000", "shout=5000000", "babble", ""} {
		tr.Cause = mood
		s.does(tr, sdk.OutcomeDone, "")
	}
	s.answersBare()
	if by := library(); !strings.Contains(by.said, "deadline") {
		t.Errorf("go-plugin's own says %q", by.said)
	}
}

func TestRule09_AFrozenProcessIsToldFromASlowOne(t *testing.T) {
	s := opened(t, map[string]any{"promote": "once=froze touch=began freeze", "demote": "busy=1500ms"})
	pid := s.answers()
	// Slow, for three times the stall time, and deaf on top.
	s.does(act(sdk.Demote, long), sdk.OutcomeDone, "")
	took := within(t, 10*time.Second, func() {
		s.does(act(sdk.Promote, long), sdk.OutcomeUnknown, "frozen: no sign of life for 500ms")
	})
	t.Logf("seen %s after the act was asked for, with a stall time of %s", took, s.host.Stall)
	if took < s.host.Stall*3/4 || took > s.host.Stall*5/2 {
		t.Errorf("held for frozen after %s, and its stall time is %s", took, s.host.Stall)
	}
	if again := s.answers(); again == pid {
		t.Error("the frozen process answers")
	}
	s.does(act(sdk.Promote, long), sdk.OutcomeDone, "")
}

func TestRule10_APanicIsTheFailureOfItsCall(t *testing.T) {
	library := byLibrary(t, "bare", "panic", "")
	s := opened(t, map[string]any{"promote": "panic=promote", "check": "once panic=check"})
	pid := s.PID()
	s.does(act(sdk.Promote, long), sdk.OutcomeUnknown, "panic in promote: mood: promote")
	if _, err := s.Check(t.Context(), sdk.RolePrimary, 7); err == nil || !strings.Contains(err.Error(), "panic in check: mood: check") {
		t.Errorf("check: got %v", err)
	}
	if s.answers() != pid {
		t.Error("the process has ended")
	}
	eventually(t, "the stack to be logged", func() bool { // what it prints has a way of its own
		log := s.log.String()
		return strings.Contains(log, `level=ERROR msg="plugin says" plugin=moody line="plugin panics"`) && strings.Contains(log, "main.be(")
	})
	if by := library(); by.said == "afterwards: <nil>" || by.said == "" {
		t.Errorf("a plugin of go-plugin alone outlives its panic: %q", by.said)
	}
}

func TestRule11_ACrashedProcessIsStartedAgainAndConfiguredAnew(t *testing.T) {
	library := byLibrary(t, "bare", "crash", "")
	s := opened(t, nil)
	tr := act(sdk.Promote, long)
	tr.Term = 9
	s.does(tr, sdk.OutcomeDone, "")
	var pids []int
	for range 3 {
		pid := s.PID()
		pids = append(pids, pid)
		kill(pid, unix.SIGKILL)
		// A renewal waits for the next one, and reaches it as soon as it can.
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if err := s.Renew(ctx, 1); err != nil {
			t.Error(err)
		}
		cancel()
	}
	if slices.Contains(pids, s.PID()) {
		t.Errorf("process %d is there again", s.PID())
	}
	if n := strings.Count(strings.Join(s.notes(), "\n"), "configure"); n != 4 {
		t.Errorf("configured %d times, want 4", n)
	}
	// What the host has seen of terms, each process is told.
	tr.Term = 8
	s.does(tr, sdk.OutcomeStaleTerm, "term 8: term 9 was seen")
	for n := range 40 {
		if d := delay(n + 1); d < firstDelay || d > lastDelay*5/4 || n > 10 && d < lastDelay {
			t.Errorf("after %d crashes it waits %s", n+1, d)
		}
	}
	if by := library(); by.said == "<nil>" || by.said == "" {
		t.Errorf("go-plugin's own has started it again: %q", by.said)
	}
}

// The host may have closed the connection to a process before it knows that it
// ends: that does not fail a call either.
func TestCallOverAConnectionThatIsBeingClosed(t *testing.T) {
	s := opened(t, nil)
	s.mu.Lock()
	l := s.now
	s.mu.Unlock()
	l.conn.Load().Close()
	kill(s.PID(), unix.SIGKILL)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Renew(ctx, 1); err != nil {
		t.Error(err)
	}
}
