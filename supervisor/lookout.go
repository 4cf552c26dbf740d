package supervisor

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// The patience of a Lookout.
const (
	// newsDelay is how long after a change of the records their past is read:
	// until then it is being written, and etcd has better to do.
	newsDelay = time.Second
	// causeDelay is how long a change of role is not told while the history
	// does not tell its cause.
	causeDelay = 10 * time.Second
	// oldNews is how long ago what a new Lookout finds in the history may have
	// been to be told still.
	oldNews = time.Hour
	// vacantDelay, on top of three TTLs, is how long nobody may be primary before
	// people are told; with workDelay more while a node is at it.
	vacantDelay = 5 * time.Second
	workDelay   = 55 * time.Second
)

// maxKnown bounds how many IDs are known, where terms follow each other fast.
const maxKnown = 500

// A Lookout decides from what one node sees of a service what people are to be
// told. What several nodes decide is the same, but for when: whoever tells it
// has to make sure that it is told once. It has no goroutine and no lock.
type Lookout struct {
	service, node string

	known map[string]bool  // IDs of what was decided, or is too old; of the terms that news are of
	open  map[string]Event // what lasts and was told, by ID

	changes []Change // of the last news
	sight   landmark
	askAt   sdk.Instant // read news then; 0: no need

	acting  sdk.Instant   // since when the primary of the State acts; 0: nobody does
	fresh   sdk.Term      // the last tenure that was seen to begin
	outage  sdk.Instant   // since when nobody has been primary; 0: somebody is, or it is not known
	anchor  sdk.Term      // the last term before the outage
	vacancy time.Duration // how long the last outage took
}

// A landmark is what of a State has to change for the past to have grown.
type landmark struct {
	term    sdk.Term
	primary sdk.Term
	role    sdk.Role
	vacant  bool
}

// A Sight is what a Lookout has decided.
type Sight struct {
	Events []Event
	News   bool        // wants to be given news, as soon as it is convenient
	Next   sdk.Instant // look again then, if not before; 0: at the next change
}

// NewLookout returns the Lookout of a node for a service.
func NewLookout(service, node string) *Lookout {
	return &Lookout{service: service, node: node, known: map[string]bool{}, open: map[string]Event{}}
}

// Look decides what is to be told by now. It is called at each change of the
// status, at the instant that it asked for, and with news when it wanted some.
func (l *Lookout) Look(now sdk.Instant, wall time.Time, s Status, news *News) Sight {
	var out Sight
	tell := func(e Event) {
		if !l.known[e.ID] {
			l.known[e.ID] = true
			out.Events = append(out.Events, e)
		}
	}
	at := func(i sdk.Instant) {
		if i > now && (out.Next == 0 || i < out.Next) {
			out.Next = i
		}
	}
	if news != nil {
		l.learn(wall, *news)
	}
	if s.State.Unreachable == "" && heard(s.State) {
		l.watch(now, s)
		l.changesOf(now, wall, s.State, tell, at)
		l.vacant(now, wall, s, tell, at)
	}
	l.stuck(s, tell)
	l.cutOff(now, wall, s, tell, at)
	l.over(wall, s, tell)
	if l.askAt != 0 {
		out.News = l.askAt <= now
		at(l.askAt)
	}
	return out
}

// heard reports whether a State says anything yet.
func heard(s State) bool {
	return s.Primary != nil || s.Vacant || s.Term.Term != 0 || len(s.Candidates) > 0
}

// acts reports whether the records say that somebody is primary.
func acts(s State) bool {
	return s.Primary != nil && !s.Vacant && s.Primary.State == sdk.RolePrimary
}

// learn takes in what the records say of the past.
func (l *Lookout) learn(wall time.Time, n News) {
	l.changes, l.askAt = slices.Clone(n.Changes), 0
	slices.SortFunc(l.changes, func(a, b Change) int { return cmp.Compare(a.Term, b.Term) })
	told := map[string]bool{}
	for _, id := range n.Told {
		told[id] = true
	}
	for _, id := range n.Told {
		if e, lasts := l.recall(id, wall); lasts && !told[id+"/"+wordResolved] && !l.known[id+"/"+wordResolved] {
			l.known[id], l.open[id] = true, e
		}
	}
	if len(l.known) > maxKnown {
		l.forget()
	}
}

