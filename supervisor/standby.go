package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// standby is demoted and waits until this node may campaign.
func (m *Member) standby(cause error) stateFn {
	return func(ctx context.Context) stateFn {
		m.become(sdk.RoleStandby, m.predecessor().Term, cause)
		m.follow(ctx)
		for ctx.Err() == nil {
			if down := m.settle(ctx); down != nil {
				return down
			}
			s, seen := m.election()
			m.hear(s)
			if s.Mine {
				// A win whose answer never came: nothing was promoted under it.
				if back := m.giveBack(ctx, s); back != nil {
					return back
				}
				continue
			}
			why := m.ineligible(s, seen)
			if why == nil {
				return m.candidate
			}
			m.think(why.Error())
			m.answer(ctx, s, why)
			m.await(ctx, 0, nil)
		}
		m.unfollow()
		return nil
	}
}

// settle demotes parts whose settings have changed, as a start does: what they
// stand for may be another thing now. It returns nil, or what follows where one
// cannot be demoted.
func (m *Member) settle(ctx context.Context) stateFn {
	var changed []string
	m.mu.Lock()
	for _, p := range m.parts {
		if p.altered && !p.promoted && p.def().plugin.Describe().Can(sdk.CanDemote) {
			p.promoted = true // as far as is known
			changed = append(changed, p.Name)
		}
	}
	m.mu.Unlock()
	if changed == nil {
		return nil
	}
	m.unfollow()
	for _, p := range m.parts {
		p.followed = 0 // nor do they follow with these settings
	}
	e := ending{sdk.ReasonReload, fmt.Errorf("settings have changed: %s", strings.Join(changed, ", "))}
	if err := m.leave(ctx, nil, e, 0); err != nil {
		return m.again(ending{e.reason, fmt.Errorf("%w: %w", e.cause, err)})
	}
	m.follow(ctx)
	return nil
}

// hear notes the last tenure that there was.
func (m *Member) hear(s State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.Term.Term >= m.last.Term {
		m.last = s.Term
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
	if why := s.Barred(m.node.Name); why != "" {
		return errors.New(why)
	}
	if why := m.withdrawn(); why != nil {
		return why
	}
	if err := m.unfit(); err != nil {
		return fmt.Errorf("not fit: %w", err)
	}
	return nil
}

// withdrawn tells why this node leads nothing for now, or nil.
func (m *Member) withdrawn() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.away
}

// candidate is fit and takes the role when it is its turn.
func (m *Member) candidate(ctx context.Context) stateFn {
	m.become(sdk.RoleCandidate, 0, errors.New("fit"))
	for ctx.Err() == nil {
		if down := m.settle(ctx); down != nil {
			return down
		}
		s, seen := m.election()
		m.hear(s)
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
				m.reply(ctx, *r, Declined, "the role was free and not taken")
				v.at = m.clock.Now().Add(m.timing.Renew)
			}
			m.await(ctx, v.at, nil)
			continue
		}
		lease, err := m.take(ctx, s)
		if err == nil {
			m.unfollow()
			return m.promoting(lease, s)
		}
		if !errors.Is(err, ErrRefused) {
			m.log.Warn("role not taken", "cause", err)
		}
		m.await(ctx, m.clock.Now().Add(m.timing.Renew), nil)
	}
	m.unfollow()
	return nil
}

// take is not cut short by a stop: a win that nobody knows of would be a role
// without a holder.
func (m *Member) take(ctx context.Context, s State) (Lease, error) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), m.timing.TTL, errors.New("etcd does not answer"))
	defer cancel()
	return m.elector.Take(ctx, s)
}

