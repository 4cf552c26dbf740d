package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// What is in the unit's group is killed, and nothing that only has its name.
func TestUnitIsKilledDirectly(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name, "cgroup.procs")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("", "1\n")
	write("system.slice/other.service", "")
	process := func(group string) *exec.Cmd {
		t.Helper()
		cmd := exec.Command("sh", "-c", "read nothing")
		hold, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			hold.Close()
			_ = cmd.Wait()
		})
		write(group, fmt.Sprintln(cmd.Process.Pid))
		return cmd
	}
	ours := process("system.slice/system-feed.slice/feed@1.service/inner")
	write("system.slice/system-feed.slice/feed@1.service", "")
	others := []*exec.Cmd{
		process("user.slice/user-1000.slice/user@1000.service/feed@1.service"),
		process("user.slice/feed@1.service"),
		process("machine.slice/box.scope/feed@1.service"),
	}
	if n, err := killUnit(dir, "feed@1.service"); n != 1 || err != nil {
		t.Errorf("killed %d processes: %v, want one", n, err)
	}
	if _ = ours.Wait(); ours.ProcessState == nil || ours.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the unit's process ended with %v, want SIGKILL", ours.ProcessState)
	}
	if n, err := killUnit(dir, "feed@1.service"); n != 0 || err != nil {
		t.Errorf("the second time it killed %d processes: %v, want none that has ended", n, err)
	}
	for _, cmd := range others {
		if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
			t.Errorf("a process of another unit of this name: %v", err)
		}
	}
	if n, err := killUnit(dir, "nowhere.service"); n != 0 || err != nil {
		t.Errorf("of a unit without a group it killed %d processes: %v", n, err)
	}
}
