package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// unit puts the server into a control group of a unit, as far as the plugin can
// see.
func (h *host) unit(name string) {
	h.t.Helper()
	h.cgroups = filepath.Join(h.dir, "cgroup")
	group := filepath.Join(h.cgroups, "system.slice", name)
	if err := os.MkdirAll(group, 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), fmt.Appendln(nil, h.cmd.Process.Pid), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// errs has root write what the primary does not have.
func (h *host) errs(query string) {
	h.t.Helper()
	if h.kind.name == "MySQL" {
		h.do("SET GLOBAL super_read_only = 0")
		defer h.do("SET GLOBAL super_read_only = 1")
	}
	h.do(query)
}

func (h *host) freeze() {
	h.t.Helper()
	if err := h.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		h.t.Fatal(err)
	}
	await(h.t, "a server that is stopped", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.cmd.Process.Pid))
		return err == nil && strings.Contains(string(stat), ") T ")
	})
}

// A frozen server is noticed by the check, and ended through its unit by a
// forced demotion; it comes back read-only.
func TestFrozenServer(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		h := newHosts(t, k, 1)[0]
		h.unit("db.service")
		p := h.plugin(func(s *settings) { s.Unit, s.ConnectTimeout = "db.service", 500*time.Millisecond })
		h.act(p, h.transition(sdk.Promote, nil))
		h.freeze()
		health, err := p.Check(t.Context(), sdk.RolePrimary)
		if err != nil || health.Fit || !strings.Contains(health.Detail, "does not greet") {
			t.Errorf("its check said %+v, %v", health, err)
		}
		forced := h.transition(sdk.Demote, nil)
		forced.Mode, forced.Reason, forced.LeaseUntil = sdk.Forced, sdk.ReasonLost, 0

		bare := h.plugin(func(s *settings) { s.Unit = "" })
		if err := h.try(bare, forced); err == nil || !strings.Contains(err.Error(), `unit = "mariadb.service"`) {
			t.Errorf("without a unit it said %v", err)
		}
		reports := h.plugin(func(s *settings) { s.Unit, s.OnStuck = "db.service", "report" })
		if err := h.try(reports, forced); err == nil || !strings.Contains(err.Error(), "fences this node") {
			t.Errorf("with on_stuck = report it said %v", err)
		}

		took := h.act(p, forced)
		select {
		case <-h.ended:
		case <-time.After(10 * time.Second):
			t.Fatal("it was reported as ended, and runs")
		}
		if took > patience {
			t.Errorf("it took %s, and had %s", took, patience)
		}
		t.Logf("demoted in %s", took.Round(time.Millisecond))
		if health, err := p.Check(t.Context(), sdk.RolePrimary); err != nil || health.Fit || !health.Certain {
			t.Errorf("without a server its check said %+v, %v", health, err)
		}
		if err := os.Truncate(filepath.Join(h.cgroups, "system.slice", "db.service", "cgroup.procs"), 0); err != nil { // as the kernel does
			t.Fatal(err)
		}
		h.act(p, h.transition(sdk.Demote, nil)) // of a server that does not run
		h.start()
		if !h.readOnly() {
			t.Error("it came back writable")
		}
	})
}

// With no more time than the bound a server that obeys is read-only and lives,
// and one that is frozen has ended; the machine may be busy, so one try of some
// has to show it.
func TestForcedBound(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		for _, frozen := range []bool{false, true} {
			t.Run(fmt.Sprintf("frozen=%t", frozen), func(t *testing.T) {
				h := newHosts(t, k, 1)[0]
				best := time.Hour
				for range 5 {
					h.unit("db.service")
					p := h.plugin(func(s *settings) { s.Unit = "db.service" })
					h.act(p, h.transition(sdk.Promote, nil))
					if frozen {
						h.freeze()
					}
					forced := h.transition(sdk.Demote, nil)
					forced.Mode, forced.Reason, forced.LeaseUntil, forced.Timeout = sdk.Forced, sdk.ReasonLost, 0, forcedBound
					began := time.Now()
					err := h.try(p, forced)
					took := time.Since(began)
					select {
					case <-h.ended:
					default:
						if err == nil && !frozen && h.readOnly() {
							best = min(best, took)
							continue
						}
						h.kill()
					}
					<-h.ended
					if err == nil && frozen {
						best = min(best, took)
					}
					h.start()
				}
				if best > forcedBound {
					t.Errorf("it took %s at best, and the bound is %s", best, forcedBound)
				}
				t.Logf("demoted in %s at best", best.Round(time.Millisecond))
			})
		}
	})
}

