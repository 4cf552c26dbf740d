package sdktest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A timetable is that of a lease, from s, the sending of the last pulse that was
// acknowledged. A test of the supervisor holds it against the real one.
type timetable struct{ ttl, renew, lost, trigger, until time.Duration }

func timetableOf(ttl time.Duration) timetable {
	return timetable{
		ttl: ttl, renew: max(ttl/6, 50*time.Millisecond),
		lost: ttl * 75 / 100, trigger: ttl * 90 / 100, until: ttl * 95 / 100,
	}
}

// forced is the least that a forced demotion has.
func (t timetable) forced() time.Duration { return t.trigger - t.lost }

// A lease is the right to one tenure.
type lease struct {
	term   sdk.Term
	lost   chan struct{} // closed at the deadline, or when it proves not ours
	silent chan struct{} // closed when no renewal is acknowledged any more
	over   chan struct{} // closed when the tenure is
	hurry  chan struct{} // has one when a check must not wait
	quiet  sync.Once
	ending sync.Once
	losing sync.Once

	// Guarded by the Supervisor's mu.
	until   sdk.Instant
	since   sdk.Instant // of the first failed renewal of the part in a row
	expired bool        // the part's renewals have cost the role

	result sdk.Result // of the last demote; for who has the turn
}

func (l *lease) silence() { l.quiet.Do(func() { close(l.silent) }) }
func (l *lease) lose()    { l.silence(); l.losing.Do(func() { close(l.lost) }) }
func (l *lease) release() { l.silence(); l.ending.Do(func() { close(l.over) }) }

// take begins a tenure, or goes on with one.
func (s *Supervisor) take(term sdk.Term) *lease {
	l := &lease{term: term, lost: make(chan struct{}), silent: make(chan struct{}), over: make(chan struct{}), hurry: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.term = max(s.term, term)
	l.until = s.Now().Add(s.timing.until)
	s.lease = l
	s.tasks.Go(func() { s.renew(l) })
	return l
}

// held returns the lease, or ends the test.
func (s *Supervisor) held(what string) *lease {
	s.t.Helper()
	s.mu.Lock()
	l := s.lease
	s.mu.Unlock()
	if l == nil {
		s.t.Fatalf("%s: no lease is held\n%s", what, s.Story())
	}
	return l
}

// renew extends the lease, and tells the part each time. What has been lost is
// extended no more.
func (s *Supervisor) renew(l *lease) {
	tick := time.NewTicker(s.timing.renew)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-l.silent:
			return
		}
		if closed(l.silent) || closed(s.ended) {
			return
		}
		s.mu.Lock()
		l.until = s.Now().Add(s.timing.until)
		until, acting, primary, process := l.until, s.acting, s.role == sdk.RolePrimary, s.process
		s.mu.Unlock()
		if !acting || !s.can(sdk.CanRenew) {
			continue
		}
		r := s.record(Call{What: sdk.CanRenew, Until: until})
		ctx, cancel := context.WithTimeoutCause(context.Background(), s.timing.renew, fmt.Errorf("no answer within %s", s.timing.renew))
		err := errGone
		if process != nil {
			if err = process.Renew(ctx, until); err != nil && ctx.Err() != nil {
				err = context.Cause(ctx)
			}
		}
		cancel()
		s.finish(r, func(c *Call) { c.Err = err })
		if why := s.renewed(l, primary, err); why != nil {
			s.unfit(l, why)
		}
	}
}

var errGone = errors.New("the plugin's process is gone")

// renewed counts a renewal of the part, and returns why that costs the role, or
// nil.
func (s *Supervisor) renewed(l *lease, primary bool, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Now()
	switch {
	case err == nil:
		l.since = 0
	case l.expired:
	case errors.Is(err, sdk.ErrExpired) && primary && s.role == sdk.RolePrimary:
		l.expired = true
		return err
	case l.since == 0:
		l.since = now
	case now.Sub(l.since) >= s.timing.lost:
		// What was extended last ends about now.
		l.expired = true
		return fmt.Errorf("renewals do not arrive: %w", err)
	}
	return nil
}

// unfit has a primary leave its role, behind the back of whoever noticed.
func (s *Supervisor) unfit(l *lease, why error) {
	s.tasks.Go(func() {
		defer s.step()()
		s.mu.Lock()
		still := s.lease == l && s.role == sdk.RolePrimary
		s.mu.Unlock()
		if still && !closed(l.lost) && !closed(s.ended) {
			s.demoting(l, sdk.ReasonUnfit, fmt.Errorf("not fit: %s: %w", s.about.Name, why))
		}
	})
}

// Check asks the plugin once whether this node is fit for the role. It is
// recorded, and costs nothing.
func (s *Supervisor) Check(role sdk.Role) (h sdk.Health, err error) {
	err = s.question(Call{What: sdk.CanCheck, Role: role}, func(ctx context.Context, process *inside, c *Call) (err error) {
		h, err = process.Check(ctx, role, s.Term())
		c.Health = h
		return err
	})
	return h, err
}

// question asks the plugin what changes nothing, and records the answer in the
// call.
func (s *Supervisor) question(c Call, ask func(context.Context, *inside, *Call) error) error {
	s.mu.Lock()
	process := s.process
	s.mu.Unlock()
	if process == nil {
		return errGone
	}
	r := s.record(c)
	ctx, cancel := context.WithTimeoutCause(context.Background(), s.service.Check.Timeout, fmt.Errorf("no answer within %s", s.service.Check.Timeout))
	defer cancel()
	err := ask(ctx, process, &c)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	s.finish(r, func(told *Call) { told.Health, told.Orders, told.Err = c.Health, c.Orders, err })
	return err
}

// checks has a primary checked for as long as it is one.
func (s *Supervisor) checks(l *lease) {
	policy, began := s.service.Check, time.Now()
	failed, ever, early := 0, false, false
	due := time.Now()
	for {
		h, err := s.Check(sdk.RolePrimary)
		if err != nil {
			h = sdk.Health{Detail: err.Error()}
		}
		// One that comes early is not another one in a row: a unit that restarts
		// tells of each step, within milliseconds.
		early = early && time.Now().Before(due)
		switch {
		case h.Fit:
			failed, ever = 0, true
		case !h.Certain && !ever && time.Since(began) < policy.StartGrace:
		case !early || failed == 0:
			failed++
		}
		if !h.Fit && (h.Certain || failed >= policy.Fall) {
			s.unfit(l, errors.New(h.Detail))
			return
		}
		if next := time.Now().Add(policy.Interval); !early || next.Before(due) {
			due = next
		}
		timer := time.NewTimer(time.Until(due))
		select {
		case <-timer.C:
			early = false
		case <-l.hurry:
			early = true
		case <-l.over:
		case <-l.lost:
		case <-s.ended:
		}
		timer.Stop()
		if s.Role() != sdk.RolePrimary || closed(l.over) || closed(l.lost) || closed(s.ended) {
			return
		}
	}
}

// watch has a primary checked at once when the plugin says so.
func (s *Supervisor) watch(process *inside) {
	_ = process.Watch(context.Background(), func() { // until the process ends
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.lease == nil {
			return
		}
		select {
		case s.lease.hurry <- struct{}{}:
		default:
		}
	})
}

// Rank asks the plugin how a position compares with those of other nodes.
func (s *Supervisor) Rank(mine string, others map[string]string) (orders map[string]sdk.Order, err error) {
	err = s.question(Call{What: sdk.CanRank}, func(ctx context.Context, process *inside, c *Call) (err error) {
		orders, err = process.Rank(ctx, mine, others)
		c.Orders = orders
		return err
	})
	return orders, err
}
