package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// A stat is what /proc/PID/stat says about a process, see proc_pid_stat(5).
type stat struct {
	state       byte
	parent      int
	own, waited time.Duration // CPU time of the process, and of the children it has waited for
}

// userHZ is the unit of times in /proc/PID/stat, the same on all platforms
// that Go runs on.
const userHZ = 100

func readStat(pid int) (stat, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// The name may contain anything, also parentheses and spaces.
	f := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(f) < 15 {
		return stat{}, fmt.Errorf("read /proc/%d/stat: too short", pid)
	}
	var n [15]int
	for _, i := range []int{1, 11, 12, 13, 14} {
		if n[i], err = strconv.Atoi(string(f[i])); err != nil {
			return stat{}, err
		}
	}
	const tick = time.Second / userHZ
	return stat{f[0][0], n[1], time.Duration(n[11]+n[12]) * tick, time.Duration(n[13]+n[14]) * tick}, nil
}

// descendants returns all processes that descend from pid and are no zombies.
func descendants(pid int) ([]int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int)
	dead := make(map[int]bool)
	for _, dir := range dirs {
		p, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return nil, err
		}
		s, err := readStat(p)
		if err != nil {
			continue // it has ended
		}
		children[s.parent] = append(children[s.parent], p)
		dead[p] = s.state == 'Z' || s.state == 'X'
	}
	var found []int
	for queue := children[pid]; len(queue) > 0; queue = queue[1:] {
		p := queue[0]
		queue = append(queue, children[p]...)
		if !dead[p] {
			found = append(found, p)
		}
	}
	return found, nil
}

// rss returns the resident memory of a process, in bytes.
func rss(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := bytes.Cut(data, []byte("VmRSS:"))
	f := bytes.Fields(rest)
	if !ok || len(f) == 0 {
		return 0, fmt.Errorf("read the memory of process %d: no VmRSS", pid)
	}
	kib, err := strconv.ParseInt(string(f[0]), 10, 64)
	return kib << 10, err
}
