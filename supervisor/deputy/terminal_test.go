package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// terminal runs a command on a terminal of 100 columns and 30 lines, and types.
func terminal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: terminal FILE COMMAND...")
	}
	front, back, err := openTerminal()
	ts.Check(err)
	defer front.Close()
	path := ts.Getenv("PATH")
	program := ""
	for _, dir := range strings.Split(path, ":") {
		if _, err := os.Stat(dir + "/" + args[1]); err == nil {
			program = dir + "/" + args[1]
			break
		}
	}
	cmd := exec.Command(program, args[2:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = []string{"TERM=xterm-256color", "PATH=" + path}
	for _, name := range []string{"HOME", "TMPDIR", "DEPUTY_CONFIG", "DEPUTY_SERVICES", "DEPUTY_RUN_DIR", "DEPUTY_STATE_DIR"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = back, back, back
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	ts.Check(cmd.Start())
	ts.Check(back.Close())

	var mu sync.Mutex
	var shown bytes.Buffer
	var ear sync.WaitGroup
	ear.Go(func() {
		b := make([]byte, 4096)
		for {
			n, err := front.Read(b) // fails once nobody has the back any more
			mu.Lock()
			shown.Write(b[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	has := func(text string) bool {
		mu.Lock()
		defer mu.Unlock()
		i := bytes.Index(shown.Bytes(), []byte(text))
		if i >= 0 {
			shown.Next(i + len(text))
		}
		return i >= 0
	}
	give := func(format string, args ...any) {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		ts.Fatalf("%s; shown was %q", fmt.Sprintf(format, args...), shown.String())
	}
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		line = strings.TrimSuffix(line, "\n")
		text, waits := strings.CutPrefix(line, "wait ")
		if !waits {
			_, err := front.WriteString(line)
			ts.Check(err)
			continue
		}
		for deadline := time.Now().Add(20 * time.Second); !has(text); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				give("not shown within 20s: %q", text)
			}
		}
	}
	ended := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer ended.Stop()
	if err := cmd.Wait(); err != nil {
		give("%v", err)
	}
	ear.Wait()
}

// openTerminal returns both ends of a pseudo-terminal (pty(7)).
func openTerminal() (front, back *os.File, err error) {
	front, err = os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(front.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 100})
	}
	if err == nil {
		back, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		front.Close()
	}
	return front, back, err
}
