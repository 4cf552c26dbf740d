package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The lab as root is a copy of this process in namespaces without a name: they
// last exactly as long as what runs in them, and all that runs in them ends
// with the copy, which the kernel kills when this process dies.

// insideEnv tells the copy where the lab's directory is.
const insideEnv = "DEPUTY_DEMO_INSIDE"

// goInside runs this program again in namespaces of its own and returns its
// exit code. An error means that there can be none.
func goInside(ctx context.Context, dir string) (int, error) {
	// The copy gets SIGKILL when the thread that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), insideEnv+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	if err := os.WriteFile(pidFile(dir), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644); err != nil {
		return 0, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	stop := context.AfterFunc(ctx, func() {
		cmd.Process.Signal(unix.SIGTERM) // ^C on a terminal has reached it already
	})
	defer stop()
	late := make(chan struct{})
	hurry := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(closeFor + 5*time.Second):
			cmd.Process.Kill()
		case <-late:
		}
	})
	defer hurry()
	err := cmd.Wait()
	close(late)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code, nil
	}
	return 1, nil // killed
}

// settleIn makes the namespaces that this process woke up in a lab.
func settleIn() error {
	if err := ownProc(); err != nil {
		return err
	}
	return makeBridge()
}

// dirPrefix begins the name of the directory of each run, before its process.
const dirPrefix = "deputy-demo-"

// makeDir makes this run's directory, and removes those of runs that were
// killed before they could.
func makeDir() (string, error) {
	old, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	if err != nil {
		return "", err
	}
	for _, dir := range old {
		number, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")
		pid, err := strconv.Atoi(number)
		if err != nil || !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			continue // not one of ours, or somebody still runs it
		}
		info, err := os.Lstat(dir)
		if err != nil {
			continue
		}
		if s, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(s.Uid) != os.Geteuid() {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return "", fmt.Errorf("remove what a run before has left: %w", err)
		}
	}
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", dirPrefix, os.Getpid()))
	if err != nil {
		return "", err
	}
	// Hooks run as the service's user, which has to reach them.
	return dir, os.Chmod(dir, 0o755)
}

// pidFile keeps the number that the copy has outside of its namespaces, for
// those who want to look into them.
func pidFile(dir string) string { return filepath.Join(dir, "pid") }
