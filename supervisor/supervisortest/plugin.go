package supervisortest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// A Behaviour is how one act of a Plugin goes. The zero Behaviour is Done at
// once, or Already when there is nothing to do.
type Behaviour struct {
	Takes      time.Duration
	Outcome    sdk.Outcome // empty: Done or Already
	Refused    bool        // with Unchanged
	RetryAfter time.Duration
	Detail     string
	Progress   string // said when the act begins
	Hangs      bool   // never ends by itself: only by its deadline, its context or Kill
	Deaf       bool   // only Kill ends it early
	Dies       bool   // its process ends after Takes, without an answer
}

// A Plugin is a part of a service that does as its script says and writes what
// it does into a journal. It acts as primary from the beginning of a promotion
// that may have had an effect until a demotion has succeeded: it believes no
// outcome of Unknown. Its state belongs to the machine and outlives the
// processes that call it.
type Plugin struct {
	Description supervisor.Description
	// Guard: what the part does ends by itself, on this clock, when it is not
	// renewed, as a rule in the kernel does. Freezing the clock does not stop
	// it. Nil: it goes on.
	Guard *Clock
	// Ranks compares positions; nil: all are equal.
	Ranks func(mine string, others map[string]string) (map[string]sdk.Order, error)
	// Quiet leaves acts that had nothing to do out of the journal.
	Quiet bool
	// Pace is how long an act takes that takes no time by its Behaviour, so
	// that what goes in order has an order in the journal.
	Pace time.Duration
	// Loud writes renewals into the journal.
	Loud bool

	journal *Journal
	node    string

	mu         sync.Mutex
	primary    bool // may have the effect of a primary
	promoted   bool // the last act that changed something was a promotion that succeeded
	next       map[sdk.Action][]Behaviour
	always     map[sdk.Action]Behaviour
	checks     []check
	said       string // by the last check
	watchers   []func()
	checkTakes time.Duration
	renewErr   error
	renewed    sdk.Instant
	renewals   int
	guard      *timer
	killed     chan struct{} // closed by Kill; replaced
	unkillable bool
	running    []chan struct{} // each closed when an act has ended
	acts       []sdk.Transition
}

type check struct {
	health sdk.Health
	err    error
}

// NewPlugin returns a part of a node that does at once and well what it is
// asked for. Without capabilities given it can promote, demote, check and renew.
func NewPlugin(j *Journal, node, name string, can ...sdk.Capability) *Plugin {
	if len(can) == 0 {
		can = []sdk.Capability{sdk.CanPromote, sdk.CanDemote, sdk.CanCheck, sdk.CanRenew}
	}
	return &Plugin{
		Description: supervisor.Description{Name: name, Version: "0", Capabilities: can},
		journal:     j, node: node,
		next:   map[sdk.Action][]Behaviour{},
		always: map[sdk.Action]Behaviour{},
		checks: []check{{health: sdk.Health{Fit: true}}},
		killed: make(chan struct{}),
		// So that what a check leads to comes after what went on meanwhile.
		checkTakes: 4 * time.Millisecond,
	}
}

// Next scripts the next attempts of an action, one Behaviour each. What comes
// after them goes as Always says.
func (p *Plugin) Next(a sdk.Action, b ...Behaviour) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next[a] = append(p.next[a], b...)
}

// Always scripts every attempt of an action from now on.
func (p *Plugin) Always(a sdk.Action, b Behaviour) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next[a], p.always[a] = nil, b
}

// Healths scripts what checks say, one after the other; the last one stays. Who
// watches is told.
func (p *Plugin) Healths(h ...sdk.Health) {
	p.mu.Lock()
	p.checks = nil
	for _, one := range h {
		p.checks = append(p.checks, check{health: one})
	}
	watchers := slices.Clone(p.watchers)
	p.mu.Unlock()
	for _, changed := range watchers {
		changed()
	}
}

// Watch tells when Healths has been called.
func (p *Plugin) Watch(ctx context.Context, changed func()) error {
	p.mu.Lock()
	p.watchers = append(p.watchers, changed)
	p.mu.Unlock()
	<-ctx.Done() // which is when the member ends
	return context.Cause(ctx)
}

// Fit scripts a fit node at the given position.
func (p *Plugin) Fit(position string) { p.Healths(sdk.Health{Fit: true, Position: position}) }

// Unfit scripts a node that is not fit, and why.
func (p *Plugin) Unfit(why string) { p.Healths(sdk.Health{Detail: why}) }

