package etcd

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// fewServices is up to how many services are watched one by one. A process
// with more of them watches all services there are.
const fewServices = 16

// An election is what this process knows of one service, and the lease that it
// holds there, if it does.
type election struct {
	c       *Client
	service string
	view    *view
	change  signal

	mu       sync.Mutex
	held     *lease
	taking   bool
	tidying  bool
	takes    uint64        // ended
	watchers int           // who observes, and would take up what is Mine
	ttl      time.Duration // of the definition here
	sight    *sight        // of the pulse that matters
	released func()        // ends the sight

	mine  sdk.Instant      // since when the role has been ours, without a lease; 0: it is not
	state supervisor.State // as last made
	basis basis            // what a take of it compares

	highest sdk.Term    // ever seen
	ended   sdk.Term    // the last tenure that was to be given up here, which is never taken up again
	last    termRecord  // as last seen present
	vacant  sdk.Instant // since when the role is; 0: it is not
	reserve string      // ID of the reservation last seen
	since   sdk.Instant // when it was first seen

	// The history that the records are of, as far as it is known.
	marked  string // the records' own mark
	cluster string
	prefix  string
	rev     int64
	breaks  uint64
	top     sdk.Term    // as last seen, unlike highest
	until   sdk.Instant // frozen until then
	why     string
	strange string // why these are not the records that were here before; empty when they are

	originating bool

	memory  sync.Mutex // held while the witness writes
	saved   supervisor.Seen
	savedAt sdk.Instant
	newsAt  sdk.Instant // when there began to be more to save; zero: there is not
}

// A basis is what a take compares, and what makes one State newer than
// another.
type basis struct {
	Primary, Term, Reservation int64  // revisions; 0: absent
	Named                      string // the pulse that has to be dead
	NamedRev                   int64  // its revision; 0: gone
	Own                        string // the pulse of ours that a State which is Mine names
	Vacant, Mine, Orphan       bool
	Forsaken                   bool // Mine, and nobody here has taken it up for a TTL
	Expired                    bool // the reservation has ended
	Frozen                     string
	Takes                      uint64 // that have ended: after each there is a newer State
}

// election returns what is known of a service. It begins to be watched when
// the Client runs.
func (c *Client) election(service string) *election {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.elections[service]; e != nil {
		return e
	}
	if c.drains == nil {
		c.drains = newView(c.keys.nodes(), one(c.keys.origin()))
		c.spawnLocked(newFeed(c, c.keys.nodes(), c.drains).run)
	}
	e := &election{c: c, service: service, view: newView(c.keys.state(service)...)}
	e.view.change.forward(&e.change)
	c.drains.change.forward(&e.change)
	c.contact.change.forward(&e.change)
	c.turnover.forward(&e.change)
	c.elections[service] = e
	e.recall()
	switch {
	case len(c.elections) <= fewServices:
		c.spawnLocked(newFeed(c, under(c.keys.service(service)), e.view).run)
	case c.all == nil:
		c.all = newFeed(c, c.keys.services(), e.view)
		c.spawnLocked(c.all.run)
	default:
		c.all.add(e.view)
	}
	return e
}

// learn takes note of what this process has just written, in one transaction.
func (e *election) learn(rev int64, written []op) {
	_, _, breaks := e.c.past.now()
	var events []event
	for _, o := range written {
		switch o.kind {
		case opPut:
			events = append(events, event{record: record{Key: o.span.key, Value: o.value, Mod: rev}})
		case opDelete:
			events = append(events, event{record: record{Key: o.span.key, Mod: rev}, Deleted: true})
		}
	}
	e.view.apply(breaks, events...)
}

// noticed takes note of one record as read at rev.
func (e *election) noticed(rev int64, r record, key string) {
	_, _, breaks := e.c.past.now()
	if r.exists() {
		e.view.apply(breaks, event{record: r})
	} else if e.view.get(key).exists() {
		e.view.apply(breaks, event{record: record{Key: key, Mod: rev}, Deleted: true})
	}
}

