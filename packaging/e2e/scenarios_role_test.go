package e2e

import (
	"encoding/json"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// shopUnit is one that runs on the primary and nowhere else; it takes its time
// to stop.
const shopUnit = `[Unit]
Description=Runs where %[1]s is primary
PartOf=deputy-primary@%[1]s.target
BindsTo=deputy-lease@%[1]s.service
After=deputy-lease@%[1]s.service
[Service]
Type=exec
ExecStart=/bin/sleep infinity
ExecStop=/bin/sleep 0.3
[Install]
WantedBy=deputy-primary@%[1]s.target
`

// Units of the role run on the primary alone, and leaving waits for them.
func roleTargets(s *scene) {
	const shop = "shop.service"
	for _, h := range s.hosts {
		if err := h.write("/etc/systemd/system/"+shop, strings.ReplaceAll(shopUnit, "%[1]s", service)); err != nil {
			s.Fatal(err)
		}
		s.ok(h, "systemctl", "daemon-reload")
		s.ok(h, "systemctl", "enable", shop)
	}
	from, before := s.primary()
	s.ok(from, "deputy", "switchover", service, "--to", s.others(from)[0].name) // units are started with a role
	from, before = s.moved(before)
	for range runs() {
		to := s.others(from)[0]
		s.only(from, shop)
		began := now()
		s.ok(from, "deputy", "switchover", service, "--to", to.name)
		s.moved(before)
		s.outage("switchover with a unit that stops in 300 ms", began)
		s.only(to, shop)
		if ended, started := s.monotonic(from, shop, "InactiveEnterTimestampMonotonic"), s.monotonic(to, shop, "ActiveEnterTimestampMonotonic"); ended >= started {
			s.Errorf("%s: %s ended there at %s, and started here at %s", to.name, shop, ended, started)
		}
		from, before = s.primary()
	}
	// By hand it starts nowhere else, and the reason is told.
	other := s.others(from)[0]
	for _, u := range []string{"deputy-primary@" + service + ".target", shop} {
		since := time.Now()
		out, err := other.run(s.ctx, "systemctl", "start", u)
		if err == nil {
			s.Errorf("%s: %s starts on a standby", other.name, u)
		}
		s.Logf("systemctl start %s on a standby: %s", u, strings.TrimSpace(out))
		await(s.T, settleFor, "the journal tells why "+u+" does not start", func() bool {
			return strings.Contains(s.journal(s.ctx, other, since.Add(-time.Second), 30), from.name)
		})
	}
	s.only(from, shop)
	await(s.T, settleFor, "the standby target of "+other.name+" is active again", func() bool {
		return s.property(other, "deputy-standby@"+service+".target", "ActiveState") == "active"
	})
	// A stop waits, too.
	s.ok(from, "systemctl", "stop", unit)
	if state := s.property(from, shop, "ActiveState"); state != "inactive" {
		s.Errorf("%s: %s is %s after systemctl stop has returned", from.name, shop, state)
	}
	s.ok(from, "systemctl", "start", unit)
	s.primary()
	for _, h := range s.hosts {
		s.ok(h, "systemctl", "disable", "--now", shop)
		s.ok(h, "rm", "/etc/systemd/system/"+shop)
		s.ok(h, "systemctl", "daemon-reload")
	}
	s.primary()
}

// only fails unless a unit and the role's target are active on one host alone.
func (s *scene) only(h *host, unit string) {
	s.Helper()
	await(s.T, settleFor, unit+" runs on "+h.name+" alone", func() bool {
		for _, o := range s.hosts {
			for _, u := range []string{unit, "deputy-primary@" + service + ".target", "deputy-lease@" + service + ".service"} {
				state := s.property(o, u, "ActiveState")
				if o == h && state != "active" || o != h && state != "inactive" && state != "failed" {
					return false
				}
			}
		}
		return true
	})
}

// monotonic reads a time of a unit, in the clock that all hosts share.
func (s *scene) monotonic(h *host, unit, property string) time.Duration {
	s.Helper()
	n, err := strconv.ParseInt(s.property(h, unit, property), 10, 64)
	if err != nil {
		s.Fatal(err)
	}
	return time.Duration(n) * time.Microsecond
}

// Behind a supervisor that is killed and does not come back the gate demotes.
func gateDemotes(s *scene) {
	before, after := bury(unit)
	for _, c := range []struct{ what, before, after string }{
		{"supervisor and clean-up fail for good", before + " && systemctl daemon-reload", after + " && systemctl daemon-reload"},
		{"program gone", "mv /usr/bin/deputy /usr/bin/deputy.gone", "mv /usr/bin/deputy.gone /usr/bin/deputy"},
	} {
		for range runs() {
			s.lostSupervisor(c.what, c.before, c.after)
		}
		s.bound(c.what+silent, 0, ttl+time.Second)
	}
}

// lostSupervisor kills the supervisor of the primary after a command that keeps
// it from coming back, and undoes that in the end.
func (s *scene) lostSupervisor(what, before, after string) {
	s.Helper()
	from, p := s.primary()
	gate := "deputy-lease@" + service + ".service"
	await(s.T, settleFor, "the gate of "+from.name+" is active", func() bool {
		return s.property(from, gate, "ActiveState") == "active"
	})
	pid := s.mainPID(from)
	s.ok(from, "sh", "-c", before)
	began := now()
	s.ok(from, "kill", "-KILL", pid)
	killed := now()
	s.served(p)
	s.outage(what, began)
	if last := s.orders.LastAsked(from.name); last-killed > ttl*95/100 {
		s.Errorf("%s: %s answered for %s after its supervisor was killed, want at most 0.95 of the ttl", what, from.name, last-killed)
	}
	await(s.T, settleFor, what+": the gate of "+from.name+" has taken the address and ended", func() bool {
		return !s.hasAddress(from) && s.property(from, gate, "ActiveState") != "active"
	})
	s.ok(from, "sh", "-c", after+" && systemctl reset-failed "+unit+"; systemctl start "+unit)
	s.primary()
}

// queueUnit is managed by deputy; it tells when it is ready.
const queueUnit = `[Unit]
Description=A queue
[Service]
Type=notify
NotifyAccess=all
ExecStart=/bin/sh -c 'systemd-notify --ready; exec sleep infinity'
`

const queueDefinition = `description = "A queue"
ttl = "3s"
[[plugin]]
use    = "systemd"
config = { units = ["queue.service"] }
check  = { interval = "1s" }
`

// A unit that deputy manages fails, and another host serves.
func unitFails(s *scene) {
	const queue, what = "queue.service", "a managed unit fails: another serves after"
	serving := func() (found *host) {
		for _, h := range s.hosts {
			if s.property(h, queue, "ActiveState") == "active" {
				if found != nil {
					s.Errorf("%s and %s serve at once", found.name, h.name)
				}
				found = h
			}
		}
		return found
	}
	for _, h := range s.hosts {
		if err := errors.Join(h.write("/etc/systemd/system/"+queue, queueUnit), h.write("/etc/deputy/services.d/queue.toml", queueDefinition)); err != nil {
			s.Fatal(err)
		}
		s.ok(h, "systemctl", "daemon-reload")
		s.ok(h, "deputy", "enable", "queue")
	}
	await(s.T, settleFor, "a host serves the queue", func() bool { return serving() != nil })
	for range runs() {
		from := serving()
		for end := now() + time.Second; now() < end; time.Sleep(50 * time.Millisecond) { // its checks have passed
			continue
		}
		began := monotonicNow()
		s.ok(from, "systemctl", "kill", "--signal=KILL", queue)
		var to *host
		await(s.T, settleFor, "another host serves the queue", func() bool {
			to = serving()
			return to != nil && to != from
		})
		s.figures.add(s.systemd, what, s.monotonic(to, queue, "ActiveEnterTimestampMonotonic")-began)
		await(s.T, settleFor, from.name+" takes part again", func() bool {
			out, err := from.run(s.ctx, "deputy", "clear", "queue")
			_ = out
			return err == nil
		})
	}
	s.bound(what, 300*time.Millisecond, ttl+time.Second)
	for _, h := range s.hosts {
		s.ok(h, "deputy", "disable", "queue")
		s.ok(h, "rm", "/etc/systemd/system/"+queue, "/etc/deputy/services.d/queue.toml")
		s.ok(h, "systemctl", "daemon-reload")
	}
}

// monotonicNow is the clock of systemd's time stamps.
func monotonicNow() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // every Linux has it
	}
	return time.Duration(ts.Nano())
}