// A process whose threads are all on their way out will not run its program
// again, however long it takes to end.
func TestExiting(t *testing.T) {
	const runs, leaves = "7 (a ) b (c) S 1 1 1 0 -1 4194560 5 5", "8 (mariadbd) D 1 1 1 0 -1 4194564 5 5"
	for _, c := range []struct {
		threads []string
		want    bool
	}{
		{nil, false},
		{[]string{leaves, leaves}, true},
		{[]string{leaves, runs}, false},
		{[]string{leaves, "9 (x) S 1"}, false},
	} {
		proc := t.TempDir()
		for i, text := range c.threads {
			dir := filepath.Join(proc, "7", "task", fmt.Sprint(7+i))
			if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "stat"), []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		if got := exiting(proc, 7); got != c.want {
			t.Errorf("with threads %q it said %t", c.threads, got)
		}
	}
	if exiting("/proc", os.Getpid()) {
		t.Error("this process is said to end")
	}
}

// What was received is applied before the server opens; if it cannot be, the
// promotion is refused and names it, or loses it when it is told to.
func TestReceivedIsApplied(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		h, standby, _, _ := pair(t, k)
		count := "SELECT COUNT(*) FROM app.t"
		blocker, err := standby.root.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer blocker.Close()
		say(t, blocker, "FLUSH TABLES WITH READ LOCK")
		for range 3 {
			h.do("INSERT INTO app.t (note) VALUES ('received')")
		}
		await(t, "three rows that are received", func() bool {
			m := standby.plugin()
			l, err := m.server.connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer l.close()
			f, err := l.look(t.Context(), l)
			if err != nil {
				t.Fatal(err)
			}
			c, err := l.channels(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			at, err := h.plugin().server.connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer at.close()
			first, err := at.look(t.Context(), at)
			if err != nil {
				t.Fatal(err)
			}
			return f.received(c).has(first.applied)
		})
		s := standby.plugin(func(s *settings) { s.Promotion.StallTimeout = 500 * time.Millisecond })
		err = standby.try(s, standby.transition(sdk.Promote, nil))
		if err == nil || !strings.Contains(err.Error(), "not applied: ") || !strings.Contains(err.Error(), "has not moved for 500ms") {
			t.Errorf("got %v", err)
		}
		if !standby.readOnly() {
			t.Error("it was refused, and is writable")
		}
		if health, err := s.Check(t.Context(), sdk.RoleStandby); err != nil || !strings.Contains(health.Detail, "follows "+h.address) {
			t.Errorf("it was refused, and does not follow as before: %+v, %v", health, err)
		}
		// Once the applier may go on, so does the promotion.
		go func() {
			time.Sleep(200 * time.Millisecond)
			_, _ = blocker.ExecContext(t.Context(), "UNLOCK TABLES")
		}()
		standby.act(standby.plugin(), standby.transition(sdk.Promote, nil))
		if n := standby.ask(count); n != "3" {
			t.Errorf("it has %s of 3 rows", n)
		}
	})
}

func TestReceivedIsGivenUp(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		h, standby, _, _ := pair(t, k)
		standby.errs("INSERT INTO app.t (id, note) VALUES (1, 'errant')") // the applier will fail at this
		h.do("INSERT INTO app.t (id, note) VALUES (1, 'received')")
		await(t, "an applier that has stopped", func() bool {
			health, err := standby.plugin().Check(t.Context(), sdk.RoleStandby)
			return err == nil && strings.Contains(health.Detail, "the applier has stopped")
		})
		err := standby.try(standby.plugin(), standby.transition(sdk.Promote, nil))
		if err == nil || !strings.Contains(err.Error(), "the applier has stopped") {
			t.Errorf("got %v", err)
		}
		force := standby.plugin(func(s *settings) { s.Promotion.OnUnapplied = "force" })
		standby.act(force, standby.transition(sdk.Promote, nil))
		if standby.readOnly() {
			t.Error("it is read-only")
		}
	})
}

