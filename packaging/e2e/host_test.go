package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/packaging/e2e/prober"
)

// A host is a machine with systemd as its first process. Its disk outlives it.
type host struct {
	release
	name  string
	index int
	addr  netip.Addr
	dir   string // below it: its disk, and what its console said

	nspawn *exec.Cmd     // nil while the host is off
	off    chan struct{} // closed when nspawn has ended
	cgroup string
	init   int // the host's first process, as seen from here

	own *prober.Service // what answers at the host's own address; nil where nobody asks
}

// bootFor is longer than a host takes to boot on a machine that is busy.
const bootFor = 60 * time.Second

// newHost makes a host that is off, with an empty disk over the release's root.
func newHost(dir string, r release, name string, i int) *host {
	return &host{release: r, name: name, index: i, addr: hostAddr(i), dir: filepath.Join(dir, r.suite+"-"+name)}
}

// hostName is the name of the i-th host, from 0.
func hostName(i int) string { return fmt.Sprintf("db%d", 1+i) }

// disk is the host's root directory, seen from here.
func (h *host) disk() string { return filepath.Join(h.dir, "root") }

// units are those that any machine has in one form or another: an address, and
// something that serves.
const networkUnit = `[Unit]
Description=Network of this host
DefaultDependencies=no
Conflicts=shutdown.target
Before=network.target network-online.target shutdown.target
Wants=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/sbin/ip addr add %s/%d dev host0
ExecStart=/sbin/ip link set host0 up
ExecStop=/sbin/ip link set host0 down
[Install]
WantedBy=multi-user.target network-online.target
`

const answerUnit = `[Unit]
Description=Answers for this host
Before=deputy@orders.service
[Service]
ExecStart=/usr/local/bin/answer %d
Restart=always
Nice=-20
[Install]
WantedBy=multi-user.target
`

// workerUnit is managed by a service, and tells when it answers.
const workerUnit = `[Unit]
Description=Answers where its service is primary
[Service]
Type=notify
ExecStart=/usr/local/bin/answer %d
ExecStop=/bin/sh -c 'while [ -e /run/hangs ]; do sleep 0.1; done'
Nice=-20
`

// format mounts an empty disk and writes what makes this host itself.
func (h *host) format(answer string) error {
	for _, dir := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(h.dir, dir), 0o755); err != nil {
			return err
		}
	}
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", h.rootDir(), h.dir, h.dir)
	if err := unix.Mount("overlay", h.disk(), "overlay", 0, layers); err != nil {
		return fmt.Errorf("mount the disk of %s: %w", h.name, err)
	}
	hosts := "127.0.0.1 localhost\n"
	for i := range size {
		hosts += fmt.Sprintf("%s %s\n", hostAddr(i), hostName(i))
	}
	for file, text := range map[string]string{
		"/etc/hostname":   h.name + "\n",
		"/etc/hosts":      hosts,
		"/etc/machine-id": fmt.Sprintf("%032x\n", 0xd0+h.index),
		"/etc/systemd/system/lab-network.service": fmt.Sprintf(networkUnit, h.addr, prefixLen),
		"/etc/systemd/system/answer.service":      fmt.Sprintf(answerUnit, answersPort),
		"/etc/systemd/system/worker.service":      fmt.Sprintf(workerUnit, workerPort),
		"/etc/systemd/system/parser.service":      fmt.Sprintf(workerUnit, parserPort),
		"/etc/systemd/journald.conf.d/lab.conf":   "[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\nSyncIntervalSec=1s\n",
	} {
		if err := h.write(file, text); err != nil {
			return err
		}
	}
	for _, link := range []string{"multi-user.target.wants/lab-network.service", "network-online.target.wants/lab-network.service", "multi-user.target.wants/answer.service"} {
		at := filepath.Join(h.disk(), "etc/systemd/system", link)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.Symlink("../"+filepath.Base(link), at)); err != nil {
			return err
		}
	}
	data, err := os.ReadFile(answer)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(h.disk(), "usr/local/bin/answer"), data, 0o755)
}

// wipe takes the disk of a host that is off.
func (h *host) wipe() error {
	if err := unix.Unmount(h.disk(), 0); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("take the disk of %s: %w", h.name, err)
	}
	return os.RemoveAll(h.dir)
}

// write writes a file on the host's disk, be it on or off.
func (h *host) write(file, text string) error {
	at := filepath.Join(h.disk(), file)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	return os.WriteFile(at, []byte(text), 0o644)
}

