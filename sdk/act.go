package sdk

import (
	"errors"
	"fmt"
	"time"
)

// A Capability is something that a plugin can be called for.
type Capability string

// The capabilities of plugins.
const (
	CanPromote Capability = "promote"
	CanDemote  Capability = "demote"
	CanRenew   Capability = "renew"
	CanCheck   Capability = "check"
	CanWatch   Capability = "watch"
	CanRank    Capability = "rank"
	CanFollow  Capability = "follow"
	CanFence   Capability = "fence"
)

// An Action is what a Transition asks for.
type Action string

// The actions of a transition.
const (
	Promote Action = "promote"
	Demote  Action = "demote"
	Follow  Action = "follow"
	Fence   Action = "fence"
)

// A Mode tells a demotion how much time there is.
type Mode string

// The modes of a transition.
const (
	Planned Mode = "planned" // take the time that gives the cleanest hand-over
	Forced  Mode = "forced"  // stop acting as primary by any means before the deadline
)

// A Reason is one word for why a role moves.
type Reason string

// The reasons of a transition.
const (
	ReasonStart      Reason = "start"      // the supervisor has started
	ReasonElection   Reason = "election"   // the role was vacant, handed over cleanly before
	ReasonFailover   Reason = "failover"   // the primary was lost
	ReasonSwitchover Reason = "switchover" // an operator asked
	ReasonPreempt    Reason = "preempt"    // a preferred node is back
	ReasonUnfit      Reason = "unfit"      // a check failed, or a promotion did
	ReasonLost       Reason = "lost"       // the lease was not renewed, or taken away
	ReasonDrain      Reason = "drain"      // the node hands everything over
	ReasonStop       Reason = "stop"       // the supervisor is told to stop
	ReasonUndo       Reason = "undo"       // a hand-over that did not finish is taken back
	ReasonClear      Reason = "clear"      // an operator has put things right
	ReasonReload     Reason = "reload"     // the part's settings have changed
)

// A Peer is a node as others reach it.
type Peer struct {
	Node    string `json:"node"`
	Address string `json:"address,omitempty"`
}

// A Transition is one act asked of a plugin. The same transition may be asked
// again; it then has the same ID and a higher Attempt.
type Transition struct {
	ID         string        `json:"id"`
	Action     Action        `json:"action"`
	Mode       Mode          `json:"mode"`
	Service    string        `json:"service"`
	Node       string        `json:"node"`
	Term       Term          `json:"term"` // of a demote: the last term known, zero if none
	Reason     Reason        `json:"reason"`
	Cause      string        `json:"cause"`             // a sentence for people
	Attempt    int           `json:"attempt"`           // from 1
	Timeout    time.Duration `json:"timeout_ns"`        // how long the act may take from its start
	LeaseUntil Instant       `json:"lease_until_ns"`    // the lease holds until then; zero when none is held
	Previous   Peer          `json:"previous,omitzero"` // who was primary before
	Primary    Peer          `json:"primary,omitzero"`  // who is primary, or will be; of a fence: the victim
	Members    []Peer        `json:"members,omitempty"`
	StateDir   string        `json:"state_dir,omitempty"`
}

// An Outcome is what an act came to, as observed.
type Outcome string

// The outcomes of an act.
const (
	OutcomeDone      Outcome = "done"
	OutcomeAlready   Outcome = "already"          // nothing had to be done
	OutcomeUnchanged Outcome = "failed-unchanged" // failed, and what was before still is
	OutcomeUnknown   Outcome = "failed-unknown"   // failed, and may be primary
	OutcomeStaleTerm Outcome = "stale-term"       // a newer term was seen; nothing changed
)

// OK reports whether the part is in the role that was asked for.
func (o Outcome) OK() bool { return o == OutcomeDone || o == OutcomeAlready }

// A Result is a plugin's answer to a Transition.
type Result struct {
	Outcome    Outcome       `json:"outcome"`
	Detail     string        `json:"detail,omitempty"`         // what was seen, for people
	Refused    bool          `json:"refused,omitempty"`        // with OutcomeUnchanged: asking again is of no use
	RetryAfter time.Duration `json:"retry_after_ns,omitempty"` // with OutcomeUnchanged: not before
}

// Err returns nil for a result that is OK, else an error that tells the
// outcome and what was seen.
func (r Result) Err() error {
	switch {
	case r.Outcome.OK():
		return nil
	case r.Outcome == "":
		return fmt.Errorf("%s: no outcome", OutcomeUnknown)
	case r.Refused:
		return fmt.Errorf("refused: %s", r.Detail)
	case r.Detail == "":
		return errors.New(string(r.Outcome))
	default:
		return fmt.Errorf("%s: %s", r.Outcome, r.Detail)
	}
}
