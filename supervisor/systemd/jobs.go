package systemd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"
)

// ask asks for a job, and returns what receives its result. The caller has to
// forget it.
func (l *line) ask(ctx context.Context, method string, args ...any) (result <-chan string, forget func(), err error) {
	l.mu.Lock()
	l.asking++
	l.mu.Unlock()
	var job dbus.ObjectPath
	call := l.call(ctx, busPath, rootInterface+"."+method, args...)
	if err = call.Err; err == nil {
		err = call.Store(&job)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := make(chan string, 1)
	if r, ended := l.early[job]; ended && err == nil {
		c <- r
	} else if err == nil {
		l.waiting[job] = append(l.waiting[job], c)
	}
	if l.asking--; l.asking == 0 {
		clear(l.early)
	}
	return c, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.waiting[job] = slices.DeleteFunc(l.waiting[job], func(other chan string) bool { return other == c })
		if len(l.waiting[job]) == 0 {
			delete(l.waiting, job)
		}
	}, err
}

// Start starts a unit and returns when its job has ended. The error is a
// JobError when that did not end well, ErrDenied, ErrNoUnit, ErrNoBus, or why
// ctx ended.
func (b *Bus) Start(ctx context.Context, unit string) error {
	return b.job(ctx, "start", unit, true)
}

// Stop stops a unit and returns when its job has ended; the errors are those of
// Start. That its processes are gone remains to be seen.
func (b *Bus) Stop(ctx context.Context, unit string) error {
	return b.job(ctx, "stop", unit, true)
}

// Queue asks for the start of a unit and does not wait for it.
func (b *Bus) Queue(ctx context.Context, unit string) error {
	return b.job(ctx, "start", unit, false)
}

// Try asks for the start of a unit once, and does not wait for it. The error is
// ErrTaken when another job is in the way, which Queue waits for.
func (b *Bus) Try(ctx context.Context, unit string) error {
	l, err := b.open(ctx)
	if err == nil {
		var forget func()
		_, forget, err = l.askStartOnce(ctx, unit)
		forget()
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", unit, err)
	}
	return nil
}

// QueueStop asks for the stop of a unit and does not wait for it.
func (b *Bus) QueueStop(ctx context.Context, unit string) error {
	return b.job(ctx, "stop", unit, false)
}

func (b *Bus) job(ctx context.Context, verb, unit string, wait bool) error {
	l, err := b.open(ctx)
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, unit, err)
	}
	ask := l.askStop
	if verb == "start" {
		ask = l.askStart
	}
	result, forget, err := ask(ctx, unit)
	defer forget()
	if errors.Is(err, ErrNoUnit) && verb == "stop" {
		return nil // what is not there does not run
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, unit, err)
	}
	if !wait {
		return nil
	}
	select {
	case r := <-result:
		if r != "done" {
			return &JobError{Verb: verb, Unit: unit, Result: r}
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s %s: %w", verb, unit, context.Cause(ctx))
	case <-l.over:
		return fmt.Errorf("%s %s: %w: the connection broke while its job ran", verb, unit, ErrNoBus)
	}
}

// takenTime is between two tries of a start that is in the way of another job.
const takenTime = 20 * time.Millisecond

func (l *line) askStop(ctx context.Context, unit string) (result <-chan string, forget func(), err error) {
	return l.ask(ctx, "StopUnit", unit, "replace")
}

// askStart asks for a start that undoes no other job: what is being stopped is
// waited for. Told to replace jobs, PID 1 would cancel the one by which the
// machine goes down, and leave it half down, unless that was asked for as
// irreversible, as `systemctl start poweroff.target` does not.
func (l *line) askStart(ctx context.Context, unit string) (result <-chan string, forget func(), err error) {
	for {
		result, forget, err = l.askStartOnce(ctx, unit)
		if !errors.Is(err, ErrTaken) || errors.Is(err, ErrGoingDown) {
			return result, forget, err
		}
		select {
		case <-time.After(takenTime):
			forget()
		case <-ctx.Done():
			return result, forget, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

// askStartOnce returns only when PID 1 has answered, or the connection is broken:
// a start that is given up could come after the stop that follows it.
func (l *line) askStartOnce(ctx context.Context, unit string) (result <-chan string, forget func(), err error) {
	if ctx.Err() != nil {
		return nil, func() {}, context.Cause(ctx)
	}
	result, forget, err = l.ask(context.WithoutCancel(ctx), "StartUnit", unit, "fail")
	if errors.Is(err, ErrTaken) && l.isGoingDown(ctx) {
		err = fmt.Errorf("%w: %w", ErrGoingDown, err)
	}
	return result, forget, err
}

// isGoingDown reports whether the machine shuts down.
func (l *line) isGoingDown(ctx context.Context) bool {
	state, err := l.property(ctx, busPath, rootInterface, "SystemState")
	return err == nil && state == "stopping"
}

// Kill sends a signal to all processes of a unit. None being there is no error.
func (b *Bus) Kill(ctx context.Context, unit string, signal int32) error {
	err := b.order(ctx, "KillUnit", unit, "all", signal)
	if errors.Is(err, ErrNoUnit) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill %s: %w", unit, err)
	}
	return nil
}

// order calls a method of PID 1 that answers nothing of interest.
func (b *Bus) order(ctx context.Context, method string, args ...any) error {
	l, err := b.open(ctx)
	if err != nil {
		return err
	}
	return l.call(ctx, busPath, rootInterface+"."+method, args...).Err
}

// A JobError is a job of PID 1 that did not end well.
type JobError struct {
	Verb   string // start or stop
	Unit   string
	Result string // failed, dependency, timeout, canceled, skipped, …
}

func (e *JobError) Error() string {
	why := e.Result
	switch e.Result {
	case "failed":
		why = "it failed: see journalctl -u " + e.Unit
	case "dependency":
		why = "what it depends on did not start"
	case "timeout":
		why = "its job took longer than its JobTimeoutSec"
	case "canceled":
		why = "its job was canceled by another one"
	case "skipped":
		why = "there was nothing to do in its state"
	case "assert":
		why = "one of its assertions does not hold"
	}
	return fmt.Sprintf("%s %s: %s", e.Verb, e.Unit, why)
}
