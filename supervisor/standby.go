package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// standby is demoted and waits until this node may campaign.
func (m *Member) standby(cause error) stateFn {
	return func(ctx context.Context) stateFn {
		m.become(sdk.RoleStandby, m.predecessor().Term, cause)
		stop := m.follow(ctx)
		defer stop()
		for ctx.Err() == nil {
			s, seen := m.election()
			if s.Mine {
				// A win whose answer never came: nothing was promoted under it.
				return m.giveBack(ctx, s)
			}
			why := m.ineligible(s, seen)
			if why == nil {
				return m.candidate
			}
			m.think(why.Error())
			m.answer(ctx, s, why)
			m.await(ctx, 0, nil)
		}
		return nil
	}
}

// ineligible tells why this node cannot campaign, or nil.
func (m *Member) ineligible(s State, seen bool) error {
	if !seen {
		return errors.New("the election has not been read yet")
	}
	if m.definition().Priority == 0 {
		return errors.New("priority 0 never leads")
	}
	if s.IsDrained(m.node.Name) {
		return fmt.Errorf("drained: `deputy undrain %s` ends it", m.node.Name)
	}
	if err := m.unfit(); err != nil {
		return fmt.Errorf("not fit: %w", err)
	}
	return nil
}

// candidate is fit and takes the role when it is its turn.
func (m *Member) candidate(ctx context.Context) stateFn {
	m.become(sdk.RoleCandidate, m.predecessor().Term, errors.New("fit"))
	stop := m.follow(ctx)
	defer stop()
	for ctx.Err() == nil {
		s, seen := m.election()
		if !s.Mine {
			if why := m.ineligible(s, seen); why != nil {
				m.answer(ctx, s, why)
				return m.standby(why)
			}
		}
		m.answer(ctx, s, nil)
		m.preempt(ctx, s)
		v := m.judge(ctx, s)
		m.think(v.why)
		if !s.Mine && (!v.lead || v.at > m.clock.Now()) {
			if r := s.Reservation; s.Vacant && r.Binds() && v.at != 0 && v.at <= m.clock.Now() {
				m.reply(ctx, *r, Declined, "the role was free for a whole ttl and not taken")
				v.at = m.clock.Now().Add(m.timing.Renew)
			}
			m.await(ctx, v.at, nil)
			continue
		}
		lease, err := m.take(ctx, s)
		if err == nil {
			return m.promoting(lease, s)
		}
		if !errors.Is(err, ErrRefused) {
			m.log.Warn("role not taken", "cause", err)
		}
		m.await(ctx, m.clock.Now().Add(m.timing.Renew), nil)
	}
	return nil
}

// take is not cut short by a stop: a win that nobody knows of would be a role
// without a holder.
func (m *Member) take(ctx context.Context, s State) (Lease, error) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), m.timing.TTL, errors.New("etcd does not answer"))
	defer cancel()
	return m.elector.Take(ctx, s)
}

// giveBack ends a tenure under which nothing was promoted.
func (m *Member) giveBack(ctx context.Context, s State) stateFn {
	lease, err := m.take(ctx, s)
	if err != nil {
		m.pause(ctx, m.timing.Renew, nil)
		return m.standby(fmt.Errorf("a win is not taken up: %w", err))
	}
	m.begin(lease, s)
	return m.demoting(lease, ending{sdk.ReasonUnfit, errors.New("won when it could not lead any more")}, m.hold(lease))
}

// begin notes whom a tenure follows, for transitions and history.
func (m *Member) begin(lease Lease, s State) ending {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = lease.Follows()
	e := ending{sdk.ReasonElection, errors.New("there was no primary")}
	r := s.Reservation
	switch {
	case r != nil && r.To == m.node.Name:
		e = ending{r.Reason, fmt.Errorf("%s to this node", r.Reason)}
		if r.By != "" {
			e.cause = fmt.Errorf("%w, asked by %s", e.cause, r.By)
		}
	case m.last.Term != 0 && !m.last.Resigned:
		e = ending{sdk.ReasonFailover, fmt.Errorf("%s was lost: its lease ran out", m.last.Node)}
	case m.last.Term != 0:
		e.cause = fmt.Errorf("%s resigned", m.last.Node)
	}
	m.change = Change{Term: lease.Term(), Node: m.node.Name, From: m.last.Node, At: time.Now(), Reason: e.reason, Cause: e.cause.Error()}
	return e
}

// judge asks the plugins that rank, where it matters, and then decides.
func (m *Member) judge(ctx context.Context, s State) verdict {
	m.mu.Lock()
	self, held, policy := m.candidacy(), m.held, m.service.OnBehind
	m.mu.Unlock()
	b := ballot{self: self, held: held, policy: policy, timing: m.timing, wall: time.Now()}
	if s.Vacant && self.Positions != nil {
		b.now = m.clock.Now()
		if !counted(s, self) {
			if wait := s.VacantAt.Add(m.timing.TTL / 2); wait > b.now {
				return verdict{at: wait, why: "vacant, waits for the other candidates' positions"}
			}
		}
		b.orders = m.rank(ctx, s, self)
	}
	b.now = m.clock.Now()
	return judge(s, b)
}

