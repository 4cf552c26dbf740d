package systemd

import (
	"testing"
	"time"
)

func TestEnding(t *testing.T) {
	const unit = "deputy@orders.service"
	pid1 := newFakePID1(t)
	b := pid1.bus()
	for _, job := range []string{"", "stop", "restart", "start"} {
		pid1.unit(unit, func(u *fakeUnit) {
			u.jobType, u.job = job, 0
			if job != "" {
				u.job = 42
			}
		})
		if got, err := b.Ending(t.Context(), unit); err != nil || got != job {
			t.Errorf("got %q, %v; want %q", got, err, job)
		}
	}
	if got, err := deadBus(t).Ending(t.Context(), unit); err == nil || got != "" {
		t.Errorf("without a bus: got %q, %v", got, err)
	}
	pid1.mu.Lock()
	pid1.deaf = true
	pid1.mu.Unlock()
	began := time.Now()
	if got, err := b.Ending(t.Context(), unit); err == nil || got != "" {
		t.Errorf("without an answer: got %q, %v", got, err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it waits %s for an answer", took)
	}
}
