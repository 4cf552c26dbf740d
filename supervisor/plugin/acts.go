package plugin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// pingTime is how long a process that is asked for nothing may take to answer
// before it is held for frozen when each millisecond counts.
const pingTime = 25 * time.Millisecond

// Do has one act done. An act that is cut short, or whose process freezes or
// dies, is Unknown, and all of its process is killed, so that nothing of it
// comes later. A planned one is asked to end first.
func (p *Process) Do(ctx context.Context, t sdk.Transition, progress func(string)) sdk.Result {
	if p.isOpen() && !p.Describe().Can(sdk.Capability(t.Action)) {
		return sdk.Result{Outcome: sdk.OutcomeUnchanged, Refused: true, Detail: "cannot " + string(t.Action)}
	}
	timeout, err := bound(ctx, t.Timeout)
	if err != nil {
		return sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: "not started: " + err.Error()}
	}
	began := p.host.Clock.Now()
	deadline := p.host.Clock.Timer(began.Add(timeout))
	defer deadline.Stop()

	starting, cancel := context.WithTimeoutCause(ctx, timeout, errors.New("its time is over"))
	defer cancel()
	l, err := p.enter(starting, t)
	if err != nil {
		return sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: "not started: " + err.Error(), Refused: t.Action == sdk.Promote && Lasting(err)}
	}
	defer l.leave()
	if t.Timeout = timeout - p.host.Clock.Now().Sub(began); t.Timeout <= 0 {
		return sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: "not started: no time is left for it"}
	}
	t.StateDir = p.host.stateDir(p.name)
	a := p.ask(ctx, l, t, progress)
	defer a.over()
	r, cause := a.await(ctx, deadline.C())
	if cause == nil {
		return r
	}
	if a.cut && a.planned {
		a.wind()
	}
	l.kill(cause)
	p.retire(l)
	words := []string{cause.Error()}
	if a.answered && a.result.Detail != "" {
		words = append(words, a.result.Detail)
	}
	if !l.await(deathTime) {
		words = append(words, "could not be killed: "+l.run.String())
	}
	return sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: strings.Join(words, ": ")}
}

// enter returns a process for an act, and counts the act among those of it. It
// hurries a start that is not due yet; when that fails, so has the act.
func (p *Process) enter(ctx context.Context, t sdk.Transition) (*life, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for failed := p.failed; p.now == nil; {
		switch {
		case !p.open:
			return nil, ErrClosed
		case p.failed > failed:
			return nil, p.why
		}
		select {
		case p.hurry <- struct{}{}:
		default:
		}
		if err := p.wait(ctx); err != nil {
			return nil, err
		}
	}
	for l := range p.lives {
		if l.shown && l != p.now && !l.run.over() {
			// It is killed and does not end: it could still come after whatever
			// this act sees.
			return nil, fmt.Errorf("%w: %s", ErrActing, l.run)
		}
	}
	if err := p.now.enter(t.Action); err != nil {
		return nil, err
	}
	if ctx.Err() != nil { // whoever gave it up may have looked already for what is to be killed
		p.now.leave()
		return nil, causeOf(ctx)
	}
	p.term = max(p.term, t.Term)
	return p.now, nil
}

// enter counts an act. Only a demotion may come while another runs: the plugin
// then ends that first.
func (l *life) enter(a sdk.Action) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.acts > 0 && a != sdk.Demote {
		return ErrActing
	}
	l.acts++
	return nil
}

func (l *life) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acts--
}

// acting reports whether an act runs.
func (l *life) acting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acts > 0
}

// An asked is an act that a process was asked for.
type asked struct {
	l     *life
	hang  context.CancelCauseFunc
	beats chan struct{} // has one after a sign of life
	stall time.Duration // without one for so long it is frozen; zero when it sends none

	planned bool

	ended  chan struct{} // then there is a result, or an error if it never came
	result sdk.Result
	err    error

	answered bool // the result was taken
	cut      bool // the act was given up, and may hear of it
}

// ask asks for an act. The caller ends it by over.
func (p *Process) ask(ctx context.Context, l *life, t sdk.Transition, progress func(string)) *asked {
	ctx, hang := context.WithCancelCause(context.WithoutCancel(ctx))
	a := &asked{l: l, hang: hang, beats: make(chan struct{}, 1), ended: make(chan struct{}), planned: t.Mode != sdk.Forced}
	if p.heartbeats() {
		a.stall = p.host.stall()
	}
	go func() { // until over
		defer close(a.ended)
		a.result, a.err = l.wire.Do(ctx, t, p.host.stall()/4, func(said string) {
			l.signs.Add(1)
			select {
			case a.beats <- struct{}{}:
			default:
			}
			if said = oneLine(said, maxKept); said != "" && progress != nil {
				progress(said)
			}
		})
	}()
	return a
}

