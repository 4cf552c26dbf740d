package supervisor

import "time"

// Timing is the timetable of a lease, reckoned from s, the sending of the last
// acknowledged pulse. It follows from the TTL alone.
type Timing struct {
	TTL      time.Duration
	Renew    time.Duration // time between two pulses, and the bound of one
	Lost     time.Duration // s + Lost: the forced demotion begins
	Trigger  time.Duration // s + Trigger: not proven demoted, so the fences outside are called
	Until    time.Duration // s + Until: nothing may count on more
	Watchdog time.Duration // how long the supervisor may be silent before systemd kills it
	Step     time.Duration // what each place in the ranking waits longer than the one before
}

// The bounds of a TTL. Below MinTTL a renewal has no time for a second try;
// above MaxTTL a mistake is likelier than a wish.
const (
	MinTTL = 300 * time.Millisecond
	MaxTTL = 5 * time.Minute
)

// MinRenew is the shortest time between two pulses.
const MinRenew = 50 * time.Millisecond

// NewTiming returns the timetable for a TTL.
func NewTiming(ttl time.Duration) Timing {
	return Timing{
		TTL:      ttl,
		Renew:    max(ttl/6, MinRenew),
		Lost:     ttl * 75 / 100,
		Trigger:  ttl * 90 / 100,
		Until:    ttl * 95 / 100,
		Watchdog: min(max(ttl/5, 200*time.Millisecond), time.Second),
		Step:     max(ttl/30, 50*time.Millisecond),
	}
}

// Forced is the time a forced demotion has before the fences outside are called.
func (t Timing) Forced() time.Duration { return t.Trigger - t.Lost }
