package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
)

// A systemd is units with one set of settings. What counts is what systemd and
// the kernel say of them; a process that comes after this one finds it there.
type systemd struct {
	settings
	place   place
	service string
	part    string
	log     *slog.Logger
	bus     *bus
	end     context.CancelCauseFunc
	warming sync.WaitGroup

	mu    sync.Mutex
	holds sdk.Instant // the lease does until then, as far as is known
}

func newSystemd(at place, c settings, h sdk.Host) *systemd {
	s := &systemd{settings: c, place: at, service: h.Service, part: h.Part, log: h.Log, bus: newBus(at, h.Service, h.Log)}
	ctx, end := context.WithCancelCause(context.Background())
	s.end = end
	s.warming.Go(func() { s.bus.keepWarm(ctx) })
	return s
}

// Close ends the connection. The units stay as they are.
func (s *systemd) Close() error {
	s.end(errors.New("other settings are in force"))
	s.warming.Wait()
	s.bus.close()
	return nil
}

// Renew only notes how long the lease holds: a unit is not started after that.
func (s *systemd) Renew(_ context.Context, until sdk.Instant) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds = until
	return nil
}

// lease is an error unless the lease holds.
func (s *systemd) lease() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holds <= sdk.Now() {
		return errors.New("the lease does not hold any more")
	}
	return nil
}

// Promote starts the units in order. Those that run already with leave for this
// term stay as they are; any other is stopped before and started anew.
func (s *systemd) Promote(ctx context.Context, t *sdk.Transition) error {
	_ = s.Renew(ctx, t.LeaseUntil)
	if err := s.lease(); err != nil {
		return sdk.Refuse(err)
	}
	l, err := s.bus.link(ctx)
	if err != nil {
		return sdk.Unchanged(err)
	}
	missing, strange, err := s.survey(ctx, l, t)
	switch {
	case err != nil:
		return err
	case len(missing) == 0 && len(strange) == 0:
		return fmt.Errorf("%s: %w", s, sdk.ErrAlready)
	}
	if len(strange) > 0 {
		if _, err := s.forbid(strange); err != nil {
			return err
		}
		slices.Reverse(strange)
		if did, err := s.stopAll(ctx, strange, s.patience(t)); err != nil {
			return fmt.Errorf("stop what runs without leave: %w", err)
		} else if len(did) > 0 {
			s.log.Warn("units ran without leave of this term, and start anew", "units", strings.Join(did, ", "))
		}
	}
	var started []startedUnit
	for _, unit := range missing {
		v, err := s.start(ctx, l, unit, t)
		if err != nil && len(started) == 0 && len(strange) == 0 && len(missing) == len(s.Units) {
			return s.undone(ctx, l, unit, err)
		}
		if err != nil {
			return err
		}
		started = append(started, startedUnit{unit, v})
	}
	if err := s.settled(ctx, l, started); err != nil {
		return err
	}
	sdk.Note(ctx, "%s", s)
	return nil
}

// survey returns which units are to be started, and which are to be stopped
// before, because they run without leave for this term. An error is that of an
// act that has changed nothing.
func (s *systemd) survey(ctx context.Context, l *link, t *sdk.Transition) (missing, strange []string, err error) {
	var faults, wrong []error
	for _, unit := range s.names() {
		v, err := l.see(ctx, unit)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		faults = append(faults, s.faults(unit, &v))
		term, has := s.allowed(unit)
		ours := has && term == t.Term
		if !ours || !v.active() || v.empty() {
			missing = append(missing, unit)
		}
		if !ours {
			left, err := s.leftOf(unit, &v)
			if left != "" {
				strange = append(strange, unit)
			}
			wrong = append(wrong, err)
		}
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, nil, sdk.Unchanged(err)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, nil, sdk.Refuse(err)
	}
	return missing, append(strange, s.leftover()...), nil
}

// A startedUnit is one that was seen active.
type startedUnit struct {
	name string
	view
}

// start has one unit started, and returns how it then is.
func (s *systemd) start(ctx context.Context, l *link, unit string, t *sdk.Transition) (view, error) {
	if err := s.lease(); err != nil {
		return view{}, err
	}
	if err := s.allow(unit, t); err != nil {
		return view{}, err
	}
	sdk.Progress(ctx, -1, "starting %s", unit)
	before, err := l.look(ctx, unit)
	if err != nil {
		return view{}, fmt.Errorf("start %s: %w", unit, err)
	}
	result, v, err := s.startOnce(ctx, l, unit)
	if err == nil && (result == "failed" || result == "frozen") && bytes.Equal(v.Invocation, before.Invocation) {
		// Systemd has not even tried: it was started too often lately
		// (StartLimitBurst=), for which roles may be to blame, or it was killed
		// while it was frozen, of which systemd 257 does not let go. Asked for
		// only now: each permission costs a round trip to polkitd.
		if err = l.resetFailed(ctx, unit); err == nil {
			result, v, err = s.startOnce(ctx, l, unit)
		}
	}
	switch {
	case err != nil:
		return v, fmt.Errorf("start %s: %w", unit, err)
	case v.active() && result == "done":
		return v, nil
	case !v.Met && v.Active == "inactive":
		return v, fmt.Errorf("start %s: systemd skipped it: %s is not met", unit, v.unmet(s.allowPath(unit)))
	}
	return v, fmt.Errorf("start %s: its job ended as %s, and it is %s; see journalctl -u %s", unit, result, v.how(), unit)
}

