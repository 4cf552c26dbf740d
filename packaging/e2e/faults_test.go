package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/packaging/e2e/nemesis"
)

// A fault is something that goes wrong, and how that is done here.
type fault struct {
	nemesis.Fault
	effect effect
	hit    deed
}

// A deed does a fault and returns what undoes it; nil for nothing. The host is nil
// for what hits none.
type deed func(ctx context.Context, l *lab, h *host, b nemesis.Blow) (mend, error)

// A mend undoes a fault, as far as that takes doing.
type mend func(ctx context.Context) error

// An effect is what becomes of a role when a fault hits its primary.
type effect string

const (
	moves  effect = "the role moves"
	keeps  effect = "the role stays"
	either effect = "the role may move"
)

// faults are all of them; what safety.md names, by the words that it uses.
func faults() []fault {
	on := []nemesis.Victim{nemesis.Primary, nemesis.Primary, nemesis.Standby}
	primary := []nemesis.Victim{nemesis.Primary}
	long := [2]time.Duration{3500 * time.Millisecond, 8 * time.Second}
	some := [2]time.Duration{200 * time.Millisecond, 8 * time.Second}
	// What ends by itself has ended then.
	short := [2]time.Duration{2 * time.Second, 3 * time.Second}
	return []fault{
		{nemesis.Fault{Name: "supervisor killed", Victims: on, Hold: short, Often: 2}, keeps, signalTo(supervisorOf, unix.SIGKILL)},
		{nemesis.Fault{Name: "supervisor stopped", Victims: on, Hold: short, Often: 2}, keeps, signalTo(supervisorOf, unix.SIGSTOP)},
		{nemesis.Fault{Name: "plugins killed", Victims: on, Hold: short}, either, signalTo(pluginsOf, unix.SIGKILL)},
		{nemesis.Fault{Name: "plugins stopped", Victims: on, Hold: some}, either, signalTo(pluginsOf, unix.SIGSTOP)},
		{nemesis.Fault{Name: "supervisor and plugins stopped", Victims: on, Hold: some}, either, signalTo(allOf, unix.SIGSTOP)},
		{nemesis.Fault{Name: "gate killed", Victims: primary, Hold: short}, either, signalTo(gateOf, unix.SIGKILL)},
		{nemesis.Fault{Name: "supervisor killed while starting", Victims: on, Hold: short}, either, during("restart", unix.SIGKILL)},
		{nemesis.Fault{Name: "supervisor stopped while starting", Victims: on, Hold: short}, either, during("restart", unix.SIGSTOP)},
		{nemesis.Fault{Name: "supervisor killed while stopping", Victims: on, Hold: short}, either, during("stop", unix.SIGKILL)},
		{nemesis.Fault{Name: "supervisor stopped while stopping", Victims: on, Hold: short}, either, during("stop", unix.SIGSTOP)},
		{nemesis.Fault{Name: "supervisor gone for good", Victims: primary, Hold: long}, moves, hitGoneForGood},
		{nemesis.Fault{Name: "managed unit killed", Victims: primary, Hold: short}, either, signalTo(workerOf, unix.SIGKILL)},
		{nemesis.Fault{Name: "managed unit stopped", Victims: primary, Hold: some}, keeps, signalTo(workerOf, unix.SIGSTOP)},
		{nemesis.Fault{Name: "polkit stopped", Victims: on, Hold: long}, keeps, signalTo(polkitOf, unix.SIGSTOP)},
		{nemesis.Fault{Name: "partition with polkit stopped", Victims: primary, Hold: long}, moves, both(
			hitCut(cut{toEtcd: true, fromEtcd: true}), signalTo(polkitOf, unix.SIGSTOP))},
		{nemesis.Fault{Name: "partition with units that do not stop", Victims: primary, Hold: long}, moves, both(
			hitHang, hitCut(cut{toEtcd: true, fromEtcd: true}))},
		{nemesis.Fault{Name: "host frozen", Victims: on, Hold: long, Often: 2}, moves, hitFreeze},
		{nemesis.Fault{Name: "host frozen with all that it runs", Victims: on, Hold: long}, moves, hitFreezeAll},
		{nemesis.Fault{Name: "power loss", Victims: on, Hold: long, Often: 2}, moves, hitPower},
		{nemesis.Fault{Name: "reboot", Victims: on, Hold: short}, moves, hitReboot},
		{nemesis.Fault{Name: "partition", Victims: on, Hold: long, Often: 2}, moves, hitCut(cut{toEtcd: true, fromEtcd: true, hosts: true})},
		{nemesis.Fault{Name: "partition from etcd", Victims: on, Hold: long}, moves, hitCut(cut{toEtcd: true, fromEtcd: true})},
		{nemesis.Fault{Name: "partition one way, towards etcd", Victims: on, Hold: long}, moves, hitCut(cut{toEtcd: true})},
		{nemesis.Fault{Name: "partition one way, from etcd", Victims: on, Hold: long}, moves, hitCut(cut{fromEtcd: true})},
		{nemesis.Fault{Name: "partition from the other hosts", Victims: on, Hold: long}, keeps, hitCut(cut{hosts: true})},
		{nemesis.Fault{Name: "short partition from etcd", Victims: on, Hold: [2]time.Duration{100 * time.Millisecond, 2 * time.Second}}, keeps, hitCut(cut{toEtcd: true, fromEtcd: true})},
		{nemesis.Fault{Name: "daemon-reload storm", Victims: on, Hold: [2]time.Duration{time.Second, 5 * time.Second}}, keeps, hitReloads},
		{nemesis.Fault{Name: "disk full", Victims: on, Hold: some}, keeps, hitFullDisk},
		{nemesis.Fault{Name: "clock stepped", Hold: [2]time.Duration{500 * time.Millisecond, 2 * time.Second}, Alone: true}, keeps, hitClock},
		{nemesis.Fault{Name: "etcd leader killed", Hold: some}, either, hitMember(true)},
		{nemesis.Fault{Name: "etcd leader stopped", Hold: some, Often: 2}, either, hitMember(false)},
		{nemesis.Fault{Name: "etcd quorum lost", Hold: some, Alone: true}, either, hitQuorum},
		{nemesis.Fault{Name: "switchover", Victims: primary, Hold: short, Often: 2}, moves, hitSwitchover},
	}
}

