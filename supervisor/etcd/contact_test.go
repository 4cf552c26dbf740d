package etcd

import (
	"testing"
	"time"

	"github.com/deputy-ha/deputy/supervisor/supervisortest"
)

func TestContactIsLostBySilenceNotByOneCall(t *testing.T) {
	supervisortest.Bubble(t, func(t *testing.T) {
		var c contact
		told := 0
		c.change.subscribe(func() { told++ })
		c.answers()
		for range 10 { // an etcd that is too slow for every second call
			time.Sleep(attemptTimeout / 2)
			c.fails(errNoAnswer)
			if why := c.unreachable(); why != "" {
				t.Fatalf("got %q while etcd answers", why)
			}
			c.answers()
		}
		if told != 0 {
			t.Errorf("got %d changes told, want none", told)
		}

		time.Sleep(attemptTimeout)
		c.fails(errNoAnswer)
		if c.unreachable() == "" {
			t.Error("got reachable after silence and a failed call")
		}
		c.answers()
		if why := c.unreachable(); why != "" {
			t.Errorf("got %q after an answer", why)
		}
		if told != 2 {
			t.Errorf("got %d changes told, want 2", told)
		}
	})
}

func TestContactNeverMadeIsLostAtTheFirstFailure(t *testing.T) {
	var c contact
	c.fails(errNoAnswer)
	if c.unreachable() == "" {
		t.Error("got reachable, though nothing ever answered")
	}
}

func TestContactCountsTheTimeItIsLost(t *testing.T) {
	supervisortest.Bubble(t, func(t *testing.T) {
		var c contact
		if f := c.figures(); f.Reachable || f.Unreachable != 0 {
			t.Errorf("before anything was asked got %+v", f)
		}
		c.answers()
		last := time.Now()
		if f := c.figures(); !f.Reachable || !f.Last.Equal(last) {
			t.Errorf("after an answer got %+v", f)
		}
		time.Sleep(attemptTimeout)
		c.fails(errNoAnswer)
		time.Sleep(time.Second)
		c.fails(errDenied) // both at once count once
		if f := c.figures(); f.Reachable || f.Unreachable != time.Second {
			t.Errorf("after a second of silence got %+v", f)
		}
		time.Sleep(time.Second)
		c.answers() // yet it denies
		time.Sleep(time.Second)
		c.obeys()
		time.Sleep(time.Second)
		if f := c.figures(); !f.Reachable || f.Unreachable != 3*time.Second {
			t.Errorf("after three seconds of trouble that are over got %+v", f)
		}
	})
}
