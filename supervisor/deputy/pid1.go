package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/systemd"
)

// A pid1 is systemd as this process is told by it and tells it. Outside of
// systemd there is a herald all the same, which says nothing.
type pid1 struct {
	unit    string // this process's own; empty outside of one
	watched bool   // what is frozen or dead here is killed and demoted behind
	herald  *systemd.Herald

	hush func() // ends the herald
}

// meetPID1 begins to tell systemd that this process lives.
func (e *engine) meetPID1() {
	n, err := systemd.NewNotifier(e.a.env)
	if err != nil {
		e.log.Warn("systemd not told", "cause", err)
	}
	h := systemd.NewHerald(n, systemd.Watched(e.a.env), e.clock, e.log)
	h.Leash, h.Status = e.leash, e.statusLine
	ctx, end := context.WithCancelCause(context.Background())
	var running sync.WaitGroup
	running.Go(func() { h.Run(ctx) })
	e.pid1 = pid1{
		unit: systemd.OwnUnit(), watched: systemd.Watched(e.a.env), herald: h,
		hush: sync.OnceFunc(func() {
			end(errEnded)
			running.Wait()
			if e.next.Load() != nil {
				h.Handover()
				return
			}
			h.Last(e.outcome())
		}),
	}
}

// lastWord tells systemd why a process ends that has an engine no more, or never
// had one.
func (a *app) lastWord(err error) {
	n, other := systemd.NewNotifier(a.env)
	if other != nil || n == nil {
		return
	}
	defer n.Close()
	systemd.NewHerald(n, false, nil, slog.New(slog.DiscardHandler)).Leave(err)
}

// escalator is the force that is outside of this process; nil where there is
// none.
func (e *engine) escalator(service string) supervisor.Escalator {
	if e.pid1.unit == "" && !e.pid1.watched {
		return nil
	}
	return &systemd.Escalator{
		Herald: e.pid1.herald, Bus: e.a.bus, Unit: systemd.Escalate(service), Log: e.log.With("service", service),
	}
}

// watch has a seat count for the leash of the process.
func (e *engine) watch(t *seat) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.watched = append(e.watched, t)
}

// count says that all seats are there.
func (e *engine) count() {
	e.counted.Store(true)
	e.pid1.herald.Poke()
}

// watchedSeats are the seats that there are by now.
func (e *engine) watchedSeats() []*seat {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.watched)
}

// leash is the shortest of all seats. Until there are all of them nothing is
// known of it, and no sign of life is sent: a program that takes over must not be
// given more time than the one before it had.
func (e *engine) leash() supervisor.Leash {
	var l supervisor.Leash
	if !e.counted.Load() {
		l.Until = 1
	}
	for _, t := range e.watchedSeats() {
		l = l.Shorter(t.leash())
	}
	return l
}

// leash is that of what an earlier process left until the member sees to it,
// then the member's, and in the end that of the role which is kept for the next
// process.
func (t *seat) leash() supervisor.Leash {
	timing := supervisor.NewTiming(t.ttl)
	if until := t.kept.Load(); until != 0 {
		return timing.Held(sdk.Instant(until))
	}
	if t.over.Load() {
		return supervisor.Leash{}
	}
	if t.member != nil {
		if l := t.member.Leash(); l != (supervisor.Leash{}) || t.member.Status().Role != sdk.RoleUnknown {
			return l
		}
	}
	return t.past.leash(timing)
}

// leash tells how long a process may be silent that has not yet seen to what is
// left.
func (l *leftover) leash(timing supervisor.Timing) supervisor.Leash {
	if l == nil {
		return supervisor.Leash{}
	}
	l.mu.Lock()
	due := l.due
	l.mu.Unlock()
	until := l.at.Add(timing.Until - timing.Lost)
	switch {
	case l.late: // nothing that could be kept any more
		return supervisor.Leash{Silence: timing.Watchdog}
	case due:
		return timing.Forcing(until)
	}
	return timing.Held(until)
}

// keepRole has the leash be that of the role which the member has kept, if it
// has.
func (t *seat) keepRole() {
	note, err := t.dir.Load()
	if err == nil && note.Keep && note.Tenure != nil {
		t.kept.Store(int64(note.Tenure.Until))
	}
}

// tellPID1 passes on what is new about a seat until ctx ends, and that the
// process is ready once all seats take part.
func (e *engine) tellPID1(ctx context.Context, t *seat) {
	for range t.member.Watch(ctx) {
		if e.ready() {
			e.pid1.herald.Ready()
		}
		e.pid1.herald.Poke()
	}
}

// ready reports whether every seat takes part, or has said why it does not yet.
func (e *engine) ready() bool {
	for _, t := range e.seats {
		if !t.degraded.Load() && !t.member.TakesPart() {
			return false
		}
	}
	return true
}

