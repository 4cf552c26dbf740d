package sdktest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// The bounds of what a plugin does by itself.
const (
	startBound = 10 * time.Second // from its start to its first answer; a host waits no longer
	askBound   = 5 * time.Second  // to answer a question
	endBound   = time.Second      // to end an act that was cancelled or is over its time, or itself once its host is gone
	slack      = time.Second      // on top of a bound, because the machine may be busy
)

// steps are what a case has done, for the report of a failure, in the order in
// which it was begun.
type steps struct {
	mu    sync.Mutex
	began time.Time
	all   []string
}

// add tells of a step that is done.
func (s *steps) add(format string, args ...any) { s.begin(format, args...) }

// begin tells of a step, and returns what adds how it ended.
func (s *steps) begin(format string, args ...any) (ended func(format string, args ...any)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.began.IsZero() {
		s.began = time.Now()
	}
	i := len(s.all)
	s.all = append(s.all, fmt.Sprintf("+%s  ", short(time.Since(s.began)))+fmt.Sprintf(format, args...))
	return func(format string, args ...any) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all[i] += ": " + fmt.Sprintf(format, args...)
	}
}

// maxSteps is how many steps are told, the last ones.
const maxSteps = 16

func (s *steps) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if left := len(s.all) - maxSteps; left > 0 {
		return append([]string{fmt.Sprintf("(%d steps before)", left)}, s.all[left:]...)
	}
	return slices.Clone(s.all)
}

// A guest is a plugin that a case has started.
type guest struct {
	Hosted
	x     *exam
	ended bool
}

// end makes sure that nothing of the guest runs any more.
func (g *guest) end() {
	if g.ended {
		return
	}
	g.ended = true
	ctx, cancel := context.WithTimeout(context.WithoutCancel(g.x.ctx), askBound)
	defer cancel()
	_ = g.Kill(ctx)
}

// needs skips the case if the plugin cannot do one of these.
func (x *exam) needs(capabilities ...sdk.Capability) {
	if x.about == nil {
		x.start().close()
	}
	for _, c := range capabilities {
		if !x.can(c) {
			x.skip("it cannot %s", c)
		}
	}
}

// needsProcess skips the case, with the reason, if the plugin has a process for
// each call alone, like a script.
func (x *exam) needsProcess(p *guest, otherwise string) {
	if len(p.PIDs()) == 0 {
		x.skip("it has a process for each call alone: %s", otherwise)
	}
}

func (x *exam) can(c sdk.Capability) bool { return slices.Contains(x.about.Capabilities, c) }

// start starts the plugin and asks what it is.
func (x *exam) start() *guest {
	ctx, cancel := context.WithTimeoutCause(x.ctx, startBound, fmt.Errorf("not within %s", startBound))
	defer cancel()
	started := x.did.begin("start it")
	h, err := x.subject.Open(ctx)
	if err != nil {
		started("%v", err)
		x.lacks("start", "it did not start: %v", err)
	}
	g := &guest{Hosted: h, x: x}
	x.guests = append(x.guests, g)
	if x.about == nil {
		about, err := h.Describe(ctx)
		if err != nil {
			x.lacks("start", "it did not answer what it is: %v", err)
		}
		x.about = &about
	}
	return g
}

// open starts the plugin and puts its settings in force.
func (x *exam) open() *guest { return x.openAt(0) }

// openAt is open by a host that has seen a term.
func (x *exam) openAt(t sdk.Term) *guest {
	g := x.start()
	ctx, cancel := context.WithTimeout(x.ctx, askBound)
	defer cancel()
	if err := x.configure(ctx, g, t); err != nil {
		x.lacks("settings", "it did not take its settings: %v", err)
	}
	return g
}

func (x *exam) configure(ctx context.Context, g *guest, t sdk.Term) error {
	seen := ""
	if t > 0 {
		seen = fmt.Sprintf(", its host has seen term %d", t)
	}
	done := x.did.begin("settings in force: %s%s", settingNames(x.config.Settings), seen)
	err := g.Configure(ctx, x.setup(t))
	if err != nil {
		done("%v", err)
	}
	return err
}

// settingNames are the keys of settings, without what may be secret.
func settingNames(settings map[string]any) string {
	if len(settings) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(maps.Keys(settings)), ", ")
}

