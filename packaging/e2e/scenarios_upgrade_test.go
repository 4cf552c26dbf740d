package e2e

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Packages are replaced over a running primary, by newer and by older ones.
func upgrade(s *scene) {
	for range runs() {
		for _, version := range []string{newVersion, oldVersion} {
			h, p := s.primary()
			what := "upgrade"
			if version == oldVersion {
				what = "downgrade"
			}
			pid, began := s.mainPID(h), now()
			if err := s.install(s.ctx, h, version); err != nil {
				s.Fatal(err)
			}
			s.figures.add(s.systemd, what+" of the package takes", now()-began)
			s.runs(h, version)
			if s.mainPID(h) != pid {
				s.Errorf("%s: another process runs, want the new program entered in place", what)
			}
			s.kept(what, h, uint64(p.Term), began)
			var g errgroup.Group
			for _, o := range s.others(h) {
				g.Go(func() error { return s.install(s.ctx, o, version) })
			}
			if err := g.Wait(); err != nil {
				s.Fatal(err)
			}
			for _, o := range s.others(h) {
				s.runs(o, version)
			}
		}
	}
}

// runs fails unless the supervisor, and its plugins, run the programs that
// are installed, of that version.
func (s *scene) runs(h *host, version string) {
	s.Helper()
	if exe := s.ok(h, "readlink", "/proc/"+s.mainPID(h)+"/exe"); exe != "/usr/bin/deputy" {
		s.Errorf("%s runs %q, want the installed /usr/bin/deputy", h.name, exe)
	}
	if got := s.ok(h, "deputy", "version"); !strings.Contains(got, version) {
		s.Errorf("%s has %q installed, want %s", h.name, got, version)
	}
	// The kernel says so of files that were replaced under a process.
	for _, pid := range strings.Fields(s.cgroupProcs(h)) {
		if exe, err := h.run(s.ctx, "readlink", "/proc/"+pid+"/exe"); err == nil && strings.Contains(exe, "(deleted)") {
			s.Errorf("%s: process %s runs %s", h.name, pid, strings.TrimSpace(exe))
		}
	}
	await(s.T, settleFor, fmt.Sprintf("%s takes part with version %s", h.name, version), func() bool {
		r, err := s.orders.records(s.ctx)
		return err == nil && strings.Contains(r.candidates[h.name].Version, version)
	})
}

func (s *scene) cgroupProcs(h *host) string {
	s.Helper()
	group := s.property(h, unit, "ControlGroup")
	return s.ok(h, "sh", "-c", "cat /sys/fs/cgroup"+group+"/cgroup.procs /sys/fs/cgroup/unified"+group+"/cgroup.procs 2>/dev/null || true")
}

// needrestart leaves supervisors alone, also those whose files were replaced.
func needrestart(s *scene) {
	h, p := s.primary()
	pid, began := s.mainPID(h), now()
	// The file is another one, as a package makes it, and nobody has told the
	// supervisor. What stands behind a program's end is not read.
	s.ok(h, "sh", "-c", "cp -p /usr/bin/deputy /usr/bin/deputy.new && echo >>/usr/bin/deputy.new && mv /usr/bin/deputy.new /usr/bin/deputy")
	out := s.ok(h, "needrestart", "-b", "-r", "a")
	s.Logf("needrestart: %s", out)
	if s.mainPID(h) != pid {
		s.Error("needrestart has restarted the supervisor")
	}
	s.kept("needrestart", h, uint64(p.Term), began)
	s.ok(h, "systemctl", "reload", unit)
	s.runs(h, oldVersion)
	if out := s.ok(h, "needrestart", "-b", "-r", "l"); strings.Contains(out, unit) {
		s.Errorf("after a reload needrestart still lists the supervisor:\n%s", out)
	}
	s.kept("reload of a replaced binary", h, uint64(p.Term), began)
}

// A new program that refuses is not entered: the reload fails and tells why,
// and what runs goes on.
func rejectBinary(s *scene) {
	h, p := s.primary()
	pid, began := s.mainPID(h), now()
	s.ok(h, "mv", "/usr/bin/deputy", "/usr/bin/deputy.real")
	for _, fake := range []string{
		// What the unit's first line runs refuses.
		"#!/bin/sh\necho 'not with this definition' >&2\nexit 78\n",
		// Only what the supervisor asks refuses.
		"#!/bin/sh\ncase \"$PPID\" in 1) exec /usr/bin/deputy.real \"$@\";; esac\necho 'not with this state' >&2\nexit 78\n",
	} {
		if err := h.write("/usr/bin/deputy", fake); err != nil {
			s.Fatal(err)
		}
		s.ok(h, "chmod", "755", "/usr/bin/deputy")
		since := time.Now()
		if out, err := h.run(s.ctx, "systemctl", "reload", unit); err == nil {
			s.Errorf("systemctl reload enters a program that refuses: %s", out)
		}
		await(s.T, settleFor, "the journal tells why", func() bool {
			return strings.Contains(s.journal(s.ctx, h, since.Add(-time.Second), 20), "not with this")
		})
	}
	if s.mainPID(h) != pid || s.property(h, unit, "ActiveState") != "active" {
		s.Errorf("%s does not run on after a reload that failed", h.name)
	}
	s.ok(h, "mv", "/usr/bin/deputy.real", "/usr/bin/deputy")
	s.ok(h, "systemctl", "reload", unit)
	s.kept("a program that refuses", h, uint64(p.Term), began)
}

// purge removes everything but what the administrator has made.
func purge(s *scene) {
	from, _ := s.primary()
	for _, h := range append([]*host{from}, s.others(from)...) {
		_, before := s.current()
		began := now()
		s.ok(h, "apt-get", "purge", "-y", "-q", "deputy*")
		if h == from {
			s.served(before)
			s.outage("purge of the primary", began)
		}
		left := s.ok(h, "sh", "-c", "find /usr /var/lib /var/cache/deputy* /etc /run -xdev -iname '*deputy*' 2>/dev/null | grep -v -e ^/var/lib/apt -e ^/var/lib/dpkg/info/.*triggers || true")
		for _, file := range strings.Fields(left) {
			if file != "/etc/deputy" { // the definition in it is the administrator's
				s.Errorf("%s: purge has left %s", h.name, file)
			}
		}
		// Not a unit that others name: an order to it, or a slice, is no leftover.
		if out := s.ok(h, "systemctl", "list-units", "--no-legend", "--plain", "--type=service,target", "deputy*"); out != "" {
			s.Errorf("%s: purge has left units:\n%s", h.name, out)
		}
		if s.hasAddress(h) {
			s.Errorf("%s has the address after purge", h.name)
		}
	}
}