// counted reports whether all who may lead have told their position after the
// role became vacant.
func counted(s State, self Candidate) bool {
	if self.Ballot <= s.Term.Term {
		return false
	}
	for _, c := range Ranking(s) {
		if c.Eligible && c.Name != self.Name && c.Ballot <= s.Term.Term {
			return false
		}
	}
	return true
}

// rank compares this node's data with that of every candidate who told its
// position after the role became vacant; who has not is taken for lost.
func (m *Member) rank(ctx context.Context, s State, self Candidate) map[string]sdk.Order {
	orders := map[string]sdk.Order{}
	for _, p := range m.parts {
		if !p.plugin.Describe().Can(sdk.CanRank) {
			continue
		}
		others := map[string]string{}
		for _, c := range Ranking(s) {
			if c.Eligible && c.Name != self.Name && c.Ballot > s.Term.Term {
				others[c.Name] = c.Positions[p.Name]
			}
		}
		if len(others) == 0 {
			continue
		}
		asked, cancel := context.WithTimeoutCause(ctx, p.Check.Timeout, fmt.Errorf("no answer within %s", p.Check.Timeout))
		said, err := p.plugin.Rank(asked, self.Positions[p.Name], others)
		cancel()
		if err != nil {
			m.log.Warn("positions not compared", "plugin", p.Name, "cause", err)
		}
		for name := range others {
			o := said[name]
			if err != nil || o == "" {
				o = sdk.Incomparable
			}
			orders[name] = combine(orders[name], o)
		}
	}
	return orders
}

// answer tells whether this node takes what is reserved for it; why not, if
// not nil.
func (m *Member) answer(ctx context.Context, s State, why error) {
	r := s.Reservation
	if r == nil || r.To != m.node.Name || !r.Binds() {
		return
	}
	switch {
	case why != nil:
		m.reply(ctx, *r, Declined, why.Error())
	case r.State == Asked:
		m.reply(ctx, *r, Accepted, "")
	}
}

// reply changes a reservation's state. Where somebody else was faster there is
// nothing left to say.
func (m *Member) reply(ctx context.Context, r Reservation, state ReservationState, why string) {
	r.State, r.Why = state, why
	ctx, cancel := context.WithTimeout(ctx, m.timing.TTL)
	defer cancel()
	if err := m.elector.Answer(ctx, r); err != nil && !errors.Is(err, ErrRefused) {
		m.log.Warn("reservation not answered", "cause", err)
	}
}

// preempt asks for the role where this node is preferred to the primary, and
// no operator has said otherwise.
func (m *Member) preempt(ctx context.Context, s State) {
	d := m.definition()
	if !d.Preempt || s.Primary == nil || s.Vacant || s.Primary.State != sdk.RolePrimary || s.Term.Moved ||
		s.Reservation != nil || s.Pause.active(time.Now()) || s.Unreachable != "" || s.Frozen != "" {
		return
	}
	p := s.Candidate(s.Primary.Node)
	m.mu.Lock()
	held := m.held
	m.mu.Unlock()
	if p == nil || p.Priority >= d.Priority || held > m.clock.Now() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, m.timing.TTL)
	defer cancel()
	err := m.elector.Request(ctx, Reservation{
		ID: fmt.Sprintf("preempt-%s-%d-%d", m.node.Name, s.Term.Term, m.clock.Now()),
		To: m.node.Name, From: p.Name, Reason: sdk.ReasonPreempt, By: m.node.Name, State: Accepted,
		For: patience(d),
	})
	if err != nil && !errors.Is(err, ErrBusy) && !errors.Is(err, ErrRefused) {
		m.log.Warn("role not asked for", "cause", err)
	}
}

// patience is how long a hand-over of the service may take: each planned
// demotion its whole time once, and a lease for the records.
func patience(s Service) time.Duration {
	d := s.TTL
	for _, p := range s.Parts {
		d += p.Demote.Timeout
	}
	return d
}

// Patience is how long an operator's reservation should be kept for.
func (s Service) Patience() time.Duration { return patience(s) }

// follow tells the parts who is primary, once it fully is, for as long as this
// node is standby or candidate. The returned function ends it and waits.
func (m *Member) follow(ctx context.Context) func() {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			m.mu.Lock()
			s, changed := m.state, m.changed
			m.mu.Unlock()
			if p := s.Primary; p != nil && !s.Vacant && p.State == sdk.RolePrimary && p.Node != m.node.Name && p.Term != m.followed {
				m.followed = p.Term
				m.mu.Lock()
				m.last = s.Term
				m.mu.Unlock()
				m.followOnce(ctx, *p)
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}()
	return func() {
		cancel(errors.New("not a standby any more"))
		<-done
	}
}

func (m *Member) followOnce(ctx context.Context, primary Primary) {
	e := ending{sdk.ReasonElection, fmt.Errorf("%s is primary", primary.Node)}
	for _, p := range m.parts {
		if !p.plugin.Describe().Can(sdk.CanFollow) {
			continue
		}
		t := m.transition(sdk.Follow, p, primary.Term, e)
		t.Primary = sdk.Peer{Node: primary.Node, Address: primary.Address}
		for t.Timeout = p.Promote.Timeout; ctx.Err() == nil && !m.do(ctx, p, t, nil).Outcome.OK(); t.Attempt++ {
			m.pause(ctx, max(m.timing.Renew, backoff(t.Attempt)), nil)
		}
	}
}
