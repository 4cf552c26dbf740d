package supervisor

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// An Elector keeps the records of one service's election. All methods may be
// called at the same time.
type Elector interface {
	// Observe yields what the records say: at once, after each change, and
	// when a silent primary's lease has run out. A State replaces the one
	// before; some may be left out. It ends only with ctx, or when the loop
	// is left.
	Observe(ctx context.Context) iter.Seq[State]
	// Take takes the vacant role, if nothing has changed since seen was
	// yielded. A reservation for this node is used up by it, and Term.Moved
	// set when its Reason is switchover or failover; one that binds and is
	// for another node is ErrRefused. A State that is Mine is taken up as a win. Of an unknown
	// result it finds out; the errors are ErrRefused when somebody was
	// faster, and those of ctx and of unreachable records, after which a
	// later State may be Mine.
	Take(ctx context.Context, seen State) (Lease, error)
	// Adopt takes over, by compare, the lease that a process before this one
	// left in the run directory. ErrRefused means that it is somebody's or
	// nobody's by now; any other error, that this is not known yet.
	Adopt(ctx context.Context, t Tenure) (Lease, error)
	// Publish tells the others about this node, now and for as long as the
	// process lives.
	Publish(ctx context.Context, c Candidate) error
	// Answer changes a reservation that is still the one with r's ID;
	// ErrRefused when it is not.
	Answer(ctx context.Context, r Reservation) error
	// Request writes a reservation; ErrBusy when another is in force.
	Request(ctx context.Context, r Reservation) error
	// Record keeps a change of role in the history. Of an adopted tenure the
	// beginning that is recorded already stays.
	Record(ctx context.Context, c Change) error
}

// A Lease is the expiring right to be primary for one term. It is renewed
// until Resign or Abandon, also after Lost, so that nobody starts before this
// node has proven that it stopped.
type Lease interface {
	Term() sdk.Term
	// Follows is the tenure before: whom this one succeeds, and how it left.
	Follows() TermRecord
	// Tenure is what the next process on this node needs to Adopt the lease.
	Tenure() Tenure
	// Lost is closed at s + 0.75 T, or at once when the pulse or the role
	// proves not ours. It stays closed: the tenure is over. Cause tells why.
	Lost() <-chan struct{}
	Cause() error
	// Until is s + 0.95 T: nothing may count on more. It grows with each
	// acknowledged pulse, and is zero once the role proved not ours.
	Until() sdk.Instant
	// Renewed receives after an acknowledged pulse; it never queues more than one.
	Renewed() <-chan struct{}
	// Renew asks for a pulse now and returns when it is acknowledged, or ctx ends.
	Renew(ctx context.Context) error
	// Announce writes the role into the record, for others to see, and which parts
	// they may follow before it is primary.
	Announce(ctx context.Context, r sdk.Role, ready ...string) error
	// Resign gives the lease back, or to the node that has accepted the
	// reservation in force: that one's next State is then Mine. Only a node
	// that has proven to be demoted may call it. It returns nil as well when
	// the role is not ours any more.
	Resign(ctx context.Context) error
	// Abandon stops renewing without giving back: the next process adopts the
	// lease, or it runs out.
	Abandon()
}

// A State is what the records of a service say at one moment, as this node
// saw them.
type State struct {
	Service string `json:"service"`
	Seq     uint64 `json:"-"` // Take refuses a State that is not the newest

	Primary *Primary   `json:"primary,omitempty"` // nil: the record is absent
	Term    TermRecord `json:"term"`
	// Vacant: the role may be taken now, because the last primary resigned,
	// there never was one, or its pulse has been silent for its whole TTL.
	Vacant   bool        `json:"vacant"`
	VacantAt sdk.Instant `json:"-"`                 // since when, on this node's clock
	Unclean  bool        `json:"unclean,omitempty"` // vacant, and the last primary did not resign
	Mine     bool        `json:"-"`                 // the record names this process, which holds no lease for it; Reservation is then what it was given for, if anything

	Candidates  []Candidate  `json:"candidates"`            // those present, this node included, by name
	Reservation *Reservation `json:"reservation,omitempty"` // nil when none, or past its end
	Pause       *Pause       `json:"pause,omitempty"`
	Drained     []Drain      `json:"drained,omitempty"` // those in force
	Banned      []Ban        `json:"banned,omitempty"`  // those in force

	// Frozen tells why nobody here may campaign now; empty when one may.
	Frozen string `json:"frozen,omitempty"`
	// Unreachable tells since when and why the records cannot be read; the
	// rest of the State is then what was last known.
	Unreachable string `json:"unreachable,omitempty"`
}

