package plugin

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/wire"
	"github.com/deputy-ha/deputy/supervisor"
)

// ready returns a process that takes calls, and waits for one as long as ctx
// lasts and it is of any use.
func (p *Process) ready(ctx context.Context) (*life, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.now == nil {
		if !p.open {
			return nil, ErrClosed
		}
		if at, ok := ctx.Deadline(); ok && p.due.After(at) {
			return nil, fmt.Errorf("starts again in %s: %w", time.Until(p.due).Round(time.Millisecond), p.why)
		}
		if err := p.wait(ctx); err != nil {
			return nil, err
		}
	}
	return p.now, nil
}

// wait returns when something has changed, or an error when ctx has ended. The
// caller holds mu.
func (p *Process) wait(ctx context.Context) error {
	changed, why := p.changed, p.why
	p.mu.Unlock()
	defer p.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", causeOf(ctx), why)
	}
}

// Check asks once.
func (p *Process) Check(ctx context.Context, role sdk.Role, term sdk.Term) (h sdk.Health, err error) {
	err = p.call(ctx, "check", func(l *life) (err error) {
		h, err = l.wire.Check(ctx, role, term)
		return err
	})
	h.Detail = oneLine(h.Detail, maxLine)
	if n := len(h.Position); err == nil && n > maxPosition {
		return sdk.Health{}, fmt.Errorf("check: its position has %d bytes: at most %d can be told to other nodes", n, maxPosition)
	}
	return h, err
}

// Watch calls changed whenever the process, or one in its place, says that its
// health may have changed. It waits without being watched for a sign of life:
// checks are.
func (p *Process) Watch(ctx context.Context, changed func()) error {
	for {
		l, err := p.ready(ctx)
		if err == nil && ctx.Err() != nil {
			err = causeOf(ctx)
		}
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		if err := l.wire.Watch(ctx, changed); errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf("watch: %w", err)
		}
		// It has other settings now, or ends.
		pause := time.NewTimer(watchDelay)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
	}
}

// watchDelay is how long a process is not watched after it has ended that.
const watchDelay = 50 * time.Millisecond

// maxPosition is the most bytes of a position: each node publishes its own with
// every change.
const maxPosition = 4 << 10

// Renew extends what expires by itself. When the process dies meanwhile, its
// successor is told.
func (p *Process) Renew(ctx context.Context, until sdk.Instant) error {
	return p.call(ctx, "renew", func(l *life) error { return l.wire.Renew(ctx, until) })
}

// Rank compares positions.
func (p *Process) Rank(ctx context.Context, mine string, others map[string]string) (orders map[string]sdk.Order, err error) {
	err = p.call(ctx, "rank", func(l *life) (err error) {
		orders, err = l.wire.Rank(ctx, mine, others)
		return err
	})
	return orders, err
}

// Validate judges the settings of another definition of the part.
func (p *Process) Validate(ctx context.Context, part supervisor.Part) error {
	config, err := p.settings(part)
	if err != nil {
		return err
	}
	return p.call(ctx, "validate", func(l *life) error { return l.wire.Validate(ctx, p.setupOf(config)) })
}

// Configure puts the settings of another definition of the part in force, with
// its secrets as they are now, in the process that runs and in all that come
// after it. An act that runs is waited for.
func (p *Process) Configure(ctx context.Context, part supervisor.Part) (next Plugin, changed bool, err error) {
	p.configuring.Lock()
	defer p.configuring.Unlock()
	config, err := p.settings(part)
	if err != nil {
		return nil, false, err
	}
	if p.takes(part, config) {
		return p, false, nil
	}
	err = p.call(ctx, "configure", func(l *life) error {
		if err := l.wire.Configure(ctx, p.setupOf(config)); err != nil {
			return err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.now != l { // one that may have the settings of before follows it
			return wire.ErrUnavailable
		}
		p.part, p.config = part, config
		return nil
	})
	if err != nil {
		p.revert(err)
		return nil, false, err
	}
	return p, true, nil
}

// takes takes a definition whose settings are those in force already.
func (p *Process) takes(part supervisor.Part, config map[string]any) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	same := p.open && reflect.DeepEqual(p.config, config)
	if same {
		p.part = part
	}
	return same
}

// revert makes sure that a Configure without an answer has changed nothing: the
// process takes the settings of before again, or one in its place has them.
func (p *Process) revert(err error) {
	var mistakes wire.Mistakes
	p.mu.Lock()
	l := p.now
	p.mu.Unlock()
	if l == nil || errors.As(err, &mistakes) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), graceTime)
	defer cancel()
	if err := l.wire.Configure(ctx, p.setup()); err != nil {
		l.kill(fmt.Errorf("settings put back: %w", err))
		p.retire(l)
	}
}

// call makes a call that may be made twice: when the process dies meanwhile, its
// successor gets it.
func (p *Process) call(ctx context.Context, name string, f func(*life) error) error {
	for {
		l, err := p.ready(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		err = l.call(ctx, f)
		if err != nil && ctx.Err() == nil && l.dies(err) {
			p.retire(l)
			continue
		}
		return l.told(ctx, name, err)
	}
}

// retire has nobody call a process any more that dies.
func (p *Process) retire(l *life) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == l {
		p.show(nil, l.death(), time.Time{})
	}
}

// call makes a call, and has the process watched for as long as it gets no
// answer.
func (l *life) call(ctx context.Context, f func(*life) error) error {
	l.inflight.Add(1)
	l.watch()
	defer l.inflight.Add(-1)
	err := f(l)
	if err != nil && ctx.Err() != nil {
		l.suspect.Store(true)
		l.watch()
	} else {
		l.signs.Add(1)
	}
	return err
}

// watch has attend look at the process.
func (l *life) watch() {
	select {
	case l.asked <- struct{}{}:
	default:
	}
}

// dies reports whether a call that nobody cancelled failed because the process
// is ending. A connection that is closed behind one cancels what is called over it.
func (l *life) dies(err error) bool {
	lost := errors.Is(err, wire.ErrUnavailable) || errors.Is(err, context.Canceled)
	return l.killed() != nil || lost && l.await(noticeTime)
}

// noticeTime is how long after its connection broke the end of a process may
// be noticed.
const noticeTime = 100 * time.Millisecond

// told makes the error of a call one for people: what the process has said, or
// how it ended, or that its time was over.
func (l *life) told(ctx context.Context, call string, err error) error {
	var mistakes wire.Mistakes
	switch {
	case err == nil:
		return nil
	case errors.As(err, &mistakes):
		return err
	case errors.Is(err, wire.ErrUnavailable) && (l.killed() != nil || l.run.over()):
		err = l.death()
	case ctx.Err() != nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)):
		err = causeOf(ctx)
	}
	return fmt.Errorf("%s: %w", call, err)
}
