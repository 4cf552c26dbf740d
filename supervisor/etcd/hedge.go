package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

const (
	// hedgeDelay is how long the preferred endpoint may take before all are
	// asked, and the time between asking all again.
	hedgeDelay = 100 * time.Millisecond
	// attemptTimeout bounds one attempt at one endpoint.
	attemptTimeout = time.Second
	// callTimeout bounds a call whose caller sets no deadline.
	callTimeout = 5 * time.Second
	// maxAttempts is how many attempts may be under way at one endpoint for
	// one call: enough for a fresh one after each delay, since etcd forgets
	// what it is asked while it has no leader.
	maxAttempts = int(attemptTimeout / hedgeDelay)
)

// A hedge asks several endpoints for one answer. It begins with the one that
// answered last; when that fails or hesitates it asks all, again and again,
// until the first answer or the caller's deadline. So a call may reach etcd
// more than once: each must be safe to repeat.
type hedge struct {
	ways []kv

	mu        sync.Mutex
	preferred int
	slow      []bool // timed out when asked last
	left      signal // another endpoint than the preferred one had to answer
}

func newHedge(ways []kv) *hedge {
	return &hedge{ways: ways, slow: make([]bool, len(ways))}
}

// order returns the endpoints, preferred first and those that timed out last.
func (h *hedge) order() []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	order := make([]int, 0, len(h.ways))
	order = append(order, h.preferred)
	for _, slow := range []bool{false, true} {
		for i := range h.ways {
			if i != h.preferred && h.slow[i] == slow {
				order = append(order, i)
			}
		}
	}
	return order
}

// best is the endpoint that answered last.
func (h *hedge) best() kv {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ways[h.preferred]
}

// avoid makes the endpoint after the given one the preferred one. It reports
// false when the given one was not preferred any more.
func (h *hedge) avoid(way kv) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ways[h.preferred] != way {
		return false
	}
	h.slow[h.preferred] = true
	h.preferred = (h.preferred + 1) % len(h.ways)
	defer h.left.tell()
	return true
}

func (h *hedge) answered(i int, err error) {
	h.mu.Lock()
	h.slow[i] = errors.Is(err, context.DeadlineExceeded)
	left := err == nil && h.preferred != i
	if err == nil {
		h.preferred = i
	}
	h.mu.Unlock()
	if left {
		h.left.tell()
	}
}

func (h *hedge) close() error {
	var errs []error
	for _, w := range h.ways {
		errs = append(errs, w.Close())
	}
	return errors.Join(errs...)
}

// ask makes one call through h, asking again after each delay. The error is
// errCompacted or errLeaseGone, or wraps supervisor.ErrUnreachable.
func ask[T any](ctx context.Context, h *hedge, delay time.Duration, call func(context.Context, kv) (T, error)) (T, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	type answer struct {
		way int
		val T
		err error
	}
	var (
		wg       sync.WaitGroup
		answers  = make(chan answer)
		finished = make(chan struct{})
		pending  = make([]int, len(h.ways))
		failed   = make([]error, len(h.ways))
	)
	defer wg.Wait()
	defer close(finished)
	defer cancel(errAnswered)

	try := func(i int) {
		if pending[i] >= maxAttempts {
			return
		}
		pending[i]++
		wg.Go(func() {
			actx, acancel := context.WithTimeoutCause(ctx, attemptTimeout, errNoAnswer)
			defer acancel()
			val, err := call(actx, h.ways[i])
			select {
			case answers <- answer{way: i, val: val, err: err}:
			case <-finished:
			}
		})
	}
	all := func() {
		for _, i := range h.order() {
			try(i)
		}
	}

	try(h.order()[0])
	again := time.NewTimer(delay)
	defer again.Stop()
	spread := false
	for {
		select {
		case a := <-answers:
			pending[a.way]--
			if a.err == nil {
				h.answered(a.way, nil)
				return a.val, nil
			}
			if ctx.Err() == nil {
				h.answered(a.way, a.err)
			}
			if errors.Is(a.err, errDenied) {
				var none T
				return none, &unreachable{cause: a.err, ways: []error{a.err}}
			}
			if errors.Is(a.err, errCompacted) || errors.Is(a.err, errLeaseGone) {
				var none T
				return none, a.err
			}
			// One that tells the cure is not forgotten for one that does not: of
			// an alert of TLS not every attempt gets to hear.
			var said *explained
			if failed[a.way] == nil || ctx.Err() == nil && (!errors.As(failed[a.way], &said) || errors.As(a.err, &said)) {
				failed[a.way] = a.err
			}
			if !spread {
				spread = true
				all()
				again.Reset(delay)
			}
		case <-again.C:
			spread = true
			all()
			again.Reset(delay)
		case <-ctx.Done():
			var none T
			for i := range failed {
				if failed[i] == nil && pending[i] > 0 {
					failed[i] = fmt.Errorf("%s: no answer", h.ways[i].Name())
				}
			}
			failed = slices.DeleteFunc(failed, func(err error) bool { return err == nil })
			return none, &unreachable{cause: context.Cause(ctx), ways: failed}
		}
	}
}

var (
	errAnswered = errors.New("another endpoint has answered")
	errNoAnswer = fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
)

// An unreachable is the end of a call that no endpoint answered.
type unreachable struct {
	cause error   // why the call was given up
	ways  []error // what each endpoint that was asked said
}

func (u *unreachable) Error() string {
	if len(u.ways) == 0 {
		return supervisor.ErrUnreachable.Error() + ": " + u.cause.Error()
	}
	texts := make([]string, len(u.ways))
	for i, err := range u.ways {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (u *unreachable) Unwrap() []error { return []error{supervisor.ErrUnreachable, u.cause} }