// forget drops what nobody tells again: it is of terms long past, or of none.
func (l *Lookout) forget() {
	maps.DeleteFunc(l.known, func(id string, _ bool) bool {
		word, _, _ := strings.Cut(strings.TrimPrefix(id, l.service+"/"), "/")
		term, err := strconv.ParseUint(word, 10, 64)
		_, lasts := l.open[id]
		return !lasts && (err != nil || sdk.Term(term)+10 < l.sight.term)
	})
}

// recall makes an event that lasts of its ID: another process has told of it.
func (l *Lookout) recall(id string, wall time.Time) (Event, bool) {
	words := strings.Split(strings.TrimPrefix(id, l.service+"/"), "/")
	if len(words) < 2 || words[len(words)-1] == wordResolved {
		return Event{}, false
	}
	e := newEvent(l.service, EventKind(words[1]), UrgencyInfo, wall, words...)
	if len(words) > 2 {
		e.Node = words[2]
	}
	switch e.Kind {
	case EventNoPrimary, EventBlocked, EventFailed:
		return e, true
	case EventUnreachable:
		return e, e.Node == l.node
	}
	return Event{}, false
}

// watch follows who is primary.
func (l *Lookout) watch(now sdk.Instant, s Status) {
	st := s.State
	mark := landmark{term: st.Term.Term, vacant: st.Vacant}
	if st.Primary != nil {
		mark.primary, mark.role = st.Primary.Term, st.Primary.State
	}
	first := l.sight == landmark{}
	if mark != l.sight && l.askAt == 0 {
		l.askAt = now.Add(newsDelay)
	}
	moved := mark.primary != l.sight.primary
	l.sight = mark
	switch {
	case acts(st) && (l.acting == 0 || moved):
		l.acting, l.vacancy = now, 0
		if !first {
			l.fresh = mark.primary
		}
		if l.outage != 0 {
			l.vacancy, l.outage = now.Sub(l.outage), 0
		}
	case acts(st):
	case l.outage == 0:
		l.acting, l.outage, l.anchor = 0, now, st.Term.Term
		switch {
		case st.Vacant && st.Unclean && !first:
			l.outage = now.Add(-s.TTL) // its pulse has been silent for so long
		case mark.role == sdk.RolePromoting && l.anchor > 0:
			l.anchor-- // the vacancy before was too short to be seen
		}
	}
}

// changesOf tells of changes of role, and of what went wrong in them.
func (l *Lookout) changesOf(now sdk.Instant, wall time.Time, st State, tell func(Event), at func(sdk.Instant)) {
	current := sdk.Term(0)
	if acts(st) {
		current = st.Primary.Term
	}
	for _, c := range l.changes {
		if !l.recent(c, wall) {
			continue
		}
		failed := failures(c.Steps)
		for _, s := range append(failed, failures(c.EndSteps)...) {
			if s.Action == sdk.Demote && c.Ended.IsZero() {
				continue // it goes on
			}
			tell(stepFailed(l.service, c, s))
		}
		promoted := !slices.ContainsFunc(failed, func(s Step) bool { return s.Action == sdk.Promote }) && (c.Ended.IsZero() || len(c.Steps) > 0)
		// The newest one is told once the records say that it acts, or is over.
		if promoted && c.Term != current && (c.Term < st.Term.Term || st.Vacant || !c.Ended.IsZero()) {
			tell(becamePrimary(l.service, c, false, 0))
		}
	}
	if current == 0 {
		return
	}
	i := slices.IndexFunc(l.changes, func(c Change) bool { return c.Term == current })
	switch p := st.Primary; {
	case i >= 0 && l.recent(l.changes[i], wall):
		tell(becamePrimary(l.service, l.changes[i], true, l.vacancy))
	case i >= 0, current != l.fresh: // so it was before this process
	case now < l.acting.Add(causeDelay):
		if l.askAt == 0 && !l.known[becamePrimary(l.service, Change{Term: current}, true, 0).ID] {
			l.askAt = now.Add(newsDelay)
		}
		at(l.acting.Add(causeDelay))
	default:
		tell(becamePrimary(l.service, Change{Term: p.Term, Node: p.Node, At: p.Since}, true, l.vacancy))
	}
}

// recent reports whether a change is new enough to be told, if it was not.
func (l *Lookout) recent(c Change, wall time.Time) bool {
	at := c.At
	if !c.Ended.IsZero() {
		at = c.Ended
	}
	return c.Term == l.fresh || wall.Sub(at) < oldNews
}

