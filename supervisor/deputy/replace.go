package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/rundir"
	"github.com/deputy-ha/deputy/supervisor/systemd"
)

// An upgrade replaces the program inside its process: a new file at its path is
// first run as a child, to see whether it takes configuration and state; then the
// members end and keep their roles, and the new program takes the process over
// (execve(2)). For systemd nothing has happened: process, control group and
// watchdog are the same.

// inPlace tells a program that it takes the place of another: "stop" when that
// was told to stop meanwhile. It is taken out of the environment at once.
const inPlace = "DEPUTY_IN_PLACE"

// running is the file that this process runs, whatever is at its path by now.
const running = "/proc/self/exe"

// anotherProgram reports whether the file at this program's path is another one
// than what runs here.
func anotherProgram(path string) (bool, error) {
	now, err := os.Stat(path)
	if err != nil {
		return false, fmt.Errorf("look at the installed program: %w", err)
	}
	mine, err := os.Stat(running)
	if err != nil {
		return false, fmt.Errorf("look at the running program: %w", err)
	}
	if os.SameFile(now, mine) {
		return false, nil
	}
	if now.Size() != mine.Size() {
		return true, nil
	}
	a, err := digest(path)
	if err != nil {
		return false, fmt.Errorf("read the installed program: %w", err)
	}
	b, err := digest(running)
	if err != nil {
		return false, fmt.Errorf("read the running program: %w", err)
	}
	return !bytes.Equal(a, b), nil
}

func digest(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

// The bounds of an upgrade.
const (
	probeTime  = 10 * time.Second // for the new program to look at configuration and state
	settleTime = 5 * time.Second  // for roles that just move
)

// replacement returns the path of the program that should take this one's place,
// once that has looked at what it would find; empty where there is none.
func (e *engine) replacement(ctx context.Context) (string, error) {
	another, err := anotherProgram(e.program)
	if err != nil || !another {
		return "", err
	}
	e.probing.Lock() // one for all services
	defer e.probing.Unlock()
	if e.next.Load() != nil {
		return e.program, nil
	}
	var names []string
	if !e.all {
		for _, t := range e.seats {
			names = append(names, t.name)
		}
	}
	for _, args := range [][]string{{"check"}, {"run", "--probe"}} {
		if err := e.a.probe(ctx, e.program, append(args, names...)); err != nil {
			return "", fmt.Errorf("the installed program does not take over, and the old one goes on: %w", err)
		}
	}
	return e.program, nil
}

// probe runs another program with this one's paths.
func (a *app) probe(ctx context.Context, program string, args []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, probeTime, fmt.Errorf("not within %s", probeTime))
	defer cancel()
	args = append(args, "--config", a.paths.config, "--services", a.paths.services, "--run-dir", a.paths.run, "--state-dir", a.paths.state)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.WaitDelay = time.Second
	cmd.Env = slices.DeleteFunc(os.Environ(), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		// It looks for secrets where this one has them.
		return name != "CREDENTIALS_DIRECTORY" && slices.Contains(systemd.Unheard(), name)
	})
	var said bytes.Buffer
	cmd.Stderr = &said
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	err = fmt.Errorf("%s %s: %w", program, args[0], err)
	if words := strings.TrimSpace(strings.TrimPrefix(tidy(said.String()), "deputy: ")); words != "" {
		err = fmt.Errorf("%w: %s", err, words)
	}
	return err
}

// probeHere looks at what `deputy run` would find, and touches nothing.
func (a *app) probeHere(names []string) error {
	node, err := a.settings()
	if err != nil {
		return err
	}
	if _, err := a.here(node); err != nil {
		return err
	}
	if _, err := records(node); err != nil {
		return err
	}
	services, err := a.chosen(names)
	if err != nil && (len(names) > 0 || len(services) == 0) {
		return err
	}
	for _, s := range services {
		if _, err := rundir.Sight(a.dir(s.Name)).Note(); err != nil {
			return mark(fmt.Errorf("run %s: the state of the process before cannot be read: %w", s.Name, err), errConfig)
		}
	}
	return nil
}

// giveWay ends this program and keeps the roles, for the program at path to take
// the process over. Roles that move are waited for: they could not be kept.
func (e *engine) giveWay(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, settleTime, fmt.Errorf("not within %s", settleTime))
	defer cancel()
	for _, t := range e.seats {
		var last supervisor.Status
		for last = range t.member.Watch(ctx) {
			if settled(last.Role) {
				break
			}
		}
		if !settled(last.Role) {
			return fmt.Errorf("the installed program does not take over: %s is %s, which could not be kept (%s); reload again when it is primary or standby", t.name, last.Role, last.Cause)
		}
	}
	if e.next.CompareAndSwap(nil, &path) {
		e.log.Info("another program takes over: roles are kept", "program", path)
		e.stop(fmt.Errorf("%w: another program takes over", supervisor.ErrRestart))
	}
	return nil
}

// settled reports whether a restart keeps what a member is.
func settled(r sdk.Role) bool {
	return r == sdk.RolePrimary || r == sdk.RoleStandby || r == sdk.RoleCandidate
}

// become has another program take this process over. It returns only with an
// error: then the process ends, and whoever starts it anew starts the new one.
func (e *engine) become(path string) error {
	value := "go on"
	if e.told.Load() {
		value = "stop"
	}
	err := syscall.Exec(path, os.Args, append(os.Environ(), inPlace+"="+value))
	return fmt.Errorf("hand this process over to %s: %w", path, err)
}

// tookOver reports whether this program takes the place of another, and whether
// that was told to stop.
func tookOver() (is, stop bool) {
	value := os.Getenv(inPlace)
	os.Unsetenv(inPlace)
	return value != "", value == "stop"
}
