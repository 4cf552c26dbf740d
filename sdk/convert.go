package sdk

import (
	"time"

	wire "github.com/deputy-ha/deputy/sdk/proto"
)

// transitionOf reads a transition off the wire.
func transitionOf(r *wire.TransitionRequest) *Transition {
	t := &Transition{
		ID: r.Id, Service: r.Service, Node: r.Node, Term: Term(r.Term), Reason: Reason(r.Reason), Cause: r.Cause,
		Attempt: int(r.Attempt), Timeout: time.Duration(r.TimeoutNs), LeaseUntil: Instant(r.LeaseUntilNs),
		Previous: peerOf(r.Previous), Primary: peerOf(r.Primary), StateDir: r.StateDir, Mode: Planned,
	}
	switch r.Action {
	case wire.Action_ACTION_PROMOTE:
		t.Action = Promote
	case wire.Action_ACTION_DEMOTE:
		t.Action = Demote
	case wire.Action_ACTION_FOLLOW:
		t.Action = Follow
	case wire.Action_ACTION_FENCE:
		t.Action = Fence
	}
	if r.Mode == wire.Mode_MODE_FORCED {
		t.Mode = Forced
	}
	for _, m := range r.Members {
		t.Members = append(t.Members, peerOf(m))
	}
	return t
}

func peerOf(p *wire.Peer) Peer { return Peer{Node: p.GetNode(), Address: p.GetAddress()} }

// wire returns the result as it goes over the wire.
func (r Result) wire() *wire.Result {
	w := &wire.Result{Detail: r.Detail, Refused: r.Refused, RetryAfterNs: int64(r.RetryAfter)}
	switch r.Outcome {
	case OutcomeDone:
		w.Outcome = wire.Outcome_OUTCOME_DONE
	case OutcomeAlready:
		w.Outcome = wire.Outcome_OUTCOME_ALREADY
	case OutcomeUnchanged:
		w.Outcome = wire.Outcome_OUTCOME_FAILED_UNCHANGED
	case OutcomeStaleTerm:
		w.Outcome = wire.Outcome_OUTCOME_STALE_TERM
	default:
		w.Outcome = wire.Outcome_OUTCOME_FAILED_UNKNOWN
	}
	return w
}

func wireOrders(orders map[string]Order) map[string]wire.Order {
	w := make(map[string]wire.Order, len(orders))
	for node, o := range orders {
		switch o {
		case Ahead:
			w[node] = wire.Order_ORDER_AHEAD
		case Equal:
			w[node] = wire.Order_ORDER_EQUAL
		case Behind:
			w[node] = wire.Order_ORDER_BEHIND
		default:
			w[node] = wire.Order_ORDER_UNSPECIFIED
		}
	}
	return w
}
