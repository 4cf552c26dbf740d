package supervisor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// EventFormat names the shape of an Event as JSON. Within it fields are only
// added; readers ignore those that they do not know.
const EventFormat = "deputy.event/1"

// An EventKind is what people are told of.
type EventKind string

// The kinds of events. Those of the first group are over when they are told;
// those of the second last, and their end is told by another event of the same
// kind that is Resolved.
const (
	EventPrimary         EventKind = "primary"          // a node has become primary
	EventPromotionFailed EventKind = "promotion-failed" // a part could not be promoted; the role was left again
	EventDemotionFailed  EventKind = "demotion-failed"  // a tenure ended without a part's demotion having succeeded
	EventFenceFailed     EventKind = "fence-failed"     // a lost primary could not be fenced

	EventNoPrimary   EventKind = "no-primary"       // nobody has been primary for longer than a fail-over takes
	EventBlocked     EventKind = "blocked"          // a node keeps the role, because its demotion failed
	EventFailed      EventKind = "failed"           // a node may act as primary without a lease
	EventUnreachable EventKind = "etcd-unreachable" // a primary cannot renew, and will lose its role

	EventTest EventKind = "test" // sent by an operator to try a receiver
)

// EventKinds are all kinds that happen by themselves.
func EventKinds() []EventKind {
	return []EventKind{
		EventPrimary, EventNoPrimary, EventBlocked, EventFailed,
		EventPromotionFailed, EventDemotionFailed, EventFenceFailed, EventUnreachable,
	}
}

// An Urgency tells how soon somebody should look.
type Urgency string

// The urgencies.
const (
	UrgencyInfo     Urgency = "info"     // for the record
	UrgencyWarning  Urgency = "warning"  // the role is held, and something went wrong on the way
	UrgencyCritical Urgency = "critical" // the service is down or unsafe until somebody acts
)

// An Event is what people are told. All nodes that learn of an event give it
// the same ID, however often it is told.
type Event struct {
	Format   string    `json:"format"`
	ID       string    `json:"id"` // begins with the service's name and a slash
	Service  string    `json:"service"`
	Node     string    `json:"node,omitempty"` // that it is about
	Kind     EventKind `json:"event"`
	Resolved bool      `json:"resolved"` // what lasted is over
	Severity Urgency   `json:"severity"`
	At       time.Time `json:"at"` // wall time of the node that it is about, or that has noticed it
	Term     sdk.Term  `json:"term,omitempty"`
	From     string    `json:"from,omitempty"`  // of primary: the node before
	Cause    string    `json:"cause,omitempty"` // as the history and status have it
	// WithoutPrimary is how long nobody was primary, as the node that tells it
	// saw it; from the last renewal of a primary that was lost.
	WithoutPrimary time.Duration `json:"without_primary_ns,omitempty"`
	Text           string        `json:"text"` // all of it in a sentence or two, with what to type
}

// A Notice is one event for one receiver.
type Notice struct {
	Event    Event
	Receiver string
}

// A Ledger keeps which events have been told, for all nodes of a service. Its
// methods may be called at the same time.
type Ledger interface {
	// News returns what the records say of a service's past.
	News(ctx context.Context, service string) (News, error)
	// Claim has this node be the one to deliver a notice, for that long.
	// ErrTold when it has been delivered, ErrBusy while another has the claim.
	Claim(ctx context.Context, n Notice, d time.Duration) (token string, err error)
	// Release ends a claim, so that another can try.
	Release(ctx context.Context, n Notice, token string) error
	// Told keeps that a notice needs no delivery any more.
	Told(ctx context.Context, n Notice) error
}

// News is what the records say of a service's past.
type News struct {
	Changes []Change // the newest few, oldest first
	Told    []string // IDs of the events that some receiver has been told of
}

// newEvent begins an event whose ID is made of these words.
func newEvent(service string, kind EventKind, s Urgency, at time.Time, words ...string) Event {
	return Event{
		Format: EventFormat, ID: strings.Join(append([]string{service}, words...), "/"),
		Service: service, Kind: kind, Severity: s, At: at,
	}
}

// TestEvent is an event by which an operator tries a receiver; the ID differs
// from one to the next.
func TestEvent(node string, at time.Time) Event {
	e := newEvent("deputy", EventTest, UrgencyInfo, at, fmt.Sprint(at.UnixNano()), string(EventTest))
	e.Node, e.Text = node, fmt.Sprintf("deputy on %s can reach you: this is a test, nothing has happened.", node)
	return e
}

// resolved is the event that tells of e's end.
func (e Event) resolved(at time.Time, text string) Event {
	e.ID += "/" + wordResolved
	e.Resolved, e.Severity, e.At, e.Text = true, UrgencyInfo, at, text
	return e
}

// The last word of an ID that tells of an end.
const wordResolved = "resolved"

