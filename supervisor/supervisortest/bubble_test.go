package supervisortest

import (
	"sync"
	"testing"
	"time"
)

// Under the race detector this crashes in a bubble on several processors. Should
// it not any more, Bubble has had its day.
func TestBubbleSurvivesTimersAskedForAtOnce(t *testing.T) {
	const goroutines, timers = 4, 20000
	fired := make([]int, goroutines)
	Bubble(t, func(*testing.T) {
		var wg sync.WaitGroup
		for i := range goroutines {
			wg.Go(func() {
				for range timers {
					select {
					case <-time.NewTimer(0).C:
						fired[i]++
					default:
					}
				}
			})
		}
		wg.Wait()
	})
	for _, n := range fired {
		if n != timers {
			t.Errorf("%d of %d timers have fired", n, timers)
		}
	}
}