// boot turns the host on and returns when all that it starts has been started.
func (h *host) boot(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bootFor, errors.New("not booted in time"))
	defer cancel()
	h.cgroup = fmt.Sprintf("%s%s-%s", dirPrefix(), h.suite, h.name)
	// A host that lost its power while it was frozen would be frozen again.
	if err := sweepCgroups(h.cgroup); err != nil {
		return err
	}
	group, err := makeCgroup(h.cgroup)
	if err != nil {
		return err
	}
	defer group.Close()
	console, err := os.OpenFile(h.console(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer console.Close()
	cmd := exec.Command("systemd-nspawn", "--quiet", "--directory="+h.disk(), "--machine="+h.name, "--network-bridge="+bridgeName,
		"--register=no", "--keep-unit", "--capability=all", "--resolv-conf=off", "--boot")
	cmd.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "LC_ALL=C.UTF-8")
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(group.Fd())}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("boot %s: %w", h.name, err)
	}
	off := make(chan struct{})
	go func() { // joined through off, by lose or awaitOff
		defer close(off)
		cmd.Wait()
	}()
	h.nspawn, h.off = cmd, off
	for {
		if h.init, err = initOf(cmd.Process.Pid); err != nil {
			return err
		}
		if h.init != 0 {
			// The first process replaces itself, and talks to nobody for a while.
			if out, _ := h.run(ctx, "systemctl", "is-system-running", "--wait"); strings.Contains(out, "running") || strings.Contains(out, "degraded") {
				return nil
			}
		}
		select {
		case <-off:
			text, _ := os.ReadFile(h.console())
			return fmt.Errorf("boot %s: systemd-nspawn ended: %s", h.name, bytes.TrimSpace(text[max(0, len(text)-2000):]))
		case <-ctx.Done():
			return fmt.Errorf("boot %s: %w", h.name, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (h *host) console() string { return filepath.Join(h.dir, "console") }

// initOf finds the first process of the host that nspawn runs; 0 when there is
// none yet.
func initOf(nspawn int) (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", nspawn, nspawn))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for _, child := range strings.Fields(string(data)) {
		status, err := os.ReadFile("/proc/" + child + "/status")
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(status)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "NSpid:" && f[2] == "1" {
				return strconv.Atoi(child)
			}
		}
	}
	return 0, nil
}

// isOn reports whether the host is on.
func (h *host) isOn() bool {
	if h.nspawn == nil {
		return false
	}
	select {
	case <-h.off:
		return false
	default:
		return true
	}
}

// lose takes the power away: everything on the host ends at once.
func (h *host) lose(ctx context.Context) error {
	if h.isOn() {
		if pid, err := initOf(h.nspawn.Process.Pid); err == nil && pid != 0 {
			unix.Kill(pid, unix.SIGKILL)
		} else {
			h.nspawn.Process.Kill()
		}
	}
	return h.awaitOff(ctx)
}

// awaitOff waits until a host that shuts down is off.
func (h *host) awaitOff(ctx context.Context) error {
	if h.nspawn == nil {
		return nil
	}
	select {
	case <-h.off:
		h.nspawn, h.init = nil, 0
		return nil
	case <-ctx.Done():
		return &hostError{fmt.Errorf("wait until %s is off: %w", h.name, context.Cause(ctx))}
	}
}

// freeze stops the host's first process and all that is in deputy's slice, or
// lets them go on.
func (h *host) freeze(stop bool) error {
	v2, _, err := cgroupMounts()
	if err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(v2[0], h.cgroup, "*", "deputy.slice", "cgroup.freeze"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("freeze %s: %d cgroups for deputy, want one: %w", h.name, len(found), err)
	}
	if !stop {
		return errors.Join(os.WriteFile(found[0], []byte("0"), 0), unix.Kill(h.init, unix.SIGCONT))
	}
	return errors.Join(unix.Kill(h.init, unix.SIGSTOP), os.WriteFile(found[0], []byte("1"), 0))
}

// freezeAll stops every process of the host, or lets them go on.
func (h *host) freezeAll(stop bool) error {
	v2, _, err := cgroupMounts()
	if err != nil {
		return err
	}
	// Nothing but the host is below; systemd-nspawn is elsewhere.
	err = os.WriteFile(filepath.Join(v2[0], h.cgroup, "payload", "cgroup.freeze"), []byte(map[bool]string{true: "1", false: "0"}[stop]), 0)
	if !stop && errors.Is(err, fs.ErrNotExist) {
		return nil // it has been turned off
	}
	return err
}

// run runs a program on the host as its root and returns what it prints.
func (h *host) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", strconv.Itoa(h.init), "--all", "--"}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "TERM=dumb", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0", "DEBIAN_FRONTEND=noninteractive", "HOME=/root"}
	// nsenter forks to be in the host's processes, and what it runs there would
	// outlive it: what waits for a frozen host would do its work once that goes on.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
		return string(out), &hostError{fmt.Errorf("on %s: %s: %w: %s", h.name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))}
	}
	return string(out), nil
}

// A hostError is what a program on a host did not do.
type hostError struct{ error }

func (e *hostError) Unwrap() error { return e.error }

// mac is the hardware address of the host's interface, which it keeps when it
// is turned off and on, as real ones do.
func (h *host) mac(ctx context.Context) (net.HardwareAddr, error) {
	out, err := h.run(ctx, "cat", "/sys/class/net/host0/address")
	if err != nil {
		return nil, err
	}
	return net.ParseMAC(strings.TrimSpace(out))
}
