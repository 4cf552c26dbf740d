package etcd

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// A view is a copy of the records in some spans. It is made of reads and of
// what watches tell, in whatever order these come: of each key the newest
// revision counts.
type view struct {
	spans  []span
	seen   func(event) // called for each change, before anybody is told; may be nil
	change signal

	mu     sync.Mutex
	breaks uint64 // the history that the records are of
	base   int64  // everything up to this revision is in; 0: never read
	recs   map[string]record
	gone   map[string]int64 // deleted at a revision above base
}

func newView(spans ...span) *view {
	return &view{spans: spans, recs: make(map[string]record), gone: make(map[string]int64)}
}

// merge takes in a read of the view's spans. One that contradicts what is known
// is of another history: then it reports false, and takes in nothing.
func (v *view) merge(r reply, results [][]record, breaks uint64) (fits bool) {
	v.mu.Lock()
	if breaks != v.breaks {
		v.reset(breaks)
	}
	if r.Rev < v.base {
		v.mu.Unlock()
		return true // overtaken by a later read
	}
	if v.contradicted(r.Rev, results) {
		v.mu.Unlock()
		return false
	}
	changed := v.base == 0
	found := make(map[string]bool)
	for _, recs := range results {
		for _, rec := range recs {
			found[rec.Key] = true
			if v.gone[rec.Key] > rec.Mod || v.recs[rec.Key].Mod >= rec.Mod {
				continue
			}
			v.tell(event{record: rec, Prev: v.recs[rec.Key]})
			v.recs[rec.Key] = rec
			changed = true
		}
	}
	for key, rec := range v.recs {
		if !found[key] && rec.Mod <= r.Rev {
			// Whether rec was the last value is not known, so Prev is empty.
			v.tell(event{record: record{Key: key, Mod: r.Rev}, Deleted: true})
			delete(v.recs, key)
			changed = true
		}
	}
	v.base = r.Rev
	maps.DeleteFunc(v.gone, func(_ string, rev int64) bool { return rev <= v.base })
	v.mu.Unlock()
	if changed {
		v.change.tell()
	}
	return true
}

// contradicted reports whether a read shows, of any key, less than what is
// known to be older than it: so little of the past was lost that etcd's own
// revision does not tell. v.mu is held.
func (v *view) contradicted(rev int64, results [][]record) bool {
	for _, recs := range results {
		for _, rec := range recs {
			known, gone := v.recs[rec.Key], v.gone[rec.Key]
			switch {
			case known.Mod > rec.Mod && known.Mod <= rev, gone > rec.Mod && gone <= rev:
				return true
			case known.Mod == rec.Mod && !bytes.Equal(known.Value, rec.Value):
				return true
			}
		}
	}
	return false
}

// apply takes in what a watch tells.
func (v *view) apply(breaks uint64, events ...event) {
	changed := false
	v.mu.Lock()
	for _, ev := range events {
		if breaks != v.breaks || ev.Mod <= v.base || ev.Mod <= v.recs[ev.Key].Mod || ev.Mod <= v.gone[ev.Key] || !v.has(ev.Key) {
			continue
		}
		v.tell(ev)
		if ev.Deleted {
			delete(v.recs, ev.Key)
			v.gone[ev.Key] = ev.Mod
		} else {
			delete(v.gone, ev.Key)
			v.recs[ev.Key] = ev.record
		}
		changed = true
	}
	v.mu.Unlock()
	if changed {
		v.change.tell()
	}
}

func (v *view) tell(ev event) {
	if v.seen != nil {
		v.seen(ev)
	}
}

func (v *view) has(key string) bool {
	return slices.ContainsFunc(v.spans, func(s span) bool { return s.has(key) })
}

// reset forgets the records of another history.
func (v *view) reset(breaks uint64) {
	for key := range v.recs {
		v.tell(event{record: record{Key: key}, Deleted: true})
	}
	v.breaks, v.base = breaks, 0
	clear(v.recs)
	clear(v.gone)
}

// copy returns the records of one instant, which nothing changes any more: what
// one transaction wrote is all in it, or not at all.
func (v *view) copy() *view {
	v.mu.Lock()
	defer v.mu.Unlock()
	return &view{spans: v.spans, breaks: v.breaks, base: v.base, recs: maps.Clone(v.recs), gone: maps.Clone(v.gone)}
}

// get returns a record; the zero record when it does not exist.
func (v *view) get(key string) record {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.recs[key]
}

// latest returns a record, and the revision up to which it is known to be that.
func (v *view) latest(key string) (record, int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	rec := v.recs[key]
	return rec, max(v.base, rec.Mod, v.gone[key])
}

