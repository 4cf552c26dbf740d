package sdktest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// transition returns an act; its attempts share the ID.
func (s *Supervisor) transition(a sdk.Action, term sdk.Term, reason sdk.Reason, cause error) sdk.Transition {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acts++
	own := s.service.Node
	t := sdk.Transition{
		ID:     fmt.Sprintf("%s-%d-%d-%s-%s", own.Node, term, s.acts, a, s.about.Name),
		Action: a, Mode: sdk.Planned, Service: s.service.Name, Node: own.Node, Term: term,
		Reason: reason, Cause: cause.Error(), Attempt: 1, Previous: s.last.Peer, Primary: s.primary,
		Members: append([]sdk.Peer{own}, s.service.Others...), StateDir: s.service.StateDir,
	}
	if a == sdk.Promote {
		t.Primary = own
	}
	return t
}

// do has one attempt of an act done. Once cut or abort is closed it is given up:
// by cut it is told to end, and its process with it; by abort its end is left to
// whoever closed that.
func (s *Supervisor) do(t sdk.Transition, cut, abort <-chan struct{}) sdk.Result {
	process := s.living(cut, abort)
	s.mu.Lock()
	s.seen = max(s.seen, t.Term)
	s.mu.Unlock()
	r := s.record(Call{What: sdk.Capability(t.Action), Act: t})
	result := sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: "not started: " + errGone.Error()}
	if process != nil {
		result = s.ask(process, t, r, cut, abort)
	}
	s.finish(r, func(c *Call) { c.Result = result })
	return result
}

func (s *Supervisor) ask(process *inside, t sdk.Transition, r *record, cut, abort <-chan struct{}) sdk.Result {
	ctx, hang := context.WithCancelCause(context.Background())
	defer hang(errors.New("the act is over"))
	type answer struct {
		result sdk.Result
		err    error
	}
	answers := make(chan answer, 1)
	go func() { // until hang, at the latest
		result, err := process.Do(ctx, t, time.Second, func(said string) {
			if said != "" {
				s.finish(r, func(c *Call) { c.Progress = append(c.Progress, said) })
			}
		})
		answers <- answer{result, err}
	}()
	// A planned act knows of its deadline, and may be about to tell; a forced one
	// counts if it has ended at the very instant.
	patience := t.Timeout + late
	if t.Mode == sdk.Forced {
		patience = t.Timeout + 1
	}
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	unknown := func(why string) sdk.Result { return sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: why} }
	var why error
	select {
	case a := <-answers:
		switch {
		case a.err == nil:
			return a.result
		case errors.Is(a.err, errors.ErrUnsupported):
			return sdk.Result{Outcome: sdk.OutcomeUnchanged, Refused: true, Detail: a.err.Error()}
		case closed(process.dead):
			return unknown("cut short: its process was killed")
		}
		return unknown(a.err.Error())
	case <-process.dead:
		return unknown("cut short: its process was killed")
	case <-abort:
		process.givenUp.Store(true)
		return unknown("cut short: the lease is lost")
	case <-deadline.C:
		why = errors.New("its time is over")
	case <-cut:
		why = errors.New("the supervisor stops")
	}
	if t.Mode != sdk.Forced {
		s.drain(process)
	}
	s.respawn(process, fmt.Errorf("cut short: %w", why))
	result := unknown("cut short: " + why.Error())
	select {
	case a := <-answers:
		if a.err == nil && a.result.Detail != "" {
			result.Detail += ": " + a.result.Detail
		}
	default:
	}
	return result
}

// try has an act done under a lease, with its retries. It ends early when the
// lease does, or the supervisor stops.
func (s *Supervisor) try(l *lease, t sdk.Transition, p Policy) sdk.Result {
	for {
		s.mu.Lock()
		t.Timeout, t.LeaseUntil = p.Timeout, l.until
		s.mu.Unlock()
		cut := s.stopping
		if t.Action == sdk.Demote {
			cut = nil
		}
		r := s.do(t, cut, l.lost)
		if r.Outcome.OK() || r.Refused || r.Outcome == sdk.OutcomeStaleTerm || t.Attempt > p.Retries || l.done() || cut != nil && closed(cut) {
			return r
		}
		pause(max(r.RetryAfter, backoff(t.Attempt)), l.lost, l.over, cut)
		if l.done() || cut != nil && closed(cut) {
			return r
		}
		t.Attempt++
	}
}

// done reports whether nothing more is to be begun under a lease.
func (l *lease) done() bool { return closed(l.lost) || closed(l.over) }

// backoff is the least time between one attempt and the next.
func backoff(attempt int) time.Duration {
	return min(50*time.Millisecond<<min(attempt-1, 5), time.Second)
}

func pause(d time.Duration, a, b, c <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a:
	case <-b:
	case <-c:
	}
}

// nothing is what an act comes to that the plugin is not called for.
func nothing() sdk.Result {
	return sdk.Result{Outcome: sdk.OutcomeAlready, Detail: "there is nothing to be done"}
}

// act notes whether the part may act as primary.
func (s *Supervisor) act(is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acting = is
}

func (s *Supervisor) isActing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acting
}

// promoting promotes under a lease, and becomes primary or leaves the role again.
func (s *Supervisor) promoting(l *lease, reason sdk.Reason, cause error) sdk.Result {
	r := s.promote(l, reason, cause)
	switch {
	case l.done() || closed(s.stopping):
		return r // whoever ended it goes on
	case !r.Outcome.OK():
		s.demoting(l, sdk.ReasonUnfit, fmt.Errorf("promote %s: %w", s.about.Name, r.Err()))
		return r
	}
	s.primaryNow(l, cause)
	return r
}

