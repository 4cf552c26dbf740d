package etcd

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/supervisortest"
)

// A slowWay takes its time for a transaction, and counts how many it has.
type slowWay struct {
	kv
	mu         sync.Mutex
	busy, most int
}

func (*slowWay) Name() string { return "http://slow" }
func (*slowWay) Close() error { return nil }

func (w *slowWay) Txn(ctx context.Context, _ txn) (reply, error) {
	w.mu.Lock()
	w.busy++
	w.most = max(w.most, w.busy)
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.busy--
		w.mu.Unlock()
	}()
	nap(ctx, hedgeDelay/2)
	return reply{OK: true}, ctx.Err()
}

func TestManyCallsDoNotReachEtcdAtOnce(t *testing.T) {
	supervisortest.Bubble(t, func(t *testing.T) {
		way := &slowWay{}
		c := newClient(Config{Prefix: "/x", Clock: newClock(0, 1, &gate{}), Log: slog.New(slog.DiscardHandler)}, []kv{way})
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				if _, err := c.txn(t.Context(), txn{}); err != nil {
					t.Errorf("one of many calls: %v", err)
				}
			})
		}
		synctest.Wait()

		// A pulse does not wait for them.
		began := time.Now()
		if _, err := c.txnHedged(t.Context(), hedgeDelay, txn{}); err != nil {
			t.Errorf("a pulse: %v", err)
		}
		if took := time.Since(began); took > hedgeDelay/2 {
			t.Errorf("a pulse took %s, want %s", took, hedgeDelay/2)
		}

		// One that gives up while it waits is told that nothing is known.
		ctx, cancel := context.WithTimeout(t.Context(), hedgeDelay/4)
		defer cancel()
		if _, err := c.txn(ctx, txn{}); !errors.Is(err, supervisor.ErrUnreachable) {
			t.Errorf("got %v, want ErrUnreachable", err)
		}
		if why := c.contact.unreachable(); why != "" {
			t.Errorf("got %q: that one waited is no sign of etcd", why)
		}
		wg.Wait()
		if limit := cap(c.calls) + 1; way.most > limit {
			t.Errorf("got %d calls at once, want at most %d", way.most, limit)
		}
	})
}
