package etcd

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestContactIsLostBySilenceNotByOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