// in returns the records in s, by key.
func (v *view) in(s span) []record {
	v.mu.Lock()
	defer v.mu.Unlock()
	var recs []record
	for key, rec := range v.recs {
		if s.has(key) {
			recs = append(recs, rec)
		}
	}
	slices.SortFunc(recs, func(a, b record) int {
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	return recs
}

// synced reports whether the records have been read once, of this history.
func (v *view) synced() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.base != 0
}

// of reports whether the records have been read once, and are of the history
// with so many breaks.
func (v *view) of(breaks uint64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.base != 0 && v.breaks == breaks
}

// A signal tells those who subscribed that something has changed.
type signal struct {
	mu   sync.Mutex
	subs map[*subscription]struct{}
}

type subscription struct{ tell func() }

// add has ch, of capacity 1, poked at each change until the returned func is
// called.
func (s *signal) add(ch chan<- struct{}) (remove func()) {
	return s.subscribe(func() { poke(ch) })
}

// forward has other told as well.
func (s *signal) forward(other *signal) (remove func()) {
	return s.subscribe(other.tell)
}

func (s *signal) subscribe(tell func()) (remove func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subs == nil {
		s.subs = make(map[*subscription]struct{})
	}
	sub := &subscription{tell}
	s.subs[sub] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.subs, sub)
	}
}

func (s *signal) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sub := range s.subs {
		sub.tell()
	}
}

// poke sends to a channel of capacity 1, unless something waits there already.
func poke(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// refreshEvery is how often views are read again, whatever the watch tells.
const refreshEvery = 10 * time.Second

// beginTimeout is how long a watch may take to begin.
const beginTimeout = 2 * time.Second

// A feed is one watch and the views that live on it.
type feed struct {
	c     *Client
	span  span
	fresh chan struct{} // a view was added

	mu    sync.Mutex
	views []*view
	way   kv // that the watch goes by
}

func newFeed(c *Client, s span, views ...*view) *feed {
	return &feed{c: c, span: s, fresh: make(chan struct{}, 1), views: views}
}

func (f *feed) add(v *view) {
	f.mu.Lock()
	f.views = append(f.views, v)
	f.mu.Unlock()
	poke(f.fresh)
}

func (f *feed) all() []*view {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.views)
}

// leave has the next watch go by another endpoint.
func (f *feed) leave() {
	f.mu.Lock()
	way := f.way
	f.mu.Unlock()
	if way != nil && f.c.hedge.avoid(way) {
		f.c.log.Info("the watch tells nothing, beginning anew at another endpoint", "endpoint", way.Name())
	}
}

// run keeps the views until ctx ends.
func (f *feed) run(ctx context.Context) {
	for ctx.Err() == nil {
		restart := f.c.restarts.wait()
		_, _, breaks := f.c.past.now()
		rev, err := f.c.sync(ctx, f.all()...)
		if err != nil {
			nap(ctx, hedgeDelay)
			continue
		}
		if _, _, now := f.c.past.now(); now != breaks {
			continue // read across two histories
		}
		f.watch(ctx, restart, rev+1, breaks)
	}
}

// watch feeds the views from one watch, until that ends or restart is closed.
func (f *feed) watch(ctx context.Context, restart <-chan struct{}, from int64, breaks uint64) {
	ctx, cancel := context.WithCancelCause(ctx)
	way, ch := f.c.watch(ctx, f.span, from)
	f.mu.Lock()
	f.way = way
	f.mu.Unlock()
	defer func() {
		cancel(errReleased)
		for range ch { // wait for its end
		}
	}()
	refresh := time.NewTicker(refreshEvery)
	defer refresh.Stop()
	begin := time.NewTimer(beginTimeout)
	defer begin.Stop()
	for {
		select {
		case <-begin.C:
			f.leave()
			return
		case <-refresh.C:
			// One watch of many can hang without the others. The next try is
			// soon enough when this one fails.
			_, _ = f.c.sync(ctx, f.all()...)
		case b, ok := <-ch:
			begin.Stop()
			for _, v := range f.all() {
				v.apply(breaks, b.Events...)
			}
			if !ok || b.Err != nil {
				if ctx.Err() == nil && !errors.Is(b.Err, errCompacted) {
					f.c.hedge.avoid(way)
					nap(ctx, hedgeDelay)
				}
				return
			}
		case <-f.fresh:
			// They have been told since they were added, so reading them now
			// leaves no gap.
			var fresh []*view
			for _, v := range f.all() {
				if !v.synced() {
					fresh = append(fresh, v)
				}
			}
			if _, err := f.c.sync(ctx, fresh...); err != nil {
				return
			}
		case <-restart:
			return
		case <-ctx.Done():
			return
		}
	}
}

// sync reads views anew and returns the revision up to which all are known.
func (c *Client) sync(ctx context.Context, views ...*view) (int64, error) {
	var rev int64
	for len(views) > 0 {
		var t txn
		n := 0
		for n < len(views) && len(t.Then)+len(views[n].spans) <= maxOps/2 {
			for _, s := range views[n].spans {
				t.Then = append(t.Then, get(s))
			}
			n++
		}
		_, _, breaks := c.past.now()
		r, err := c.txn(ctx, t)
		if err != nil {
			return 0, err
		}
		if _, _, now := c.past.now(); now != breaks {
			rev = 0 // another history: begin again with this one
			continue
		}
		if rev == 0 {
			rev = r.Rev
		}
		i := 0
		for _, v := range views[:n] {
			if !v.merge(r, r.Results[i:i+len(v.spans)], breaks) && c.past.broke(breaks, r.Rev) {
				c.replaced()
			}
			i += len(v.spans)
		}
		if _, _, now := c.past.now(); now != breaks {
			rev = 0
			continue
		}
		views = views[n:]
	}
	return rev, nil
}

// nap waits, unless ctx ends before.
func nap(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// A broadcast wakes everybody who waits for it.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *broadcast) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
