package sdktest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

func faultCases() []Case {
	return []Case{
		{
			"kill-promote", "Killed by SIGKILL in the middle of a promote, a fresh process demotes.",
			"Have a demote undo each step of a promote, whether it was done, half done or not; a lock of a dead process is nobody's.",
			func(x *exam) { x.killed(sdk.Promote) },
		},
		{
			"kill-demote", "Killed by SIGKILL in the middle of a demote, a fresh process demotes.",
			"Have a demote go on wherever another one was killed; a lock of a dead process is nobody's.",
			func(x *exam) { x.killed(sdk.Demote) },
		},
		{
			"freeze-act", "A process that is frozen in an act is seen to be by the heartbeats that stay away; killed, a fresh one demotes.",
			"Send heartbeats as often as the call asks for them, from the process that does the work, as package sdk does.",
			caseFreezeAct,
		},
		{
			"freeze-idle", "A process that is frozen while idle is seen to be by an unanswered ping; killed, a fresh one demotes.",
			"Let the process that does the work answer on the socket itself, not one in front of it.",
			caseFreezeIdle,
		},
		{
			"host-death", "A plugin whose host dies ends within a second, in an act or idle; what it promoted stays.",
			"End when standard input does, which is the host's death, with what an act has started, as package sdk does.",
			caseHostDeath,
		},
		{
			"sigterm", "SIGTERM, SIGINT and SIGHUP do not end it while its host lives: they reach a whole control group before it could demote.",
			"Ignore them, as package sdk does: the host says when to end.",
			caseSignals,
		},
	}
}

func (x *exam) killed(a sdk.Action) {
	x.needs(sdk.CanPromote)
	middles := x.middles(a)
	for i, after := range append(middles, middles[0]) {
		p := x.ready()
		term := x.nextTerm()
		if a == sdk.Demote {
			term = x.promoted(p)
		}
		act := p.begun(x.transition(a, term))
		x.pause(after)
		p.kill()
		act()
		p = x.openAt(term)
		if i == len(middles) { // the lease may be lost just then
			if r := p.do(x.forced(term)); !r.Outcome.OK() {
				x.fail("it could not be demoted when forced: %v", r.Err())
			}
			x.world(false)
		} else {
			x.demoted(p, term)
		}
		x.staysDemoted(p, term)
		p.close()
	}
}

// beat is how often the examined is asked for a heartbeat, and stall how long
// none may come before it counts as frozen.
const (
	beat  = 20 * time.Millisecond
	stall = 15 * beat
)

func caseFreezeAct(x *exam) {
	x.needs(sdk.CanPromote)
	x.needsProcess(x.start(), "a frozen one is killed at its deadline")
	middles := x.middles(sdk.Promote)
	if !x.about.Heartbeats {
		x.skip("it sends no heartbeats: a slow act cannot be told from a frozen one")
	}
	// First that there are any: a slow act is not taken for a frozen one.
	p := x.ready()
	var beats atomic.Int64
	term := x.nextTerm()
	began := time.Now()
	x.did.add("ask for a heartbeat each %s in what follows", beat)
	r := p.doingHeard(x.ctx, x.transition(sdk.Promote, term), beat, func(string) { beats.Add(1) })()
	took := time.Since(began)
	switch {
	case !r.Outcome.OK():
		x.lacks("promote", "it could not be promoted: %v", r.Err())
	case took > 10*beat && beats.Load() < 2:
		x.fail("in an act of %s it sent %d heartbeats: it would be killed as frozen", short(took), beats.Load())
	case took > 10*beat:
		x.note("%d heartbeats in an act of %s", beats.Load(), short(took))
	default:
		x.note("its promote takes %s: too short for a heartbeat", short(took))
	}
	x.demoted(p, term)

	// Now frozen. The host sees nothing but silence.
	term = x.nextTerm()
	ctx, cancel := context.WithCancelCause(x.ctx)
	defer cancel(nil)
	var last atomic.Int64
	sign := func(string) { last.Store(time.Now().UnixNano()) }
	begin := func() func() sdk.Result {
		return p.doingHeard(ctx, x.transition(sdk.Promote, term), beat, sign)
	}
	if x.enter < 10*beat { // too quick to be caught in the middle
		x.signal(p, syscall.SIGSTOP)
		begin()
	} else {
		begin()
		x.pause(middles[0])
		x.signal(p, syscall.SIGSTOP)
	}
	stopped := time.Now()
	x.pause(stall)
	if at := time.Unix(0, last.Load()); at.After(stopped.Add(stall / 2)) {
		x.fail("it gave a sign of life %s after it was stopped: what beats is not what works", short(at.Sub(stopped)))
	}
	cancel(errors.New("frozen"))
	p.kill()
	p = x.openAt(term)
	x.demoted(p, term)
	x.staysDemoted(p, term)
	p.close()
}

