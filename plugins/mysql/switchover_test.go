package main

import (
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// The role goes to the other node and back under load; nothing that was
// acknowledged is lost, and nothing is accepted by who has left.
func TestSwitchover(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		a, b, p, s := pair(t, k)
		for range 2 {
			w := a.write(4)
			took := a.act(p, a.transition(sdk.Demote, b))
			done := time.Now()
			if !a.readOnly() {
				t.Fatal("demoted, and writable")
			}
			rose := b.act(s, b.transition(sdk.Promote, nil))
			if b.readOnly() {
				t.Fatal("promoted, and read-only")
			}
			if k.name == "MariaDB" { // as long as by default it could not be stopped while it connects to a dead host
				a.do("SET GLOBAL slave_net_timeout = 60")
			}
			a.act(p, a.transition(sdk.Follow, b))
			if k.name == "MariaDB" && a.ask("SELECT @@GLOBAL.slave_net_timeout") != "4" {
				t.Errorf("a replica that follows waits %s s for a primary that says nothing", a.ask("SELECT @@GLOBAL.slave_net_timeout"))
			}
			w.end()
			if n := w.after(done); n > 0 {
				t.Errorf("%d writes were accepted after the demotion", n)
			}
			if lost := w.lacks(b); len(lost) > 0 {
				t.Errorf("%d of %d acknowledged writes are lost: %v", len(lost), len(w.rows()), lost[:min(5, len(lost))])
			}
			t.Logf("%d writes; demoted in %s, promoted in %s", len(w.rows()), took.Round(time.Millisecond), rose.Round(time.Millisecond))
			a.caughtUp(b)
			for _, h := range []struct {
				m    *mysql
				role sdk.Role
			}{{p, sdk.RoleStandby}, {s, sdk.RolePrimary}} {
				if health, err := h.m.Check(t.Context(), h.role); err != nil || !health.Fit {
					t.Errorf("a %s is not fit: %+v, %v", h.role, health, err)
				}
			}
			a, b, p, s = b, a, s, p
		}
	})
}
