package sdktest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// processes returns every living process, by /proc. Zombies are not living:
// whoever ought to reap them may never do so.
func processes() []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && alive(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func living(pids []int) []int {
	return slices.DeleteFunc(slices.Clone(pids), func(pid int) bool { return !alive(pid) })
}

func alive(pid int) bool {
	f := stat(pid)
	return f != nil && f[0] != "Z" && f[0] != "X"
}

// stopped reports whether every thread of these processes is stopped, or gone.
func stopped(pids []int) bool {
	return !slices.ContainsFunc(pids, func(pid int) bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		return slices.ContainsFunc(threads, func(thread string) bool {
			f := statOf(thread)
			return f != nil && f[0] != "T" && f[0] != "t" && f[0] != "Z" && f[0] != "X"
		})
	})
}

// sessionOf returns the session that a process belongs to (proc_pid_stat(5)).
func sessionOf(pid int) int {
	f := stat(pid)
	if f == nil {
		return 0
	}
	id, _ := strconv.Atoi(f[3])
	return id
}

func stat(pid int) []string { return statOf(fmt.Sprintf("/proc/%d", pid)) }

// statOf returns what the file stat of a process or thread says behind the
// name, from the state on.
func statOf(dir string) []string {
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return nil
	}
	at := bytes.LastIndexByte(b, ')') // the name may hold anything
	fields := strings.Fields(string(b[at+1:]))
	if at < 0 || len(fields) < 20 {
		return nil
	}
	return fields
}

// marked returns the living processes whose environment has this entry: those
// that a process was started with inherit it, whatever sessions they begin.
func marked(entry string) []int {
	return slices.DeleteFunc(processes(), func(pid int) bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		return err != nil || !slices.Contains(strings.Split(string(b), "\x00"), entry)
	})
}

// holders returns the living processes that have one of these pipes open.
func holders(pipes ...string) []int {
	self := os.Getpid()
	return slices.DeleteFunc(processes(), func(pid int) bool {
		if pid == self {
			return true
		}
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		return !slices.ContainsFunc(fds, func(fd string) bool {
			to, err := os.Readlink(fd)
			return err == nil && slices.Contains(pipes, to)
		})
	})
}

// processNames is a list of processes for people.
func processNames(pids []int) string {
	var all []string
	for _, pid := range pids {
		name := "gone by now"
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && len(b) > 0 {
			name = strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
		}
		if len(name) > 80 {
			name = name[:80] + "..."
		}
		all = append(all, fmt.Sprintf("process %d (%s)", pid, name))
	}
	return strings.Join(all, ", ")
}

// A usage is what a plugin uses of the machine.
type usage struct {
	memory    int64 // bytes, private
	files     int   // open
	threads   int
	processes int
}

// usageOf looks at the first of a plugin's processes, and counts the rest.
func usageOf(pids []int) (usage, error) {
	u := usage{processes: len(pids)}
	if len(pids) == 0 {
		return u, fmt.Errorf("it has no process any more")
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pids[0]))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
		switch key {
		case "RssAnon":
			u.memory = n << 10
		case "Threads":
			u.threads = int(n)
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pids[0]))
	u.files = len(fds)
	return u, err
}

func (u usage) less(o usage) usage {
	return usage{u.memory - o.memory, u.files - o.files, u.threads - o.threads, u.processes - o.processes}
}

func (u usage) String() string {
	return fmt.Sprintf("%+.1f MiB of memory, %+d descriptors, %+d threads, %+d processes", float64(u.memory)/(1<<20), u.files, u.threads, u.processes)
}
