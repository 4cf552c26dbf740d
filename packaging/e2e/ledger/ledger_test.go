package ledger

import (
	"slices"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/packaging/e2e/prober"
)

// at is an entry of a server, sent at some millisecond and acknowledged a
// millisecond later.
func at(ms int, server string) Entry {
	t := prober.Instant(ms) * time.Millisecond
	return Entry{Row{"direct", ms}, server, t, t + time.Millisecond}
}

func of(all ...Entry) *Ledger {
	l := New("", "")
	for _, e := range all {
		l.add(e)
	}
	return l
}

func TestPause(t *testing.T) {
	l := of(at(10, "a"), at(20, "a"), at(500, "b"), at(510, "b"))
	if got := l.Pause(0); got != 480*time.Millisecond {
		t.Errorf("nobody wrote for %s, want 480ms", got)
	}
	if got := l.Pause(450 * time.Millisecond); got != 51*time.Millisecond {
		t.Errorf("nobody wrote for %s since an instant in the pause, want 51ms", got)
	}
	if !l.Served("direct", "b", 400*time.Millisecond) || l.Served("direct", "a", 400*time.Millisecond) || l.Served("vip", "", 0) {
		t.Error("it is not right who served whom")
	}
}

// Two servers that accept writes at once are seen, and two one after the other
// are none.
func TestTwoAtOnce(t *testing.T) {
	one := of(at(10, "a"), at(20, "a"), at(31, "b"), at(40, "b"))
	if found := prober.Overlaps(one.Spans(0)); len(found) != 0 {
		t.Errorf("one after the other is taken for two at once: %v", found)
	}
	two := of(at(10, "a"), at(20, "b"), at(30, "a"), at(33, "b"))
	found := prober.Overlaps(two.Spans(0))
	if len(found) != 1 || found[0].A != "a" || found[0].B != "b" || found[0].Dur != 9*time.Millisecond {
		t.Errorf("two at once are told as %v", found)
	}
}

// A write is lost once, and only what was acknowledged in time.
func TestMissing(t *testing.T) {
	l := of(at(10, "a"), at(20, "a"), at(30, "a"))
	has := map[Row]bool{{"direct", 10}: true}
	if got := l.missing(has, 25*time.Millisecond); !slices.Equal(got, []Entry{at(20, "a")}) {
		t.Errorf("lost are %v", got)
	}
	if got := l.missing(has, time.Second); !slices.Equal(got, []Entry{at(30, "a")}) {
		t.Errorf("lost are, later, %v", got)
	}
}