// Mute scripts checks that give no answer: they fail with err after a time.
func (p *Plugin) Mute(after time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checks, p.checkTakes = []check{{err: err}}, after
}

// FailRenewals has renewals fail from now on; nil ends that.
func (p *Plugin) FailRenewals(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.renewErr = err
}

// Unkillable has Kill return without an effect: the process sleeps in the
// kernel. False ends that.
func (p *Plugin) Unkillable(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unkillable = yes
}

// Break has the part act as primary no more, or act again, by nobody's order.
func (p *Plugin) Break(acts bool, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.become(acts)
	p.promoted = acts
	p.journal.add(p.node, p.Description.Name, "%s: %s", p.Description.Name, why)
}

// ActsAsPrimary reports whether the part may have the effect of a primary now.
func (p *Plugin) ActsAsPrimary() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.primary
}

// Renewed returns until when the part was renewed last.
func (p *Plugin) Renewed() sdk.Instant {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.renewed
}

// Renewals returns how often the part was asked to renew.
func (p *Plugin) Renewals() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.renewals
}

// Acts returns every attempt asked for so far.
func (p *Plugin) Acts() []sdk.Transition {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.acts)
}

// Describe returns the Description.
func (p *Plugin) Describe() supervisor.Description { return p.Description }

// Do runs an act as scripted.
func (p *Plugin) Do(ctx context.Context, t sdk.Transition, progress func(string)) sdk.Result {
	return p.do(ctx, t, progress, nil)
}

// do is Do for a process whose death ends the act.
func (p *Plugin) do(ctx context.Context, t sdk.Transition, progress func(string), died <-chan struct{}) sdk.Result {
	ended := make(chan struct{})
	defer close(ended)
	p.mu.Lock()
	p.running = slices.DeleteFunc(p.running, isClosed)
	p.running = append(p.running, ended)
	p.acts = append(p.acts, t)
	b := p.behaviour(t.Action)
	killed := p.killed
	was := p.promoted
	if t.Action == sdk.Promote && b.Outcome != sdk.OutcomeUnchanged && b.Outcome != sdk.OutcomeStaleTerm {
		p.become(true)
		p.extend(t.LeaseUntil)
	}
	p.mu.Unlock()

	began := time.Now()
	atOnce := b.Takes == 0 && !b.Hangs
	if !atOnce {
		p.tell(t, "")
	}
	if progress != nil && b.Progress != "" {
		progress(b.Progress)
	}
	if atOnce {
		time.Sleep(p.Pace)
	}
	r := b.run(ctx, t.Timeout, killed, died)
	p.mu.Lock()
	if r.Outcome == "" {
		r.Outcome = sdk.OutcomeDone
		if t.Action == sdk.Promote && was || t.Action == sdk.Demote && !p.primary {
			r.Outcome = sdk.OutcomeAlready
		}
	}
	if t.Action == sdk.Promote || t.Action == sdk.Demote {
		switch {
		case r.Outcome.OK():
			p.become(t.Action == sdk.Promote)
			p.promoted = p.primary
		case r.Outcome == sdk.OutcomeUnknown:
			p.promoted = false
		}
	}
	p.mu.Unlock()
	if p.Quiet && r.Outcome == sdk.OutcomeAlready {
		return r
	}
	said := " " + string(r.Outcome)
	if r.Refused {
		said += ", refused"
	}
	if r.Detail != "" {
		said += ": " + r.Detail
	}
	if !atOnce {
		said += fmt.Sprintf(" (%s)", time.Since(began))
	}
	p.tell(t, said)
	return r
}

func (p *Plugin) behaviour(a sdk.Action) Behaviour {
	if n := p.next[a]; len(n) > 0 {
		p.next[a] = n[1:]
		return n[0]
	}
	return p.always[a]
}

// run waits as long as the act lasts and returns what it came to.
func (b Behaviour) run(ctx context.Context, timeout time.Duration, killed, died <-chan struct{}) sdk.Result {
	r := sdk.Result{Outcome: b.Outcome, Refused: b.Refused, RetryAfter: b.RetryAfter, Detail: b.Detail}
	if b.Dies {
		r = sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "process died"}
	}
	if b.Takes == 0 && !b.Hangs {
		return r
	}
	var over, late <-chan time.Time
	if !b.Hangs {
		timer := time.NewTimer(b.Takes)
		defer timer.Stop()
		over = timer.C
	}
	ended := ctx.Done()
	if b.Deaf {
		ended = nil
	} else if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-over:
		return r
	case <-ended:
		return sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: context.Cause(ctx).Error()}
	case <-late:
		// What ends exactly at its deadline has ended.
		if b.Takes == timeout && !b.Hangs {
			return r
		}
		return sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: fmt.Sprintf("not done within %s", timeout)}
	case <-killed:
	case <-died:
	}
	return sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "killed"}
}

