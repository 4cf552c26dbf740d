package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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

func readStat(pid int) (stat, error) { return readStatFile(fmt.Sprintf("/proc/%d/stat", pid)) }

func readStatFile(file string) (stat, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return stat{}, err
	}
	// The name may contain anything, also parentheses and spaces.
	f := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(f) < 15 {
		return stat{}, fmt.Errorf("read %s: too short", file)
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

// isStopped reports whether every thread of a process is.
func isStopped(pid int) bool {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/stat", pid))
	return err == nil && len(tasks) > 0 && !slices.ContainsFunc(tasks, func(file string) bool {
		s, err := readStatFile(file)
		return err != nil || s.state != 'T'
	})
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

// A memory is what a process takes, in bytes: in all, and what no other process
// shares with it.
type memory struct{ resident, private int64 }

// weigh reads how much memory a process takes, see proc_pid_smaps(5).
func weigh(pid int) (memory, error) {
	file := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
	data, err := os.ReadFile(file)
	if err != nil {
		return memory{}, err
	}
	var m memory
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "kB" {
			continue
		}
		kib, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return memory{}, fmt.Errorf("read %s: %w", file, err)
		}
		switch f[0] {
		case "Rss:":
			m.resident = kib << 10
		case "Private_Clean:", "Private_Dirty:":
			m.private += kib << 10
		}
	}
	if m.resident == 0 {
		return memory{}, fmt.Errorf("read %s: no Rss", file)
	}
	return m, nil
}
