package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sort"
	"sync"
	"time"
)

// A store is an etcd in memory: linearizable, with a history to watch and
// leases for presence. Faults are those of the lines that lead to it.
type store struct {
	mu        sync.Mutex
	cluster   uint64
	rev       int64
	compacted int64
	recs      map[string]record
	log       []event
	leases    map[int64]*storeLease
	changed   chan struct{}
}

type storeLease struct {
	ttl   time.Duration
	timer *time.Timer
}

func newStore() *store {
	return &store{cluster: 7, rev: 1, recs: make(map[string]record), leases: make(map[int64]*storeLease), changed: make(chan struct{})}
}

func (s *store) txn(t txn) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ok := true
	for _, f := range t.If {
		have := s.recs[f.key].Mod
		if f.create {
			have = s.recs[f.key].Create
		}
		ok = ok && have == f.rev
		for key := range s.recs {
			if f.end != "" && (span{f.key, f.end}).has(key) {
				ok = false // as none asks
			}
		}
	}
	steps := t.Then
	if !ok {
		steps = t.Else
	}
	if len(steps) > maxOps || len(t.If) > maxOps {
		return reply{}, errors.New("too many operations in txn request")
	}
	for _, o := range steps {
		if o.kind == opPut && o.lease != 0 && s.leases[o.lease] == nil {
			return reply{}, errLeaseGone
		}
	}
	r := reply{OK: ok, Cluster: s.cluster, Results: make([][]record, len(steps))}
	next, wrote := s.rev+1, false
	for i, o := range steps {
		switch o.kind {
		case opGet:
			for _, key := range s.keysIn(o.span) {
				if rec, ok := s.recs[key]; ok {
					if o.keysOnly {
						rec.Value = nil
					}
					r.Results[i] = append(r.Results[i], rec)
				}
				if o.limit != 0 && int64(len(r.Results[i])) == o.limit {
					break
				}
			}
		case opPut:
			old := s.recs[o.span.key]
			rec := record{Key: o.span.key, Value: slices.Clone(o.value), Create: old.Create, Mod: next, Lease: o.lease}
			if rec.Create == 0 {
				rec.Create = next
			}
			s.recs[rec.Key] = rec
			s.log = append(s.log, event{record: rec, Prev: old})
			wrote = true
		case opDelete:
			for _, key := range s.keysIn(o.span) {
				if _, ok := s.recs[key]; ok {
					s.log = append(s.log, event{record: record{Key: key, Mod: next}, Deleted: true, Prev: s.recs[key]})
					delete(s.recs, key)
					wrote = true
				}
			}
		}
	}
	if wrote {
		s.rev = next
		close(s.changed)
		s.changed = make(chan struct{})
	}
	r.Rev = s.rev
	return r, nil
}

func (s *store) keysIn(r span) []string {
	if r.end == "" {
		return []string{r.key}
	}
	var keys []string
	for key := range s.recs {
		if r.has(key) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// since returns the events in r from revision from on.
func (s *store) since(r span, from int64) (events []event, last int64, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if from <= s.compacted {
		return nil, 0, nil, errCompacted
	}
	i := sort.Search(len(s.log), func(i int) bool { return s.log[i].Mod >= from })
	for _, ev := range s.log[i:] {
		if r.has(ev.Key) {
			events = append(events, ev)
		}
	}
	return events, s.rev, s.changed, nil
}

func (s *store) grant(ttl time.Duration) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := int64(len(s.leases) + 1)
	for s.leases[id] != nil {
		id++
	}
	s.leases[id] = &storeLease{ttl: ttl, timer: time.AfterFunc(ttl, func() { s.revoke(id) })}
	return id
}

func (s *store) keepAlive(id int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.leases[id]
	if l == nil {
		return errLeaseGone
	}
	l.timer.Reset(l.ttl)
	return nil
}

func (s *store) revoke(id int64) {
	s.mu.Lock()
	if l := s.leases[id]; l != nil {
		l.timer.Stop()
	}
	delete(s.leases, id)
	var t txn
	for key, rec := range s.recs {
		if rec.Lease == id {
			t.Then = append(t.Then, remove(one(key)))
		}
	}
	s.mu.Unlock()
	if len(t.Then) > 0 {
		_, _ = s.txn(t)
	}
}

func (s *store) compact(rev int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compacted = max(s.compacted, rev)
	i := sort.Search(len(s.log), func(i int) bool { return s.log[i].Mod > rev })
	s.log = slices.Clone(s.log[i:])
}

func (s *store) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.leases {
		l.timer.Stop()
	}
}