func (s *systemd) startOnce(ctx context.Context, l *link, unit string) (result string, v view, err error) {
	if l.goingDown(ctx) {
		return "", view{}, errGoingDown
	}
	if result, err = l.run(ctx, "StartUnit", unit); err != nil {
		return "", view{}, err
	}
	v, err = l.see(ctx, unit)
	return result, v, err
}

// undone makes the failure of the first start one that has changed nothing, if
// that is so.
func (s *systemd) undone(ctx context.Context, l *link, unit string, cause error) error {
	if _, err := s.forbid([]string{unit}); err != nil {
		return errors.Join(cause, err)
	}
	left, err := s.left(ctx, l, unit)
	switch {
	case err != nil || left != "":
		return cause
	case errors.Is(cause, errDenied):
		return sdk.Refuse(cause)
	}
	return sdk.Unchanged(cause)
}

// settled returns once the units have stayed active for long enough, those that
// do not tell by themselves when they are ready.
func (s *systemd) settled(ctx context.Context, l *link, started []startedUnit) error {
	rest := time.NewTimer(s.Settle)
	defer rest.Stop()
	simple := slices.ContainsFunc(started, func(u startedUnit) bool {
		return u.Kind == "simple" || u.Kind == "exec" || u.Kind == "idle"
	})
	for over := !simple; ; {
		news, _ := s.bus.listen()
		for _, u := range started {
			v, err := l.look(ctx, u.name)
			if err != nil {
				return err
			}
			if !v.active() || v.empty() || !bytes.Equal(v.Invocation, u.Invocation) {
				return fmt.Errorf("start %s: it did not stay active: %s; see journalctl -u %s", u.name, v.how(), u.name)
			}
		}
		if over {
			return nil
		}
		select {
		case <-news:
		case <-rest.C:
			over = true
		case <-ctx.Done():
			return fmt.Errorf("start %s: %w", s, context.Cause(ctx))
		}
	}
}

// Demote takes leave from the units, so that nothing starts them any more, and
// stops them: in reverse order if there is time, else all at once.
func (s *systemd) Demote(ctx context.Context, t *sdk.Transition) error {
	units := append(s.names(), s.leftover()...)
	slices.Reverse(units)
	had, forbidden := s.forbid(units)
	stop := s.stopAll
	if t.Mode == sdk.Forced {
		stop = s.stopAtOnce
	}
	did, err := stop(ctx, units, s.patience(t))
	switch err = errors.Join(forbidden, err); {
	case err != nil:
		return err
	case len(did) == 0 && !had:
		return fmt.Errorf("%s: %w", notHere(units), sdk.ErrAlready)
	case len(did) == 0:
		sdk.Note(ctx, "%s", notHere(units))
		return nil
	}
	sdk.Note(ctx, "stopped %s", strings.Join(did, ", "))
	return nil
}

func notHere(units []string) string {
	if len(units) == 1 {
		return units[0] + " does not run"
	}
	return "none of " + strings.Join(units, ", ") + " runs"
}

// patience is when what still runs is killed.
func (s *systemd) patience(t *sdk.Transition) time.Time {
	now := time.Now()
	switch {
	case t.Mode == sdk.Forced && (s.Forced == "kill" || t.LeaseUntil <= sdk.Now()): // nothing protects what still runs
		return now
	case t.Mode == sdk.Forced:
		return now.Add(t.Timeout / 2)
	case s.StopTimeout > 0:
		return now.Add(min(s.StopTimeout, t.Timeout*3/4))
	}
	return now.Add(t.Timeout * 3 / 4)
}

// stopAll stops units one after the other, and returns those that it had to
// stop. One that does not stop keeps those before it running.
func (s *systemd) stopAll(ctx context.Context, units []string, kill time.Time) (did []string, err error) {
	for _, unit := range units {
		stopped, err := s.stop(ctx, unit, kill)
		if stopped {
			did = append(did, unit)
		}
		if err != nil {
			return did, err
		}
	}
	return did, nil
}

