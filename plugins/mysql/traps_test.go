package main

import (
	"strings"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A trap is something that keeps a server from becoming read-only, or that
// looks as if it did not.
type trap struct {
	name   string
	set    func(t *testing.T, h *host)
	blocks bool // SET GLOBAL read_only waits for it
}

func traps() []trap {
	row := func(t *testing.T, h *host) string {
		t.Helper()
		h.do("INSERT INTO app.t (note) VALUES ('trap')")
		return h.ask("SELECT MAX(id) FROM app.t")
	}
	return []trap{
		{"idle transaction", func(t *testing.T, h *host) {
			c := h.on("report")
			say(t, c, "BEGIN")
			say(t, c, "INSERT INTO app.t (note) VALUES ('never')")
		}, false},
		{"running update", func(t *testing.T, h *host) {
			row(t, h)
			h.begin(h.on("report"), "UPDATE app.t SET note = CONCAT('u', SLEEP(30)) LIMIT 1")
		}, true},
		{"update that waits for a row", func(t *testing.T, h *host) {
			id := row(t, h)
			holder := h.on("report")
			say(t, holder, "BEGIN")
			say(t, holder, "SELECT * FROM app.t WHERE id = "+id+" FOR UPDATE")
			h.begin(h.on("report"), "UPDATE app.t SET note = 'waits' WHERE id = "+id)
		}, true},
		{"ALTER behind an idle transaction", func(t *testing.T, h *host) {
			row(t, h)
			holder := h.on("report")
			say(t, holder, "BEGIN")
			say(t, holder, "SELECT COUNT(*) FROM app.t")
			h.begin(h.on("report"), "ALTER TABLE app.t ADD COLUMN c INT")
		}, true},
		{"LOCK TABLES WRITE", func(t *testing.T, h *host) { say(t, h.on("report"), "LOCK TABLES app.t WRITE") }, true},
		{"LOCK TABLES READ", func(t *testing.T, h *host) { say(t, h.on("report"), "LOCK TABLES app.t READ") }, false},
		{"XA transaction that is prepared", func(t *testing.T, h *host) {
			c := h.on("app")
			for _, q := range []string{"XA START 'x'", "INSERT INTO app.t (note) VALUES ('never')", "XA END 'x'", "XA PREPARE 'x'"} {
				say(t, c, q)
			}
			t.Cleanup(func() { _, _ = h.root.Exec("XA ROLLBACK 'x'") })
		}, false},
		{"long SELECT", func(t *testing.T, h *host) { h.begin(h.on("report"), "SELECT SLEEP(30)") }, false},
	}
}

// Whatever is in the way, a demotion is done within its bound, and no write is
// accepted once it has said so.
func TestTraps(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		for _, mode := range []sdk.Mode{sdk.Planned, sdk.Forced} {
			t.Run(string(mode), func(t *testing.T) {
				h, standby, p, _ := pair(t, k)
				w := h.write(2)
				for _, trap := range traps() {
					t.Run(trap.name, func(t *testing.T) {
						on := *h
						on.t = t
						trap.set(t, &on)
						tr := on.transition(sdk.Demote, standby)
						tr.Mode = mode
						if mode == sdk.Planned && k.name == "MySQL" && strings.HasPrefix(trap.name, "XA") {
							if err := on.try(p, tr); err == nil || !strings.Contains(err.Error(), "XA ROLLBACK") || on.readOnly() {
								t.Fatalf("a hand-over said %v", err)
							}
							tr.Reason = sdk.ReasonStop // who leaves all the same is offline
						}
						if mode == sdk.Forced {
							tr.Reason, tr.LeaseUntil, tr.Timeout = sdk.ReasonLost, 0, 5*time.Second
						}
						took := on.act(p, tr)
						done := time.Now()
						if !on.readOnly() {
							t.Fatal("demoted, and writable")
						}
						rows := on.ask("SELECT COUNT(*) FROM app.t")
						for _, c := range []string{"XA COMMIT 'x'", "INSERT INTO app.t (note) VALUES ('late')"} {
							if _, err := on.login("app", "app").ExecContext(t.Context(), c); err == nil {
								t.Errorf("%s was accepted", c)
							}
						}
						time.Sleep(30 * time.Millisecond)
						if n := w.after(done); n > 0 {
							t.Errorf("%d writes were acknowledged after the demotion", n)
						}
						if now := on.ask("SELECT COUNT(*) FROM app.t"); now != rows {
							t.Errorf("there were %s rows when it was demoted, now there are %s", rows, now)
						}
						if n := on.ask("SELECT COUNT(*) FROM app.t WHERE note = 'never'"); n != "0" {
							t.Error("what was never committed is there")
						}
						if mode == sdk.Planned && trap.blocks && took < time.Second {
							t.Errorf("it took %s: nothing was in the way, so that the trap is none", took)
						}
						if mode == sdk.Forced && took > patience {
							t.Errorf("it took %s, and had %s", took, patience)
						}
						t.Logf("demoted in %s", took.Round(time.Millisecond))
						_, _ = on.root.ExecContext(t.Context(), "XA ROLLBACK 'x'")
						on.act(p, on.transition(sdk.Promote, nil))
						await(t, "a write after the promotion", func() bool { return w.after(done) > 0 })
					})
				}
			})
		}
	})
}

