package supervisor

import "github.com/deputy-ha/deputy/sdk"

// A Clock is CLOCK_BOOTTIME, or a virtual one in tests. Every deadline of
// deputy is reckoned on it, never on wall time.
type Clock interface {
	Now() sdk.Instant
	// Timer returns a timer that fires once, at the given instant or at once
	// when that has passed. Time spent in suspend counts.
	Timer(at sdk.Instant) Timer
}

// A Timer fires once by closing C.
type Timer interface {
	C() <-chan struct{}
	Stop() // the timer will not fire any more; may be called again
}