// A server with transactions that the primary lacks follows nobody.
func TestErrant(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		h, standby, _, s := pair(t, k)
		standby.do("STOP " + map[string]string{"MariaDB": "SLAVE", "MySQL": "REPLICA"}[k.name])
		standby.errs("INSERT INTO app.t (note) VALUES ('errant')")
		err := standby.try(s, standby.transition(sdk.Follow, h))
		if err == nil || !strings.Contains(err.Error(), "needs_rebuild: this server has transactions that db1 lacks: ") {
			t.Errorf("got %v", err)
		}
		if !standby.readOnly() {
			t.Error("it is writable")
		}
		a, errA := h.plugin().Check(t.Context(), sdk.RolePrimary)
		h.do("INSERT INTO app.t (note) VALUES ('more')")
		b, errB := s.Check(t.Context(), sdk.RoleStandby)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		a, _ = h.plugin().Check(t.Context(), sdk.RolePrimary)
		if b.Fit || !strings.Contains(b.Detail, "needs_rebuild") {
			t.Errorf("its check said %+v", b)
		}
		orders, err := s.Rank(t.Context(), a.Position, map[string]string{"db2": b.Position})
		if err != nil || orders["db2"] != sdk.Ahead {
			t.Errorf("others wait for what it has: %v, %v", orders, err)
		}
		again := standby.plugin() // which has not been told yet whom to follow
		b, errB = again.Check(t.Context(), sdk.RoleStandby)
		orders, err = again.Rank(t.Context(), b.Position, map[string]string{"db1": a.Position})
		if errors.Join(err, errB) != nil || orders["db1"] != sdk.Incomparable {
			t.Errorf("its rank is %v, %v", orders, err)
		}
	})
}

// What is not for this plugin is refused before anything is changed.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name, option, want string
	}{
		{"no binary log", "--skip-log-bin", "log_bin is off"},
		{"not what it applies", "--skip-log-slave-updates", "log_slave_updates = 1"},
		{"not strict", "--gtid-strict-mode=0", "set gtid_strict_mode = 1"},
		{"starts writable", "--read-only=0", "set read_only = 1 in its option file"},
	} {
		k := kinds(t)[0]
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			k.options = append(append([]string{}, k.options...), c.option)
			h := newHosts(t, k, 1)[0]
			if c.option != "--read-only=0" {
				h.do("SET GLOBAL read_only = 1")
			} else if err := h.try(h.plugin(), h.transition(sdk.Promote, nil)); err == nil || !strings.Contains(err.Error(), sdk.ErrAlready.Error()) {
				t.Errorf("a writable one was not taken as it is: %v", err)
			}
			if h.act(h.plugin(), h.transition(sdk.Demote, nil)); !h.readOnly() {
				t.Error("it is writable after a demotion")
			}
			file := filepath.Join(h.dir, "my.cnf")
			if err := os.WriteFile(file, []byte("[mysqld]\nread_only = 0\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			p := h.plugin(func(s *settings) {
				if c.option == "--read-only=0" {
					s.ServerConfig = []string{file}
				}
			})
			err := h.try(p, h.transition(sdk.Promote, nil))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("a promotion said %v, want %q", err, c.want)
			}
			if health, err := p.Check(t.Context(), sdk.RoleStandby); err != nil || health.Fit || !strings.Contains(health.Detail, c.want) {
				t.Errorf("its check said %+v, %v", health, err)
			}
			if !h.readOnly() {
				t.Error("it was refused, and is writable")
			}
		})
	}
}

// A server that is full lives: deputy has a place of its own.
func TestFullServer(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		h := newHosts(t, k, 1)[0]
		p := h.plugin()
		h.act(p, h.transition(sdk.Promote, nil))
		h.do("SET GLOBAL max_connections = 12")
		db := h.login("app", "app")
		for range 14 {
			if _, err := db.Conn(t.Context()); err != nil {
				break
			}
		}
		if health, err := p.Check(t.Context(), sdk.RolePrimary); err != nil || !health.Fit {
			t.Errorf("its check said %+v, %v", health, err)
		}
		forced := h.transition(sdk.Demote, nil)
		forced.Mode, forced.Reason, forced.LeaseUntil = sdk.Forced, sdk.ReasonLost, 0
		if took := h.act(p, forced); took > patience {
			t.Errorf("it took %s, and had %s", took, patience)
		}
		if !h.readOnly() {
			t.Error("it is writable")
		}
	})
}
