package supervisortest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

const testService = "db"

var errOver = errors.New("the test is over")

// A stage is one case: actors on nodes, and what they were seen to hold.
type stage struct {
	*testing.T
	lab   Lab
	ttl   time.Duration
	began time.Time
	ctx   context.Context

	running sync.WaitGroup
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change of an actor
	actors  []*actor
	spans   []*span
}

// A span is the time in which an actor might have acted as primary: from when
// Take returned until it handled Lost or resigned, or its lease ended.
type span struct {
	service, node string
	term          sdk.Term
	from, to      time.Duration
	over          bool
	adopted       bool // or taken up, in the term of before
}

// An actor is the smallest member: it takes what is vacant, when it is willing
// and its turn, and holds it until it is told otherwise or the lease is lost.
type actor struct {
	*stage
	Process
	name    string
	service string
	turn    time.Duration // lets others go first for so long
	elector supervisor.Elector
	wake    chan struct{}

	// guarded by stage.mu
	willing bool
	dead    bool
	lease   supervisor.Lease
	span    *span
	state   supervisor.State
	seen    int // states yielded
	resign  bool
	letGo   bool // abandon the lease, and go on
}

func newStage(t *testing.T, lab Lab, ttl time.Duration) (*stage, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	s := &stage{T: t, lab: lab, ttl: ttl, began: time.Now(), ctx: ctx, changed: make(chan struct{})}
	return s, func() {
		cancel(errOver)
		s.running.Wait()
		s.judge()
	}
}

// actor starts a process on the named machine that stands for election.
func (s *stage) actor(name string, willing bool) *actor {
	return s.seat(s.lab.Start(name), name, testService, willing)
}

// seat is a process's part in one election.
func (s *stage) seat(p Process, name, service string, willing bool) *actor {
	a := &actor{
		stage: s, Process: p, name: name, service: service, willing: willing,
		elector: p.Elector(service, s.ttl), wake: make(chan struct{}, 1),
	}
	s.mu.Lock()
	a.turn = time.Duration(len(s.actors)) * s.ttl / 50
	s.actors = append(s.actors, a)
	s.mu.Unlock()
	s.running.Go(a.observe)
	s.running.Go(a.play)
	return a
}

// cast starts willing actors on machines n1, n2, ...
func (s *stage) cast(count int) []*actor {
	var all []*actor
	for i := range count {
		all = append(all, s.actor(fmt.Sprintf("n%d", i+1), true))
	}
	return all
}

func (a *actor) update(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
	close(a.changed)
	a.changed = make(chan struct{})
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *actor) observe() {
	for st := range a.elector.Observe(a.ctx) {
		a.update(func() { a.state, a.seen = st, a.seen+1 })
	}
	if a.ctx.Err() == nil && !a.isDead() {
		a.Errorf("%s: Observe has ended before its context", a.name)
	}
}

func (a *actor) isDead() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.dead
}

// play is the actor's own loop.
func (a *actor) play() {
	var again time.Time
	for a.ctx.Err() == nil {
		a.mu.Lock()
		lease, st, willing, dead, seen := a.lease, a.state, a.willing, a.dead, a.seen
		a.mu.Unlock()
		switch {
		case dead:
			return
		case lease != nil:
			a.hold(lease)
			continue
		case seen == 0 || !willing || !a.may(st):
		case time.Now().Before(again):
		default:
			a.wait(a.turn, nil)
			a.mu.Lock()
			changed := a.state.Seq != st.Seq
			a.mu.Unlock()
			if changed {
				continue
			}
			if _, err := a.take(st); err != nil {
				again = time.Now().Add(a.ttl / 10)
			}
			continue
		}
		var soon <-chan time.Time
		if d := time.Until(again); d > 0 {
			timer := time.NewTimer(d)
			defer timer.Stop()
			soon = timer.C
		}
		select {
		case <-a.wake:
		case <-soon:
		case <-a.ctx.Done():
		}
	}
}