func (x *exam) setup(t sdk.Term) wire.Setup {
	return wire.Setup{
		Service: "sdktest", Node: x.config.Node.Node, Part: x.part(), StateDir: x.config.StateDir,
		Config: x.config.Settings, Term: t,
	}
}

func (x *exam) part() string {
	if x.about == nil || x.about.Name == "" {
		return "part"
	}
	return x.about.Name
}

// ready starts the plugin and demotes it: where each tenure begins.
func (x *exam) ready() *guest {
	p := x.open()
	if !x.can(sdk.CanDemote) {
		return p
	}
	if r := p.demote(x.suite.term); !r.Outcome.OK() {
		if x.spoiled != "" && !x.failed["demote-first"] {
			x.skip("cannot be tried: a fresh process cannot demote what is left of %s", x.spoiled)
		}
		x.lacks("demote-first", "a fresh process could not be demoted: %v", r.Err())
	}
	x.world(false)
	if x.tellsAlready == nil {
		r := p.demote(x.suite.term)
		tells := r.Outcome == sdk.OutcomeAlready
		x.tellsAlready = &tells
	}
	return p
}

// adopts has a fresh process asked for a promote of what is promoted.
func (x *exam) adopts(p *guest, t sdk.Term) {
	switch r := p.promote(t); {
	case !r.Outcome.OK():
		x.lacks("promote-twice", "a fresh process answered a promote of the same term with %s", tell(r))
	case r.Outcome != sdk.OutcomeAlready:
		x.lacks("adopt", "a fresh process answered a promote of the same term with %s", tell(r))
	}
	x.worldAfter("adopt", true)
}

// promoted makes a ready plugin primary for a new term.
func (x *exam) promoted(p *guest) sdk.Term {
	t := x.nextTerm()
	if r := p.promote(t); !r.Outcome.OK() {
		x.lacks("promote", "it could not be promoted: %v", r.Err())
	}
	x.world(true)
	return t
}

// middles returns the times after which a promote or a demote is in the middle,
// measured on one that was not disturbed.
func (x *exam) middles(a sdk.Action) []time.Duration {
	if x.enter == 0 {
		p := x.ready()
		enter, leave := x.config.Timeout, x.config.Timeout
		for range 2 {
			began := time.Now()
			t := x.promoted(p)
			middle := time.Now()
			x.demoted(p, t)
			enter, leave = min(enter, middle.Sub(began)), min(leave, time.Since(middle))
		}
		p.close()
		x.enter, x.leave = enter, leave
	}
	took := x.enter
	if a == sdk.Demote {
		took = x.leave
	}
	if took > time.Second {
		return []time.Duration{took / 4}
	}
	return []time.Duration{took / 4, took / 2, 3 * took / 4}
}

// A span is what something took that has a bound, in several tries: each time
// with what a busy machine adds, and without in most.
type span struct {
	worst       time.Duration
	tries, over int
}

// again yields the times to try, and two more where a try was over the bound: a
// machine is seldom busy three times.
func (s *span) again(middles []time.Duration) iter.Seq[time.Duration] {
	return func(yield func(time.Duration) bool) {
		for i := range len(middles) + 2 {
			if i >= len(middles) && s.over == 0 || !yield(middles[i%len(middles)]) {
				return
			}
		}
	}
}

// took adds one try. Over is how its failure is told. An act that was done in
// time has not been disturbed, and proves nothing.
func (x *exam) took(s *span, done bool, d, bound time.Duration, over string) {
	if d > bound+slack {
		x.fail("%s after %s, %s at most are right", over, short(d), short(bound))
	}
	s.worst = max(s.worst, d)
	switch {
	case d > bound:
		s.over++
		fallthrough
	case !done:
		s.tries++
	}
}

// kept sees that the bound was kept in most tries.
func (x *exam) kept(s *span, bound time.Duration, over string) {
	if s.over > 1 && 2*s.over > s.tries {
		x.fail("%s after %s at worst, and too late in %d of %d tries, %s at most are right", over, short(s.worst), s.over, s.tries, short(bound))
	}
}

// pause waits. A case that lasts too long fails by it.
func (x *exam) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-x.ctx.Done():
		x.fail("it was cut short")
	}
}

