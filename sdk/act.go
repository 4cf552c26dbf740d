package sdk

import (
	"errors"
	"fmt"
	"time"
)

// A Capability is something that a plugin can be called for. Nobody declares any:
// New reads them off the methods that the plugin's type has.
type Capability string

// The capabilities of plugins.
const (
	CanPromote Capability = "promote" // has the methods of a Promoter
	CanDemote  Capability = "demote"  // of a Demoter
	CanRenew   Capability = "renew"   // of a Renewer
	CanCheck   Capability = "check"   // of a Checker
	CanWatch   Capability = "watch"   // of a Watcher
	CanRank    Capability = "rank"    // of a Ranker
	CanFollow  Capability = "follow"  // of a Follower
	CanFence   Capability = "fence"   // of a Fencer
)

// An Action is what a Transition asks for.
type Action string

// The actions of a transition.
const (
	Promote Action = "promote" // become primary
	Demote  Action = "demote"  // be primary no more
	Follow  Action = "follow"  // point to the primary on another node
	Fence   Action = "fence"   // force another node out of the role
)

// A Mode tells a demotion how much time there is. Every other act is Planned.
type Mode string

// The modes of a transition.
const (
	Planned Mode = "planned" // take the time that gives the cleanest hand-over
	Forced  Mode = "forced"  // stop acting as primary by any means before the deadline
)

// A Reason is one word for why a role moves. More may be added: what a plugin does
// must not depend on knowing all of them.
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
	Node    string `json:"node"`              // its name
	Address string `json:"address,omitempty"` // a host name or an IP address without a port; empty when it is not known
}

// A Transition is one act asked of a plugin. The same transition may be asked
// again; it then has the same ID and a higher Attempt. Who gets one may keep it,
// and nobody else changes it.
type Transition struct {
	ID      string `json:"id"`      // unique in the service, for logs of others and for recognising what comes again
	Action  Action `json:"action"`  // which method is called
	Mode    Mode   `json:"mode"`    // how much time there is
	Service string `json:"service"` // the service's name, as Host has it
	Node    string `json:"node"`    // this node's name, as Host has it
	// Term is the tenure's: hand it to whatever can refuse an older one. Of a demote
	// it is the last one known, zero if none; of a follow that of the primary.
	Term   Term   `json:"term"`
	Reason Reason `json:"reason"` // why the role moves
	Cause  string `json:"cause"`  // the same as a sentence for people
	// Attempt counts the tries of this transition, from 1.
	Attempt int `json:"attempt"`
	// Timeout is how long the act may take from its start: ctx ends then. It is more
	// than zero. What begins something that cannot be cancelled has to leave itself
	// time to look at what came of it.
	Timeout time.Duration `json:"timeout_ns"`
	// LeaseUntil is when the lease ends, on the clock of Host.Now, as known when the
	// act was asked for: later ones come by Renew. What acts as primary must not
	// count on more. Zero when no lease is held, as for a follow.
	LeaseUntil Instant `json:"lease_until_ns"`
	Previous   Peer    `json:"previous,omitzero"` // who was primary before; zero when nobody is known
	// Primary is who is primary or will be, as far as that is known: of a promote this
	// node, of a switchover's demote its target, of a follow whom to follow, and of a
	// fence the victim.
	Primary Peer   `json:"primary,omitzero"`
	Members []Peer `json:"members,omitempty"` // the nodes that take part in the service now, this one among them
	// StateDir is the part's state directory, as Host has it.
	StateDir string `json:"state_dir,omitempty"`
}

// An Outcome is what an act came to, as observed. An author's return value says
// which: see Unchanged, Retry, Refuse, Stale and ErrAlready.
type Outcome string

// The outcomes of an act.
const (
	OutcomeDone      Outcome = "done"             // the part is in the role that was asked for
	OutcomeAlready   Outcome = "already"          // nothing had to be done
	OutcomeUnchanged Outcome = "failed-unchanged" // failed, and what was before still is
	OutcomeUnknown   Outcome = "failed-unknown"   // failed, and may be primary
	OutcomeStaleTerm Outcome = "stale-term"       // a newer term was seen; nothing changed
)

// OK reports whether the part is in the role that was asked for.
func (o Outcome) OK() bool { return o == OutcomeDone || o == OutcomeAlready }

// A Result is a plugin's answer to a Transition.
type Result struct {
	Outcome    Outcome       `json:"outcome"`                  // what it came to
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
