package supervisortest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// An elector is one process's view of one election. It is guarded by the
// cluster's mu.
type elector struct {
	version   int // of the state
	node      *Node
	service   string
	timing    supervisor.Timing
	lease     *lease
	taking    bool
	abandoned bool
	published *supervisor.Candidate

	state    supervisor.State // as last seen
	compare  compare          // what Take compares of it
	reserved reservation
}

// A compare is what a State was made from.
type compare struct {
	primary, term, reservation int64
	pulse                      string // of the tenure that a vacancy ends; empty when it ended cleanly
	pulseRev                   int64
}

// A reservation ends by the clock of who sees it.
type reservation struct {
	id  string
	end sdk.Instant
}

// Elector returns the node's seat in an election.
func (n *Node) Elector(service string, ttl time.Duration) supervisor.Elector {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	e := n.elector(service, ttl)
	n.pulse(ttl)
	return e
}

func (n *Node) elector(service string, ttl time.Duration) *elector {
	e := &elector{node: n, service: service, timing: supervisor.NewTiming(ttl)}
	n.cluster.records.service(service)
	n.electors = append(n.electors, e)
	return e
}

func (e *elector) say(format string, args ...any) {
	if !e.node.dead {
		e.node.cluster.journal.add(e.node.Name, theLease, format, args...)
	}
}

// look has the tenure end where the records say so. The caller holds mu.
func (e *elector) look() {
	s := e.node.cluster.records.service(e.service)
	e.machineTerm(s.term.Term)
	if l := e.lease; l != nil && s.primaryRev != l.rev && !l.leaving {
		why := errors.New("the record of the role is gone")
		if s.primary != nil {
			why = fmt.Errorf("%s is primary now", s.primary.Node)
		}
		l.lose(why, true)
	}
}

func (e *elector) machineTerm(t sdk.Term) sdk.Term {
	terms := e.node.machine.terms
	terms[e.service] = max(terms[e.service], t)
	return terms[e.service]
}

// see returns what the records say now, and when that changes by itself if
// nothing happens. The caller holds mu.
func (e *elector) see() (supervisor.State, sdk.Instant) {
	n := e.node
	now := n.clock.Now()
	known := n.cluster.records
	if n.view != nil {
		known = *n.view
	}
	r := known.service(e.service)
	s := supervisor.State{Service: e.service, Primary: r.primary, Term: r.term, Candidates: []supervisor.Candidate{}}
	from := compare{primary: r.primaryRev, term: r.termRev, reservation: r.reservedRev}
	var next sdk.Instant
	until := func(at sdk.Instant) bool {
		if now < at && (next == 0 || at < next) {
			next = at
		}
		return now < at
	}

	id := ""
	switch {
	case r.primary != nil:
		id = r.primary.Pulse
	case r.term.Term != 0 && !r.term.Resigned:
		id = r.term.Pulse // the record was deleted by hand: its holder may live
	}
	own := false
	for _, h := range n.pulses {
		own = own || h.id == id
	}
	switch {
	case id == "":
		s.Vacant, s.VacantAt = true, now
		if e.state.Vacant && reflect.DeepEqual(e.state.Term, s.Term) {
			s.VacantAt = e.state.VacantAt
		}
	case own && r.primary == nil && e.lease == nil && !e.taking && n.view == nil:
		// A tenure of ours that nobody holds, and whose record was deleted.
		live := n.cluster.records.service(e.service)
		live.term.Resigned, live.termRev = true, n.cluster.write()
		n.cluster.notify()
	case own:
		s.Mine = r.primary != nil && e.lease == nil && !e.taking && n.view == nil
	default:
		seen, ok := n.seen[id]
		if _, lives := known.pulses[id]; n.view == nil && (!ok || !lives && !seen.gone) {
			// Gone, and not by our hand: that proves nothing before its time.
			seen = sighting{gone: true, at: now, ttl: max(seen.ttl, e.timing.TTL)}
			n.seen[id] = seen
		}
		if p, lives := known.pulses[id]; n.view == nil && lives && p.rev != seen.rev && !n.cluster.broken.blind {
			// It went on while this process stood still: the compare would tell.
			seen = sighting{rev: p.rev, at: now, ttl: p.ttl}
			n.seen[id] = seen
		}
		ttl := seen.ttl
		if n.cluster.broken.hasty {
			ttl /= 2
		}
		silent := seen.at.Add(ttl)
		if n.view == nil && (seen.dead || n.cluster.broken.rash && seen.gone || !until(silent)) {
			s.Vacant, s.Unclean, s.VacantAt = true, true, silent
			from.pulse, from.pulseRev = id, known.pulses[id].rev
		}
	}

	before := func(end time.Time) bool { return end.IsZero() || until(now.Add(time.Until(end))) }
	for _, name := range slices.Sorted(maps.Keys(r.candidates)) {
		s.Candidates = append(s.Candidates, r.candidates[name])
	}
	for _, name := range slices.Sorted(maps.Keys(known.drains)) {
		if d := known.drains[name]; before(d.Until) {
			s.Drained = append(s.Drained, d)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.bans)) {
		if b := r.bans[name]; before(b.Until) {
			s.Banned = append(s.Banned, b)
		}
	}
	if r.reservation != nil {
		if e.reserved.id != r.reservation.ID {
			e.reserved = reservation{r.reservation.ID, now.Add(r.reservation.For)}
		}
		if until(e.reserved.end) {
			s.Reservation = r.reservation
		}
	}
	if s.Mine && r.given != nil {
		s.Reservation = r.given
	}
	if p := r.pause; p != nil && before(p.Until) {
		s.Pause = p
	}
	if until(n.still) {
		s.Frozen = "the records went back in time: waits until every lease of before has run out"
	}
	if n.view != nil && !until(n.lost.Add(e.timing.Renew)) {
		s.Unreachable = "the records cannot be reached"
	}

	s.Seq = e.state.Seq
	if o := e.state; s.Seq == 0 || from != e.compare || s.Vacant != o.Vacant || s.Mine != o.Mine || s.Frozen != o.Frozen {
		s.Seq++ // a take would compare something else
	}
	if !reflect.DeepEqual(s, e.state) {
		e.version++
		e.state, e.compare = s, from
	}
	return e.state, next
}