// tell writes a line about an act.
func (p *Plugin) tell(t sdk.Transition, said string) {
	text := fmt.Sprintf("%s %s", p.Description.Name, t.Action)
	if t.Action == sdk.Demote {
		text += " " + string(t.Mode)
	}
	if t.Action == sdk.Fence {
		text += " " + t.Primary.Node
	}
	text += fmt.Sprintf(" term=%d", t.Term)
	if t.Attempt > 1 {
		text += fmt.Sprintf(" attempt=%d", t.Attempt)
	}
	p.journal.add(p.node, p.Description.Name, "%s%s", text, said)
}

// become notes whether the part acts as primary. The caller holds mu.
func (p *Plugin) become(primary bool) {
	if p.primary != primary && p.can(sdk.CanPromote) {
		p.journal.acting(p.service(), p.node, p.Description.Name, primary)
	}
	p.primary = primary
	if !primary {
		p.unguard()
	}
}

func (p *Plugin) can(c sdk.Capability) bool { return p.Description.Can(c) }

// service is the one that the part was last called for.
func (p *Plugin) service() string {
	if len(p.acts) == 0 {
		return ""
	}
	return p.acts[len(p.acts)-1].Service
}

// extend has a guarded part act until then and no longer. The caller holds mu.
func (p *Plugin) extend(until sdk.Instant) {
	p.renewed = until
	if p.Guard == nil || !p.primary {
		return
	}
	p.unguard()
	var g *timer
	g = p.Guard.kernel(until, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.guard == g && p.primary {
			p.become(false)
			p.promoted = false
			p.journal.add(p.node, p.Description.Name, "%s: not renewed, so it ends by itself", p.Description.Name)
		}
	})
	p.guard = g
}

func (p *Plugin) unguard() {
	if p.guard != nil {
		p.guard.Stop()
		p.guard = nil
	}
}

// Check answers as scripted; a change of what it says is written down.
func (p *Plugin) Check(ctx context.Context, _ sdk.Role, _ sdk.Term) (sdk.Health, error) {
	p.mu.Lock()
	c, takes := p.checks[0], p.checkTakes
	if len(p.checks) > 1 {
		p.checks = p.checks[1:]
	}
	p.mu.Unlock()
	if takes > 0 {
		timer := time.NewTimer(takes)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return sdk.Health{}, context.Cause(ctx)
		}
	}
	said := "fit"
	switch {
	case c.err != nil:
		said = "no answer: " + c.err.Error()
	case !c.health.Fit:
		said = "not fit: " + c.health.Detail
	}
	p.mu.Lock()
	changed := p.said != said && (p.said != "" || said != "fit")
	p.said = said
	p.mu.Unlock()
	if changed {
		p.journal.first(p.node, p.Description.Name, "%s check: %s", p.Description.Name, said)
	}
	return c.health, c.err
}

// Renew notes until when.
func (p *Plugin) Renew(_ context.Context, until sdk.Instant) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.renewals++
	if p.renewErr != nil {
		return p.renewErr
	}
	if p.Loud {
		p.journal.add(p.node, p.Description.Name, "%s renewed until %s", p.Description.Name, time.Duration(until))
	}
	p.extend(until)
	return nil
}

// Rank compares as scripted.
func (p *Plugin) Rank(_ context.Context, mine string, others map[string]string) (map[string]sdk.Order, error) {
	if p.Ranks != nil {
		return p.Ranks(mine, others)
	}
	orders := map[string]sdk.Order{}
	for node := range others {
		orders[node] = sdk.Equal
	}
	return orders, nil
}

// Kill ends every act that runs; each is then Unknown.
func (p *Plugin) Kill(ctx context.Context) error {
	p.mu.Lock()
	stuck := p.unkillable
	p.mu.Unlock()
	if stuck {
		<-ctx.Done()
		return errors.New("its process does not end")
	}
	p.mu.Lock()
	running := slices.Clone(p.running)
	p.mu.Unlock()
	p.end()
	for _, ended := range running {
		select {
		case <-ended:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// end kills what runs with the process that asked for it.
func (p *Plugin) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.killed)
	p.killed = make(chan struct{})
}