// stopAtOnce stops units at the same time.
func (s *systemd) stopAtOnce(ctx context.Context, units []string, kill time.Time) (did []string, err error) {
	type result struct {
		stopped bool
		err     error
	}
	results := make([]result, len(units))
	killing, enough := context.WithCancelCause(ctx)
	var kills sync.WaitGroup
	kills.Go(func() { s.killByHand(killing, units, kill) })
	defer kills.Wait()
	defer enough(errors.New("they are stopped"))
	var all sync.WaitGroup
	for i, unit := range units {
		all.Go(func() { results[i].stopped, results[i].err = s.stop(ctx, unit, kill) })
	}
	all.Wait()
	var wrong []error
	for i, r := range results {
		if r.stopped {
			did = append(did, units[i])
		}
		wrong = append(wrong, r.err)
	}
	return did, errors.Join(wrong...)
}

// How long one waits before one looks or kills again, at first and at most:
// what SIGKILL does not end sleeps in the kernel, and PID 1 has other work.
const (
	again    = 20 * time.Millisecond
	mostAway = 320 * time.Millisecond
)

// stop returns once a unit is stopped for sure. It tries until ctx ends: what
// fails once, as while dbus-daemon restarts, may work the next time.
func (s *systemd) stop(ctx context.Context, unit string, kill time.Time) (did bool, err error) {
	var why error
	for {
		l, err := s.bus.link(ctx)
		if err == nil {
			var left string
			if left, err = s.left(ctx, l, unit); err == nil && left == "" {
				return did, nil
			}
			if err == nil {
				did, why = true, errors.New(left)
				left, err = s.stopOnce(ctx, l, unit, kill)
				if left != "" {
					why = errors.New(left)
				}
			}
		}
		if err != nil && (why == nil || ctx.Err() == nil) {
			why = err
		}
		if ctx.Err() != nil {
			return did, fmt.Errorf("stop %s: %w: %w", unit, context.Cause(ctx), why)
		}
		if errors.Is(err, errDenied) {
			return did, fmt.Errorf("stop %s: %w", unit, err)
		}
		if err != nil {
			sleep(ctx, again)
		}
	}
}

// stopOnce has systemd stop a unit, and kills what is left after that, or when
// it is time to. It returns what there still was of the unit when it was seen
// last.
func (s *systemd) stopOnce(ctx context.Context, l *link, unit string, kill time.Time) (left string, err error) {
	sdk.Progress(ctx, -1, "stopping %s", unit)
	ctx, cancel := context.WithCancelCause(ctx)
	var job sync.WaitGroup
	defer job.Wait()
	defer cancel(errors.New("it is stopped"))
	ended := make(chan error, 1)
	job.Go(func() {
		_, err := l.run(ctx, "StopUnit", unit)
		ended <- err
	})
	due := time.NewTimer(time.Until(kill))
	defer due.Stop()
	for wait := again; ; {
		over := false
		select {
		case err := <-ended:
			if err != nil {
				return left, err
			}
			over = true // whatever the job came to: what counts is what is left
		case <-due.C:
			if err := l.kill(ctx, unit, int32(unix.SIGKILL)); err != nil {
				return left, err
			}
			if wait == again {
				s.log.Info("unit killed", "unit", unit, "cause", reasonToKill(left, kill))
			}
			due.Reset(wait)
			wait = min(2*wait, mostAway)
		case <-ctx.Done():
			return left, context.Cause(ctx)
		}
		if left, err = s.left(ctx, l, unit); err != nil || left == "" {
			return "", err
		}
		if over && time.Now().Before(kill) { // systemd has done what it does
			due.Reset(0)
		}
	}
}

// reasonToKill says why a unit is killed.
func reasonToKill(left string, due time.Time) string {
	if time.Now().Before(due) {
		return "systemd has stopped it, and " + left
	}
	return "its time to stop is over"
}

// left tells what there still is of a unit; nothing once it is stopped for
// sure.
func (s *systemd) left(ctx context.Context, l *link, unit string) (string, error) {
	v, err := l.see(ctx, unit)
	if err != nil {
		return "", err
	}
	return s.leftOf(unit, &v)
}

// leftOf is left for what was seen.
func (s *systemd) leftOf(unit string, v *view) (string, error) {
	group := v.Group
	if group == "" {
		group = groupOf(v.Slice, unit)
	}
	pids, err := processes(s.place.cgroups, group)
	switch {
	case err != nil:
		return "", err
	case len(pids) > 0:
		return fmt.Sprintf("it is %s and has processes: %s", v.how(), strings.Join(pids, ", ")), nil
	case !v.off():
		return "it is " + v.how(), nil
	}
	return "", nil
}

// String lists the units.
func (s *systemd) String() string { return strings.Join(s.names(), ", ") }

// sleep waits, unless ctx ends meanwhile.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