// vacant tells when nobody has been primary for too long.
func (l *Lookout) vacant(now sdk.Instant, wall time.Time, s Status, tell func(Event), at func(sdk.Instant)) {
	if l.outage == 0 || l.isOpen(EventNoPrimary, "") {
		return
	}
	end := l.outage.Add(3*s.TTL + vacantDelay)
	if s.State.Primary != nil && !s.State.Vacant {
		end = end.Add(workDelay)
	}
	if now < end {
		at(end)
		return
	}
	l.begin(noPrimary(s, l.anchor, now.Sub(l.outage), wall), tell)
}

// stuck tells of nodes that are blocked or failed.
func (l *Lookout) stuck(s Status, tell func(Event)) {
	if s.Role == sdk.RoleBlocked || s.Role == sdk.RoleFailed {
		term := sdk.Term(0)
		if s.LeaseLeft > 0 || s.Role == sdk.RoleBlocked {
			term = s.Term
		}
		l.nodeIs(s.Node, s.Role, term, s.Since, s.Cause, tell)
	}
	if s.State.Unreachable != "" {
		return
	}
	for _, c := range s.State.Candidates {
		if c.Name != l.node && (c.Role == sdk.RoleBlocked || c.Role == sdk.RoleFailed) {
			l.nodeIs(c.Name, c.Role, c.Term, c.Since, cmp.Or(c.Health, c.Verdict), tell)
		}
	}
}

func (l *Lookout) nodeIs(node string, role sdk.Role, term sdk.Term, since time.Time, cause string, tell func(Event)) {
	e := stuckNode(l.service, node, role, term, since, cause)
	// A node that is failed tries again all the time, each time anew.
	if !l.isOpen(e.Kind, node) {
		l.begin(e, tell)
	}
}

// cutOff tells when this node holds the role and cannot reach etcd, once half
// of the lease is gone.
func (l *Lookout) cutOff(now sdk.Instant, wall time.Time, s Status, tell func(Event), at func(sdk.Instant)) {
	if s.State.Unreachable == "" || !Holds(s.Role) || l.isOpen(EventUnreachable, l.node) {
		return
	}
	if s.LeaseLeft > s.TTL/2 {
		at(now.Add(s.LeaseLeft - s.TTL/2))
		return
	}
	l.begin(cutOff(s, wall), tell)
}

func (l *Lookout) isOpen(kind EventKind, node string) bool {
	for _, e := range l.open {
		if e.Kind == kind && e.Node == node {
			return true
		}
	}
	return false
}

// begin tells of something that lasts.
func (l *Lookout) begin(e Event, tell func(Event)) {
	tell(e)
	l.open[e.ID] = e
}

// over tells of the end of what lasted.
func (l *Lookout) over(wall time.Time, s Status, tell func(Event)) {
	for _, id := range slices.Sorted(maps.Keys(l.open)) {
		e := l.open[id]
		text := l.ended(e, s)
		if text == "" {
			continue
		}
		delete(l.open, id)
		if e.Kind == EventNoPrimary {
			e.Node, e.WithoutPrimary = s.State.Primary.Node, l.vacancy
		}
		tell(e.resolved(wall, l.service+": "+text+"."))
	}
}

// ended tells how something ended that lasted; it is empty while that is not
// known to have.
func (l *Lookout) ended(e Event, s Status) string {
	known := s.State.Unreachable == "" && heard(s.State)
	switch e.Kind {
	case EventNoPrimary:
		if known && acts(s.State) {
			return s.State.Primary.Node + " is primary, term " + termWord(s.State.Primary.Term) + ": the service has a primary again"
		}
	case EventUnreachable:
		if known {
			return e.Node + " can reach etcd again, and is " + string(s.Role)
		}
	case EventBlocked, EventFailed:
		role := s.Role
		if e.Node != l.node {
			c := s.State.Candidate(e.Node)
			if !known || c == nil {
				return ""
			}
			role = c.Role
		}
		switch role {
		case sdk.RoleBlocked, sdk.RoleFailed, sdk.RoleDemoting, sdk.RoleUnknown:
		default:
			return e.Node + " is " + string(e.Kind) + " no more: it is " + string(role)
		}
	}
	return ""
}
