package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// KillRest ends, by SIGKILL, all processes that share the control group of
// this one, and returns how many it killed, once they are gone or ctx ends. It
// does nothing unless the group is that of the named unit: in a container or a
// shell the rest would be strangers.
func KillRest(ctx context.Context, unitName string) (killed int, err error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil || unitOf(string(text)) != unitName {
		return 0, nil
	}
	for _, hierarchy := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"} {
		members := filepath.Join(hierarchy, groupOf(string(text)), "cgroup.procs")
		if _, err := os.Stat(members); err == nil {
			return killRest(ctx, members)
		}
	}
	return 0, errors.New("kill the rest of the control group: it is not below /sys/fs/cgroup")
}

func killRest(ctx context.Context, members string) (int, error) {
	killed := map[int]bool{}
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		text, err := os.ReadFile(members)
		if err != nil {
			return len(killed), fmt.Errorf("kill the rest of the control group: %w", err)
		}
		var left []string
		for field := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil || pid <= 0 || pid == os.Getpid() {
				continue // 0 is a process of another namespace
			}
			err = unix.Kill(pid, unix.SIGKILL)
			if errors.Is(err, unix.ESRCH) {
				continue
			}
			if err == nil {
				killed[pid] = true
			}
			left = append(left, field)
		}
		if len(left) == 0 {
			return len(killed), nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return len(killed), fmt.Errorf("kill the rest of the control group: pid %s still there: %w", strings.Join(left, ", "), context.Cause(ctx))
		}
	}
}