// current makes the State of now. It returns as well when the State will
// change by itself; zero when it will not.
func (e *election) current() (supervisor.State, sdk.Instant) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.c.clock.Now()
	wake := waker{now: now}
	st := supervisor.State{
		Service:     e.service,
		Seq:         e.state.Seq,
		Unreachable: e.c.contact.unreachable(),
		Candidates:  []supervisor.Candidate{},
	}
	agreed, mixed := true, ""
	if e.cluster == "" && !e.c.quiet && e.held == nil {
		agreed, mixed = e.c.past.agreed()
	}
	seen := e.view.copy()
	if _, _, breaks := e.c.past.now(); !seen.of(breaks) || !e.c.drains.of(breaks) || !agreed && mixed == "" {
		return e.publishable(st, basis{}), 0
	}
	k := e.c.keys
	b := basis{Takes: e.takes}
	var complaints []error

	primRec, termRec := seen.get(k.primary(e.service)), seen.get(k.term(e.service))
	prim, err := decode[primaryRecord](primRec)
	complaints = append(complaints, err)
	term, err := decode[termRecord](termRec)
	complaints = append(complaints, err)
	b.Primary, b.Term = primRec.Mod, termRec.Mod
	st.Term = term.TermRecord
	if primRec.exists() {
		st.Primary = &prim.Primary
	}

	if e.held != nil {
		e.held.watched(seen)
	}
	if agreed {
		e.compareHistory(now, prim, term, termRec.exists())
	}
	switch {
	case !agreed:
		st.Frozen = mixed
	case e.strange != "":
		st.Frozen = e.strange
	case now < e.until:
		st.Frozen = e.why
		wake.at(e.until)
	}
	e.vacancy(now, &st, &b, prim, term)
	switch end := e.mine.Add(e.ttl); {
	case !b.Mine:
		e.mine = 0
	case e.mine == 0:
		e.mine = now
		wake.at(now.Add(e.ttl))
	case now < end:
		wake.at(end)
	default:
		b.Forsaken = true
	}

	for _, r := range seen.in(k.candidates(e.service)) {
		c, err := decode[supervisor.Candidate](r)
		complaints = append(complaints, err)
		if err == nil {
			st.Candidates = append(st.Candidates, c)
		}
	}
	if r := seen.get(k.reserved(e.service)); r.exists() {
		b.Reservation = r.Mod
		res, err := decode[supervisor.Reservation](r)
		complaints = append(complaints, err)
		if res.ID != e.reserve {
			e.reserve, e.since = res.ID, now
		}
		if end := e.since.Add(res.For); now < end {
			st.Reservation = &res
			wake.at(end)
		} else {
			b.Expired = true
		}
	}
	if b.Mine && prim.Given != nil {
		st.Reservation = prim.Given
	}
	if r := seen.get(k.pause(e.service)); r.exists() {
		p, err := decode[supervisor.Pause](r)
		complaints = append(complaints, err)
		if wake.before(p.Until) {
			st.Pause = &p
		}
	}
	for _, r := range e.c.drains.in(k.nodes()) {
		d, err := decode[supervisor.Drain](r)
		complaints = append(complaints, err)
		d.Node = strings.TrimPrefix(r.Key, k.nodes().key)
		if wake.before(d.Until) {
			st.Drained = append(st.Drained, d)
		}
	}
	for _, r := range seen.in(k.bans(e.service)) {
		ban, err := decode[supervisor.Ban](r)
		complaints = append(complaints, err)
		ban.Node = strings.TrimPrefix(r.Key, k.bans(e.service).key)
		if wake.before(ban.Until) {
			st.Banned = append(st.Banned, ban)
		}
	}
	if err := errors.Join(complaints...); err != nil && st.Frozen == "" {
		st.Frozen = err.Error() // what cannot be read is no ground to take a role
	}
	b.Frozen = st.Frozen
	return e.publishable(st, b), wake.next
}

// vacancy says whether the role may be taken, and what has to be compared.
func (e *election) vacancy(now sdk.Instant, st *supervisor.State, b *basis, prim primaryRecord, term termRecord) {
	defer func() {
		switch {
		case !st.Vacant:
			e.vacant = 0
		case e.vacant == 0:
			e.vacant = now
		}
		st.VacantAt = e.vacant
	}()
	switch {
	case e.held != nil:
		e.mind("")
		return
	case e.taking:
		// What is seen of the pulse is needed again if that fails. Until it is
		// known, a primary that was lost stays lost, for who reads the State.
		if st.Primary != nil && b.Primary == e.basis.Primary && b.Term == e.basis.Term {
			st.Vacant, st.Unclean = e.state.Vacant, e.state.Unclean
		}
		return
	}
	pulse, ttl := e.named(st.Primary != nil, prim, term)
	if own := e.c.owns(pulse); own != nil {
		e.mind("")
		b.Own = own.id
		b.Mine = st.Primary != nil
		b.Orphan = !b.Mine
		st.Mine = b.Mine
		return
	}
	e.mind(pulse)
	if pulse == "" {
		b.Vacant, st.Vacant = true, true
		return
	}
	if ttl == 0 {
		ttl = e.ttl
	}
	e.sight.expect(max(ttl, supervisor.MinTTL))
	if v := e.sight.verdict(); v.Dead {
		b.Named, b.NamedRev = pulse, v.Rev
		b.Vacant, st.Vacant, st.Unclean = true, true, true
	}
}