// reaches reports whether deputy keeps a service from acting twice through a
// fault. Where the first process of a host is frozen along with all of deputy
// only the kernel is left, and nothing of the parser is guarded by it.
func reaches(fault string, w *watched) bool {
	return !strings.HasPrefix(fault, "host frozen") || w.name != "parser"
}

// hits reports whether a lab has what a fault hits.
func (f fault) hits(l *lab) bool { return l.queue || !strings.HasPrefix(f.Name, "managed unit") }

// Processes of services, as a host's shell finds them.
const (
	supervisorOf = `systemctl show -P MainPID deputy@%s.service`
	gateOf       = `systemctl show -P MainPID deputy-lease@%s.service`
	workerOf     = `[ -n "%u" ] && systemctl show -P MainPID %u`
	polkitOf     = `[ %s = orders ] && systemctl show -P MainPID polkit.service`
	pluginsOf    = `m=$(systemctl show -P MainPID deputy@%s.service); [ "$m" != 0 ] && pgrep -P "$m"`
	allOf        = supervisorOf + `; ` + pluginsOf
)

// signalTo sends a signal to processes of all services of a host. Those that
// were stopped are let go on in the end; systemd may have killed them by then.
func signalTo(which string, s unix.Signal) deed {
	return func(ctx context.Context, l *lab, h *host, _ nemesis.Blow) (mend, error) {
		var find []string
		for _, w := range l.services {
			find = append(find, strings.NewReplacer("%s", w.name, "%u", w.manages).Replace(which))
		}
		out, err := h.run(ctx, "sh", "-c", fmt.Sprintf(`p=$({ %s; } | grep -vx 0); [ -n "$p" ] && kill -%d $p; echo $p`, strings.Join(find, "; "), s))
		if s != unix.SIGSTOP {
			return nil, err
		}
		stopped := strings.TrimSpace(out)
		if err != nil { // nobody knows whom it has stopped
			stopped = fmt.Sprintf(`$({ %s; } | grep -vx 0)`, strings.Join(find, "; "))
		}
		return func(ctx context.Context) error {
			_, err := h.run(ctx, "sh", "-c", "kill -CONT "+stopped+" 2>&- ; true")
			return err
		}, err
	}
}