// demoted demotes, and sees that the part does not act any more.
func (x *exam) demoted(p *guest, t sdk.Term) {
	began := time.Now()
	if r := p.demote(t); !r.Outcome.OK() {
		x.fail("it could not be demoted: %v", r.Err())
	}
	x.longest = max(x.longest, time.Since(began))
	x.world(false)
}

// staysDemoted sees that nothing that was under way promotes a part after its
// demotion.
func (x *exam) staysDemoted(p *guest, t sdk.Term) {
	for end := time.Now().Add(min(2*x.enter, time.Second) + 50*time.Millisecond); time.Now().Before(end); x.pause(10 * time.Millisecond) {
		x.world(false)
	}
	r := p.demote(t)
	switch {
	case !r.Outcome.OK():
		x.lacks("demote-twice", "it could not be demoted again: %v", r.Err())
	case x.tellsAlready != nil && *x.tellsAlready && r.Outcome != sdk.OutcomeAlready:
		x.fail("a second demotion found something to do (%s): an act of before came after the proof", tell(r))
	}
}

// world sees that the part acts as primary, or does not, where somebody can.
// Whether it does after an act by itself is the case promote's.
func (x *exam) world(want bool) { x.worldAfter("promote", want) }

// worldAfter is world where another case proves that it is so.
func (x *exam) worldAfter(other string, want bool) {
	if x.config.Promoted == nil {
		return
	}
	switch is := x.isPrimary(); {
	case is && !want:
		x.lacks(other, "the part acts as primary, as seen from outside")
	case !is && want:
		x.lacks(other, "the part does not act as primary, as seen from outside")
	}
}

// isPrimary looks whether the part acts as primary, where somebody can.
func (x *exam) isPrimary() bool {
	if x.config.Promoted == nil {
		return false
	}
	is, err := x.config.Promoted()
	if err != nil {
		x.fail("it cannot be seen whether the part acts as primary: %v", err)
	}
	return is
}

// nextTerm returns a term higher than all before. Between two of them there is
// one that nobody has used.
func (x *exam) nextTerm() sdk.Term {
	x.suite.term += 2
	return x.suite.term
}

// transition returns a new act.
func (x *exam) transition(a sdk.Action, t sdk.Term) sdk.Transition {
	x.ids++
	act := sdk.Transition{
		ID: fmt.Sprintf("sdktest-%d-%d", x.config.Term, x.ids), Action: a, Mode: sdk.Planned,
		Service: "sdktest", Node: x.config.Node.Node, Term: t, Reason: sdk.ReasonElection, Cause: "the contract is examined",
		Attempt: 1, Timeout: x.config.Timeout, LeaseUntil: sdk.Now().Add(x.config.Lease),
		Primary: x.config.Node, Members: []sdk.Peer{x.config.Node}, StateDir: x.config.StateDir,
	}
	switch a {
	case sdk.Demote:
		act.Reason, act.Primary = sdk.ReasonStop, sdk.Peer{}
	case sdk.Follow:
		act.Primary = sdk.Peer{Node: "other", Address: "127.0.0.2"}
	case sdk.Fence:
		act.Reason, act.Primary, act.Previous = sdk.ReasonFailover, x.config.Victim, x.config.Victim
	}
	return act
}

func (g *guest) promote(t sdk.Term) sdk.Result { return g.do(g.x.transition(sdk.Promote, t)) }
func (g *guest) demote(t sdk.Term) sdk.Result  { return g.do(g.x.transition(sdk.Demote, t)) }

func (g *guest) do(t sdk.Transition) sdk.Result { return g.doing(g.x.ctx, t)() }

// doing begins an act, and returns what waits for its result.
func (g *guest) doing(ctx context.Context, t sdk.Transition) func() sdk.Result {
	return g.doingHeard(ctx, t, time.Second, func(string) {})
}

func (g *guest) doingHeard(ctx context.Context, t sdk.Transition, heartbeat time.Duration, heard func(string)) func() sdk.Result {
	ended := make(chan sdk.Result, 1)
	over := g.x.did.begin("%s", what(t))
	began := time.Now()
	g.x.acts.Go(func() {
		r := g.Do(ctx, t, heartbeat, heard)
		detail := ""
		if r.Detail != "" {
			detail = ": " + r.Detail
		}
		over("%s after %s%s", r.Outcome, short(time.Since(began)), detail)
		ended <- r
	})
	return func() sdk.Result { return <-ended }
}

