package sdk

import "time"

// An Instant is a time on CLOCK_BOOTTIME, in nanoseconds since boot. It goes
// on during suspend and no clock step moves it. It means nothing on another
// machine or after a reboot. Zero is unset.
type Instant int64

// Add returns the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns the time from u to i.
func (i Instant) Sub(u Instant) time.Duration { return time.Duration(i - u) }