func (e *elector) Observe(ctx context.Context) iter.Seq[supervisor.State] {
	return func(yield func(supervisor.State) bool) {
		yielded := 0
		for {
			if !e.node.wait() {
				<-ctx.Done()
			}
			if ctx.Err() != nil {
				return
			}
			e.node.cluster.mu.Lock()
			s, next := e.see()
			version, changed := e.version, e.node.changed
			e.node.cluster.mu.Unlock()
			if version != yielded {
				yielded = version
				if !yield(s) {
					return
				}
				continue
			}
			e.node.await(ctx, next, changed)
		}
	}
}

// await returns at the instant, if there is one, when changed is closed, or
// when ctx ends.
func (n *Node) await(ctx context.Context, at sdk.Instant, changed <-chan struct{}) {
	var due <-chan struct{}
	if at != 0 {
		timer := n.clock.Timer(at)
		defer timer.Stop()
		due = timer.C()
	}
	select {
	case <-due:
	case <-changed:
	case <-ctx.Done():
	}
}

func (e *elector) Take(ctx context.Context, seen supervisor.State) (supervisor.Lease, error) {
	n := e.node
	n.trip(ctx)
	var won *lease
	err := n.request(ctx, e.timing.Renew, func() error {
		e.abandoned = false
		h := n.pulse(e.timing.TTL)
		if n.clock.Now().Sub(h.s) > e.timing.Renew {
			h.beat()
		}
		now, _ := e.see()
		s := n.cluster.records.service(e.service)
		switch {
		case e.lease != nil || e.taking || h.rev == 0 || seen.Frozen != "" || now.Frozen != "":
			return supervisor.ErrRefused
		case !n.cluster.broken.blind && seen.Seq != now.Seq:
			return supervisor.ErrRefused
		case now.Mine:
			given := s.given
			if won = e.hold(h, s.before); given != nil {
				e.say("lease taken term=%d, as it was given", won.term)
			}
			return nil
		case !seen.Vacant:
			return supervisor.ErrRefused
		case seen.Reservation.Binds() && seen.Reservation.To != n.Name:
			return supervisor.ErrRefused
		}
		follows := s.term
		e.write(h, s, seen)
		if n.loseReply {
			n.loseReply, e.taking = false, true
			n.cluster.notify()
			return errLost
		}
		won = e.hold(h, follows)
		e.say("lease taken term=%d", won.term)
		n.cluster.notify()
		return nil
	})
	if errors.Is(err, errLost) {
		n.pause(ctx, e.timing.Renew)
		err = n.request(ctx, 0, func() error {
			s := n.cluster.records.service(e.service)
			h := n.pulse(e.timing.TTL)
			if s.primary == nil || s.primary.Pulse != h.id {
				return supervisor.ErrRefused
			}
			won = e.hold(h, s.before)
			e.say("lease taken term=%d, as the records tell", won.term)
			return nil
		})
		n.cluster.mu.Lock()
		e.taking = false
		n.tell()
		n.cluster.mu.Unlock()
	}
	if errors.Is(err, errDead) {
		err = supervisor.ErrRefused
	}
	if err != nil {
		return nil, fmt.Errorf("take %s: %w", e.service, err)
	}
	return won, nil
}

