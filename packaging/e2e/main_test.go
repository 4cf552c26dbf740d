package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
)

// The tests run in a copy of this process in namespaces without a name: they
// last exactly as long as the copy, and so do hosts, mounts and network. The
// process outside prepares what needs the internet, and waits.

const (
	wantedEnv = "DEPUTY_E2E"        // the tests run
	insideEnv = "DEPUTY_E2E_INSIDE" // the directory of this run; this process is the copy
)

func TestMain(m *testing.M) {
	etcdtest.Main()
	switch dir := os.Getenv(insideEnv); {
	case dir != "" && os.Getpid() == 1:
		code, err := reap()
		if err != nil {
			fmt.Fprintln(os.Stderr, "e2e: "+err.Error())
		}
		os.Exit(code)
	case dir != "":
		if err := settleIn(dir); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: "+err.Error())
			os.Exit(1)
		}
		os.Exit(m.Run())
	case os.Getenv(wantedEnv) == "" || why() != "":
		os.Exit(m.Run()) // each test says why it is skipped
	default:
		code, err := outside()
		if err != nil {
			fmt.Fprintln(os.Stderr, "e2e: "+err.Error())
		}
		os.Exit(code)
	}
}

// why returns what keeps the tests from running; "" for nothing.
func why() string {
	if os.Getenv(wantedEnv) == "" {
		return "hosts are booted by `make e2e` alone"
	}
	if os.Geteuid() != 0 {
		return "hosts are booted by root alone"
	}
	for _, program := range []string{"debootstrap", "systemd-nspawn", "nsenter", "ip", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Sprintf("%v: apt-get install systemd-container debootstrap iproute2 nftables", err)
		}
	}
	return ""
}

// outside prepares and runs the copy, and returns what it exits with.
func outside() (code int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	unlock, err := lockCache(ctx)
	if err != nil {
		return 1, err
	}
	defer unlock()
	if err := sweep(); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", dirPrefix())
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := prepare(ctx, dir); err != nil {
		return 1, err
	}
	code, err = goInside(ctx, dir)
	return code, errors.Join(err, sweep())
}

// goInside runs this program again, in namespaces of its own.
func goInside(ctx context.Context, dir string) (int, error) {
	// The copy gets SIGKILL when the thread that started it ends, and everything
	// in its namespaces with it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), insideEnv+"="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}

// reap is the first process of the namespaces: it runs this program once more,
// and waits for every process that has lost its parent. Without that a host
// whose program was given up could not end: its kernel waits for somebody to
// wait.
func reap() (code int, err error) {
	child, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		return 1, err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 1, fmt.Errorf("wait for the tests: %w", err)
		case pid == child && status.Exited():
			return status.ExitStatus(), nil
		case pid == child:
			return 1, fmt.Errorf("the tests ended by %s", status.Signal())
		}
	}
}

// settleIn makes the namespaces that this process woke up in a lab.
func settleIn(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount proc: %w", err)
	}
	if err := os.Mkdir(hostsDir(dir), 0o755); err != nil {
		return err
	}
	if err := unix.Mount("hosts", hostsDir(dir), "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount a tmpfs for the hosts: %w", err)
	}
	// What systemd-nspawn keeps there of its own goes with the lab.
	if err := os.MkdirAll("/run/systemd/nspawn", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("nspawn", "/run/systemd/nspawn", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount a tmpfs for systemd-nspawn: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return makeBridge(ctx)
}
