package sdk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	wire "github.com/deputy-ha/deputy/sdk/proto"
)

// The bounds of a command whose context has ended.
const (
	commandGrace = time.Second            // between SIGTERM and SIGKILL
	commandDeath = time.Second            // after SIGKILL, for the group to be gone
	outputGrace  = 100 * time.Millisecond // for others to let go of its outputs, once it has ended
)

// Command returns a command that is safe to run in an act or a check; it is an
// exec.Cmd, to be used like any other. Its process group is its own. When ctx
// ends, the group gets SIGTERM and a second later SIGKILL, and Wait returns
// once all of it is gone. That cancels nothing which the command has had others
// do: look before you report.
//
// What leaves the group lives on, as a daemon must. One that keeps the outputs
// of its parent does not block: 100 ms after the command's end Wait returns
// exec.ErrWaitDelay. The command gets this process's environment, but nothing
// that is between it and its host, and no open files.
func Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, wire.CookieKey+"=") || strings.HasPrefix(v, "PLUGIN_")
	})
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return endGroup(cmd.Process.Pid) }
	cmd.WaitDelay = outputGrace
	return cmd
}

// endGroup ends a process group and returns when it is gone, or cannot be
// ended. Nobody else gets the group's number while one of it is left, and it
// is looked at too often for the number to come round in between.
func endGroup(group int) error {
	if err := syscall.Kill(-group, syscall.SIGTERM); err != nil {
		return os.ErrProcessDone
	}
	// One that is stopped would not notice.
	_ = syscall.Kill(-group, syscall.SIGCONT)
	if groupGone(group, commandGrace) {
		return nil
	}
	_ = syscall.Kill(-group, syscall.SIGKILL)
	if groupGone(group, commandDeath) {
		return nil
	}
	return fmt.Errorf("end process group %d: it is there %s after SIGKILL", group, commandDeath)
}

// groupGone waits for a group to be gone, and reports whether it is.
func groupGone(group int, within time.Duration) bool {
	for wait, left := time.Millisecond, within; ; wait = min(2*wait, 20*time.Millisecond) {
		if errors.Is(syscall.Kill(-group, 0), syscall.ESRCH) || !anyLives(group) {
			return true
		}
		if left <= 0 {
			return false
		}
		time.Sleep(wait)
		left -= wait
	}
}

// anyLives reports whether a process of a group lives. Zombies do not: whoever
// ought to reap them may be slow to.
func anyLives(group int) bool {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		stat, _ := os.ReadFile(file)
		// PID (NAME) STATE PPID PGRP, where the name may hold anything
		// (proc_pid_stat(5)).
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) > 2 && fields[2] == strconv.Itoa(group) && fields[0] != "Z" && fields[0] != "X" {
			return true
		}
	}
	return len(stats) == 0 // without /proc nobody knows
}

// Run runs a command that Command has made. Each line that it prints goes to
// the log, and the error tells what it printed last.
func Run(cmd *exec.Cmd, log *slog.Logger) error {
	lines := &lineLog{log: log.With("command", cmd.Path)}
	cmd.Stdout, cmd.Stderr = lines, lines // the same: os/exec writes to it from one goroutine
	err := cmd.Run()
	lines.flush()
	if err == nil {
		return nil
	}
	if last := strings.Join(lines.tail, "; "); last != "" {
		return fmt.Errorf("run %s: %w: %s", cmd.Path, err, last)
	}
	return fmt.Errorf("run %s: %w", cmd.Path, err)
}

// The bounds of what is taken of a command's output. All of it is read.
const (
	maxLine   = 1 << 10 // bytes
	keptLines = 3
)

// A lineLog logs what is written to it, line by line.
type lineLog struct {
	log *slog.Logger

	mu      sync.Mutex
	rest    []byte // of a line without its end
	dropped bool   // of that line, something
	tail    []string
}

func (l *lineLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for rest := b; len(rest) > 0; {
		part, after, whole := bytes.Cut(rest, []byte{'\n'})
		room := min(len(part), maxLine-len(l.rest))
		l.rest = append(l.rest, part[:room]...)
		l.dropped = l.dropped || room < len(part)
		if rest = after; whole {
			l.line()
		}
	}
	return len(b), nil
}

func (l *lineLog) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line()
}

// line logs one line.
func (l *lineLog) line() {
	text := strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) && !unicode.IsSpace(r) {
			return '?'
		}
		return r
	}, string(l.rest)))
	if l.dropped {
		text += " …"
	}
	if l.rest, l.dropped = l.rest[:0], false; text == "" {
		return
	}
	l.log.Info("command says", "text", text)
	if l.tail = append(l.tail, text); len(l.tail) > keptLines {
		l.tail = l.tail[1:]
	}
}