// during has the supervisors do something, and sends them a signal in the midst
// of it.
func during(verb string, s unix.Signal) deed {
	return func(ctx context.Context, l *lab, h *host, b nemesis.Blow) (mend, error) {
		units := []string{}
		for _, w := range l.services {
			units = append(units, w.unit())
		}
		if _, err := h.run(ctx, append([]string{"systemctl", "--no-block", verb}, units...)...); err != nil {
			return nil, err
		}
		rest(ctx, time.Duration(b.Dice%250)*time.Millisecond)
		_, err := signalTo(supervisorOf, s)(ctx, l, h, b)
		if _, gone := errors.AsType[*hostError](err); gone {
			err = nil // it has come to its end before
		}
		return func(ctx context.Context) error {
			// systemd ends what was stopped, in its time.
			_, err := h.run(ctx, append([]string{"systemctl", "start"}, units...)...)
			return err
		}, err
	}
}

// hitGoneForGood kills the supervisors, and keeps others from being started.
func hitGoneForGood(ctx context.Context, l *lab, h *host, b nemesis.Blow) (mend, error) {
	var before, after []string
	for _, w := range l.services {
		dig, fill := bury(w.unit())
		before, after = append(before, dig), append(after, fill)
	}
	// To be undone even if it fails: a host whose first process is frozen has the
	// files already when it does not answer.
	undo := func(ctx context.Context) error {
		after := append(slices.Clone(after), "systemctl daemon-reload")
		for _, w := range l.services {
			after = append(after, "systemctl reset-failed "+w.unit(), "systemctl start "+w.unit())
		}
		_, err := h.run(ctx, "sh", "-c", strings.Join(after, "; "))
		return err
	}
	if _, err := h.run(ctx, "sh", "-c", strings.Join(append(before, "systemctl daemon-reload"), " && ")); err != nil {
		return undo, err
	}
	_, err := signalTo(supervisorOf, unix.SIGKILL)(ctx, l, h, b)
	return undo, err
}

// bury is a command that has a unit fail for good, its clean-up too, and one that
// undoes it; systemd has to read that.
func bury(unit string) (before, after string) {
	dir := "/run/systemd/system/" + unit + ".d"
	return fmt.Sprintf(`mkdir -p %s && printf '[Service]\nExecStart=\nExecStart=/bin/false\nExecStopPost=\n' >%[1]s/dead.conf`, dir), "rm -rf " + dir
}

func hitFreeze(_ context.Context, _ *lab, h *host, _ nemesis.Blow) (mend, error) {
	return func(context.Context) error { return h.freeze(false) }, h.freeze(true)
}

func hitFreezeAll(_ context.Context, _ *lab, h *host, _ nemesis.Blow) (mend, error) {
	return func(context.Context) error { return h.freezeAll(false) }, h.freezeAll(true)
}

func hitPower(ctx context.Context, l *lab, h *host, _ nemesis.Blow) (mend, error) {
	return func(ctx context.Context) error {
		if h.isOn() {
			return nil // it had been tried before
		}
		return l.boot(ctx, h)
	}, h.lose(ctx)
}

func hitReboot(ctx context.Context, l *lab, h *host, _ nemesis.Blow) (mend, error) {
	_, _ = h.run(ctx, "systemctl", "poweroff") // the connection may end with the host
	return func(ctx context.Context) error {
		if h.isOn() {
			return nil // it was frozen, and has not heard of it
		}
		return l.boot(ctx, h)
	}, h.awaitOff(ctx)
}

func hitCut(what cut) deed {
	return func(ctx context.Context, l *lab, h *host, _ nemesis.Blow) (mend, error) {
		return func(ctx context.Context) error { return l.mend(ctx, h) }, l.cutOff(ctx, h, what)
	}
}