// A snapshot is what a backup of the store holds.
type snapshot struct {
	rev  int64
	recs map[string]record
}

func (s *store) backup() snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return snapshot{rev: s.rev, recs: maps.Clone(s.recs)}
}

// restore brings a backup back, with the cluster's id as it is: etcd may keep
// it.
func (s *store) restore(b snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rev, s.recs = b.rev, maps.Clone(b.recs)
	i := sort.Search(len(s.log), func(i int) bool { return s.log[i].Mod > b.rev })
	s.log = slices.Clone(s.log[:i])
	close(s.changed)
	s.changed = make(chan struct{})
}

// The store is a kv that never fails.
func (s *store) Name() string                                { return "store" }
func (s *store) Txn(_ context.Context, t txn) (reply, error) { return s.txn(t) }
func (s *store) KeepAlive(_ context.Context, id int64) error { return s.keepAlive(id) }
func (s *store) Close() error                                { return nil }
func (s *store) Revoke(_ context.Context, id int64) error    { s.revoke(id); return nil }
func (s *store) Compact(_ context.Context, rev int64) error  { s.compact(rev); return nil }
func (s *store) Health(context.Context) (health, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return health{Version: "3.7.3", Cluster: s.cluster, Leader: 1}, nil
}

func (s *store) Grant(_ context.Context, ttl time.Duration) (int64, error) { return s.grant(ttl), nil }

func (s *store) Watch(ctx context.Context, r span, from int64) <-chan batch {
	out := make(chan batch, 1)
	out <- batch{}
	go func() {
		defer close(out)
		for {
			events, last, changed, err := s.since(r, from)
			if err != nil {
				select {
				case out <- batch{Err: err}:
				case <-ctx.Done():
				}
				return
			}
			from = max(from, last+1)
			if len(events) > 0 {
				select {
				case out <- batch{Events: events}:
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// Faults are the odds of what happens to one call, each of 1.
type faults struct {
	refuse    float64 // an error at once, nothing is done
	drop      float64 // the request is lost, no answer
	loseReply float64 // carried out, no answer
	late      float64 // no answer, carried out up to 5 s later
	duplicate float64 // carried out, and again up to 5 s later
	stallFeed float64 // a watch tells nothing, without an error
	delay     time.Duration
}

// A line leads from one process to one endpoint, with faults.
type line struct {
	way  kv
	name string
	gate *gate // of the process: closed while it is frozen

	mu      sync.Mutex
	cut     bool
	healed  chan struct{}
	faults  faults
	full    bool           // denies every write
	deaf    bool           // loses the reply to the next write
	swallow func(txn) bool // loses what it is true for; may be nil
	tamper  func(txn) txn  // what a broken client would send; may be nil
	rng     *rand.Rand
	wg      sync.WaitGroup
}

var _ kv = (*line)(nil)

func newLine(way kv, name string, g *gate, seed uint64) *line {
	return &line{way: way, name: name, gate: g, healed: make(chan struct{}), rng: rand.New(rand.NewPCG(seed, 0))}
}

func (l *line) setCut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut && !cut {
		close(l.healed)
		l.healed = make(chan struct{})
	}
	l.cut = cut
}

func (l *line) setFaults(f faults) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = f
}

func (l *line) setSwallow(f func(txn) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.swallow = f
}

// setFull has etcd deny every write, as it does when its quota is used up.
func (l *line) setFull(full bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.full = full
}

func (l *line) denies(t txn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.full && slices.ContainsFunc(t.Then, func(o op) bool { return o.kind == opPut })
}

func (l *line) swallows(t txn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.swallow != nil && l.swallow(t)
}

func (l *line) setDeaf() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deaf = true
}

// loses reports whether the reply to t is the one to be lost.
func (l *line) loses(t txn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	lost := l.deaf && slices.ContainsFunc(t.Then, func(o op) bool { return o.kind != opGet })
	l.deaf = l.deaf && !lost
	return lost
}

func (l *line) roll() (f faults, dice, delay, later float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.faults, l.rng.Float64(), l.rng.Float64(), l.rng.Float64()
}

// passes waits until the line is whole.
func (l *line) passes(ctx context.Context) error {
	for {
		l.mu.Lock()
		cut, healed := l.cut, l.healed
		l.mu.Unlock()
		if !cut {
			return ctx.Err()
		}
		select {
		case <-healed:
		case <-ctx.Done():
			return l.hang(ctx)
		}
	}
}

func (l *line) hang(ctx context.Context) error {
	<-ctx.Done()
	return fmt.Errorf("%s: %w", l.name, context.DeadlineExceeded)
}

var errRefusedTest = errors.New("connection refused")

// hop is the way to the endpoint, or back.
const hop = 200 * time.Microsecond

// over carries out one call with the line's faults.
func over[T any](ctx context.Context, l *line, call func(context.Context) (T, error)) (answer T, err error) {
	defer l.gate.wait()
	l.gate.wait()
	f, dice, delay, later := l.roll()
	if err := pause(ctx, hop+time.Duration(delay*float64(f.delay))); err != nil {
		return answer, err
	}
	afterwards := func() {
		time.AfterFunc(time.Duration(later*float64(5*time.Second)), func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_, _ = call(ctx)
		})
	}
	if dice -= f.refuse; dice < 0 {
		return answer, fmt.Errorf("%s: %w", l.name, errRefusedTest)
	}
	if dice -= f.drop; dice < 0 {
		return answer, l.hang(ctx)
	}
	if dice -= f.late; dice < 0 {
		afterwards()
		return answer, l.hang(ctx)
	}
	if err := l.passes(ctx); err != nil {
		return answer, err
	}
	if dice -= f.loseReply; dice < 0 {
		_, _ = call(ctx)
		return answer, l.hang(ctx)
	}
	if dice -= f.duplicate; dice < 0 {
		afterwards()
	}
	got, failed := call(ctx)
	if err := pause(ctx, hop+time.Duration(later*float64(f.delay))); err != nil {
		return answer, err
	}
	if err := l.passes(ctx); err != nil {
		return answer, err
	}
	return got, failed
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.DeadlineExceeded
	}
}