// over ends what ask began.
func (a *asked) over() {
	a.hang(errors.New("the act is over"))
	<-a.ended
}

// await returns the act's result, or why there will be none.
func (a *asked) await(ctx context.Context, deadline <-chan struct{}) (sdk.Result, error) {
	var ticks <-chan time.Time
	if a.stall > 0 {
		// Ticks are counted, not time: one that came while this process itself
		// was frozen is one, however long that was.
		t := time.NewTicker(a.stall / stallTicks)
		defer t.Stop()
		ticks = t.C
	}
	for silent := 0; ; {
		select {
		case <-a.ended:
			return a.come()
		case <-a.beats:
			silent = 0
		case <-ticks:
			if silent++; silent >= stallTicks {
				return sdk.Result{}, fmt.Errorf("%w: no sign of life for %s", ErrFrozen, a.stall)
			}
		case <-a.l.run.kill:
			return sdk.Result{}, fmt.Errorf("cut short: %w", a.l.death())
		case <-a.l.run.gone: // its last word may be on the way
			if closed(a.ended, noticeTime) {
				return a.come()
			}
			return sdk.Result{}, a.l.death()
		case <-deadline:
			if a.planned { // it knows of the deadline, and may be about to tell
				closed(a.ended, lateTime)
			}
			return a.late(errors.New("its time is over"))
		case <-ctx.Done():
			return a.late(causeOf(ctx))
		}
	}
}

// lateTime is how long after its deadline a planned act's result still counts.
const lateTime = 50 * time.Millisecond

// stallTicks is how often a process is looked at before it is held for frozen.
const stallTicks = 8

// late prefers a result that has come.
func (a *asked) late(cause error) (sdk.Result, error) {
	select {
	case <-a.ended:
		return a.come()
	default:
		a.cut = true
		return sdk.Result{}, fmt.Errorf("cut short: %w", cause)
	}
}

// come returns the result that has come, or what became of it.
func (a *asked) come() (sdk.Result, error) {
	switch {
	case a.err == nil:
		a.answered = true
		a.result.Detail = oneLine(a.result.Detail, maxLine)
		return a.result, nil
	case errors.Is(a.err, errors.ErrUnsupported):
		return sdk.Result{Outcome: sdk.OutcomeUnchanged, Refused: true, Detail: a.err.Error()}, nil
	case a.l.dies(a.err):
		return sdk.Result{}, a.l.death()
	}
	return sdk.Result{}, a.err
}

// wind asks the act to end, and returns when it has or its grace is over.
func (a *asked) wind() {
	ctx, cancel := context.WithTimeoutCause(context.Background(), graceTime, errors.New("its grace is over"))
	defer cancel()
	err := a.l.wire.Drain(ctx, graceTime)
	if err != nil && ctx.Err() == nil {
		// One that cannot drain is told by the loss of its caller, and nobody
		// learns how it ends.
		a.hang(errors.New("cut short"))
		select {
		case <-a.l.run.gone:
		case <-ctx.Done():
		}
		return
	}
	select {
	case <-a.ended:
		_, _ = a.come()
	case <-ctx.Done():
	}
}

// Kill ends every act by SIGKILL, with all of its process. A process without
// an act may stay if it answers at once.
func (p *Process) Kill(ctx context.Context) error {
	p.mu.Lock()
	l := p.now
	p.mu.Unlock()
	if l != nil {
		if l.acting() {
			l.kill(ErrKilled)
			p.retire(l)
		} else if l.ping(ctx, pingTime) != nil {
			l.kill(fmt.Errorf("%w: no answer within %s", ErrFrozen, pingTime))
			p.retire(l)
		}
	}
	p.mu.Lock()
	var dying []*life
	for l := range p.lives {
		if l.shown && l != p.now {
			dying = append(dying, l)
		}
	}
	p.mu.Unlock()
	if err := gone(ctx, dying); err != nil {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	return nil
}

// gone returns nil once nothing of the processes is left.
func gone(ctx context.Context, lives []*life) error {
	var left []string
	for _, l := range lives {
		if l.run.over() {
			continue
		}
		select {
		case <-l.run.gone:
		case <-ctx.Done():
			left = append(left, l.run.String())
		}
	}
	if left != nil {
		return fmt.Errorf("not gone: %s: %w", strings.Join(left, "; "), context.Cause(ctx))
	}
	return nil
}