// named is the pulse of the tenure that may still be acted under; empty when
// there is none.
func (e *election) named(held bool, prim primaryRecord, term termRecord) (pulse string, ttl time.Duration) {
	switch {
	case held:
		return prim.Pulse, prim.ttl()
	case term.Term != 0 && !term.Resigned:
		// Somebody deleted the record of the primary, who may act until its
		// pulse falls silent.
		return term.Pulse, term.ttl()
	case term.Term == 0 && !e.last.Resigned && e.c.owns(e.last.Pulse) == nil:
		// The same, with the record of the term.
		return e.last.Pulse, e.last.ttl()
	default:
		return "", 0
	}
}

// mind has the named pulse watched, and no other.
func (e *election) mind(pulse string) {
	if e.sight != nil && e.sight.id == pulse {
		return
	}
	if e.sight != nil {
		e.released()
		e.sight = nil
	}
	if pulse != "" {
		s := e.c.sight(pulse)
		forget := s.change.forward(&e.change)
		e.sight, e.released = s, func() { forget(); e.c.release(s) }
	}
}

// compareHistory notices when the records are of another history than those
// known: etcd was replaced, or restored from a backup. What then is written of
// a primary may be long past, and a primary of the time before may act still,
// so nobody here campaigns until the longest lease has ended.
func (e *election) compareHistory(now sdk.Instant, prim primaryRecord, term termRecord, exists bool) {
	id, rev, breaks := e.c.past.now()
	cluster, top := clusterName(id), max(prim.Term, term.Term)
	strange := e.estranged(cluster)
	if strange != "" {
		if strange != e.strange {
			e.c.log.Error(saidStrange, "service", e.service, "cause", strange)
		}
		e.strange = strange
		return // what is known stays known
	}
	e.strange = ""
	why := ""
	switch {
	case e.cluster != "" && cluster != e.cluster:
		why = fmt.Sprintf("%s: %s, was %s", otherCluster, cluster, e.cluster)
	case breaks != e.breaks, rev < e.rev:
		why = fmt.Sprintf("etcd cluster %s is at revision %d, and not as it was at %d: %s", cluster, rev, e.rev, wentBack)
	case top < e.top:
		why = fmt.Sprintf("the term went back to %d, from %d", top, e.top)
	}
	if why != "" {
		longest := max(e.ttl, prim.ttl(), term.ttl(), e.last.ttl())
		e.until = now.Add(stretch(longest))
		e.why = fmt.Sprintf("%s; nobody here campaigns for %v, the longest lease there may be", why, longest)
		e.c.log.Error(saidStrange, "service", e.service, "cause", e.why)
	}
	e.cluster, e.rev, e.breaks, e.top = cluster, rev, breaks, top
	if mark := e.c.origin(); mark != "" {
		e.marked = mark
	}
	if e.marked != "" {
		e.prefix = e.c.keys.prefix()
	}
	e.highest = max(e.highest, top)
	if exists {
		e.last = term
	}
}

// recall asks the witness what was seen before this process.
func (e *election) recall() {
	_, _, e.breaks = e.c.past.now()
	if e.c.cfg.Witness == nil {
		return
	}
	seen, err := e.c.cfg.Witness.LoadSeen(e.service)
	if err != nil {
		e.c.log.Warn("cannot read what was seen of the election", "service", e.service, "cause", err)
	}
	e.cluster, e.rev, e.top, e.highest = seen.Cluster, seen.Revision, seen.Term, seen.Term
	e.marked, e.prefix = seen.Origin, seen.Prefix
	e.c.past.expect(seen.Cluster)
}

// publishable numbers the State: it is newer than the one before when a take
// would compare something else.
func (e *election) publishable(st supervisor.State, b basis) supervisor.State {
	if e.state.Seq == 0 || b != e.basis {
		st.Seq = e.state.Seq + 1
	}
	e.state, e.basis = st, b
	return st
}

// same reports whether two States say the same.
func same(a, b supervisor.State) bool {
	a.VacantAt, b.VacantAt = 0, 0
	return reflect.DeepEqual(a, b)
}

// settling is how long what was seen waits to be kept: to write it to the disk
// takes time that a role which moves has better use for. Should the host lose
// its power before, its revision, at most a minute old, still tells of records
// that went back.
const settling = 100 * time.Millisecond