// write is the transaction that takes the role. The caller has compared.
func (e *elector) write(h *held, s *service, seen supervisor.State) {
	n := e.node
	if id := e.compare.pulse; id != "" {
		n.cluster.remove(id)
		known := n.seen[id]
		known.gone, known.dead = true, true
		n.seen[id] = known
	}
	term := e.machineTerm(s.term.Term) + 1
	if n.cluster.broken.terms {
		term = max(1, s.term.Term)
	}
	moved := false
	if r := seen.Reservation; r.Binds() {
		moved = r.Moves()
		s.reservation, s.reservedRev = nil, 0
	}
	s.begin(n.cluster.write(), term, n.Name, h.id, moved)
	e.machineTerm(term)
}

// begin writes a new tenure.
func (s *service) begin(rev int64, term sdk.Term, node, pulse string, moved bool) {
	address := node + ".test"
	s.before = s.term
	s.primary = &supervisor.Primary{Node: node, Address: address, Term: term, Pulse: pulse, State: sdk.RolePromoting, Since: time.Now()}
	s.term = supervisor.TermRecord{Term: term, Node: node, Address: address, Pulse: pulse, Moved: moved, Victims: s.before.Lost()}
	s.primaryRev, s.termRev, s.given = rev, rev, nil
}

func (e *elector) Adopt(ctx context.Context, t supervisor.Tenure) (supervisor.Lease, error) {
	n := e.node
	n.trip(ctx)
	var won *lease
	err := n.request(ctx, e.timing.Renew, func() error {
		h := n.pulse(e.timing.TTL)
		if n.clock.Now().Sub(h.s) > e.timing.Renew {
			h.beat()
		}
		c := n.cluster
		s := c.records.service(e.service)
		_, lives := c.records.pulses[t.Pulse]
		if e.lease != nil || h.rev == 0 || !lives || s.primary == nil || s.primary.Pulse != t.Pulse || s.primary.Term != t.Term {
			return supervisor.ErrRefused
		}
		p := *s.primary
		p.Pulse = h.id
		s.primary, s.primaryRev = &p, c.write()
		if !c.broken.stray {
			s.term.Pulse, s.termRev = h.id, s.primaryRev
		}
		won = e.hold(h, s.before)
		e.say("lease taken over term=%d", won.term)
		c.notify()
		return nil
	})
	if errors.Is(err, errDead) {
		err = supervisor.ErrRefused
	}
	if err != nil {
		return nil, fmt.Errorf("take over %s: %w", e.service, err)
	}
	return won, nil
}

func (e *elector) Publish(ctx context.Context, c supervisor.Candidate) error {
	return alive(e.change(ctx, func(s *service) error {
		e.published = &c
		s.candidates[e.node.Name] = c
		return nil
	}))
}

func (e *elector) Answer(ctx context.Context, r supervisor.Reservation) error {
	e.node.trip(ctx)
	return alive(e.change(ctx, func(s *service) error {
		if s.reservation == nil || s.reservation.ID != r.ID {
			return supervisor.ErrRefused
		}
		e.reserve(s, r)
		return nil
	}))
}

func (e *elector) Request(ctx context.Context, r supervisor.Reservation) error {
	e.node.trip(ctx)
	return alive(e.change(ctx, func(s *service) error {
		if now, _ := e.see(); now.Reservation.Binds() {
			return supervisor.ErrBusy
		}
		e.reserve(s, r)
		return nil
	}))
}

// reserve writes a reservation, and who is to be given the role where this node
// has accepted it.
func (e *elector) reserve(s *service, r supervisor.Reservation) {
	s.reservation, s.reservedRev, s.heir = &r, e.node.cluster.rev, nil
	if h := e.node.pulse(e.timing.TTL); r.State == supervisor.Accepted && r.To == e.node.Name && h.rev != 0 {
		s.heir = &heir{h.id, e.machineTerm(0)}
	}
}

func (e *elector) Record(ctx context.Context, c supervisor.Change) error {
	return alive(e.change(ctx, func(s *service) error {
		for _, o := range s.history {
			c = c.Begin(o)
		}
		s.history = slices.DeleteFunc(slices.Clone(s.history), func(o supervisor.Change) bool { return o.Term == c.Term })
		s.history = append(s.history, c)
		s.history = s.history[max(0, len(s.history)-100):]
		return nil
	}))
}

// change makes one write.
func (e *elector) change(ctx context.Context, f func(*service) error) error {
	return e.node.request(ctx, e.timing.Renew, func() error {
		e.node.cluster.write()
		err := f(e.node.cluster.records.service(e.service))
		e.node.cluster.notify()
		return err
	})
}