// Candidate returns the named node's candidacy, or nil.
func (s State) Candidate(node string) *Candidate {
	for i := range s.Candidates {
		if s.Candidates[i].Node.Name == node {
			return &s.Candidates[i]
		}
	}
	return nil
}

// IsDrained reports whether the named node leads nothing by an operator's wish.
func (s State) IsDrained(node string) bool {
	return s.drain(node) != nil
}

func (s State) drain(node string) *Drain {
	for i := range s.Drained {
		if s.Drained[i].Node == node {
			return &s.Drained[i]
		}
	}
	return nil
}

// IsBanned reports whether the named node does not lead this service by an
// operator's wish.
func (s State) IsBanned(node string) bool {
	return s.ban(node) != nil
}

func (s State) ban(node string) *Ban {
	for i := range s.Banned {
		if s.Banned[i].Node == node {
			return &s.Banned[i]
		}
	}
	return nil
}

// Barred tells by which order of an operator's the named node may not lead, and
// what ends that; empty when it may.
func (s State) Barred(node string) string {
	if d := s.drain(node); d != nil {
		return fmt.Sprintf("drained%s: `deputy undrain %s` ends it", holds(d.Since, d.Until, d.By, d.Reason), node)
	}
	if b := s.ban(node); b != nil {
		return fmt.Sprintf("banned%s: `deputy unban %s %s` ends it", holds(b.Since, b.Until, b.By, b.Reason), s.Service, node)
	}
	return ""
}

// holds is the end of a sentence about an order: until or since when it holds,
// who gave it and why.
func holds(since, until time.Time, by, reason string) string {
	text := ""
	if !until.IsZero() {
		text += " until " + until.Format(time.RFC3339)
	}
	if by != "" {
		text += " by " + by
	}
	if reason != "" {
		text += " (" + reason + ")"
	}
	if until.IsZero() && !since.IsZero() {
		text += ", since " + since.Format(time.RFC3339)
	}
	return text
}

// A Primary is the record services/NAME/primary.
type Primary struct {
	Node    string   `json:"node"`
	Address string   `json:"address,omitempty"`
	Term    sdk.Term `json:"term"`
	Pulse   string   `json:"pulse"`
	State   sdk.Role `json:"state"` // promoting, primary, demoting or blocked
	// Ready are the parts that others may follow though not all is promoted.
	Ready []string  `json:"ready,omitempty"`
	Since time.Time `json:"since"` // wall time, for people
}

// A TermRecord is the record services/NAME/term: the last tenure that began.
// It is never deleted.
type TermRecord struct {
	Term     sdk.Term `json:"term"`
	Node     string   `json:"node,omitempty"`
	Address  string   `json:"address,omitempty"`
	Pulse    string   `json:"pulse,omitempty"`
	Resigned bool     `json:"resigned"`
	Moved    bool     `json:"moved,omitempty"` // an operator chose this primary; preempt leaves it alone
	// Victims are those who were lost as primary before this tenure, for as long
	// as nobody has been primary since. Take sets them to Lost of the record that
	// it replaces, Announce of primary clears them.
	Victims []sdk.Peer `json:"victims,omitempty"`
}

// Lost are those who have to be fenced by the tenure after this one, where
// fences are wanted: its own node, if it did not resign, and all whom itself had
// to fence, since it may have been lost before it did. Its own node, where it
// did resign, has proven to be demoted.
func (t TermRecord) Lost() []sdk.Peer {
	var lost []sdk.Peer
	for _, v := range t.Victims {
		if v.Node != t.Node {
			lost = append(lost, v)
		}
	}
	if t.Term != 0 && !t.Resigned {
		lost = append(lost, sdk.Peer{Node: t.Node, Address: t.Address})
	}
	return lost
}