func caseFreezeIdle(x *exam) {
	p := x.ready()
	x.needsProcess(p, "none is idle")
	if err := x.ping(p, askBound); err != nil {
		x.fail("it did not answer a ping: %v", err)
	}
	term := x.suite.term
	if x.can(sdk.CanPromote) {
		term = x.promoted(p)
	}
	x.signal(p, syscall.SIGSTOP)
	if err := x.ping(p, stall); err == nil {
		x.fail("it answered a ping though it was stopped: what answers is not what works")
	}
	p.kill()
	if x.can(sdk.CanDemote) {
		p = x.openAt(term)
		x.demoted(p, term)
		p.close()
	}
}

// signal sends a signal to all of the plugin's processes.
func (x *exam) signal(p *guest, s syscall.Signal) {
	for _, pid := range p.PIDs() {
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			x.fail("send %s to process %d: %v", signalName(s), pid, err)
		}
	}
	x.did.add("send it %s", signalName(s))
	if s != syscall.SIGSTOP {
		return
	}
	// A thread on another processor runs on for a moment.
	for end := time.Now().Add(askBound); !stopped(p.PIDs()); x.pause(time.Millisecond) {
		if time.Now().After(end) {
			x.fail("it was not stopped %s after SIGSTOP", askBound)
		}
	}
}

func signalName(s syscall.Signal) string {
	switch s {
	case syscall.SIGTERM:
		return "SIGTERM"
	case syscall.SIGINT:
		return "SIGINT"
	case syscall.SIGHUP:
		return "SIGHUP"
	case syscall.SIGSTOP:
		return "SIGSTOP"
	}
	return s.String()
}

func caseHostDeath(x *exam) {
	const lives = "it lives on when its host has died: gone"
	var idle, acting span
	orphan := func(p *guest, t sdk.Transition, after time.Duration) {
		ctx, cancel := context.WithTimeout(x.ctx, askBound+after)
		defer cancel()
		x.did.add("its host dies %s", dies(t, after))
		doomed, err := p.Orphan(ctx, t, after)
		died := time.Now()
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			x.skip("its host cannot die alone: %v", err)
		case err != nil:
			x.fail("its host could not be killed: %v", err)
		}
		for len(living(doomed)) > 0 {
			if since := time.Since(died); since > endBound+slack {
				x.fail("%s after its host died these live: %s", short(since), processNames(living(doomed)))
			}
			x.pause(time.Millisecond)
		}
		end := &acting
		if t.Action == "" {
			end = &idle
		}
		x.took(end, false, time.Since(died), endBound, lives)
	}
	p := x.open()
	if len(p.PIDs()) > 0 {
		orphan(p, sdk.Transition{}, 0)
	}
	if x.can(sdk.CanPromote) {
		for _, after := range x.middles(sdk.Promote) {
			p := x.ready()
			term := x.nextTerm()
			orphan(p, x.transition(sdk.Promote, term), after)
			p = x.openAt(term)
			x.demoted(p, term)
			x.staysDemoted(p, term)
			p.close()
		}
		// What is promoted is not the plugin.
		p := x.ready()
		term := x.promoted(p)
		if len(p.PIDs()) > 0 {
			orphan(p, sdk.Transition{}, 0)
			x.worldAfter("adopt", true)
			p = x.openAt(term)
			x.adopts(p, term)
		}
		x.demoted(p, term)
		p.close()
	}
	x.kept(&idle, endBound, lives)
	x.kept(&acting, endBound, lives)
	x.note("gone %s at most after its host", short(max(idle.worst, acting.worst)))
}

// dies is when a host dies, for people.
func dies(t sdk.Transition, after time.Duration) string {
	if t.Action == "" {
		return "while it is idle"
	}
	return fmt.Sprintf("%s after this began: %s", short(after), what(t))
}

func caseSignals(x *exam) {
	p := x.open()
	x.needsProcess(p, "none waits between calls")
	signals := []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP}
	survives := func(s syscall.Signal) {
		for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); x.pause(5 * time.Millisecond) {
			if err := x.ping(p, askBound); err != nil {
				x.fail("it did not answer a ping after %s: %v", signalName(s), err)
			}
		}
	}
	for _, s := range signals {
		x.signal(p, s)
		survives(s)
	}
	if !x.can(sdk.CanPromote) {
		return
	}
	p.close()
	p = x.ready()
	term := x.promoted(p)
	for _, s := range signals {
		x.signal(p, s)
	}
	survives(syscall.SIGTERM)
	x.world(true)
	x.demoted(p, term)
	p.close()
}
