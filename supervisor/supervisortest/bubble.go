package supervisortest

import (
	"runtime"
	"testing"
	"testing/synctest"
)

// Bubble is synctest.Test on one processor, for tests that simulate a whole
// cluster: under the race detector of Go 1.26 two goroutines of a bubble that ask
// for expired timers at the same moment crash the process, since all timers of a
// bubble share one context of it. Processors are those of the whole process, so
// nothing else shall run beside it.
func Bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, f)
}