// both is one fault and then another.
func both(a, b deed) deed {
	return func(ctx context.Context, l *lab, h *host, how nemesis.Blow) (mend, error) {
		first, err := a(ctx, l, h, how)
		if err != nil {
			return first, err
		}
		second, err := b(ctx, l, h, how)
		return func(ctx context.Context) error {
			var wrong []error
			for _, undo := range []mend{second, first} {
				if undo != nil {
					wrong = append(wrong, undo(ctx))
				}
			}
			return errors.Join(wrong...)
		}, err
	}
}

// hitReloads keeps the first process of a host busy.
func hitReloads(ctx context.Context, _ *lab, h *host, b nemesis.Blow) (mend, error) {
	_, err := h.run(ctx, "systemd-run", "--quiet", "--collect", "--unit=storm", "timeout", fmt.Sprintf("%.3f", b.Hold.Seconds()), "sh", "-c", "while :; do systemctl daemon-reload; done")
	return nil, err
}

// hitHang keeps managed units from stopping by themselves.
func hitHang(ctx context.Context, _ *lab, h *host, _ nemesis.Blow) (mend, error) {
	_, err := h.run(ctx, "touch", "/run/hangs")
	return func(ctx context.Context) error {
		_, err := h.run(ctx, "rm", "-f", "/run/hangs")
		return err
	}, err
}

// hitFullDisk leaves no room where run directories are.
func hitFullDisk(ctx context.Context, _ *lab, h *host, _ nemesis.Blow) (mend, error) {
	_, err := h.run(ctx, "sh", "-c", `mount -o remount,size="$(df -k --output=used /run | tail -n 1 | tr -d ' ')k" /run`)
	return func(ctx context.Context) error {
		_, err := h.run(ctx, "mount", "-o", "remount,size=64m", "/run")
		return err
	}, err
}

// hitClock steps the wall clock, which all hosts share, by ten minutes to either
// side.
func hitClock(_ context.Context, _ *lab, _ *host, b nemesis.Blow) (mend, error) {
	by := 10 * time.Minute
	if b.Dice%2 == 0 {
		by = -by
	}
	return func(context.Context) error { return stepClock(-by) }, stepClock(by)
}

func stepClock(by time.Duration) error {
	at := unix.NsecToTimespec(time.Now().Add(by).UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &at); err != nil {
		return fmt.Errorf("step the wall clock by %s: %w", by, err)
	}
	return nil
}

// hitMember kills or stops the leader of etcd.
func hitMember(kill bool) deed {
	return func(ctx context.Context, l *lab, _ *host, _ nemesis.Blow) (mend, error) {
		m := l.etcd.Member(max(l.etcd.Leader(ctx), 0))
		if kill {
			m.Kill()
			return m.Restart, nil
		}
		return func(context.Context) error { return m.Continue() }, m.Stop()
	}
}

// hitQuorum stops two of etcd's three members.
func hitQuorum(ctx context.Context, l *lab, _ *host, _ nemesis.Blow) (mend, error) {
	leader := max(l.etcd.Leader(ctx), 0)
	a, b := l.etcd.Member(leader), l.etcd.Member((leader+1)%l.etcd.Size())
	return func(context.Context) error { return errors.Join(a.Continue(), b.Continue()) }, errors.Join(a.Stop(), b.Stop())
}

// hitSwitchover has an operator move the roles that a host has.
func hitSwitchover(ctx context.Context, l *lab, h *host, b nemesis.Blow) (mend, error) {
	for _, w := range l.services {
		if r, err := w.records(ctx); err != nil || r.primary.Node != h.name {
			continue // an operator would see that, too
		}
		others := l.others(h)
		to := others[int(b.Dice%uint64(len(others)))]
		if _, err := h.run(ctx, "deputy", "switchover", w.name, "--to", to.name); err != nil && b.At == 0 {
			return nil, err
		}
	}
	return nil, nil
}

// rest waits, unless ctx ends.
func rest(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// faultNamed returns a fault of the list.
func faultNamed(name string) fault {
	all := faults()
	i := slices.IndexFunc(all, func(f fault) bool { return f.Name == name })
	return all[i]
}

// seedOf returns the seed that was asked for, or else a new one.
func seedOf() (uint64, error) {
	text := os.Getenv("DEPUTY_E2E_SEED")
	if text == "" {
		return rand.Uint64() >> 32, nil
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read DEPUTY_E2E_SEED: %w", err)
	}
	return seed, nil
}
