package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A runner is what a node's init is to deputy: it starts it, starts it again
// when it ends, as systemd's Restart=always does, and takes everything of the
// node with it when it ends itself. It is told what to do on its standard
// input and tells what happens on its standard output:
//
//	start   the node's network is ready; start deputy and keep it running
//	kill    SIGKILL to deputy
//	stop    SIGTERM to deputy, which is not started again
//
// The end of the input is the end of the node: everything gets SIGKILL.
const (
	cmdStart = "start"
	cmdKill  = "kill"
	cmdStop  = "stop"

	evReady   = "ready"
	evStarted = "started" // and the process
	evEnded   = "ended"
)

// restartAfter is systemd's default RestartSec.
const restartAfter = 100 * time.Millisecond

// runNode is the process of a node: demo node NAME LOGFILE PORT COMMAND…
// A node in a network of its own answers at that UDP port; others have none.
func runNode(args []string) error {
	if len(args) < 4 {
		return errors.New("usage: demo node NAME LOGFILE PORT COMMAND…")
	}
	name, log, port, command := args[0], args[1], args[2], args[3:]
	// ^C is for whoever started the demo.
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	if os.Getpid() == 1 {
		if err := ownProc(); err != nil {
			return err
		}
		if err := unix.Sethostname([]byte(name)); err != nil {
			return fmt.Errorf("name the node: %w", err)
		}
	} else if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the parent of the node's orphans: %w", err)
	}

	orders := make(chan string)
	go func() { // ends with the process
		defer close(orders)
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			orders <- strings.TrimSpace(lines.Text())
		}
	}()

	silent := make(chan error, 1)
	if port != "" {
		c, err := listenAsNode(port)
		if err != nil {
			return err
		}
		go func() { silent <- respond(c, name) }() // ends with the process
	}

	n := supervised{log: log, command: command}
	fmt.Println(evReady)
	for {
		select {
		case order, ok := <-orders:
			switch {
			case !ok:
				return killAll()
			case order == cmdStart:
				n.wanted = true
				if err := n.start(); err != nil {
					return err
				}
			case order == cmdKill:
				n.signal(unix.SIGKILL)
			case order == cmdStop:
				n.wanted = false
				n.signal(unix.SIGTERM)
			}
		case err := <-silent:
			return err
		case <-children:
			n.reap()
		case <-n.again:
			n.again = nil
			if err := n.start(); err != nil {
				return err
			}
		}
	}
}

// A supervised is the one process that a runner keeps running.
type supervised struct {
	log     string
	command []string
	wanted  bool
	pid     int              // zero while it does not run
	again   <-chan time.Time // when to start it again
}

func (n *supervised) start() error {
	if n.pid != 0 || !n.wanted {
		return nil
	}
	log, err := os.OpenFile(n.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(n.command[0], n.command[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	n.pid = cmd.Process.Pid
	fmt.Println(evStarted, n.pid)
	return cmd.Process.Release() // reap waits for it
}

func (n *supervised) signal(s unix.Signal) {
	if n.pid != 0 {
		unix.Kill(n.pid, s) // not yet reaped, so the number is still its own
	}
}

// reap waits for every child that has ended: deputy, and orphans of the node.
func (n *supervised) reap() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if pid == n.pid {
			n.pid = 0
			fmt.Println(evEnded)
			if n.wanted {
				n.again = time.After(restartAfter)
			}
		}
	}
}

// killAll kills all that descends from this process and returns when it is
// gone. As the init of a namespace it leaves that to the kernel.
func killAll() error {
	if os.Getpid() == 1 {
		return nil
	}
	for until := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		all, err := descendants(os.Getpid())
		if err != nil {
			return err
		}
		for _, pid := range all {
			unix.Kill(pid, unix.SIGKILL) // gone already: the next look tells
		}
		for {
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 && !errors.Is(err, unix.EINTR) {
				break
			}
		}
		if len(all) == 0 {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("processes %v do not end", all)
		}
	}
}

// ownProc gives a process in a namespace of its own the /proc that belongs to
// it.
func ownProc() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}