// becamePrimary tells of a change of role. Now is false when it is past
// already; gone is how long nobody was primary, zero when that is not known.
func becamePrimary(service string, c Change, now bool, gone time.Duration) Event {
	severity, verb := UrgencyInfo, "is primary"
	if c.Reason == sdk.ReasonFailover {
		severity = UrgencyWarning
	}
	if !now {
		verb = "became primary"
	}
	e := newEvent(service, EventPrimary, severity, c.At, termWord(c.Term), string(EventPrimary))
	e.Node, e.Term, e.From, e.Cause, e.WithoutPrimary = c.Node, c.Term, c.From, c.Cause, gone
	e.Text = fmt.Sprintf("%s: %s %s, term %d", service, c.Node, verb, c.Term)
	if c.Cause != "" {
		e.Text += ": " + c.Cause
	}
	if gone > 0 {
		e.Text += fmt.Sprintf("; nobody was primary for about %s", gone.Round(100*time.Millisecond))
	}
	if !now && !c.Ended.IsZero() {
		e.Text += fmt.Sprintf("; it left the role after %s: %s", c.Ended.Sub(c.At).Round(time.Second), c.EndCause)
	}
	e.Text += fmt.Sprintf(". See `deputy history %s`.", service)
	return e
}

// stepFailed tells of an act that did not succeed, however often it was tried.
func stepFailed(service string, c Change, s Step) Event {
	kind, severity, at := EventPromotionFailed, UrgencyWarning, c.At
	what := fmt.Sprintf("%s could not promote %s in term %d", c.Node, s.Plugin, c.Term)
	switch s.Action {
	case sdk.Fence:
		kind, severity = EventFenceFailed, UrgencyCritical
		what = fmt.Sprintf("%s could not be fenced by %s on %s in term %d", s.Victim, s.Plugin, c.Node, c.Term)
	case sdk.Demote:
		kind, severity, at = EventDemotionFailed, UrgencyCritical, c.Ended
		what = fmt.Sprintf("%s left the role of term %d without a demotion of %s that succeeded", c.Node, c.Term, s.Plugin)
	}
	words := []string{termWord(c.Term), string(kind), s.Plugin}
	if s.Victim != "" {
		words = append(words, s.Victim)
	}
	e := newEvent(service, kind, severity, at, words...)
	e.Node, e.Term, e.Cause = c.Node, c.Term, string(s.Outcome)
	if s.Detail != "" {
		e.Cause = s.Detail
	}
	e.Text = fmt.Sprintf("%s: %s: %s. See `deputy history %s` and `deputy status %s`.", service, what, e.Cause, service, service)
	return e
}

// failures are the last attempts of each act that did not succeed.
func failures(steps []Step) (failed []Step) {
	type act struct {
		plugin, victim string
		action         sdk.Action
	}
	last := map[act]int{}
	for i, s := range steps {
		last[act{s.Plugin, s.Victim, s.Action}] = i
	}
	for i, s := range steps {
		if last[act{s.Plugin, s.Victim, s.Action}] == i && !s.Outcome.OK() {
			failed = append(failed, s)
		}
	}
	return failed
}

// noPrimary tells that nobody is primary, for so long already.
func noPrimary(s Status, anchor sdk.Term, gone time.Duration, at time.Time) Event {
	e := newEvent(s.Service, EventNoPrimary, UrgencyCritical, at, termWord(anchor), string(EventNoPrimary))
	e.Term, e.WithoutPrimary = anchor, gone
	r := NewReport(s.State, nil)
	switch p := r.Primary; {
	case p != nil && !r.Vacant:
		e.Cause = fmt.Sprintf("%s is %s, term %d", p.Node, p.State, p.Term)
	case p != nil:
		e.Cause = fmt.Sprintf("%s was lost, its lease ran out", p.Node)
	case r.Term == 0:
		e.Cause = "there was none yet"
	default:
		e.Cause = fmt.Sprintf("%s resigned", s.State.Term.Node)
	}
	e.Text = fmt.Sprintf("%s: nobody has been primary for %s: %s", s.Service, gone.Round(time.Second), e.Cause)
	if p := r.Pause; p != nil {
		e.Text += fmt.Sprintf("; paused %s, so nobody takes over: `deputy resume %s`", p, s.Service)
	}
	e.Text += fmt.Sprintf(". `deputy explain %s` tells why nobody can.", s.Service)
	return e
}

// stuckNode tells that a node is blocked or failed.
func stuckNode(service, node string, role sdk.Role, term sdk.Term, since time.Time, cause string) Event {
	kind, what := EventBlocked, "keeps the role, so that nobody else starts, because its demotion failed"
	if role == sdk.RoleFailed {
		kind, what = EventFailed, "may still act as primary without a lease, because its demotion failed"
	}
	// Without a lease there is no term that all nodes would know of.
	word := termWord(term)
	if term == 0 {
		word = fmt.Sprintf("since-%d", since.Unix())
	}
	e := newEvent(service, kind, UrgencyCritical, since, word, string(kind), node)
	e.Node, e.Term, e.Cause = node, term, cause
	e.Text = fmt.Sprintf("%s: %s %s: %s. Put it right there, then `deputy clear %s`.", service, node, what, cause, service)
	return e
}

// cutOff tells that a node that holds the lease cannot renew it.
func cutOff(s Status, at time.Time) Event {
	e := newEvent(s.Service, EventUnreachable, UrgencyCritical, at, termWord(s.Term), string(EventUnreachable), s.Node)
	e.Node, e.Term, e.Cause = s.Node, s.Term, s.State.Unreachable
	e.Text = fmt.Sprintf("%s: %s, %s in term %d, cannot reach etcd and leaves the role %s from now unless it can: %s. See `deputy check --deep`.",
		s.Service, s.Node, s.Role, s.Term, s.LeaseLeft.Round(100*time.Millisecond), s.State.Unreachable)
	return e
}

func termWord(t sdk.Term) string { return fmt.Sprint(uint64(t)) }
