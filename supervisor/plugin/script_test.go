package plugin

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// script is a shell script with its own folder in $1.
func script(t *testing.T, body string) (Script, string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "hook")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+body), 0o755); err != nil {
		t.Fatal(err)
	}
	return Script{Argv: []string{file, dir}, UID: os.Geteuid(), Log: slog.New(slog.DiscardHandler)}, dir
}

func content(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestAScriptGetsItsInputAndTellsItsOutcome(t *testing.T) {
	s, dir := script(t, `cat >"$1/in"; echo "$DEPUTY_WORD" >"$1/env"; echo why >&2; exit $DEPUTY_CODE`)
	s.In = []byte(strings.Repeat("x", 100<<10)) // more than a pipe holds
	for code, want := range map[string]string{"0": "", "1": "exit code 1: why", "20": "refused: exit code 20: why"} {
		s.Env = map[string]string{"WORD": "one two", "CODE": code}
		err := s.Run(t.Context())
		if got := ""; err != nil {
			if got = err.Error(); got != want {
				t.Errorf("exit %s: %q, want %q", code, got, want)
			}
		} else if want != "" {
			t.Errorf("exit %s is no error", code)
		}
		if errors.Is(err, ErrScriptRefused) != (code == "20") {
			t.Errorf("exit %s: %v", code, err)
		}
		if got := content(t, dir, "in"); got != string(s.In) {
			t.Errorf("read %d bytes", len(got))
		}
		if got := content(t, dir, "env"); got != "one two" {
			t.Errorf("environment: %q", got)
		}
	}
	// One that reads nothing is not waited for.
	s, _ = script(t, "exit 0")
	s.In = []byte(strings.Repeat("x", 1<<20))
	if err := s.Run(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNothingOfAScriptIsLeft(t *testing.T) {
	const body = `sleep 1000 & echo $! >"$1/own"; setsid sleep 1000 & echo $! >"$1/other"; echo ready >"$1/ready"; `
	for name, c := range map[string]struct {
		body  string
		bound func(context.Context) (context.Context, context.CancelFunc)
		none  []string // of these is left
		want  string
	}{
		"ended": {body + "exit 0", func(ctx context.Context) (context.Context, context.CancelFunc) { return ctx, func() {} }, []string{"own"}, ""},
		"late": {`trap "" TERM; ` + body + "while :; do sleep 1; done", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(ctx, 300*time.Millisecond, errors.New("its time is over"))
		}, []string{"own", "other"}, "cut short: its time is over"},
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := script(t, c.body)
			ctx, cancel := c.bound(t.Context())
			defer cancel()
			got := ""
			if err := s.Run(ctx); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			for _, file := range []string{"own", "other"} {
				pid, err := strconv.Atoi(content(t, dir, file))
				if err != nil {
					t.Fatal(err)
				}
				if _, lives := look(pid); lives && slices.Contains(c.none, file) {
					t.Errorf("%s lives", file)
				}
				syscall.Kill(pid, syscall.SIGKILL) // the end of its parent may have hidden it
			}
		})
	}
}

// The end of the process does not wait for a script that does not end.
func TestAnEndKillsAScriptAtOnce(t *testing.T) {
	s, dir := script(t, `trap "" TERM INT HUP; echo $$ >"$1/pid"; while :; do sleep 1; done`)
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for {
		if b, err := os.ReadFile(filepath.Join(dir, "pid")); err == nil && len(b) > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel(errors.New("the process ends"))
	if err := <-done; err == nil || !strings.Contains(err.Error(), "the process ends") {
		t.Error(err)
	}
	pid, _ := strconv.Atoi(content(t, dir, "pid"))
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, lives := look(pid); !lives {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it lives on")
		}
	}
}

func TestAScriptThatOthersCanChangeIsNotRun(t *testing.T) {
	s, dir := script(t, "touch $1/ran")
	if err := s.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(s.Argv[0], 0o777); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context()); !errors.Is(err, ErrUnsafe) {
		t.Errorf("verify: %v", err)
	}
	if err := s.Run(t.Context()); !errors.Is(err, ErrUnsafe) {
		t.Errorf("run: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
		t.Error("it was run")
	}
}
