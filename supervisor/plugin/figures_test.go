package plugin

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
)

// figures are what a process plugin costs and how soon it is missed. The
// times hold on a machine that does nothing else; the test allows ten times as
// much. Memory is what it is.
type figures struct {
	start   time.Duration // to the first answer
	call    time.Duration
	rss     float64       // MB
	private float64       // MB
	later   float64       // MB that are private after many calls
	death   time.Duration // until it is known
	again   time.Duration // from a kill by us to the answer of the next process
	freeze  time.Duration // until it is known, by an act
}

func TestFiguresOfAProcess(t *testing.T) {
	f := measure(t, 8)
	t.Logf("start %s, call %s, %.1f MB RSS, %.1f MB private (%.1f after calls), death seen in %s, killed to next answer %s, freeze seen in %s",
		f.start, f.call, f.rss, f.private, f.later, f.death, f.again, f.freeze)
	for what, c := range map[string]struct{ got, want time.Duration }{
		"start to first answer": {f.start, 10 * 10 * time.Millisecond},
		"a call":                {f.call, 10 * 500 * time.Microsecond},
		"death seen":            {f.death, 10 * 5 * time.Millisecond},
		"freeze seen":           {f.freeze, 2 * 250 * time.Millisecond},
	} {
		if c.got > c.want {
			t.Errorf("%s: %s, more than %s", what, c.got, c.want)
		}
	}
	if f.rss > 20 || f.private > 3 {
		t.Errorf("%.1f MB, of which %.1f private: more than 20 and 3", f.rss, f.private)
	}
}

func BenchmarkProcess(b *testing.B) {
	var f figures
	for b.Loop() {
		f = measure(b, 50)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(f.start.Microseconds()), "µs/start")
	b.ReportMetric(float64(f.call.Microseconds()), "µs/call")
	b.ReportMetric(f.rss, "MB-RSS")
	b.ReportMetric(f.private, "MB-private")
	b.ReportMetric(f.later, "MB-later")
	b.ReportMetric(float64(f.death.Microseconds()), "µs/death")
	b.ReportMetric(float64(f.again.Microseconds()), "µs/next")
	b.ReportMetric(float64(f.freeze.Milliseconds()), "ms/freeze")
}

// measure returns medians of n.
func measure(t testing.TB, n int) figures {
	var f figures
	s := newStage(t, "moody", nil)
	s.host.Stall = 250 * time.Millisecond
	median := func(n int, once func() time.Duration) time.Duration {
		var all []time.Duration
		for range n {
			all = append(all, once())
		}
		slices.Sort(all)
		return all[n/2]
	}
	took := func(what func()) time.Duration {
		began := time.Now()
		what()
		return time.Since(began)
	}
	f.start = median(n, func() time.Duration {
		d := took(func() {
			if err := s.Open(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.answers()
		})
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		return d
	})
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.rss, f.private = memory(t, s.PID())
	f.call = median(20*n, func() time.Duration {
		time.Sleep(time.Millisecond) // calls do not come back to back
		return took(func() { s.answers() })
	})
	_, f.later = memory(t, s.PID())
	f.death = median(n/2, func() time.Duration {
		s.Close(t.Context()) // and anew: one that keeps ending has to wait
		if err := s.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		pid := s.answers()
		return took(func() {
			kill(pid, unix.SIGKILL)
			for s.PID() == pid {
				time.Sleep(20 * time.Microsecond)
			}
		})
	})
	s.answers()
	f.again = median(n/2, func() time.Duration {
		s.mu.Lock()
		l := s.now
		s.mu.Unlock()
		return took(func() {
			l.kill(ErrKilled)
			s.retire(l)
			s.answers()
		})
	})
	f.freeze = median(3, func() time.Duration {
		s.answers()
		freeze(t, s.PID())
		return took(func() {
			if r := s.Do(context.Background(), act(sdk.Promote, long), nil); !strings.HasPrefix(r.Detail, "frozen") {
				t.Errorf("got %+v", r)
			}
		})
	})
	return f
}

// memory is what a process has in memory, and what of it is its own, in MB:
// the pages of its program are shared with all who run it, and reckoned as
// private for as long as nobody else does.
func memory(t testing.TB, pid int) (rss, private float64) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	field := func(name string) float64 {
		found := regexp.MustCompile(`(?m)^` + name + `: +(\d+) kB$`).FindSubmatch(text)
		if found == nil {
			t.Fatalf("no %s in\n%s", name, text)
		}
		kb, _ := strconv.ParseFloat(string(found[1]), 64)
		return kb / 1024
	}
	return field("Rss"), field("Anonymous")
}
