package supervisor

import (
	"testing"
	"time"
)

func TestTimingKeepsItsOrder(t *testing.T) {
	for ttl := MinTTL; ttl <= MaxTTL; ttl += ttl / 7 {
		x := NewTiming(ttl)
		if !(x.Renew < x.Lost && x.Lost < x.Trigger && x.Trigger < x.Until && x.Until < x.TTL) {
			t.Errorf("%s: out of order: %+v", ttl, x)
		}
		// Clocks may differ by a percent, and a challenger begins to count later.
		if margin := x.TTL - x.Until; margin < ttl/100*2 {
			t.Errorf("%s: only %s between the end of a lease and the next", ttl, margin)
		}
		// One renewal may be lost altogether before the lease is.
		if x.Lost < 3*x.Renew {
			t.Errorf("%s: lost after %s, though renewed every %s", ttl, x.Lost, x.Renew)
		}
		if x.Forced() <= 0 || x.Watchdog < 200*time.Millisecond || x.Watchdog > time.Second {
			t.Errorf("%s: %s to demote by force, watchdog %s", ttl, x.Forced(), x.Watchdog)
		}
	}
}

func TestTimingOfThreeSeconds(t *testing.T) {
	got := NewTiming(3 * time.Second)
	want := Timing{
		TTL: 3 * time.Second, Renew: 500 * time.Millisecond, Lost: 2250 * time.Millisecond,
		Trigger: 2700 * time.Millisecond, Until: 2850 * time.Millisecond,
		Watchdog: 600 * time.Millisecond, Step: 100 * time.Millisecond,
	}
	if got != want {
		t.Errorf("timing is %+v, want %+v", got, want)
	}
}