// what is what a plugin is asked for, for people.
func what(t sdk.Transition) string {
	var with []string
	if t.Action == sdk.Demote {
		with = append(with, string(t.Mode))
	}
	with = append(with, fmt.Sprintf("term %d", t.Term))
	switch t.Action {
	case sdk.Fence:
		with = append(with, "victim "+t.Primary.Node)
	case sdk.Follow:
		with = append(with, fmt.Sprintf("primary %s at %s", t.Primary.Node, t.Primary.Address))
	}
	if t.Attempt > 1 {
		with = append(with, fmt.Sprintf("attempt %d", t.Attempt))
	}
	return fmt.Sprintf("%s, %s, within %s", t.Action, strings.Join(with, ", "), short(t.Timeout))
}

// begun is doing, and returns once the plugin works at it. Two calls may
// otherwise arrive in another order than they were made in.
func (g *guest) begun(t sdk.Transition) func() sdk.Result { return g.begunBy(g.x.ctx, t) }

func (g *guest) begunBy(ctx context.Context, t sdk.Transition) func() sdk.Result {
	if !g.x.about.Heartbeats {
		return g.doing(ctx, t) // a process for each call has its own order
	}
	sign := make(chan struct{}, 1)
	wait := g.doingHeard(ctx, t, time.Millisecond, func(string) {
		select {
		case sign <- struct{}{}:
		default:
		}
	})
	over := make(chan sdk.Result, 1)
	g.x.acts.Go(func() {
		over <- wait()
		close(sign)
	})
	select {
	case <-sign:
	case <-time.After(200 * time.Millisecond): // it sends none
	}
	return func() sdk.Result { return <-over }
}

// check asks for a check; an answer that does not come fails the case.
func (g *guest) check(role sdk.Role, t sdk.Term) sdk.Health {
	ctx, cancel := context.WithTimeout(g.x.ctx, g.x.config.Timeout)
	defer cancel()
	over := g.x.did.begin("check, role %s, term %d", role, t)
	h, err := g.Check(ctx, role, t)
	if err != nil {
		over("%v", err)
		g.x.fail("a check for %s gave no answer: %v", role, err)
	}
	over("fit %v: %s", h.Fit, h.Detail)
	return h
}

// close ends the guest as a host does that stops.
func (g *guest) close() {
	if g.ended {
		return
	}
	ctx, cancel := context.WithTimeout(g.x.ctx, askBound+endBound+slack)
	defer cancel()
	over := g.x.did.begin("end it")
	err := g.Close(ctx)
	g.ended = true
	if err != nil {
		over("%v", err)
		g.x.lacks("end", "it did not end when it was told to: %v", err)
	}
}

// kill ends the guest by SIGKILL.
func (g *guest) kill() {
	ctx, cancel := context.WithTimeout(g.x.ctx, askBound)
	defer cancel()
	g.x.did.add("kill it by SIGKILL")
	err := g.Kill(ctx)
	g.ended = true
	if err != nil {
		g.x.fail("SIGKILL did not end it: %v", err)
	}
}

// tell is a result for people.
func tell(r sdk.Result) string {
	if err := r.Err(); err != nil {
		return strings.TrimSpace(err.Error())
	}
	if r.Detail == "" {
		return string(r.Outcome)
	}
	return fmt.Sprintf("%s (%s)", r.Outcome, r.Detail)
}

// short is a duration for people.
func short(d time.Duration) time.Duration {
	switch {
	case d > time.Second:
		return d.Round(10 * time.Millisecond)
	case d > 10*time.Millisecond:
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}

// keys are the settings that an error names.
func keys(err error) []string {
	var found []string
	var key *sdk.KeyError
	switch many, ok := err.(interface{ Unwrap() []error }); {
	case err == nil:
	case ok:
		for _, e := range many.Unwrap() {
			found = append(found, keys(e)...)
		}
	case errors.As(err, &key):
		found = append(found, key.Key)
	}
	return found
}
