package boottime

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

var _ supervisor.Clock = (*Clock)(nil)

// late is how late a timer may be on a machine that is busy with other tests.
const late = 2 * time.Second

func open(t *testing.T) *Clock {
	t.Helper()
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// fires waits for a timer and returns how late it was.
func fires(t *testing.T, c *Clock, timer supervisor.Timer, at sdk.Instant) time.Duration {
	t.Helper()
	select {
	case <-timer.C():
	case <-time.After(at.Sub(c.Now()) + late):
		t.Fatalf("a timer has not fired %s after its time", late)
	}
	return c.Now().Sub(at)
}

func TestNowGoesOn(t *testing.T) {
	c := open(t)
	a, began := c.Now(), time.Now()
	<-c.Timer(a.Add(20 * time.Millisecond)).C()
	b, took := c.Now(), time.Since(began)
	if got := b.Sub(a); got < 20*time.Millisecond || got > took+time.Millisecond {
		t.Errorf("%s passed on the clock while %s passed", got, took)
	}
}

func TestTimerFiresAtItsTime(t *testing.T) {
	c := open(t)
	var worst time.Duration
	for range 20 {
		at := c.Now().Add(5 * time.Millisecond)
		by := fires(t, c, c.Timer(at), at)
		if by < 0 {
			t.Fatalf("a timer fired %s early", -by)
		}
		worst = max(worst, by)
	}
	t.Logf("at most %s late", worst)
}

func TestPastTimerFiresAtOnce(t *testing.T) {
	c := open(t)
	for _, at := range []sdk.Instant{-5, 0, 1, c.Now()} {
		select {
		case <-c.Timer(at).C():
		default:
			t.Errorf("a timer at %d has not fired", at)
		}
	}
}

func TestEarlierTimerAddedLater(t *testing.T) {
	c := open(t)
	far := c.Timer(c.Now().Add(time.Hour))
	at := c.Now().Add(5 * time.Millisecond)
	fires(t, c, c.Timer(at), at)
	select {
	case <-far.C():
		t.Error("a timer fired an hour early")
	default:
	}
}

func TestStop(t *testing.T) {
	c := open(t)
	at := c.Now().Add(10 * time.Millisecond)
	stopped, other := c.Timer(at), c.Timer(at.Add(10*time.Millisecond))
	stopped.Stop()
	stopped.Stop()
	fires(t, c, other, at.Add(10*time.Millisecond))
	select {
	case <-stopped.C():
		t.Error("a stopped timer fired")
	default:
	}
	other.Stop()
	if len(c.timers) != 0 {
		t.Errorf("%d timers wait for nobody", len(c.timers))
	}
}

// A thousand timers from many goroutines, some stopped: each of the others
// fires, none early.
func TestManyTimers(t *testing.T) {
	c := open(t)
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			at := c.Now().Add(time.Duration(rand.IntN(100_000)) * time.Microsecond)
			timer := c.Timer(at)
			if i%3 == 0 {
				timer.Stop()
				return
			}
			defer timer.Stop()
			select {
			case <-timer.C():
				if by := c.Now().Sub(at); by < 0 {
					t.Errorf("a timer fired %s early", -by)
				}
			case <-time.After(10 * time.Second):
				t.Error("a timer has not fired")
			}
		})
	}
	wg.Wait()
	if len(c.timers) != 0 {
		t.Errorf("%d timers wait for nobody", len(c.timers))
	}
}

func TestCloseEndsItAll(t *testing.T) {
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	waiting := c.Timer(c.Now().Add(time.Hour))
	for range 2 {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	waiting.Stop()
	select {
	case <-c.Timer(0).C():
	default:
		t.Error("a past timer of a closed clock has not fired")
	}
	defer func() {
		if recover() == nil {
			t.Error("a closed clock gave a timer that never fires")
		}
	}()
	c.Timer(c.Now().Add(time.Hour))
}

func BenchmarkTimer(b *testing.B) {
	c, err := New()
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	var sum time.Duration
	for b.Loop() {
		at := c.Now().Add(time.Millisecond)
		<-c.Timer(at).C()
		sum += c.Now().Sub(at)
	}
	b.ReportMetric(float64(sum.Microseconds())/float64(b.N), "µs-late")
}
