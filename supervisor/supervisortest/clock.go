package supervisortest

import (
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// A Clock is a node's own clock. Inside a synctest bubble it is virtual. It
// can be frozen, which holds its timers back and not its time, as SIGSTOP does.
type Clock struct {
	base   time.Time
	offset sdk.Instant
	rate   float64

	mu     sync.Mutex
	frozen bool
	late   []*timer // came due while frozen, in that order
}

// NewClock returns a clock that starts at 1000 s since boot and runs true.
func NewClock() *Clock { return NewSkewedClock(1000*time.Second, 1) }

// NewSkewedClock returns a clock that starts at the given time since boot and
// runs at a rate of its own; 1.01 is one percent fast.
func NewSkewedClock(boot time.Duration, rate float64) *Clock {
	return &Clock{base: time.Now(), offset: sdk.Instant(boot), rate: rate}
}

// Now returns the time since boot, by this clock.
func (c *Clock) Now() sdk.Instant {
	return c.offset.Add(time.Duration(float64(time.Since(c.base)) * c.rate))
}

// Timer returns a timer that fires at the given instant of this clock.
func (c *Clock) Timer(at sdk.Instant) supervisor.Timer {
	done := make(chan struct{})
	t := c.after(at, func() { close(done) })
	t.done = done
	return t
}

// after calls f in a goroutine of its own at the given instant, or once thawed.
func (c *Clock) after(at sdk.Instant, f func()) *timer {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &timer{clock: c, f: f}
	t.real = time.AfterFunc(c.until(at), t.due)
	return t
}

// kernel is after, on a timer that no freezing holds back.
func (c *Clock) kernel(at sdk.Instant, f func()) *timer {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &timer{clock: c, f: f, kernel: true}
	t.real = time.AfterFunc(c.until(at), t.due)
	return t
}

// until is the real time until the instant. It is rounded up: a timer that
// fires early would find that its instant has not come.
func (c *Clock) until(at sdk.Instant) time.Duration {
	d := time.Duration(float64(at.Sub(c.Now())) / c.rate)
	if c.rate != 1 && d > 0 {
		d += 2
	}
	return max(d, 0)
}

func (c *Clock) freeze() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = true
}

func (c *Clock) thaw() {
	c.mu.Lock()
	late := c.late
	c.late, c.frozen = nil, false
	c.mu.Unlock()
	for _, t := range late {
		t.due()
	}
}

type timer struct {
	clock  *Clock
	real   *time.Timer
	f      func()
	done   chan struct{}
	kernel bool
	over   bool // fired or stopped; under clock.mu
}

func (t *timer) due() {
	t.clock.mu.Lock()
	if t.clock.frozen && !t.kernel && !t.over {
		t.clock.late = append(t.clock.late, t)
		t.clock.mu.Unlock()
		return
	}
	over := t.over
	t.over = true
	t.clock.mu.Unlock()
	if !over {
		t.f()
	}
}

func (t *timer) C() <-chan struct{} { return t.done }

func (t *timer) Stop() {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	t.over = true
	t.real.Stop()
}