func (l *line) Name() string { return l.name }

func (l *line) Txn(ctx context.Context, t txn) (reply, error) {
	if l.tamper != nil {
		t = l.tamper(t)
	}
	if l.denies(t) {
		return reply{}, &explained{endpoint: l.name, text: "database space exceeded", cure: "compact it", err: errDenied}
	}
	if l.swallows(t) {
		return reply{}, l.hang(ctx)
	}
	if l.loses(t) {
		_, _ = l.way.Txn(ctx, t)
		return reply{}, l.hang(ctx)
	}
	return over(ctx, l, func(ctx context.Context) (reply, error) { return l.way.Txn(ctx, t) })
}

func (l *line) Watch(ctx context.Context, s span, from int64) <-chan batch {
	out := make(chan batch, 1)
	l.wg.Go(func() {
		defer close(out)
		ctx, cancel := context.WithCancel(ctx)
		in := l.way.Watch(ctx, s, from)
		defer func() {
			cancel()
			for range in {
			}
		}()
		for b := range in {
			f, dice, delay, _ := l.roll()
			if dice < f.stallFeed {
				<-ctx.Done()
				return
			}
			if pause(ctx, hop+time.Duration(delay*float64(f.delay))) != nil || l.passes(ctx) != nil {
				return
			}
			l.gate.wait()
			select {
			case out <- b:
			case <-ctx.Done():
				return
			}
		}
	})
	return out
}

func (l *line) Grant(ctx context.Context, ttl time.Duration) (int64, error) {
	return over(ctx, l, func(ctx context.Context) (int64, error) { return l.way.Grant(ctx, ttl) })
}

func (l *line) KeepAlive(ctx context.Context, id int64) error {
	_, err := over(ctx, l, func(ctx context.Context) (struct{}, error) { return struct{}{}, l.way.KeepAlive(ctx, id) })
	return err
}

func (l *line) Revoke(ctx context.Context, id int64) error {
	_, err := over(ctx, l, func(ctx context.Context) (struct{}, error) { return struct{}{}, l.way.Revoke(ctx, id) })
	return err
}

func (l *line) Compact(ctx context.Context, rev int64) error {
	_, err := over(ctx, l, func(ctx context.Context) (struct{}, error) { return struct{}{}, l.way.Compact(ctx, rev) })
	return err
}

func (l *line) Health(ctx context.Context) (health, error) {
	return over(ctx, l, func(ctx context.Context) (health, error) { return l.way.Health(ctx) })
}

func (l *line) Close() error {
	l.wg.Wait()
	return l.way.Close()
}

// A gate holds back everything that a frozen process would do.
type gate struct {
	mu   sync.Mutex
	open chan struct{} // nil: open
}

func (g *gate) wait() {
	for {
		g.mu.Lock()
		ch := g.open
		g.mu.Unlock()
		if ch == nil {
			return
		}
		<-ch
	}
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open == nil {
		g.open = make(chan struct{})
	}
}

func (g *gate) lift() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open != nil {
		close(g.open)
		g.open = nil
	}
}
