package plugin

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"
)

func TestOrphanIsGoneBeforeTheNextOpens(t *testing.T) {
	for _, c := range []struct {
		name  string
		start string      // of the orphan
		to    unix.Signal // it, before its supervisor dies
		then  unix.Signal // it, afterwards
	}{
		{name: "deaf"},
		{name: "frozen", to: unix.SIGSTOP},
		{name: "with a child", start: "child=group", to: unix.SIGSTOP},
		{name: "ended before its child", start: "child=group", to: unix.SIGSTOP, then: unix.SIGKILL},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, "moody", nil)
			s.write("start", c.start)
			host := exec.Command(os.Args[0], "hook", "host", "acting", s.host.Dirs[0], s.dir)
			if err := host.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				host.Process.Kill()
				host.Wait()
			}()
			eventually(t, "the promotion to begin", func() bool { return s.exists("began") })
			os.Remove(filepath.Join(s.dir, "start"))
			old := slices.DeleteFunc(marked(s.dir), func(pid int) bool { return pid == host.Process.Pid })
			if want := 1 + strings.Count(c.start, "child"); len(old) != want {
				t.Fatalf("processes %v of the plugin, want %d", old, want)
			}
			leader := old[slices.IndexFunc(old, func(pid int) bool { return session(pid) == pid })]
			if c.to != 0 {
				freeze(t, leader)
			}
			host.Process.Kill()
			host.Wait()
			if c.then != 0 {
				kill(leader, c.then)
				eventually(t, "the process to end", func() bool { _, ok := look(leader); return !ok })
			}
			last := old[len(old)-1]
			if _, ok := look(last); !ok {
				t.Logf("process %d has ended by itself, and nothing is left to test", last) // on a very busy machine
			}
			if err := s.Open(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, pid := range old {
				if _, ok := look(pid); ok {
					t.Errorf("open, and process %d of before still runs", pid)
				}
			}
			if pid := s.answers(); slices.Contains(old, pid) {
				t.Errorf("process %d of before answers", pid)
			}
		})
	}
}

// A record outlives its process when nobody opens the part for a while, and
// the number may be another's by then.
func TestOrphanIsToldFromALaterProcessOfItsNumber(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	noLeaks(t, dir)
	s := &sockets{dir: filepath.Join(dir, "part")}
	// A daemon, that is: the leader of its session has ended.
	daemon := func(env ...string) (leader int) {
		cmd := exec.Command("/bin/sh", "-c", "sleep 600 >/dev/null 2>&1 &")
		cmd.Env, cmd.SysProcAttr = append(os.Environ(), env...), &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		return cmd.Process.Pid
	}
	left := func(leader int) int { return len(family(leader)) }
	other := exec.Command("/bin/sleep", "600")
	other.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	theirs, ours := daemon(), daemon(goplugin.EnvUnixSocketDir+"="+filepath.Join(s.dir, "3"))
	defer func() {
		other.Process.Kill()
		other.Wait()
		for _, r := range family(theirs) {
			r.kill()
		}
	}()
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, pid := range map[string]int{"1": other.Process.Pid, "2": theirs, "3": ours} {
		if err := os.Symlink(fmt.Sprintf("%d.1", pid), filepath.Join(s.dir, name+recordSuffix)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := look(other.Process.Pid); !ok {
		t.Error("killed another process that has the number")
	}
	if left(theirs) != 1 {
		t.Error("killed a process of another session that had the number")
	}
	if left(ours) != 0 {
		t.Error("a process of the session still runs")
	}
	if _, err := os.Stat(s.dir); err == nil {
		t.Error("the records are still there")
	}
}

// For a moment of execve(2) a process has no environment to be told by: it is
// looked at again then, and is not taken for somebody else's.
func TestOrphanIsToldBetweenTwoPrograms(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	noLeaks(t, dir)
	s := &sockets{dir: filepath.Join(dir, "part")}
	again := filepath.Join(dir, "again")
	if err := os.WriteFile(again, []byte("#!/bin/sh\nexec \"$0\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	daemon := func(env string) (leader int) {
		cmd := exec.Command("/bin/sh", "-c", `"$0" >/dev/null 2>&1 &`, again)
		cmd.Env, cmd.SysProcAttr = append(os.Environ(), env), &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		return cmd.Process.Pid
	}
	theirs := daemon("OTHER=1")
	defer func() {
		for _, r := range family(theirs) {
			r.kill()
		}
	}()
	for range 30 {
		ours := daemon(goplugin.EnvUnixSocketDir + "=" + filepath.Join(s.dir, "2"))
		if err := os.Mkdir(s.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, pid := range map[string]int{"1": theirs, "2": ours} {
			if err := os.Symlink(fmt.Sprintf("%d.1", pid), filepath.Join(s.dir, name+recordSuffix)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.clear(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(family(ours)) != 0 {
			t.Fatal("a process of the session still runs")
		}
		if len(family(theirs)) != 1 {
			t.Fatal("killed a process of another session that had the number")
		}
	}
}

func TestOrphanThatCannotBeKilled(t *testing.T) {
	mount, thaw := frozen(t)
	s := newStage(t, "moody", nil)
	t.Cleanup(thaw)
	stuck := exec.Command("/bin/sh", "-c", "exec touch "+mount+"/x")
	stuck.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := stuck.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		thaw()
		stuck.Process.Kill()
		stuck.Wait()
	}()
	pid := stuck.Process.Pid
	eventually(t, "the process to be stuck", func() bool {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return strings.Contains(string(stat), "(touch) D ")
	})
	dir, err := s.sockets.add()
	if err == nil {
		err = s.sockets.record(dir, pid)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // it is not forgotten
		within(t, 5*time.Second, func() { err = s.Open(t.Context()) })
		if err == nil || Lasting(err) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), fmt.Sprintf("still runs: pid %d: kill it by hand", pid)) {
			t.Errorf("got %v, want the pid", err)
		}
	}
	if s.PID() != 0 {
		t.Error("another process runs beside it")
	}
	thaw()
	if err := s.Open(context.Background()); err != nil {
		t.Errorf("open, now that it can die: %v", err)
	}
}