// The journal tells what happened, in fields that can be asked for.
func journalTells(s *scene) {
	from, _ := s.primary()
	to := s.others(from)[0]
	since := time.Now()
	s.ok(from, "deputy", "switchover", service, "--to", to.name)
	s.primary()
	s.ok(to, "journalctl", "--sync")
	out := s.ok(to, "journalctl", "-q", "--no-pager", "-o", "json", "--since", since.Add(-time.Second).Format("2006-01-02 15:04:05"), "DEPUTY_SERVICE="+service)
	promoted := false
	for line := range strings.Lines(out) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			s.Fatalf("read the journal: %v", err)
		}
		if entry["DEPUTY_ROLE"] != "primary" {
			continue
		}
		promoted = true
		for _, field := range []string{"MESSAGE_ID", "DEPUTY_TERM", "DEPUTY_NODE", "PRIORITY"} {
			if entry[field] == nil {
				s.Errorf("the entry of a promotion has no %s: %s", field, line)
			}
		}
		if id, ok := entry["MESSAGE_ID"].(string); ok {
			if text := s.ok(to, "journalctl", "--list-catalog", id); !strings.Contains(strings.ToLower(text), "primary") {
				s.Errorf("the catalog has nothing about message %s: %q", id, text)
			}
		}
	}
	if !promoted {
		s.Errorf("no entry of the journal tells of the promotion:\n%s", out)
	}
	s.Logf("journal of a switchover:\n%s", s.journal(s.ctx, to, since.Add(-time.Second), 20))
}

// Units are confined.
func security(s *scene) {
	h, _ := s.primary()
	for _, u := range []string{unit, "deputy-lease@" + service + ".service"} {
		out := s.ok(h, "systemd-analyze", "security", "--no-pager", u)
		found := regexp.MustCompile(`Overall exposure level for \S+: (\d+\.\d+)`).FindStringSubmatch(out)
		if found == nil {
			s.Fatalf("systemd-analyze security %s: %s", u, out)
		}
		exposure, err := strconv.ParseFloat(found[1], 64)
		if err != nil {
			s.Fatal(err)
		}
		s.figures.note(s.systemd, "systemd-analyze security "+u, found[1])
		if exposure > 2.2 {
			s.Errorf("exposure of %s is %s, want at most 2.2", u, found[1])
		}
	}
}

// Whatever happened, nobody was refused what it needs.
func denials(s *scene) {
	for _, h := range s.hosts {
		out := s.ok(h, "journalctl", "-q", "--no-pager", "-o", "short-precise")
		for line := range strings.Lines(out) {
			low := strings.ToLower(line)
			for _, bad := range []string{"interactive authentication required", "not authorized", "permission denied", "operation not permitted", "avc:", "panic:", "fatal error:"} {
				if strings.Contains(low, bad) && strings.Contains(low, "deputy") {
					s.Errorf("%s", strings.TrimSpace(line))
				}
			}
		}
	}
}
