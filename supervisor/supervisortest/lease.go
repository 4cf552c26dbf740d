package supervisortest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// A lease is one tenure of an elector. All of it is guarded by the cluster's mu.
type lease struct {
	e        *elector
	term     sdk.Term
	follows  supervisor.TermRecord
	pulse    *held
	id       string // of the pulse
	rev      int64  // of the record primary
	until    sdk.Instant
	deadline *timer
	lost     chan struct{}
	cause    error
	renewed  chan struct{}
	leaving  bool // resigned, and nobody knows yet whether that arrived
	over     bool // resigned or abandoned
}

// hold begins a tenure. The caller holds mu.
func (e *elector) hold(h *held, follows supervisor.TermRecord) *lease {
	s := e.node.cluster.records.service(e.service)
	l := &lease{
		e: e, term: s.primary.Term, follows: follows, pulse: h, id: h.id, rev: s.primaryRev,
		until: h.s.Add(e.timing.Until + e.node.cluster.broken.late),
		lost:  make(chan struct{}), renewed: make(chan struct{}, 1),
	}
	e.lease = l
	l.arm()
	return l
}

// arm sets the timer of the deadline, which depends on no loop.
func (l *lease) arm() {
	at := l.until.Add(l.e.timing.Lost - l.e.timing.Until)
	l.deadline = l.e.node.clock.after(at, func() {
		l.e.node.cluster.mu.Lock()
		defer l.e.node.cluster.mu.Unlock()
		switch {
		case l.over || l.cause != nil || l.e.node.dead:
		case l.e.node.clock.Now() < l.until.Add(l.e.timing.Lost-l.e.timing.Until):
			l.arm()
		default:
			l.lose(fmt.Errorf("no pulse acknowledged for %s", l.e.timing.Lost), false)
		}
	})
}

// lose ends the tenure; proven when the role may be another's already.
func (l *lease) lose(cause error, proven bool) {
	if proven {
		l.until = 0
	}
	if l.cause != nil || l.over {
		return
	}
	l.cause = cause
	l.deadline.Stop()
	l.e.say("lease lost term=%d: %v", l.term, cause)
	close(l.lost)
	l.e.node.tell()
}

func (l *lease) Term() sdk.Term                 { return l.term }
func (l *lease) Follows() supervisor.TermRecord { return l.follows }
func (l *lease) Lost() <-chan struct{}          { return l.lost }
func (l *lease) Renewed() <-chan struct{}       { return l.renewed }

func (l *lease) Tenure() supervisor.Tenure {
	return supervisor.Tenure{
		Service: l.e.service, Term: l.term, Pulse: l.id, Boot: l.e.node.machine.boot,
		Node: l.e.node.Name, Until: l.Until(),
	}
}

func (l *lease) Cause() error {
	l.e.node.cluster.mu.Lock()
	defer l.e.node.cluster.mu.Unlock()
	return l.cause
}

func (l *lease) Until() sdk.Instant {
	l.e.node.cluster.mu.Lock()
	defer l.e.node.cluster.mu.Unlock()
	return l.until
}

func (l *lease) Renew(ctx context.Context) error {
	var asked sdk.Instant
	for {
		var acknowledged bool
		var changed chan struct{}
		err := l.e.node.request(ctx, 0, func() error {
			if asked == 0 {
				asked = l.e.node.clock.Now()
				l.pulse.beat()
			}
			if l.id != l.pulse.id {
				return supervisor.ErrRefused
			}
			acknowledged, changed = l.pulse.s >= asked, l.e.node.changed
			return nil
		})
		switch {
		case errors.Is(err, errDead):
			return nil
		case err != nil || acknowledged:
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (l *lease) Announce(ctx context.Context, r sdk.Role, ready ...string) error {
	return alive(l.e.node.request(ctx, l.e.timing.Renew, func() error {
		s := l.e.node.cluster.records.service(l.e.service)
		if s.primaryRev != l.rev || l.over {
			return supervisor.ErrRefused
		}
		p := *s.primary
		p.State, p.Ready = r, ready
		s.primary, s.primaryRev = &p, l.e.node.cluster.write()
		l.rev = s.primaryRev
		if r == sdk.RolePrimary {
			s.term.Victims = nil
		}
		l.e.node.cluster.notify()
		return nil
	}))
}

func (l *lease) Resign(ctx context.Context) error {
	n := l.e.node
	n.trip(ctx)
	err := n.request(ctx, 0, func() error {
		c := n.cluster
		s := c.records.service(l.e.service)
		if l.over {
			return nil
		}
		held := s.primary != nil && s.primaryRev == l.rev
		if held {
			s.primary, s.primaryRev = nil, 0
		}
		said := "was not ours any more"
		if s.primary == nil && s.term.Term == l.term && s.term.Node == n.Name {
			s.term.Resigned, s.termRev, said = true, c.write(), "resigned"
			if to := l.e.heir(); held && to != nil {
				r := s.reservation
				s.begin(s.termRev, l.term+1, r.To, to.pulse, r.Moves())
				s.given, s.reservation, s.reservedRev, s.heir = r, nil, 0, nil
			}
		}
		if n.loseReply {
			n.loseReply, l.leaving = false, true
			return errLost
		}
		l.end("lease " + said)
		c.notify()
		return nil
	})
	if errors.Is(err, errLost) {
		// What became of it shows in the records.
		n.pause(ctx, l.e.timing.Renew)
		err = n.request(ctx, 0, func() error {
			l.end("lease resigned, as the records tell")
			n.cluster.notify()
			return nil
		})
	}
	return alive(err)
}

// heir is who gets the role in the same write that gives it up; nil when nobody
// has accepted a reservation in force, or can not have it any more.
func (e *elector) heir() *heir {
	now, _ := e.see()
	c := e.node.cluster
	s := c.records.service(e.service)
	if now.Reservation == nil || now.Reservation != s.reservation || s.heir == nil || s.heir.top > s.term.Term {
		return nil
	}
	if _, lives := c.records.pulses[s.heir.pulse]; !lives {
		return nil
	}
	return s.heir
}

func (l *lease) Abandon() {
	l.e.node.cluster.mu.Lock()
	defer l.e.node.cluster.mu.Unlock()
	if !l.over && !l.e.node.dead {
		l.e.abandoned = true
		l.end("lease let go of")
	}
}

func (l *lease) end(said string) {
	l.over = true
	l.deadline.Stop()
	l.e.lease = nil
	l.e.say("%s term=%d", said, l.term)
	l.e.node.tell()
}

var errLost = errors.New("the reply is lost")

// alive turns what a ghost gets to hear into a success.
func alive(err error) error {
	if errors.Is(err, errDead) {
		return nil
	}
	return err
}

// pause waits on the node's clock, or until ctx ends.
func (n *Node) pause(ctx context.Context, d time.Duration) {
	timer := n.clock.Timer(n.clock.Now().Add(d))
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-ctx.Done():
	}
}