func (s *Supervisor) promote(l *lease, reason sdk.Reason, cause error) sdk.Result {
	if !s.can(sdk.CanPromote) {
		return nothing()
	}
	s.act(true)
	return s.try(l, s.transition(sdk.Promote, l.term, reason, cause), s.service.Promote)
}

func (s *Supervisor) primaryNow(l *lease, cause error) {
	s.become(sdk.RolePrimary, cause)
	if s.service.Check.Interval > 0 && s.can(sdk.CanCheck) {
		s.tasks.Go(func() { s.checks(l) })
	}
}

// demoting demotes, by force where it must, and only then gives the lease back. A
// switchover that cannot finish is undone. What cannot be demoted blocks the role
// or, with the lease lost, has failed. The result is that of the last demote.
func (s *Supervisor) demoting(l *lease, reason sdk.Reason, cause error) (r sdk.Result) {
	defer func() { l.result = r }()
	s.become(sdk.RoleDemoting, cause)
	if r = nothing(); !closed(l.lost) {
		if r = s.leave(l, reason, cause); closed(l.over) {
			return r
		}
		if !r.Outcome.OK() && reason == sdk.ReasonSwitchover && !closed(l.lost) {
			undo := fmt.Errorf("demote %s: %w", s.about.Name, r.Err())
			s.mu.Lock()
			s.primary = sdk.Peer{}
			s.mu.Unlock()
			switch p := s.promote(l, sdk.ReasonUndo, undo); {
			case closed(l.over):
				return r
			case p.Outcome.OK() && !closed(l.lost):
				s.primaryNow(l, fmt.Errorf("%s undone: %w", reason, undo))
				return r
			default:
				if reason = sdk.ReasonUnfit; closed(l.lost) {
					reason = sdk.ReasonLost
				}
				cause = fmt.Errorf("%w; undo: promote %s: %w", undo, s.about.Name, p.Err())
			}
		}
	}
	if s.isActing() {
		if r = s.force(l, reason, cause); closed(l.over) {
			return r
		}
	}
	if !r.Outcome.OK() {
		if closed(l.lost) {
			s.resign(l, false)
			s.become(sdk.RoleFailed, r.Err())
		} else {
			s.become(sdk.RoleBlocked, r.Err()) // the lease is kept, so that nobody starts
		}
		return r
	}
	s.resign(l, !closed(l.lost))
	s.become(sdk.RoleStandby, cause)
	return r
}

// resign ends a tenure.
func (s *Supervisor) resign(l *lease, clean bool) {
	l.release()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == l {
		s.lease = nil
	}
	s.last = tenure{Peer: s.service.Node, term: l.term, resigned: clean}
}

// leave demotes with the time that it takes.
func (s *Supervisor) leave(l *lease, reason sdk.Reason, cause error) sdk.Result {
	if !s.isActing() {
		return nothing()
	}
	r := s.try(l, s.transition(sdk.Demote, l.term, reason, cause), s.service.Demote)
	if r.Outcome.OK() && !l.done() {
		s.act(false)
	}
	return r
}

// tries is how often a forced demotion is tried under a lease.
const tries = 3

// force demotes by any means: nothing of the past runs any more, and a plugin
// that is fresh where that took a kill says that it is demoted.
func (s *Supervisor) force(l *lease, reason sdk.Reason, cause error) sdk.Result {
	t := s.transition(sdk.Demote, l.term, reason, cause)
	t.Mode = sdk.Forced
	escalate := time.AfterFunc(s.trigger(l), func() { s.tell("not proven demoted in time: the watchdog ends the node's part in it") })
	defer escalate.Stop()
	for ; ; t.Attempt++ {
		s.mu.Lock()
		process := s.process
		s.mu.Unlock()
		if process != nil && process.givenUp.Load() {
			s.respawn(process, errors.New("it is demoted by force"))
		}
		s.mu.Lock()
		t.Timeout, t.LeaseUntil = s.service.Demote.Timeout, l.until
		s.mu.Unlock()
		abort := l.lost
		if closed(l.lost) { // each second counts, and only the end of the lease ends it
			t.Timeout, abort = max(t.LeaseUntil.Sub(s.Now()), s.timing.forced()), nil
		}
		r := s.do(t, nil, abort)
		if r.Outcome.OK() {
			s.act(false)
			return r
		}
		over := t.Attempt >= tries
		if closed(l.lost) {
			s.mu.Lock()
			over = over && s.Now() >= l.until
			s.mu.Unlock()
		}
		if over || closed(l.over) || closed(s.ended) {
			return r
		}
		pause(backoff(t.Attempt), l.over, s.ended, nil)
	}
}

// trigger is how long it is to s + 0.9 T; for a role that proved not ours, as
// long as a forced demotion may take; without a loss for ever.
func (s *Supervisor) trigger(l *lease) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !closed(l.lost):
		return 1<<63 - 1
	case l.until == 0:
		return s.timing.forced()
	}
	return l.until.Add(s.timing.trigger - s.timing.until).Sub(s.Now())
}

// takeDown demotes without a lease, as every start does: by force at once where
// that is urgent.
func (s *Supervisor) takeDown(reason sdk.Reason, cause error, urgent bool) sdk.Result {
	s.mu.Lock()
	none := &lease{term: s.last.term} // which is never lost, since it never was there
	s.mu.Unlock()
	s.act(s.can(sdk.CanDemote))
	r := nothing()
	if !urgent {
		r = s.leave(none, reason, cause)
	}
	if s.isActing() {
		if s.Role() == sdk.RoleStandby {
			s.become(sdk.RoleDemoting, cause)
		}
		r = s.force(none, reason, cause)
	}
	if !r.Outcome.OK() {
		s.become(sdk.RoleFailed, r.Err())
		return r
	}
	s.become(sdk.RoleStandby, cause)
	return r
}
