package netlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// inside marks a process that has a network namespace of its own.
const inside = "NETLAB_INSIDE"

// Main runs the tests of a package in a process with a network namespace of
// its own, where it may make one, and ends the process. A package's TestMain
// hands itself over to it.
func Main(tests interface{ Run() int }) {
	if os.Getenv(inside) != "" || os.Geteuid() != 0 {
		os.Exit(tests.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var ended *exec.ExitError
	switch {
	case errors.As(err, &ended) && ended.ExitCode() > 0:
		os.Exit(ended.ExitCode())
	case errors.As(err, &ended):
		os.Exit(1) // by a signal
	case errors.Is(err, os.ErrPermission): // in a container, say: its tests skip
		os.Exit(tests.Run())
	case err != nil:
		fmt.Fprintln(os.Stderr, "make a network namespace:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A T is what a lab needs of *testing.T.
type T interface {
	Helper()
	Cleanup(f func())
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Require skips a test that may not make network namespaces, or fails it where
// CI says that it has to run.
func Require(t T) {
	t.Helper()
	switch {
	case os.Getenv(inside) != "":
	case os.Getenv("CI") == "true":
		t.Fatalf("this needs root and a network namespace, and CI has to have both")
	default:
		t.Skipf("this needs root, to make network namespaces")
	}
}
