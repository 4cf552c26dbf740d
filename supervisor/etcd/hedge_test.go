package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/supervisortest"
)

// A script is an endpoint whose n-th call does what it says: "ok", "hang" or
// an error. After the last, that goes on.
type script struct {
	kv
	name string

	mu    sync.Mutex
	says  []error
	calls int
}

var (
	errHang  = errors.New("hang")
	errNoTCP = errors.New("connection refused")
)

func (s *script) Name() string { return s.name }

func (s *script) next() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.says[min(s.calls, len(s.says)-1)]
	s.calls++
	return err
}

func (s *script) called() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

func (s *script) Txn(ctx context.Context, _ txn) (reply, error) {
	err := s.next()
	switch {
	case err == nil:
		nap(ctx, time.Millisecond)
		return reply{OK: true}, ctx.Err()
	case errors.Is(err, errHang):
		<-ctx.Done()
		return reply{}, fmt.Errorf("%s: %w", s.name, ctx.Err())
	default:
		return reply{}, fmt.Errorf("%s: %w", s.name, err)
	}
}

func askTxn(ctx context.Context, h *hedge) (reply, error) {
	return ask(ctx, h, hedgeDelay, func(ctx context.Context, way kv) (reply, error) { return way.Txn(ctx, txn{}) })
}

func TestHedge(t *testing.T) {
	for _, c := range []struct {
		name  string
		a, b  []error
		took  time.Duration
		calls string // of a and b
		then  string // which endpoint is asked first the next time
	}{
		{"the preferred answers", []error{nil}, []error{nil}, time.Millisecond, "1 0", "a"},
		{"the preferred hangs", []error{errHang}, []error{nil}, hedgeDelay + time.Millisecond, "2 1", "b"},
		{"the preferred fails", []error{errNoTCP}, []error{nil}, time.Millisecond, "2 1", "b"},
		{"etcd drops what it is asked while it elects", []error{errHang, errHang, errHang, nil}, []error{errHang, errHang, errHang, errHang, nil}, 3*hedgeDelay + time.Millisecond, "4 3", "a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			supervisortest.Bubble(t, func(t *testing.T) {
				a, b := &script{name: "a", says: c.a}, &script{name: "b", says: c.b}
				h := newHedge([]kv{a, b})
				began := time.Now()
				if _, err := askTxn(t.Context(), h); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
				if calls := fmt.Sprint(a.called(), b.called()); calls != c.calls {
					t.Errorf("%s calls, want %s", calls, c.calls)
				}
				if next := h.best().Name(); next != c.then {
					t.Errorf("%s is preferred now, want %s", next, c.then)
				}
			})
		})
	}
}

func TestNobodyAnswers(t *testing.T) {
	supervisortest.Bubble(t, func(t *testing.T) {
		a, b := &script{name: "a", says: []error{errHang}}, &script{name: "b", says: []error{errNoTCP}}
		h := newHedge([]kv{a, b})
		ctx, cancel := context.WithTimeoutCause(t.Context(), 3*time.Second, errNoAnswer)
		defer cancel()
		began := time.Now()
		_, err := askTxn(ctx, h)
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("given up after %v, want the caller's 3 s", took)
		}
		if !errors.Is(err, supervisor.ErrUnreachable) {
			t.Errorf("%v is no ErrUnreachable", err)
		}
		for _, want := range []string{"a: ", "b: connection refused"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
		// One that hangs has no more than so many calls under way, each bounded.
		if n := a.called(); n > 3*maxAttempts+1 {
			t.Errorf("the one that hangs was asked %d times in 3 s", n)
		}
	})
}

func TestWhatIsDeniedIsNotAskedAgain(t *testing.T) {
	supervisortest.Bubble(t, func(t *testing.T) {
		a, b := &script{name: "a", says: []error{errDenied}}, &script{name: "b", says: []error{nil}}
		began := time.Now()
		_, err := askTxn(t.Context(), newHedge([]kv{a, b}))
		if !errors.Is(err, errDenied) || !errors.Is(err, supervisor.ErrUnreachable) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took != 0 || b.called() != 0 {
			t.Errorf("after %v, and %d calls elsewhere", took, b.called())
		}
	})
}
