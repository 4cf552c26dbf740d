package plugin

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// A relative is a living process as /proc/PID/stat tells it.
type relative struct {
	pid, parent, session int
	start                uint64 // clock ticks after boot: tells it from a later process of the same number
	environ              int    // bytes of its environment, -1 during execve(2)
}

// family returns the living processes that a program has started: those of
// its session, whatever their group, and those that descend from it through
// living parents. The program itself is not among them. Zombies are not
// living: whoever ought to reap them may never do so.
func family(pid int) []relative {
	all := processes()
	of := map[int]bool{pid: true}
	var found []relative
	for grown := true; grown; {
		grown = false
		for _, r := range all {
			if !of[r.pid] && (r.session == pid || of[r.parent]) {
				of[r.pid], grown = true, true
				found = append(found, r)
			}
		}
	}
	return found
}

// processes returns every living process that /proc shows.
func processes() []relative {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	all := make([]relative, 0, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if r, ok := look(pid); ok {
			all = append(all, r)
		}
	}
	return all
}

// look reads /proc/PID/stat (proc_pid_stat(5)); ok is false for a process that
// has ended.
func look(pid int) (r relative, ok bool) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return relative{}, false
	}
	defer unix.Close(fd)
	var buf [1024]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return relative{}, false
	}
	// The name is in parentheses and may hold anything, parentheses too.
	at := bytes.LastIndexByte(buf[:n], ')')
	fields := bytes.Fields(buf[at+1 : n]) // from the third on: the state
	if at < 0 || len(fields) < 49 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
		return relative{}, false
	}
	r.pid = pid
	r.parent, _ = strconv.Atoi(string(fields[1]))
	r.session, _ = strconv.Atoi(string(fields[3]))
	r.start, _ = strconv.ParseUint(string(fields[19]), 10, 64)
	// Linux tells where the code ends once all the rest is there.
	if r.environ = -1; string(fields[24]) != "0" {
		from, _ := strconv.Atoi(string(fields[47]))
		to, _ := strconv.Atoi(string(fields[48]))
		r.environ = to - from
	}
	return r, true
}

// same reports whether both are one process; its parent may have changed.
func (r relative) same(o relative) bool { return r.pid == o.pid && r.start == o.start }

// lives reports whether this very process still does.
func (r relative) lives() bool {
	now, ok := look(r.pid)
	return ok && r.same(now)
}

// kill sends SIGKILL to this very process.
func (r relative) kill() { r.signal(unix.SIGKILL) }

// signal signals this very process, never a later one of its number.
func (r relative) signal(s unix.Signal) {
	fd, err := unix.PidfdOpen(r.pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if r.lives() {
		unix.PidfdSendSignal(fd, s, nil, 0)
	}
}