// A commit that waits for a replica's acknowledgement is no write that a client
// takes for done: it loses its connection.
func TestSemiSyncWait(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		if k.name != "MariaDB" {
			t.Skip("its plugin is not installed here")
		}
		for _, mode := range []sdk.Mode{sdk.Planned, sdk.Forced} {
			h := newHosts(t, k, 1)[0]
			p := h.plugin()
			h.act(p, h.transition(sdk.Promote, nil))
			h.do("SET GLOBAL rpl_semi_sync_master_timeout = 60000")
			h.do("SET GLOBAL rpl_semi_sync_master_wait_no_slave = 1")
			h.do("SET GLOBAL rpl_semi_sync_master_enabled = 1")
			c := h.on("app")
			acked := make(chan error, 1)
			go func() {
				_, err := c.ExecContext(t.Context(), "INSERT INTO app.t (note) VALUES ('waits')")
				acked <- err
			}()
			await(t, "a commit that waits", func() bool {
				return h.ask("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE LIKE '%semi-sync%ACK%'") != "0"
			})
			tr := h.transition(sdk.Demote, nil)
			if tr.Mode = mode; mode == sdk.Forced {
				tr.Reason, tr.LeaseUntil = sdk.ReasonLost, 0
			}
			took := h.act(p, tr)
			if err := <-acked; err == nil {
				t.Errorf("%s: the client was told that its commit is done", mode)
			}
			if !h.readOnly() || h.ask("SELECT @@GLOBAL.rpl_semi_sync_master_enabled") != "1" {
				t.Errorf("%s: it is not read-only, or semi-synchronous replication is not as it was", mode)
			}
			t.Logf("%s: demoted in %s", mode, took.Round(time.Millisecond))
		}
	})
}

// With on_blockers = "undo" nothing is ended: the server stays primary and the
// error names what is in the way.
func TestBlockersUndo(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		h, standby, _, _ := pair(t, k)
		p := h.plugin(func(s *settings) { s.Demotion.OnBlockers, s.Demotion.LockWait = "undo", 300*time.Millisecond })
		w := h.write(1)
		h.begin(h.on("report"), "UPDATE app.t SET note = CONCAT('u', SLEEP(8)) ORDER BY id LIMIT 1")
		began := time.Now()
		err := h.try(p, h.transition(sdk.Demote, standby))
		if err == nil || !strings.Contains(err.Error(), "of report (") || !strings.Contains(err.Error(), "UPDATE app.t SET note") {
			t.Errorf("got %v", err)
		}
		if h.readOnly() {
			t.Error("it is read-only")
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %s", took)
		}
		done := time.Now()
		await(t, "a write afterwards", func() bool { return w.after(done) > 0 })
	})
}

// Where the successor cannot have all in time, the server is writable again.
func TestSuccessorTooFarBehind(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		h, standby, _, _ := pair(t, k)
		p := h.plugin(func(s *settings) { s.Demotion.WaitReplicas = 500 * time.Millisecond })
		standby.do("STOP " + map[string]string{"MariaDB": "SLAVE SQL_THREAD", "MySQL": "REPLICA SQL_THREAD"}[k.name])
		w := h.write(1)
		err := h.try(p, h.transition(sdk.Demote, standby))
		if err == nil || !strings.Contains(err.Error(), "it is writable again") || !strings.Contains(err.Error(), standby.name) {
			t.Errorf("got %v", err)
		}
		if h.readOnly() {
			t.Error("it is read-only")
		}
		done := time.Now()
		await(t, "a write afterwards", func() bool { return w.after(done) > 0 })

		// Who may not stay primary goes all the same.
		leaving := h.transition(sdk.Demote, standby)
		leaving.Reason = sdk.ReasonStop
		h.act(p, leaving)
		if !h.readOnly() {
			t.Error("it left the role, and is writable")
		}
	})
}

// Exempt accounts and replicas stay connected.
func TestExempt(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		h, standby, _, _ := pair(t, k)
		p := h.plugin(func(s *settings) { s.Exempt = []string{"report"} })
		exempt, other := h.on("report"), h.on("app")
		say(t, exempt, "SET @mine = 1")
		say(t, other, "SET @mine = 1")
		dumps := "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'"
		before := h.ask(dumps)
		h.act(p, h.transition(sdk.Demote, standby))
		say(t, exempt, "SET @mine = 2")
		if _, err := other.ExecContext(t.Context(), "SET @mine = 2"); err == nil {
			t.Error("an account that is not exempt is still connected")
		}
		if after := h.ask(dumps); after != before || before != "1" {
			t.Errorf("%s replicas were connected, now %s are", before, after)
		}
	})
}