// giveBack ends a tenure under which nothing was promoted. It returns nil when
// the tenure cannot be taken up now.
func (m *Member) giveBack(ctx context.Context, s State) stateFn {
	lease, err := m.take(ctx, s)
	if err != nil {
		m.log.Warn("a win is not taken up", "cause", err)
		m.pause(ctx, m.timing.Renew, nil)
		return nil
	}
	m.unfollow()
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
		if len(r.Fenced) > 0 {
			e.cause = fmt.Errorf("%w, who says that %s is down", e.cause, strings.Join(r.Fenced, ", "))
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
	if r := s.Reservation; r != nil && r.ID != m.reservation {
		m.reservation, m.asked = r.ID, m.clock.Now()
	}
	b := ballot{self: self, held: held, asked: m.asked, policy: policy, timing: m.timing, wall: time.Now()}
	b.again, b.owing = m.owing(s)
	if s.Vacant && self.Positions != nil {
		b.now = m.clock.Now()
		told, all := witnesses(s, self)
		if !all {
			if wait := s.VacantAt.Add(m.timing.TTL / 2); wait > b.now {
				return verdict{at: wait, why: "vacant, waits for the others' positions"}
			}
		}
		b.orders = m.rank(ctx, told, self)
	}
	b.now = m.clock.Now()
	return judge(s, b)
}

// witnesses are the others whose data counts: all who are present, whether or
// not they may lead, but for a primary that was lost. Who has not told its
// position after the role became vacant is not among them; the position of one
// whose part cannot be asked any more is that which it told last.
func witnesses(s State, self Candidate) (told []Candidate, all bool) {
	all = self.Ballot > s.Term.Term
	for _, c := range s.Candidates {
		switch {
		case c.Name == self.Name, c.Positions == nil, s.Unclean && c.Name == s.Term.Node:
		case c.Ballot > s.Term.Term:
			told = append(told, c)
		default:
			all = false
		}
	}
	return told, all
}

// rank compares this node's data with that of the others.
func (m *Member) rank(ctx context.Context, told []Candidate, self Candidate) map[string]sdk.Order {
	orders := map[string]sdk.Order{}
	for _, p := range m.parts {
		if !p.def().plugin.Describe().Can(sdk.CanRank) {
			continue
		}
		others := map[string]string{}
		for _, c := range told {
			if at := c.Positions[p.Name]; at != "" { // else it never could be asked: nobody is to wait for that
				others[c.Name] = at
			}
		}
		if len(others) == 0 {
			continue
		}
		asked, cancel := context.WithTimeoutCause(ctx, p.def().Check.Timeout, fmt.Errorf("no answer within %s", p.def().Check.Timeout))
		said, err := p.def().plugin.Rank(asked, self.Positions[p.Name], others)
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
	said := r.ID + " " + string(state)
	if said == m.said {
		return // the records will tell
	}
	m.said = said
	r.State, r.Why = state, why
	ctx, cancel := context.WithTimeout(ctx, m.timing.TTL)
	defer cancel()
	switch err := m.elector.Answer(ctx, r); {
	case err == nil:
		m.log.Info("reservation "+string(state), "reason", string(r.Reason), "to", r.To, "cause", why) //nolint:sloglint // one of three messages, each constant
	case !errors.Is(err, ErrRefused):
		m.said = ""
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

// follow begins to tell the parts who is primary, once it fully is or says that
// the part may be followed, for as long as this node is standby or candidate.
// Whoever leaves these roles calls unfollow first.
func (m *Member) follow(ctx context.Context) {
	if m.unfollowing != nil {
		return
	}
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	m.unfollowing = func() {
		cancel(errors.New("not a standby any more"))
		<-done
	}
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			m.mu.Lock()
			s, changed := m.state, m.changed
			m.mu.Unlock()
			if p := s.Primary; p != nil && !s.Vacant && p.Node != m.node.Name {
				m.followOnce(ctx, *p)
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}()
}

// unfollow ends follow and waits for its end.
func (m *Member) unfollow() {
	if m.unfollowing != nil {
		m.unfollowing()
		m.unfollowing = nil
	}
}

// followOnce tells the parts that may follow by now and have not been told; it
// ends early with ctx, or when somebody else is primary.
func (m *Member) followOnce(ctx context.Context, primary Primary) {
	e := ending{sdk.ReasonElection, fmt.Errorf("%s is primary", primary.Node)}
	for _, p := range m.parts {
		if p.followed == primary.Term || !p.def().plugin.Describe().Can(sdk.CanFollow) || !primary.leads(p.Name) {
			continue
		}
		t := m.transition(sdk.Follow, p, primary.Term, e)
		t.Primary = sdk.Peer{Node: primary.Node, Address: primary.Address}
		for t.Timeout = p.def().Promote.Timeout; !m.do(ctx, p, t, nil).Outcome.OK(); t.Attempt++ {
			m.pause(ctx, max(m.timing.Renew, backoff(t.Attempt)), nil)
			if s, _ := m.election(); ctx.Err() != nil || s.Primary == nil || s.Primary.Term != primary.Term {
				return
			}
		}
		p.followed = primary.Term
	}
}

// leads reports whether others may follow a part of this primary.
func (p Primary) leads(part string) bool {
	return p.State == sdk.RolePrimary || p.State == sdk.RolePromoting && slices.Contains(p.Ready, part)
}