// remember has the witness keep what was seen, once it is older than patience.
// It returns when it has to be called again; zero when that is not due.
func (e *election) remember(patience time.Duration) sdk.Instant {
	w := e.c.cfg.Witness
	if w == nil {
		return 0
	}
	e.memory.Lock()
	defer e.memory.Unlock()
	now := e.c.clock.Now()
	e.mu.Lock()
	seen := supervisor.Seen{Cluster: e.cluster, Revision: e.rev, Term: e.highest, Prefix: e.prefix, Origin: e.marked}
	// Until the wait is over, the next process has to begin it again.
	ready := e.cluster != "" && e.strange == "" && now >= e.until
	e.mu.Unlock()
	old := e.saved
	if !ready || seen == old {
		e.newsAt = 0
		return 0
	}
	if seen.Cluster == old.Cluster && seen.Term == old.Term && seen.Origin == old.Origin && now < e.savedAt.Add(time.Minute) {
		return 0 // revisions alone can wait
	}
	if e.newsAt == 0 {
		e.newsAt = now
	}
	if due := e.newsAt.Add(patience); now < due && old != (supervisor.Seen{}) {
		return due
	}
	if err := w.SaveSeen(e.service, seen); err != nil {
		e.c.log.Warn("cannot keep what was seen of the election", "service", e.service, "cause", err)
		return 0
	}
	e.saved, e.savedAt, e.newsAt = seen, now, 0
	return 0
}

// tidy deletes what nobody else is there to delete: a reservation past its
// end, and what a tenure of this process that it does not hold has left: one
// whose primary's record somebody deleted, or that was given to this node and
// not taken up.
func (e *election) tidy() {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.basis
	if e.tidying || !b.Expired && !b.Orphan && !b.Forsaken || e.state.Unreachable != "" {
		return
	}
	e.tidying = true
	e.c.spawn(func(ctx context.Context) {
		ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errNoAnswer)
		defer cancel()
		e.sweep(ctx, b)
		e.mu.Lock()
		e.tidying = false
		e.mu.Unlock()
	})
}

// settle gives up the role that a take without an answer may have won, when
// nobody is there to take it up: the pulse is renewed for other roles as well,
// so that one would never fall silent.
func (e *elector) settle(ctx context.Context) {
	for range 10 {
		nap(ctx, e.ttl)
		if ctx.Err() != nil {
			return
		}
		rec, err := decode[primaryRecord](e.view.get(e.c.keys.primary(e.service)))
		e.mu.Lock()
		idle := err == nil && e.held == nil && !e.taking && e.watchers == 0 && e.c.owns(rec.Pulse) != nil
		e.taking = e.taking || idle
		e.mu.Unlock()
		if !idle {
			continue
		}
		vctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errNoAnswer)
		if err := e.vacate(vctx, rec.Pulse, rec.Term, nil); err != nil {
			e.c.log.Warn("cannot give up a role that nobody takes up", "service", e.service, "cause", err)
		}
		cancel()
		e.begun()
	}
}

// observed counts those who observe.
func (e *election) observed(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.watchers += n
}

func (e *election) sweep(ctx context.Context, b basis) {
	if b.Expired {
		key := e.c.keys.reserved(e.service)
		t := txn{If: []cond{is(key, b.Reservation)}, Then: []op{remove(one(key))}}
		if r, err := e.c.txn(ctx, t); err == nil && r.OK {
			e.learn(r.Rev, t.Then)
		}
	}
	if !b.Orphan && !b.Forsaken {
		return
	}
	e.mu.Lock()
	idle := e.held == nil && !e.taking && e.basis == b
	term := e.state.Term.Term
	e.mu.Unlock()
	if !idle {
		return
	}
	if err := e.vacate(ctx, b.Own, term, nil); err != nil {
		e.c.log.Warn("cannot give up a tenure that is not held", "service", e.service, "cause", err)
	}
}

// dismiss takes note that a lease is over.
func (e *election) dismiss(l *lease) {
	e.mu.Lock()
	if e.held == l {
		e.held = nil
	}
	e.mu.Unlock()
	e.change.tell()
}

// A waker finds the next instant at which something changes by itself.
type waker struct{ now, next sdk.Instant }

// wallTime is how often an order that ends at a wall time is looked at: the wall
// clock can be set, and the clock that wakes does not go by it.
const wallTime = time.Minute

// before reports whether a wall time is still to come, as the zero one always is.
func (w *waker) before(end time.Time) bool {
	left := time.Until(end)
	if end.IsZero() || left <= 0 {
		return end.IsZero()
	}
	w.at(w.now.Add(min(left, wallTime)))
	return true
}

func (w *waker) at(i sdk.Instant) {
	if i > w.now && (w.next == 0 || i < w.next) {
		w.next = i
	}
}