func (a *actor) may(st supervisor.State) bool {
	if st.Frozen != "" || st.Unreachable != "" {
		return false
	}
	return st.Mine || st.Vacant && (!st.Reservation.Binds() || st.Reservation.To == a.name)
}

// take takes the role and begins a span.
func (a *actor) take(st supervisor.State) (supervisor.Lease, error) {
	ctx, cancel := context.WithTimeoutCause(a.ctx, 2*a.ttl, errors.New("no answer"))
	defer cancel()
	l, err := a.elector.Take(ctx, st)
	if err == nil {
		a.begin(l, st.Mine)
	}
	return l, err
}

// adopt takes over a tenure and begins a span.
func (a *actor) adopt(t supervisor.Tenure) error {
	ctx, cancel := context.WithTimeoutCause(a.ctx, 4*a.ttl, errors.New("no answer"))
	defer cancel()
	for {
		l, err := a.elector.Adopt(ctx, t)
		if err == nil {
			a.begin(l, true)
		}
		if err == nil || errors.Is(err, supervisor.ErrRefused) || ctx.Err() != nil {
			return err
		}
		a.wait(a.ttl/20, nil)
	}
}

func (a *actor) begin(l supervisor.Lease, adopted bool) {
	a.update(func() {
		for _, sp := range a.spans {
			if adopted && sp.service == a.service && sp.node == a.name && sp.term == l.Term() {
				sp.to = min(sp.to, time.Since(a.began)) // what went on there is this process's to end
			}
		}
		a.lease, a.resign = l, false
		a.span = &span{service: a.service, node: a.name, term: l.Term(), from: time.Since(a.began), adopted: adopted}
		a.spans = append(a.spans, a.span)
		a.extend(l)
	})
}

// extend notes until when the actor might act. The caller holds mu.
func (a *actor) extend(l supervisor.Lease) {
	now := time.Since(a.began)
	if until := l.Until(); until != 0 {
		a.span.to = now + until.Sub(a.Clock().Now()) // in the past when it has run out
	} else {
		a.span.to = min(a.span.to, now)
	}
}

// hold lasts as long as the lease, or until told to resign.
func (a *actor) hold(l supervisor.Lease) {
	for {
		a.mu.Lock()
		resign, dead, letGo := a.resign, a.dead, a.letGo
		if !dead {
			a.extend(l)
		}
		a.mu.Unlock()
		if letGo {
			l.Abandon()
			a.update(func() {
				a.span.to, a.span.over = min(a.span.to, time.Since(a.began)), true
				a.lease, a.span, a.letGo = nil, nil, false
			})
			return
		}
		lost := isClosed(l.Lost())
		switch {
		case dead:
			return // what it did goes on until its lease ends
		case lost || resign || a.ctx.Err() != nil:
			a.end(l, lost)
			return
		}
		select {
		case <-l.Renewed():
		case <-l.Lost():
		case <-a.wake:
		case <-a.ctx.Done():
		}
	}
}

// end stops acting and gives the lease back.
func (a *actor) end(l supervisor.Lease, lost bool) {
	if lost && l.Cause() == nil {
		a.Errorf("%s: lost its lease without a cause", a.name)
	}
	a.mu.Lock()
	a.span.to, a.span.over = min(a.span.to, time.Since(a.began)), true
	a.mu.Unlock()
	for attempt := 0; ; attempt++ {
		ctx, cancel := context.WithTimeoutCause(context.Background(), a.ttl, errors.New("no answer"))
		err := l.Resign(ctx)
		cancel()
		if err == nil || a.isDead() || a.ctx.Err() != nil && attempt > 2 {
			break
		}
		a.wait(a.ttl/20, nil)
	}
	a.update(func() { a.lease, a.span, a.resign = nil, nil, false })
}