// A Candidate is the record services/NAME/candidates/NODE: a node's presence
// and what there is to know about it.
type Candidate struct {
	Node
	Priority  int               `json:"priority"`
	Role      sdk.Role          `json:"role"`
	Term      sdk.Term          `json:"term,omitempty"` // of the tenure, when there is one
	Since     time.Time         `json:"since"`          // in this role; wall time, for people
	Fit       bool              `json:"fit"`
	Health    string            `json:"health,omitempty"` // what the checks say
	Verdict   string            `json:"verdict"`          // why it can or cannot lead
	Held      bool              `json:"held,omitempty"`   // sits out: everybody else first
	Positions map[string]string `json:"positions,omitempty"`
	Ballot    sdk.Term          `json:"ballot,omitempty"` // the positions are from after the end of this term
	Hash      string            `json:"hash"`             // of the definition
}

// A ReservationState is how far a reservation has come.
type ReservationState string

// The states of a reservation.
const (
	Asked    ReservationState = "asked"    // the target has not answered
	Accepted ReservationState = "accepted" // the target is ready; the primary hands over
	Declined ReservationState = "declined" // the target will not; everybody is free again
	Undone   ReservationState = "undone"   // the primary could not leave in time and stays
)

// A Reservation is the record services/NAME/reservation: who may campaign
// next, and for how long. It binds while asked or accepted, and For has not
// passed on the clock of whoever looks since it first saw this ID.
type Reservation struct {
	ID     string        `json:"id"`
	To     string        `json:"to"`
	From   string        `json:"from,omitempty"` // the primary it was written against
	Reason sdk.Reason    `json:"reason"`         // switchover, failover, preempt or drain
	By     string        `json:"by,omitempty"`
	For    time.Duration `json:"for_ns"`
	Force  bool          `json:"force,omitempty"` // an operator's failover: take it though behind or not comparable
	// Fenced are nodes of which an operator says that they are down for certain,
	// so that they need no fence; of a failover.
	Fenced []string         `json:"fenced,omitempty"`
	State  ReservationState `json:"state"`
	Why    string           `json:"why,omitempty"` // of declined and undone
}

// Binds reports whether the reservation keeps others from campaigning.
func (r *Reservation) Binds() bool {
	return r != nil && (r.State == Asked || r.State == Accepted)
}

// Moves reports whether an operator chose where the role goes.
func (r *Reservation) Moves() bool {
	return r.Reason == sdk.ReasonSwitchover || r.Reason == sdk.ReasonFailover
}

// A Pause is the record services/NAME/pause: no automatic take-over.
type Pause struct {
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // zero: until resume
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
}

// A Drain is the record nodes/NODE: this node hands everything over and leads
// nothing.
type Drain struct {
	Node   string    `json:"node"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // zero: until undrain
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
}

// A Ban is the record services/NAME/bans/NODE: this node hands the service over
// and does not lead it.
type Ban struct {
	Node   string    `json:"node"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // zero: until unban
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
}

// A Change is the record services/NAME/history/TERM: one tenure from its
// beginning to its end, with what each step took.
type Change struct {
	Term   sdk.Term   `json:"term"`
	Node   string     `json:"node"`
	From   string     `json:"from,omitempty"` // the node before
	At     time.Time  `json:"at"`             // the role was taken
	Reason sdk.Reason `json:"reason"`
	Cause  string     `json:"cause"`
	Steps  []Step     `json:"steps,omitempty"`
	// Adopted: a process took the tenure over from one that ended.
	Adopted bool `json:"adopted,omitempty"`

	Ended     time.Time  `json:"ended,omitzero"`
	EndReason sdk.Reason `json:"end_reason,omitempty"`
	EndCause  string     `json:"end_cause,omitempty"`
	EndSteps  []Step     `json:"end_steps,omitempty"`
}

// Begin returns c with the beginning of the tenure as recorded before, where c
// is of a process that only adopted it.
func (c Change) Begin(recorded Change) Change {
	if c.Adopted && recorded.Term == c.Term && recorded.Term != 0 {
		c.At, c.From, c.Reason, c.Cause, c.Steps = recorded.At, recorded.From, recorded.Reason, recorded.Cause, recorded.Steps
	}
	return c
}

// A Step is one act of one plugin within a Change.
type Step struct {
	Plugin  string        `json:"plugin"`
	Action  sdk.Action    `json:"action"`
	Victim  string        `json:"victim,omitempty"` // of a fence
	Mode    sdk.Mode      `json:"mode,omitempty"`
	Outcome sdk.Outcome   `json:"outcome"`
	Detail  string        `json:"detail,omitempty"`
	Dur     time.Duration `json:"dur_ns"`
}