// statusLine is what `systemctl status` shows.
func (e *engine) statusLine() string {
	var all []string
	seats := e.watchedSeats()
	for _, t := range seats {
		if t.member == nil {
			continue
		}
		line := statusLine(t.member.Status())
		if len(seats) > 1 {
			line = t.name + ": " + line
		}
		all = append(all, line)
	}
	return strings.Join(all, " | ")
}

// outcome is what this process leaves behind.
func (e *engine) outcome() string {
	var kept []string
	for _, t := range e.watchedSeats() {
		if t.kept.Load() != 0 {
			kept = append(kept, t.name)
		}
	}
	if kept != nil {
		return "ended, and the next process is primary of " + supervisor.Enumerate(kept)
	}
	return "ended, and nothing is primary here"
}

// statusLine tells in one line what a member does, and why it does not lead.
func statusLine(s supervisor.Status) string {
	switch s.Role {
	case sdk.RolePrimary:
		line := fmt.Sprintf("primary since %s, term %d, lease of %s", s.Since.Format("15:04:05"), s.Term, s.TTL)
		if s.State.Unreachable != "" {
			line += " is not renewed: etcd cannot be reached " + s.State.Unreachable
		}
		return line
	case sdk.RolePromoting:
		return fmt.Sprintf("promoting for term %d: %s", s.Term, doing(s))
	case sdk.RoleDemoting:
		if s.Doing == "" {
			return "demoting: " + s.Cause
		}
		return fmt.Sprintf("demoting: %s; %s", s.Doing, s.Cause)
	case sdk.RoleBlocked:
		return fmt.Sprintf("blocked: %s. Put it right, then `deputy clear %s`", s.Cause, s.Service)
	case sdk.RoleFailed:
		return fmt.Sprintf("failed, may still act as primary: %s. Put it right, then `deputy clear %s`", s.Cause, s.Service)
	case sdk.RoleUnknown:
		if s.Doing != "" {
			return "starting: " + s.Doing
		}
		return "starting: " + s.Cause
	}
	line := string(s.Role) + ", " + primaryOf(s.State)
	switch {
	case s.State.Unreachable != "":
		line += ": etcd cannot be reached " + s.State.Unreachable
	case s.Verdict != "" && (s.Role == sdk.RoleStandby || s.State.Vacant || s.State.Primary == nil):
		line += ": " + s.Verdict
	}
	return line
}

func doing(s supervisor.Status) string {
	if s.Doing != "" {
		return s.Doing
	}
	return s.Cause
}

// primaryOf tells who leads.
func primaryOf(s supervisor.State) string {
	if s.Primary == nil || s.Vacant {
		return "nobody is primary"
	}
	return fmt.Sprintf("primary is %s, term %d", s.Primary.Node, s.Primary.Term)
}

// ending tells why systemd ends this process: with ErrRestart the next process
// has the roles. Where nobody says so they are handed over.
func (e *engine) ending(ctx context.Context) error {
	if e.pid1.unit == "" {
		return supervisor.ErrStop
	}
	job, err := e.a.bus.Ending(ctx, e.pid1.unit)
	if err != nil {
		e.log.Warn("systemd does not say whether this is a restart, so it is a stop", "cause", err)
	}
	if job == "restart" {
		return supervisor.ErrRestart
	}
	return supervisor.ErrStop
}

// endingAlready reports whether systemd has told this process to end before the
// program in it could hear of that.
func (e *engine) endingAlready(ctx context.Context) bool {
	if e.pid1.unit == "" {
		return false
	}
	job, err := e.a.bus.Ending(ctx, e.pid1.unit)
	return err == nil && (job == "stop" || job == "restart")
}

// inhibit hands over the roles before this machine goes down or to sleep.
func (e *engine) inhibit(ctx context.Context) {
	if e.pid1.unit == "" {
		return
	}
	var names []string
	for _, t := range e.seats {
		names = append(names, t.name)
	}
	i := &systemd.Inhibitor{
		Who: "deputy: " + strings.Join(names, ", "), Away: e.away, Log: e.log,
		Back: func() {
			for _, t := range e.seats {
				t.member.Withdraw(nil)
			}
		},
	}
	i.Run(ctx)
}

// away has all members lead nothing, and returns when they are demoted, or ctx
// ends.
func (e *engine) away(ctx context.Context, why error) {
	var leaving sync.WaitGroup
	for _, t := range e.seats {
		t.member.Withdraw(why)
		leaving.Go(func() {
			for s := range t.member.Watch(ctx) {
				if !leads(s) {
					return
				}
			}
		})
	}
	leaving.Wait()
}

// leads reports whether anything of a member may act as primary.
func leads(s supervisor.Status) bool {
	for _, p := range s.Parts {
		if p.Promoted {
			return true
		}
	}
	return s.Role == sdk.RolePromoting || s.Role == sdk.RolePrimary || s.Role == sdk.RoleDemoting
}
