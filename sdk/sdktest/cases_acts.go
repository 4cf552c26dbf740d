package sdktest

import (
	"context"
	"errors"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

func actCases() []Case {
	return []Case{
		{
			"demote-first", "A demote succeeds in a process that has promoted nothing, whatever was before: it is called at every start.",
			"Look at the world, not at what this process has done: demote what acts as primary, and succeed where nothing does.",
			caseDemoteFirst,
		},
		{
			"promote", "A promote returns when the part really serves as primary, a demote when it really does not.",
			"Look before returning: what was asked for is not yet so.",
			casePromote,
		},
		{
			"promote-twice", "A promote is repeatable.",
			"Look first: where the part is primary already, change nothing and answer already (sdk.ErrAlready, exit code 10).",
			casePromoteTwice,
		},
		{
			"demote-twice", "A demote is repeatable.",
			"Look first: where the part is no primary, change nothing and answer already (sdk.ErrAlready, exit code 10).",
			caseDemoteTwice,
		},
		{
			"describe", "Describe is answered before Configure, is always the same, and changes nothing.",
			"Answer it from constants: what looks at the machine belongs to Configure, what changes it to the acts.",
			caseDescribe,
		},
		{
			"leaves-nothing", "Ended after a tenure, or in the middle of an act, it leaves neither a process nor a socket once it is demoted.",
			"Wait for what an act starts, and end all of it when the act ends or is cut short, as sdk.Command does.",
			caseLeavesNothing,
		},
		{
			"adopt", "What was promoted stays when its process ends, and a fresh one answers a promote of the same term with already: so a supervisor that comes back keeps the role.",
			"Undo nothing when the process ends, and have a promote look first: already (sdk.ErrAlready, exit code 10) says that nothing had to be done.",
			caseAdopt,
		},
		{
			"repeat", "The same transition may be asked again.",
			"Keep no list of what was asked: look at the world each time.",
			caseRepeat,
		},
		{
			"repeat-at-once", "The same transition asked twice at once is one.",
			"Do one act at a time; one with the id of another that runs waits for that one's result, as package sdk has it.",
			caseRepeatAtOnce,
		},
		{
			"stale-term", "A term older than one that was seen is refused as stale, and nothing is changed; a demote is never refused for its term.",
			"Keep the highest term that any call has told, Configure's too, and refuse older ones before anything is done, as package sdk does.",
			caseStaleTerm,
		},
		{
			"supersede", "A planned demote interrupts a running promote, and waits for it to end.",
			"When a demote comes, end the promote that runs, wait until it is over, and only then demote.",
			caseSupersede,
		},
		{
			"cancel", "An act that is cancelled ends within a second, and a demote works afterwards.",
			"Pass the act's context to all that it waits for, and leave nothing running that could promote later.",
			caseCancel,
		},
		{
			"deadline", "An act is over at its deadline, or within a second of it, and tells no more than it saw.",
			"Bound each step by what is left of the act's time; where the end was not seen, answer unknown, which a plain error is.",
			caseDeadline,
		},
		{
			"forced", "A forced demote keeps the bound that the plugin names, and is repeatable.",
			"When forced, stop acting as primary by any means and leave tidying for later; name as the bound (sdk.ForcedBound, forced_bound) what was measured, with room.",
			caseForced,
		},
	}
}

func caseDemoteFirst(x *exam) {
	x.needs(sdk.CanDemote)
	p := x.open()
	x.demoted(p, 0) // no term is known to a first supervisor
	p.close()
	if !x.can(sdk.CanPromote) {
		return
	}
	// Its own process may be gone, and the part still be primary.
	p = x.open()
	t := x.nextTerm()
	if r := p.promote(t); !r.Outcome.OK() {
		x.note("not tried on a part that is primary: it could not be promoted")
		return
	}
	p.kill()
	p = x.open()
	x.demoted(p, t)
	p.close()
}

func casePromote(x *exam) {
	x.needs(sdk.CanPromote)
	p := x.ready()
	x.world(false)
	t := x.nextTerm()
	began := time.Now()
	if r := p.promote(t); !r.Outcome.OK() {
		x.fail("it could not be promoted: %v", r.Err())
	}
	took := time.Since(began)
	x.world(true)
	began = time.Now()
	x.demoted(p, t)
	x.note("promoted in %s, demoted in %s", short(took), short(time.Since(began)))
	if x.config.Promoted == nil {
		x.note("nobody looked at the world")
	}
	p.close()
}

func casePromoteTwice(x *exam) {
	x.needs(sdk.CanPromote)
	p := x.ready()
	t := x.promoted(p)
	for range 2 {
		if r := p.promote(t); !r.Outcome.OK() {
			x.fail("promoted again, it failed: %v", r.Err())
		}
		x.world(true)
	}
	x.demoted(p, t)
	if r := p.promote(t); !r.Outcome.OK() { // an undone hand-over
		x.fail("promoted again after a demote, it failed: %v", r.Err())
	}
	x.world(true)
	x.demoted(p, t)
	p.close()
}

func caseDemoteTwice(x *exam) {
	x.needs(sdk.CanDemote)
	p := x.ready()
	t := x.suite.term
	if x.can(sdk.CanPromote) {
		t = x.promoted(p)
		x.demoted(p, t)
	}
	for range 2 {
		if r := p.demote(t); !r.Outcome.OK() {
			x.fail("demoted again, it failed: %v", r.Err())
		}
		x.world(false)
	}
	p.close()
}

func caseAdopt(x *exam) {
	x.needs(sdk.CanPromote)
	p := x.ready()
	t := x.promoted(p)
	for _, end := range []func(*guest){(*guest).close, (*guest).kill} {
		end(p)
		x.worldAfter("adopt", true)
		p = x.openAt(t)
		x.adopts(p, t)
	}
	ctx, cancel := context.WithTimeout(x.ctx, askBound)
	defer cancel()
	if err := x.configure(ctx, p, t); err != nil {
		x.fail("it did not take the same settings again: %v", err)
	}
	x.world(true)
	if r := p.promote(t); r.Outcome != sdk.OutcomeAlready {
		x.fail("after the same settings again, a promote of the same term was answered with %s", tell(r))
	}
	x.demoted(p, t)
	p.close()
}

func caseRepeat(x *exam) {
	x.needs(sdk.CanDemote)
	p := x.ready()
	actions := []sdk.Action{sdk.Demote}
	if x.can(sdk.CanPromote) {
		actions = []sdk.Action{sdk.Promote, sdk.Demote}
	}
	term := x.nextTerm()
	for _, a := range actions {
		t := x.transition(a, term)
		for t.Attempt = 1; t.Attempt <= 3; t.Attempt++ {
			if r := p.do(t); !r.Outcome.OK() {
				x.lacksFirst(a, t.Attempt, "attempt %d of one %s failed: %v", t.Attempt, a, r.Err())
			}
			x.world(a == sdk.Promote)
		}
	}
	p.close()
}

// lacksFirst is lacks for what may be asked again: the first time is another
// case's.
func (x *exam) lacksFirst(a sdk.Action, attempt int, format string, args ...any) {
	other := string(a) + "-twice"
	if attempt == 1 && a == sdk.Promote {
		other = "promote"
	}
	x.lacks(other, format, args...)
}

func caseRepeatAtOnce(x *exam) {
	x.needs(sdk.CanPromote)
	p := x.ready()
	x.needsProcess(p, "its host has it do one thing at a time")
	term := x.nextTerm()
	for _, a := range []sdk.Action{sdk.Promote, sdk.Demote} {
		t := x.transition(a, term)
		first, second := p.doing(x.ctx, t), p.doing(x.ctx, t)
		one, two := first(), second()
		switch {
		case !one.Outcome.OK() && !two.Outcome.OK():
			x.lacksFirst(a, 1, "one %s asked twice at once failed both times: %v, and %v", a, one.Err(), two.Err())
		case one.Outcome == sdk.OutcomeUnknown, two.Outcome == sdk.OutcomeUnknown:
			x.fail("one %s asked twice at once: %s, and %s", a, tell(one), tell(two))
		}
		x.world(a == sdk.Promote)
	}
	p.close()
}

func caseStaleTerm(x *exam) {
	x.needs(sdk.CanPromote)
	p := x.ready()
	x.needsProcess(p, "none remembers a term; its host asks for none that is stale")
	term := x.promoted(p)
	x.demoted(p, term)
	stale := func(a sdk.Action, t, seen sdk.Term) {
		r := p.do(x.transition(a, t))
		if r.Outcome != sdk.OutcomeStaleTerm {
			x.fail("a %s of term %d was answered with %s, though term %d was seen", a, t, tell(r), seen)
		}
	}
	stale(sdk.Promote, term-1, term)
	x.world(false)
	if x.can(sdk.CanFollow) {
		stale(sdk.Follow, term-1, term)
	}
	if r := p.promote(term); !r.Outcome.OK() {
		x.fail("a promote of the highest term failed: %v", r.Err())
	}
	stale(sdk.Promote, term-1, term)
	x.world(true)
	x.demoted(p, term-1)
	// The host knows of a term that this process has not seen.
	x.nextTerm()
	term = x.nextTerm()
	p.close()
	p = x.openAt(term)
	stale(sdk.Promote, term-1, term)
	x.world(false)
	// So does who asks for a demote, or for a check.
	term = x.nextTerm()
	x.demoted(p, term)
	stale(sdk.Promote, term-1, term)
	if x.can(sdk.CanCheck) {
		term = x.nextTerm()
		p.check(sdk.RoleStandby, term)
		stale(sdk.Promote, term-1, term)
	}
	x.world(false)
	p.close()
}

func caseSupersede(x *exam) {
	x.needs(sdk.CanPromote)
	const over = "a promote went on when a demote was asked: demoted"
	var end span
	for after := range end.again(x.middles(sdk.Promote)) {
		p := x.ready()
		x.needsProcess(p, "its host ends a promote before it asks for a demote")
		term := x.nextTerm()
		promote := p.begun(x.transition(sdk.Promote, term))
		x.pause(after)
		began := time.Now()
		r := p.demote(term)
		took := time.Since(began)
		if !r.Outcome.OK() {
			x.fail("a demote asked %s after a promote failed: %v", short(after), r.Err())
		}
		x.world(false)
		x.took(&end, promote().Outcome.OK(), took, endBound+x.longest, over)
		x.staysDemoted(p, term)
		p.close()
	}
	x.kept(&end, endBound+x.longest, over)
	x.note("demoted after %s at most", short(end.worst))
}

func caseCancel(x *exam) {
	x.needs(sdk.CanPromote)
	const over = "an act went on when it was cancelled: demoted"
	var worst time.Duration
	for _, a := range []sdk.Action{sdk.Promote, sdk.Demote} {
		var end span
		for after := range end.again(x.middles(a)) {
			p := x.ready()
			term := x.nextTerm()
			if a == sdk.Demote {
				term = x.promoted(p)
			}
			ctx, cancel := context.WithCancelCause(x.ctx)
			defer cancel(nil)
			act := p.begunBy(ctx, x.transition(a, term))
			x.pause(after)
			x.did.add("cancel it")
			began := time.Now()
			cancel(errors.New("cancelled"))
			done := act().Outcome.OK()
			r := p.demote(term)
			took := time.Since(began)
			if !r.Outcome.OK() {
				x.fail("a demote after a %s that was cancelled failed: %v", a, r.Err())
			}
			x.took(&end, done, took, endBound+x.longest, over)
			x.world(false)
			x.staysDemoted(p, term)
			p.close()
		}
		x.kept(&end, endBound+x.longest, over)
		worst = max(worst, end.worst)
	}
	x.note("demoted %s at most after the cancellation", short(worst))
}

func caseDeadline(x *exam) {
	x.needs(sdk.CanPromote)
	const over = "an act went on at its deadline: it ended"
	x.middles(sdk.Promote) // so that they are known before a process waits
	p := x.ready()
	for _, a := range []sdk.Action{sdk.Promote, sdk.Demote} {
		var end span
		for timeout := range end.again(x.middles(a)) {
			term := x.nextTerm()
			if a == sdk.Demote {
				term = x.promoted(p)
			}
			t := x.transition(a, term)
			t.Timeout = max(timeout, time.Millisecond)
			began := time.Now()
			r := p.do(t)
			x.took(&end, r.Outcome.OK(), time.Since(began)-t.Timeout, endBound, over)
			switch {
			case r.Outcome.OK():
				x.world(a == sdk.Promote)
			case r.Outcome == sdk.OutcomeUnchanged:
				x.world(a == sdk.Demote)
			}
			x.demoted(p, term)
			x.staysDemoted(p, term)
		}
		x.kept(&end, endBound, over)
	}
	p.close()
}

// forced is a demote when the lease is lost.
func (x *exam) forced(t sdk.Term) sdk.Transition {
	act := x.transition(sdk.Demote, t)
	act.Mode, act.Reason, act.LeaseUntil = sdk.Forced, sdk.ReasonLost, 0
	return act
}

func caseForced(x *exam) {
	x.needs(sdk.CanDemote)
	best := time.Duration(-1)
	for range 3 { // the machine may be busy; the bound is the plugin's
		p := x.ready()
		term := x.suite.term
		if x.can(sdk.CanPromote) {
			term = x.promoted(p)
		}
		began := time.Now()
		r := p.do(x.forced(term))
		if took := time.Since(began); best < 0 || took < best {
			best = took
		}
		if !r.Outcome.OK() {
			x.fail("a forced demote failed: %v", r.Err())
		}
		x.world(false)
		if r := p.do(x.forced(term)); !r.Outcome.OK() {
			x.lacks("demote-twice", "a forced demote failed when it was asked again: %v", r.Err())
		}
		x.demoted(p, term) // what it left for later
		p.close()
	}
	switch bound := x.about.ForcedBound; {
	case bound == 0:
		x.note("took %s; it names no bound", short(best))
	case best > bound:
		x.fail("it names %s as the bound of a forced demote, and took %s at best", bound, short(best))
	default:
		x.note("took %s at best; its bound is %s", short(best), bound)
	}
}
