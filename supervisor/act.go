package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// overdue is how much longer than its timeout an act may take to end before
// its processes are killed by the role machine. A plugin's host ends acts by
// itself, well before.
const overdue = 5 * time.Second

// transition returns an act for a part; its attempts share the ID.
func (m *Member) transition(a sdk.Action, p *part, term sdk.Term, e ending) sdk.Transition {
	m.mu.Lock()
	m.transitions++
	s, last := m.state, m.last
	m.mu.Unlock()
	t := sdk.Transition{
		ID:      fmt.Sprintf("%s-%d-%d-%s-%s", m.node.Name, term, m.transitions, a, p.Name),
		Action:  a,
		Mode:    sdk.Planned,
		Service: m.definition().Name, Node: m.node.Name,
		Term: term, Reason: e.reason, Cause: e.cause.Error(),
		Attempt:  1,
		Previous: sdk.Peer{Node: last.Node, Address: last.Address},
		Members:  peers(s),
	}
	switch {
	case a == sdk.Promote:
		t.Primary = m.node.Peer()
	case s.Primary != nil && s.Primary.Node != m.node.Name:
		t.Primary = sdk.Peer{Node: s.Primary.Node, Address: s.Primary.Address}
	case s.Reservation.Binds() && s.Reservation.To != m.node.Name:
		t.Primary = sdk.Peer{Node: s.Reservation.To}
		if c := s.Candidate(s.Reservation.To); c != nil {
			t.Primary = c.Peer()
		}
	}
	return t
}

// do runs one attempt of an act. It returns when the act has ended, or at once
// when abort is closed: the act is then told to end and not waited for, and
// its outcome is Unknown until its processes are proven gone.
func (m *Member) do(ctx context.Context, p *part, t sdk.Transition, abort <-chan struct{}) sdk.Result {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errors.New("the act is over"))
	m.mu.Lock()
	plugin := p.def().plugin
	p.running++
	m.doing = fmt.Sprintf("%s %s", t.Action, p.Name)
	m.tell()
	m.mu.Unlock()

	began := m.clock.Now()
	ended := make(chan sdk.Result, 1)
	m.acts.Go(func() {
		r := plugin.Do(ctx, t, func(said string) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.doing = fmt.Sprintf("%s %s: %s", t.Action, p.Name, said)
			m.tell()
		})
		m.mu.Lock()
		p.running--
		m.mu.Unlock()
		ended <- r
	})
	late := m.clock.Timer(began.Add(t.Timeout + overdue))
	defer late.Stop()

	var r sdk.Result
	select {
	case r = <-ended:
	case <-abort:
		r = sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "cut short"}
	case <-late.C():
		r = sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: fmt.Sprintf("has not ended %s after its timeout of %s", overdue, t.Timeout)}
		if err := m.kill(ctx, plugin); err != nil {
			r.Detail += ": " + err.Error()
		}
	}
	m.step(p, t, r, m.clock.Now().Sub(began))
	return r
}

// kill ends what runs of a part, and returns nil only when it is gone.
func (m *Member) kill(ctx context.Context, plugin Plugin) error {
	ctx, cancel := context.WithTimeoutCause(ctx, max(m.timing.Forced(), 100*time.Millisecond), errors.New("its processes do not end"))
	defer cancel()
	err := plugin.Kill(ctx)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// step keeps what an attempt came to, for the log and the history.
func (m *Member) step(p *part, t sdk.Transition, r sdk.Result, dur time.Duration) {
	m.mu.Lock()
	m.doing = ""
	p.tally.act(t.Action, r.Outcome, dur)
	s := Step{Plugin: p.Name, Action: t.Action, Mode: t.Mode, Outcome: r.Outcome, Detail: r.Detail, Dur: dur}
	if t.Action == sdk.Fence {
		s.Victim = t.Primary.Node
	}
	switch t.Action {
	case sdk.Demote:
		m.change.EndSteps = append(m.change.EndSteps, s)
	case sdk.Promote, sdk.Fence:
		m.change.Steps = append(m.change.Steps, s)
	}
	m.tell()
	m.mu.Unlock()
	args := []any{"plugin", p.Name, "action", string(t.Action), "mode", string(t.Mode), "term", uint64(t.Term), "attempt", t.Attempt, "outcome", string(r.Outcome), "dur", dur}
	if err := r.Err(); err != nil {
		m.log.Warn("act failed", append(args, "cause", err)...)
		return
	}
	m.log.Debug("act done", args...)
}

// try runs an act with its retries under a lease. It ends early when the lease
// is lost or ctx ends.
func (m *Member) try(ctx context.Context, lease Lease, p *part, t sdk.Transition, policy ActPolicy) sdk.Result {
	for {
		if m.busy(p) {
			// It could come after whatever is seen now; only force helps.
			return sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "an earlier act has not ended"}
		}
		t.Timeout, t.LeaseUntil = policy.Timeout, lease.Until()
		if t.Action == sdk.Promote && t.LeaseUntil <= m.clock.Now() {
			return sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: "the lease has run out"}
		}
		r := m.do(ctx, p, t, lease.Lost())
		if r.Outcome.OK() || r.Refused || r.Outcome == sdk.OutcomeStaleTerm || t.Attempt > policy.Retries {
			return r
		}
		m.pause(ctx, max(r.RetryAfter, backoff(t.Attempt)), lease.Lost())
		if ctx.Err() != nil || isClosed(lease.Lost()) {
			return r
		}
		t.Attempt++
	}
}

// busy reports whether an act of the part that was given up still runs.
func (m *Member) busy(p *part) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return p.running > 0
}

// backoff is the least time between one attempt and the next.
func backoff(attempt int) time.Duration {
	return min(50*time.Millisecond<<min(attempt-1, 5), time.Second)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
