package boottime

import (
	"container/heap"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// A Clock is CLOCK_BOOTTIME. All its timers share one timerfd, and wait in one
// goroutine that Close ends. Its methods may be called at the same time.
//
// Go's own timers do not do: they follow CLOCK_MONOTONIC, which stands still
// while the machine is suspended.
type Clock struct {
	fd     *os.File
	reader sync.WaitGroup

	mu     sync.Mutex
	timers queue
	armed  sdk.Instant // zero when no timer waits
	closed bool
}

// New returns a running clock; Close ends it.
func New() (*Clock, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("create timer: %w", err)
	}
	c := &Clock{fd: os.NewFile(uintptr(fd), "timerfd")}
	c.reader.Go(c.read)
	return c, nil
}

// Close ends the clock and returns when nothing of it runs any more. Timers
// that have not fired never will, so whoever waits for one has to end first.
func (c *Clock) Close() error {
	c.mu.Lock()
	closed := c.closed
	c.closed = true
	c.mu.Unlock()
	if closed {
		return nil
	}
	err := c.fd.Close()
	c.reader.Wait()
	return err
}

// Now is the time since boot, suspend included.
func (c *Clock) Now() sdk.Instant { return now() }

func now() sdk.Instant {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(fmt.Sprintf("read CLOCK_BOOTTIME: %v", err)) // every Linux since 2.6.39 has it
	}
	return sdk.Instant(t.Nano())
}

// Timer returns a timer that fires at the given instant, or at once when that
// has passed. It panics when the clock is closed: such a timer would never fire.
func (c *Clock) Timer(at sdk.Instant) supervisor.Timer {
	t := &timer{clock: c, at: at, c: make(chan struct{}), place: fired}
	if at <= now() {
		close(t.c)
		return t
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		panic("boottime: timer asked of a closed clock")
	}
	heap.Push(&c.timers, t)
	c.arm()
	return t
}

// arm has the kernel wake the reader for the first timer.
func (c *Clock) arm() {
	if len(c.timers) == 0 || c.armed == c.timers[0].at {
		return
	}
	c.armed = c.timers[0].at
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(c.armed))}
	err := c.control(func(fd int) error { return unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME, &spec, nil) })
	if err != nil {
		// No valid time is ever refused, and a deadline must not be lost silently.
		panic(fmt.Sprintf("boottime: set timer: %v", err))
	}
}

func (c *Clock) control(do func(fd int) error) error {
	raw, err := c.fd.SyscallConn()
	if err != nil {
		return err
	}
	var done error
	if err := raw.Control(func(fd uintptr) { done = do(int(fd)) }); err != nil {
		return err
	}
	return done
}

// read fires timers until the clock is closed.
func (c *Clock) read() {
	expirations := make([]byte, 8)
	for {
		_, err := c.fd.Read(expirations)
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil:
			// It never fails, and a deadline must not be lost silently.
			panic(fmt.Sprintf("boottime: read timer: %v", err))
		}
		c.fire()
	}
}

// fire closes the channels of all timers whose instant has come.
func (c *Clock) fire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := now(); len(c.timers) > 0 && c.timers[0].at <= n; {
		close(heap.Pop(&c.timers).(*timer).c)
	}
	c.armed = 0
	if !c.closed {
		c.arm()
	}
}

// fired is the place of a timer that does not wait in the queue.
const fired = -1

type timer struct {
	clock *Clock
	at    sdk.Instant
	c     chan struct{}
	place int // in the queue
}

func (t *timer) C() <-chan struct{} { return t.c }

// Stop takes the timer out of the queue. The wake-up that was set for it finds
// nothing to do.
func (t *timer) Stop() {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	if t.place != fired {
		heap.Remove(&t.clock.timers, t.place)
	}
}

// A queue is a heap of timers, the first in front.
type queue []*timer

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at < q[j].at }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

func (q *queue) Push(x any) {
	t := x.(*timer)
	t.place = len(*q)
	*q = append(*q, t)
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	t := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	t.place = fired
	return t
}
