package etcd

import (
	"testing"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

func TestMeterCountsRenewals(t *testing.T) {
	story(t, func(l *lab) {
		a := l.join("db1", 3*time.Second)
		l.primary(a)
		m := a.e.(supervisor.Meter)
		count := func() (acknowledged, failed uint64) {
			r := m.Renewals()
			for _, n := range r.Took.Counts {
				acknowledged += n
			}
			return acknowledged, r.Failures
		}
		time.Sleep(10 * time.Second)
		ok, failed := count()
		if ok < 20 || ok > 30 || failed != 0 {
			t.Errorf("in 10s of a renewal each half second got %d acknowledged, %d failed", ok, failed)
		}
		if c := m.Contact(); !c.Reachable || c.Unreachable != 0 {
			t.Errorf("got %+v of an etcd that answers", c)
		}

		l.hosts["db1"].cut(true)
		time.Sleep(10 * time.Second)
		now, failed := count()
		if now > ok+1 || failed < 10 {
			t.Errorf("cut off for 10s got %d acknowledged after %d, %d failed", now, ok, failed)
		}
		if c := m.Contact(); c.Reachable || c.Unreachable < 8*time.Second || c.Unreachable > 10*time.Second {
			t.Errorf("cut off for 10s got %+v", c)
		}

		l.hosts["db1"].cut(false)
		time.Sleep(5 * time.Second)
		if again, _ := count(); again <= now {
			t.Errorf("got %d acknowledged after %d: another pulse is not counted", again, now)
		}
	})
}
