package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// What an act of a process that is gone has asked for does not happen after a
// later act has reported.
func TestNothingComesLate(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		h := newHosts(t, k, 1)[0]
		p := h.plugin()
		h.act(p, h.transition(sdk.Promote, nil))
		holder := h.on("report")
		say(t, holder, "LOCK TABLES app.t WRITE")
		h.begin(h.on("deputy"), k.flavour.shut())
		if err := h.try(p, h.transition(sdk.Promote, nil)); !errors.Is(err, sdk.ErrAlready) {
			t.Errorf("a promotion of what is primary said %v", err)
		}
		say(t, holder, "UNLOCK TABLES")
		if _, err := holder.ExecContext(t.Context(), "INSERT INTO app.t (note) VALUES ('after')"); err != nil || h.readOnly() {
			t.Errorf("the act of before came late: %v", err)
		}
	})
}

// A server is not opened once the lease does not hold long enough.
func TestNoLease(t *testing.T) {
	h := newHosts(t, kinds(t)[0], 1)[0]
	p := h.plugin()
	short := h.transition(sdk.Promote, nil)
	short.LeaseUntil = sdk.Now().Add(openBound / 2)
	if err := h.try(p, short); err == nil || !h.readOnly() {
		t.Errorf("got %v, read-only %t", err, h.readOnly())
	}
	if err := p.Renew(t.Context(), sdk.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if h.act(p, short); h.readOnly() {
		t.Error("the lease was renewed, and it is read-only")
	}
}

// The sides of semi-synchronous replication and the event scheduler go with the
// role where they are managed.
func TestManagedSides(t *testing.T) {
	all := newHosts(t, kinds(t)[0], 2)
	a, b := all[0], all[1]
	manage := func(s *settings) { s.Promotion.SemiSync, s.Promotion.EventScheduler = "manage", "manage" }
	p, s := a.plugin(manage), b.plugin(manage)
	for _, h := range all {
		if err := h.try(h.plugin(manage), h.transition(sdk.Promote, nil)); err == nil {
			t.Fatal("promoted without SUPER, which event_scheduler needs")
		}
		h.do("SET sql_log_bin = 0")
		h.do("GRANT SUPER ON *.* TO deputy@localhost")
	}
	sides := "SELECT CONCAT(@@GLOBAL.rpl_semi_sync_master_enabled, ' ', @@GLOBAL.rpl_semi_sync_slave_enabled, ' ', @@GLOBAL.event_scheduler)"
	want := func(when string, onA, onB string) {
		t.Helper()
		if gotA, gotB := a.ask(sides), b.ask(sides); gotA != onA || gotB != onB {
			t.Errorf("%s: %q and %q, want %q and %q", when, gotA, gotB, onA, onB)
		}
	}
	a.act(p, a.transition(sdk.Promote, nil))
	b.act(s, b.transition(sdk.Follow, a))
	want("at first", "ON OFF ON", "OFF ON OFF")
	a.act(p, a.transition(sdk.Demote, b))
	b.act(s, b.transition(sdk.Promote, nil))
	a.act(p, a.transition(sdk.Follow, b))
	want("after the switchover", "OFF ON OFF", "ON OFF ON")
}

// A semi-synchronous replica waits for a primary that is gone no longer than the
// server makes it, whose patience is as before afterwards.
func TestReplicaOfAFrozenPrimary(t *testing.T) {
	all := newHosts(t, kinds(t)[0], 2)
	a, b := all[0], all[1]
	manage := func(s *settings) { s.Promotion.SemiSync = "manage" }
	a.act(a.plugin(manage), a.transition(sdk.Promote, nil))
	s := b.plugin(manage)
	b.act(s, b.transition(sdk.Follow, a))
	a.freeze()
	tr := b.transition(sdk.Promote, nil)
	tr.Reason = sdk.ReasonFailover
	t.Logf("promoted in %s", b.act(b.plugin(), tr)) // 2 s where the server's own patience is not shortened
	if before, after := (mariadb{}).aroundStop(facts{variable: map[string]string{"rpl_semi_sync_slave_kill_conn_timeout": "5"}}); len(before) != 1 || !strings.HasSuffix(before[0], " = 1") || len(after) != 1 || !strings.HasSuffix(after[0], " = 5") {
		t.Errorf("its patience is set by %q, and back by %q", before, after)
	}
	if is := b.ask("SELECT @@GLOBAL.rpl_semi_sync_slave_kill_conn_timeout"); is != "5" {
		t.Errorf("what was shortened for it is %s still, want 5", is)
	}
}