// kill ends the process; what it holds it might go on using until its end.
func (a *actor) kill() {
	a.Inflict(Killed)
	a.update(func() { a.dead = true })
}

// leave has the actor resign, and not want the role again.
func (a *actor) leave() {
	a.update(func() { a.resign, a.willing = true, false })
}

func (a *actor) want(yes bool) { a.update(func() { a.willing = yes }) }

// wait lets time pass, unless the test or until ends first.
func (s *stage) wait(d time.Duration, until <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-until:
	case <-s.ctx.Done():
	}
}

// eventually waits for so many TTLs, and some seconds for servers that are
// busy, until the condition holds; it is asked with mu held.
func (s *stage) eventually(ttls float64, what string, is func() bool) {
	s.Helper()
	timer := time.NewTimer(time.Duration(ttls*float64(s.ttl)) + 5*time.Second)
	defer timer.Stop()
	for {
		s.mu.Lock()
		done, changed := is(), s.changed
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-timer.C:
			s.Fatalf("not within %g TTLs: %s\n%s", ttls, what, s.tell())
		}
	}
}

// holder waits until one of the actors holds the role, and returns it.
func (s *stage) holder(ttls float64, of ...*actor) (found *actor) {
	s.Helper()
	s.eventually(ttls, "one of them holds the role", func() bool {
		for _, a := range of {
			if a.lease != nil && !a.dead && !isClosed(a.lease.Lost()) {
				found = a
				return true
			}
		}
		return false
	})
	return found
}

// holds reports the lease that the actor has now, or nil.
func (a *actor) holds() supervisor.Lease {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lease
}

// sees waits until the actor's newest State is as wanted, and returns it.
func (a *actor) sees(ttls float64, what string, is func(supervisor.State) bool) (st supervisor.State) {
	a.Helper()
	a.eventually(ttls, a.name+" sees "+what, func() bool {
		st = a.state
		return a.seen > 0 && is(st)
	})
	return st
}

// loses waits until the lease is lost.
func (s *stage) loses(ttls float64, l supervisor.Lease) {
	s.Helper()
	select {
	case <-l.Lost():
	case <-time.After(time.Duration(ttls*float64(s.ttl)) + 2*time.Second):
		s.Fatalf("term %d not lost within %g TTLs\n%s", l.Term(), ttls, s.tell())
	}
}

// judge fails the test if two nodes might have acted at one time, or a term
// did not grow.
func (s *stage) judge() {
	s.mu.Lock()
	defer s.mu.Unlock()
	spans := slices.Clone(s.spans)
	slices.SortStableFunc(spans, func(a, b *span) int { return cmp.Compare(a.from, b.from) })
	for i, b := range spans {
		for _, a := range spans[:i] {
			if a.service != b.service {
				continue
			}
			if a.node != b.node && b.from < a.to {
				s.Errorf("two at one time, for %s:\n%s\n%s", a.to-b.from, a, b)
			}
			if b.term < a.term || b.term == a.term && (!b.adopted || a.node != b.node) {
				s.Errorf("the term did not grow:\n%s\n%s", a, b)
			}
		}
	}
	if s.Failed() {
		s.Logf("what was held:\n%s", s.list())
	}
}

func (s *stage) tell() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.list()
	for _, a := range s.actors {
		text += fmt.Sprintf("%s %s: willing=%t dead=%t holds=%t state=%+v primary=%+v\n", a.name, a.service, a.willing, a.dead, a.lease != nil, a.state, a.state.Primary)
	}
	return text
}

func (s *stage) list() (text string) {
	for _, sp := range s.spans {
		text += sp.String() + "\n"
	}
	return text
}

func (s *span) String() string {
	return fmt.Sprintf("%s held %s in term %d from %s to %s", s.node, s.service, s.term, s.from.Round(time.Millisecond), s.to.Round(time.Millisecond))
}

func isClosed[C chan struct{} | <-chan struct{}](c C) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
