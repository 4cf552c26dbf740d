package plugin

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// The delays before a process that has ended by itself is started again: they
// double from the first to the last, each a little longer by chance, and begin
// anew once one has lived for as long as the last.
const (
	firstDelay = 100 * time.Millisecond
	lastDelay  = 30 * time.Second
)

// keep keeps a process running until ctx ends, and then ends it.
func (p *Process) keep(ctx context.Context, l *life) {
	defer close(p.kept)
	crashes := 0
	for {
		p.attend(ctx, l)
		if ctx.Err() != nil {
			bound := p.host.stall()
			if l.acting() {
				bound = graceTime
			}
			l.end(bound)
			l.await(deathTime)
			return
		}
		p.retire(l)
		if !l.await(deathTime) {
			p.log.Error("plugin could not be killed", "process", l.run.String())
		}
		p.ended(l.killed())
		switch why := l.killed(); {
		case why != nil: // for a reason that is over now
			p.log.Warn("plugin was killed and starts again", "cause", why)
			crashes = 0
		case time.Since(l.started) > lastDelay:
			crashes = 1
		default:
			crashes++
		}
		if l = p.again(ctx, l.death(), crashes); l == nil {
			return
		}
	}
}

// ended counts the end of a process that nobody had asked to end, by why it was
// killed, if it was.
func (p *Process) ended(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case why == nil:
		p.ends.Crashes++
	case errors.Is(why, ErrFrozen):
		p.ends.Freezes++
	default:
		p.ends.Kills++
	}
}

// Restarts are how often another process had to be started in place of one.
func (p *Process) Restarts() supervisor.Restarts {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.ends
	r.Starts = uint64(p.failed)
	return r
}

var _ supervisor.Restarter = (*Process)(nil)

// again starts a process in place of one that has ended, until that works or
// ctx ends.
func (p *Process) again(ctx context.Context, why error, crashes int) *life {
	for ; ; crashes++ {
		var wait time.Duration
		if crashes > 0 {
			wait = delay(crashes)
			p.log.Warn("plugin has ended and starts again", "cause", why, "after", wait)
		}
		p.mu.Lock()
		p.show(nil, why, time.Now().Add(wait))
		p.mu.Unlock()
		p.pause(ctx, wait)
		if ctx.Err() != nil {
			return nil
		}
		p.mu.Lock()
		p.show(nil, why, time.Time{})
		p.mu.Unlock()
		l, err := p.beginAgain(ctx)
		p.mu.Lock()
		select {
		case <-p.hurry: // whoever was in a hurry has a process now, or an error
		default:
		}
		if err == nil {
			p.show(l, nil, time.Time{})
			p.mu.Unlock()
			p.log.Info("plugin runs again")
			return l
		}
		why = err
		p.failed++
		p.show(nil, why, time.Time{})
		p.mu.Unlock()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// beginAgain is begin for a program that has been started before, and should
// not take much longer than it did then: somebody may be waiting to demote.
func (p *Process) beginAgain(ctx context.Context) (*life, error) {
	p.mu.Lock()
	patience := min(max(20*p.took, time.Second), 2*startTime)
	p.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not ready within %s", patience))
	defer cancel()
	l, _, err := p.begin(ctx, false)
	return l, err
}

func delay(crashes int) time.Duration {
	d := min(firstDelay<<min(crashes-1, 16), lastDelay)
	return d + rand.N(d/4)
}

// pause waits, unless an act is in a hurry.
func (p *Process) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.hurry:
	case <-ctx.Done():
	}
}

// attend returns when a process takes no calls any more, or ctx ends. While one
// of its calls has got no answer it is pinged; when that gets none either for
// as long as it takes to be frozen, it is killed.
func (p *Process) attend(ctx context.Context, l *life) {
	tick := p.host.stall() / stallTicks
	looking := time.NewTicker(tick)
	looking.Stop()
	defer looking.Stop()
	for silent := 0; ; {
		select {
		case <-l.run.gone:
			return
		case <-l.run.kill:
			return
		case <-ctx.Done():
			return
		case <-l.asked:
			looking.Reset(tick)
			continue
		case <-looking.C:
		}
		switch {
		case l.signs.Swap(0) > 0, !p.heartbeats() && l.acting():
			// One that sends no heartbeats may do one thing at a time.
			silent = 0
		case l.inflight.Load() == 0 && !l.suspect.Load():
			silent = 0
			looking.Stop()
		case l.ping(ctx, tick) == nil:
			silent = 0
			l.suspect.Store(false)
		default:
			silent++
		}
		if silent >= stallTicks-1 { // the first tick went by without a ping
			l.kill(fmt.Errorf("%w: no sign of life for %s", ErrFrozen, p.host.stall()))
		}
	}
}
