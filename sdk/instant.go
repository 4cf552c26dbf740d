package sdk

import (
	"syscall"
	"time"
	"unsafe"
)

// An Instant is a time on CLOCK_BOOTTIME, in nanoseconds since boot. It goes
// on during suspend and no clock step moves it. It means nothing on another
// machine or after a reboot. Zero is unset.
type Instant int64

// Add returns the instant d later; earlier, if d is less than zero.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns the time from u to i: until.Sub(h.Now()) is what is left of a lease.
func (i Instant) Sub(u Instant) time.Duration { return time.Duration(i - u) }

// clockBoottime is CLOCK_BOOTTIME of linux/time.h.
const clockBoottime = 7

// Now reads CLOCK_BOOTTIME. A plugin asks its Host.Now, which unit tests can set.
func Now() Instant {
	var ts syscall.Timespec
	if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockBoottime, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		panic(errno) // the clock exists since Linux 2.6.39
	}
	return Instant(ts.Nano())
}
