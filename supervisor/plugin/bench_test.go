package plugin

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
)

// The cost of a call, in time and in processor time of both sides, beside that
// of the same program run by os/exec alone.
func BenchmarkCall(b *testing.B) {
	dir := newBench(b, map[string]any{"demote": "exit 0", "check": "exit 0"})
	bare := func() {
		if err := exec.Command(dir.settings.argv[sdk.CanDemote][0]).Run(); err != nil {
			b.Fatal(err)
		}
	}
	for name, call := range map[string]func(){
		"act": func() {
			if r := dir.Do(b.Context(), act(sdk.Demote, long), nil); r.Outcome != sdk.OutcomeDone {
				b.Fatal(r)
			}
		},
		"check": func() {
			if h, err := dir.Check(b.Context(), sdk.RolePrimary, 7); !h.Fit {
				b.Fatal(err)
			}
		},
	} {
		b.Run(name, func(b *testing.B) {
			var ours, theirs cost
			for b.Loop() { // by turns, so that a busy machine is as busy for both
				ours.add(call)
				theirs.add(bare)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(ours.wall.Microseconds())/float64(b.N), "µs/call")
			b.ReportMetric(float64(ours.wall)/float64(theirs.wall), "bare")
			b.ReportMetric(float64(ours.cpu.Microseconds())/float64(b.N), "cpu-µs/call")
			b.ReportMetric(float64(ours.cpu)/float64(theirs.cpu), "cpu-bare")
		})
	}
}

// A cost is what calls have taken.
type cost struct{ wall, cpu time.Duration }

func (c *cost) add(call func()) {
	began, used := time.Now(), processor()
	call()
	c.wall += time.Since(began)
	c.cpu += processor() - used
}

// processor is the processor time of this process and its children so far.
func processor() (used time.Duration) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if unix.Getrusage(who, &u) == nil {
			used += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return used
}

func BenchmarkFamily(b *testing.B) {
	n := len(processes())
	used := processor()
	for b.Loop() {
		family(os.Getpid())
	}
	b.ReportMetric(float64((processor()-used).Microseconds())/float64(b.N)/float64(n), "cpu-µs/process")
}
