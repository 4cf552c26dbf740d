package plugin

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// The cost of a call, beside that of the same program run by os/exec alone.
func BenchmarkCall(b *testing.B) {
	dir := newBench(b, map[string]any{"demote": "exit 0", "check": "exit 0"})
	bare := func() {
		if err := exec.Command(dir.settings.argv[sdk.CanDemote][0]).Run(); err != nil {
			b.Fatal(err)
		}
	}
	for name, call := range map[string]func(){
		"act": func() {
			if r := dir.Do(b.Context(), act(sdk.Demote, long), nil); r.Outcome != sdk.Done {
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
			var ours, theirs time.Duration
			for b.Loop() { // by turns, so that a busy machine is as busy for both
				began := time.Now()
				call()
				ours += time.Since(began)
				began = time.Now()
				bare()
				theirs += time.Since(began)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(ours.Microseconds())/float64(b.N), "µs/call")
			b.ReportMetric(float64(theirs.Microseconds())/float64(b.N), "µs/bare")
			b.ReportMetric(float64(ours)/float64(theirs), "ratio")
		})
	}
}

func BenchmarkFamily(b *testing.B) {
	n := len(processes())
	for b.Loop() {
		family(os.Getpid())
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(n), "µs/process")
}
