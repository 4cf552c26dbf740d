package sdk_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// starts runs a script whose first line of output is the number of a process,
// and ends its context once that is known.
func starts(t *testing.T, script string) (pid int, cmd *exec.Cmd, wait func() error) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	cmd = sdk.Command(ctx, "/bin/sh", "-c", script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		t.Fatal(err)
	}
	return pid, cmd, func() error {
		cancel(errors.New("enough"))
		return cmd.Wait()
	}
}

func lives(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

// Whatever the group does, Wait returns when all of it is gone.
func TestCommandEndsItsGroup(t *testing.T) {
	for _, test := range []struct {
		name, script, signal string
		least, most          time.Duration
	}{
		{"one that ends when told", `sleep 60 & echo $!; wait`, "terminated", 0, 900 * time.Millisecond},
		{"one that is deaf", `trap '' TERM; sleep 60 & echo $!; wait; wait`, "killed", time.Second, 10 * time.Second},
		{"one that ends and leaves a deaf child", `(trap '' TERM; echo $$ >/dev/null; exec sleep 60) & echo $!; sleep 0.1; wait`, "terminated", time.Second, 10 * time.Second},
		{"one that is stopped", `sleep 60 & echo $!; kill -STOP $!; kill -STOP $$`, "terminated", 0, 900 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			child, cmd, wait := starts(t, test.script)
			time.Sleep(200 * time.Millisecond) // until its traps are set
			began := time.Now()
			err := wait()
			took := time.Since(began)
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.Error() != "signal: "+test.signal {
				t.Errorf("ended with %v, want signal: %s", err, test.signal)
			}
			if took < test.least || took > test.most {
				t.Errorf("after %s", took)
			}
			if lives(child) || lives(cmd.Process.Pid) {
				t.Errorf("something of the group lives")
			}
		})
	}
}

// A daemon that keeps the outputs of its parent does not block, and lives on.
func TestCommandLeavesDaemons(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip("there is no setsid(1)")
	}
	file := filepath.Join(t.TempDir(), "pid")
	began := time.Now()
	out, err := sdk.Command(t.Context(), "/bin/sh", "-c", `setsid sh -c 'echo $$ >"$0"; exec sleep 60' "$0" & while ! test -s "$0"; do :; done; echo up`, file).Output()
	if !errors.Is(err, exec.ErrWaitDelay) || string(out) != "up\n" || time.Since(began) > 30*time.Second {
		t.Errorf("printed %q after %s: %v", out, time.Since(began), err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if !lives(pid) {
		t.Error("the daemon is gone")
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)

	// Nor does one without outputs, and that is no error.
	if err := sdk.Command(t.Context(), "/bin/sh", "-c", `sleep 0.3 &`).Run(); err != nil {
		t.Error(err)
	}
}

// A command gets what the plugin got, but nothing of what is between it and
// its host.
func TestCommandsGetNoMoreThanTheyNeed(t *testing.T) {
	t.Setenv("DEPUTY_PLUGIN", "deputy.plugin")
	t.Setenv("PLUGIN_UNIX_SOCKET_DIR", "/x")
	t.Setenv("TZ", "Europe/Paris")
	f, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, err := sdk.Command(t.Context(), "/bin/sh", "-c", `env; exec ls -l /proc/self/fd`).Output()
	if err != nil {
		t.Fatal(err)
	}
	got := string(out)
	if strings.Contains(got, "PLUGIN") || !strings.Contains(got, "TZ=Europe/Paris\n") || strings.Contains(got, "/dev/zero") {
		t.Errorf("a command has %s", got)
	}
}

func TestRunTellsWhatACommandSays(t *testing.T) {
	var log bytes.Buffer
	l := slog.New(slog.NewJSONHandler(&log, nil))
	if err := sdk.Run(sdk.Command(t.Context(), "/bin/sh", "-c", `echo one; printf 'two \033[31m' >&2`), l); err != nil {
		t.Error(err)
	}
	for _, want := range []string{`"command":"/bin/sh","text":"one"`, `"text":"two ?[31m"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, &log)
		}
	}
	err := sdk.Run(sdk.Command(t.Context(), "/bin/sh", "-c", `echo 1; echo 2; echo; echo 3; echo 4 >&2; exit 5`), slog.New(slog.DiscardHandler))
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || err.Error() != "run /bin/sh: exit status 5: 2; 3; 4" {
		t.Errorf("error is %v", err)
	}
	log.Reset()
	if err := sdk.Run(sdk.Command(t.Context(), "/bin/sh", "-c", `printf '%5000s' x | tr ' ' x; echo; echo next`), l); err != nil {
		t.Error(err)
	}
	if got := log.String(); len(got) > 3000 || !strings.Contains(got, `xx …"`) || !strings.Contains(got, `"next"`) {
		t.Errorf("of a long line the log has %d bytes: %s", len(got), got)
	}
	if err := sdk.Run(sdk.Command(t.Context(), "/nonexistent"), l); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
}
