package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// checked is how many roles one pulse reads to see that they are ours. A
// process with more of them takes turns.
const checked = 100

// A pulse is the record by which this process renews the leases of one TTL.
// Its ID belongs to this process alone; once it is lost it never comes back,
// and new leases hang on another.
type pulse struct {
	c      *Client
	id     string
	key    string
	timing supervisor.Timing
	wake   chan struct{} // asks for a pulse now
	view   *view         // the record as the watch tells of it
	feed   *feed
	meter  *meter

	mu      sync.Mutex
	count   uint64 // of the last value sent
	tries   []try  // values whose outcome is not known
	acked   uint64 // count of the last value known to be written
	rev     int64  // and its revision; 0: none
	create  int64  // revision of the record's creation
	sent    sdk.Instant
	over    error // why the pulse is lost; nil while it is not
	retired bool  // no new leases
	kept    bool  // a tenure was abandoned on it, so it must not be deleted
	leases  []*lease
	next    int           // where the checking of roles goes on
	changed chan struct{} // closed and replaced when any of the above changes

	unseen   int64 // an acknowledged revision that the watch has not told of
	unseenAt sdk.Instant
}

// A try is a value and when it was first sent.
type try struct {
	count uint64
	sent  sdk.Instant
	wall  time.Time
}

// maxTries bounds how many unanswered values are remembered. What is forgotten
// is far older than any lease.
const maxTries = 1000

var (
	errPulseLost = errors.New("the pulse was taken away")
	errRoleLost  = errors.New("the role is not ours any more")
	errSilent    = errors.New("the lease could not be renewed in time")
	errStopped   = errors.New("the client has stopped")
	errReleased  = errors.New("of no interest any more")
	errRetired   = errors.New("the pulse is given up")
)

func newPulse(c *Client, ttl time.Duration) *pulse {
	id := rand.Text()
	key := c.keys.pulse(id)
	view := newView(one(key))
	return &pulse{
		c:       c,
		id:      id,
		key:     key,
		timing:  c.timing(ttl),
		wake:    make(chan struct{}, 1),
		view:    view,
		feed:    newFeed(c, one(key), view),
		changed: make(chan struct{}),
	}
}

// pulse returns the pulse that new leases of this TTL hang on.
func (c *Client) pulse(ttl time.Duration) *pulse {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pulseLocked(ttl)
}

func (c *Client) pulseLocked(ttl time.Duration) *pulse {
	p := c.pulses[ttl]
	if p == nil {
		p = newPulse(c, ttl)
		p.meter = c.meter(ttl)
		c.pulses[ttl] = p
		c.spawnLocked(p.run)
	}
	return p
}

// owns returns the living pulse with this ID, if it is one of ours that new
// leases hang on.
func (c *Client) owns(id string) *pulse {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pulses {
		if p.id == id {
			return p
		}
	}
	return nil
}

// replace has new leases hang on a new pulse.
func (c *Client) replace(p *pulse) {
	c.mu.Lock()
	if ttl := p.timing.TTL; c.pulses[ttl] == p && !c.ended {
		delete(c.pulses, ttl)
		c.pulseLocked(ttl)
	}
	c.mu.Unlock()
	c.turnover.tell()
}

// prune ends the pulses of TTLs that no election here has any more, each with
// the last lease that hangs on it.
func (c *Client) prune() {
	c.mu.Lock()
	elections := slices.Collect(maps.Values(c.elections))
	c.mu.Unlock()
	wanted := make(map[time.Duration]bool)
	for _, e := range elections {
		e.mu.Lock()
		wanted[e.ttl] = true
		e.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for ttl, p := range c.pulses {
		if wanted[ttl] {
			continue
		}
		delete(c.pulses, ttl)
		p.mu.Lock()
		p.retired = true
		p.mu.Unlock()
		poke(p.wake)
	}
}

// run renews the pulse until it is lost, or given up, or ctx ends.
func (p *pulse) run(ctx context.Context) {
	began := p.c.clock.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	// The deadline has a goroutine of its own: renewing can hang.
	wg.Go(func() { p.guard(ctx) })
	wg.Go(func() { p.feed.run(ctx) })

	cause := p.renew(ctx)
	p.end(cause)
	switch {
	case errors.Is(cause, errStopped):
		return // nothing takes its place; leave deletes it
	case errors.Is(cause, errRetired):
		p.remove(ctx)
	}
	if p.c.clock.Now() < began.Add(p.timing.Renew) {
		nap(ctx, p.timing.Renew/2) // whatever takes pulses away, it is not to be raced
	}
	p.c.replace(p)
}

// remove deletes the pulse, unless a tenure may hang on it that is for another
// process to adopt. If that cannot be done the pulse falls silent.
func (p *pulse) remove(ctx context.Context) {
	p.mu.Lock()
	idle, rev, last := !p.kept && p.rev != 0 && len(p.leases) == 0, p.rev, p.count
	p.mu.Unlock()
	for idle {
		r, err := p.c.txn(ctx, txn{
			If:   []cond{is(p.key, rev)},
			Then: []op{remove(one(p.key))},
			Else: []op{get(one(p.key))},
		})
		if err != nil {
			p.c.log.Info("cannot delete the pulse, it will fall silent", "pulse", p.id, "cause", err)
			return
		}
		if r.OK {
			return
		}
		// A value whose answer was not waited for was written after all.
		rec := r.first(0)
		found, err := decode[pulseRecord](rec)
		idle = rec.exists() && err == nil && found.Count <= last && rec.Mod != rev
		rev = rec.Mod
	}
}

// renew writes the pulse again and again; it returns why it cannot go on.
func (p *pulse) renew(ctx context.Context) error {
	due := p.c.clock.Now()
	for {
		begin := p.c.clock.Now()
		if late := begin.Sub(due); late > p.timing.TTL/3 {
			p.c.log.Warn("the process was stopped, or the machine asleep", "dur", late)
		}
		if p.idle() {
			return errRetired
		}
		again, err := p.beat(ctx)
		if err != nil {
			return err
		}
		if again {
			continue
		}
		p.listen()
		due = begin.Add(p.timing.Renew)
		t := p.c.clock.Timer(due)
		select {
		case <-t.C():
		case <-p.wake:
			due = p.c.clock.Now()
		case <-ctx.Done():
			t.Stop()
			return errStopped
		}
		t.Stop()
	}
}

// idle reports whether the pulse is retired and no lease hangs on it.
func (p *pulse) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.retired && len(p.leases) == 0
}

// beat writes the pulse once. It asks for another at once when what it has
// learned is old; an error means that the pulse is lost.
func (p *pulse) beat(ctx context.Context) (again bool, err error) {
	p.mu.Lock()
	p.count++
	now := try{count: p.count, sent: p.c.clock.Now(), wall: time.Now()}
	p.tries = append(p.tries, now)
	if len(p.tries) > maxTries {
		p.tries = slices.Delete(p.tries, 0, 1)
	}
	t := txn{
		If: []cond{is(p.key, p.rev)},
		Then: []op{put(p.key, encode(pulseRecord{
			Node:  p.c.cfg.Node.Name,
			Boot:  p.c.cfg.Node.Boot,
			TTL:   p.timing.TTL.Milliseconds(),
			Count: now.count,
		}))},
		Else: []op{get(one(p.key))},
	}
	roles := p.turn()
	for _, l := range roles {
		t.Then = append(t.Then, get(one(l.key)))
	}
	p.mu.Unlock()

	rctx, cancel := context.WithTimeoutCause(ctx, p.timing.Renew, errNoAnswer)
	defer cancel()
	r, err := p.c.txnHedged(rctx, min(hedgeDelay, p.timing.Renew/4), t)
	if took := p.c.clock.Now().Sub(now.sent); ctx.Err() == nil {
		p.meter.count(took, err == nil && (r.OK || r.first(0).exists()))
	}
	if err != nil {
		return false, nil // nothing is known, so nothing is extended
	}
	if r.OK {
		for i, l := range roles {
			l.verify(r.first(i + 1))
		}
		return p.acknowledge(now.count, r.Rev, r.Rev), nil
	}
	rec := r.first(0)
	if !rec.exists() {
		return false, errPulseLost
	}
	found, err := decode[pulseRecord](rec)
	if err != nil {
		return false, fmt.Errorf("%w: %w", errPulseLost, err)
	}
	p.mu.Lock()
	ours := found.Count > p.acked && found.Count <= p.count
	p.mu.Unlock()
	if !ours {
		return false, fmt.Errorf("%w: it was put back to an older value", errPulseLost)
	}
	// An attempt that got no answer, or a duplicate of this one, was carried
	// out.
	return p.acknowledge(found.Count, rec.Mod, rec.Create) || found.Count < now.count, nil
}

// turn returns the roles that the next pulse reads.
func (p *pulse) turn() []*lease {
	n := len(p.leases)
	if n <= checked {
		return slices.Clone(p.leases)
	}
	var roles []*lease
	for range checked {
		p.next = (p.next + 1) % n
		roles = append(roles, p.leases[p.next])
	}
	return roles
}

// acknowledge takes note that the value with this count is written. It reports
// whether that was sent so long ago that another pulse is called for, and
// then tells nobody who would renew by it.
func (p *pulse) acknowledge(count uint64, rev, create int64) (again bool) {
	now, wall := p.c.clock.Now(), time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rev == 0 {
		p.create = create
	}
	p.acked, p.rev = count, rev
	i := slices.IndexFunc(p.tries, func(t try) bool { return t.count == count })
	if i < 0 {
		return true // forgotten: it extends nothing
	}
	t := p.tries[i]
	p.tries = slices.Delete(p.tries, 0, i+1)
	p.sent = t.sent
	p.tell()
	if p.unseen == 0 {
		p.unseen, p.unseenAt = rev, now
	}
	age := now.Sub(t.sent)
	drift := wall.Round(0).Sub(t.wall.Round(0)) - age
	if age > p.timing.TTL/3 || drift.Abs() > p.timing.TTL/10 {
		return true
	}
	for _, l := range p.leases {
		poke(l.renewed)
	}
	return false
}

// tell wakes those who wait for a change; p.mu is held.
func (p *pulse) tell() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// guard ends the leases that are not renewed in time.
func (p *pulse) guard(ctx context.Context) {
	for {
		p.mu.Lock()
		deadline, changed, held := p.sent.Add(p.timing.Lost), p.changed, false
		for _, l := range p.leases {
			held = held || !l.isLost()
		}
		p.mu.Unlock()
		if !held {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return
			}
		}
		t := p.c.clock.Timer(deadline)
		select {
		case <-t.C():
			p.expire()
		case <-changed:
		case <-ctx.Done():
			t.Stop()
			return
		}
		t.Stop()
	}
}

// expire ends the leases if they are past their deadline.
func (p *pulse) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.c.clock.Now() < p.sent.Add(p.timing.Lost) {
		return
	}
	cause := errSilent
	if why := p.c.contact.unreachable(); why != "" {
		cause = fmt.Errorf("%w: etcd does not answer %s", errSilent, why)
	}
	for _, l := range p.leases {
		l.lose(cause)
	}
}

// end ends what hangs on the pulse.
func (p *pulse) end(cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = cause
	if errors.Is(cause, errPulseLost) {
		p.c.log.Warn("lost the pulse", "pulse", p.id, "cause", cause)
	}
	for _, l := range p.leases {
		if errors.Is(cause, errPulseLost) {
			l.forfeit(cause)
		} else {
			l.lose(cause)
			p.kept = true
		}
	}
	p.tell()
}

// listen makes sure that the watch still tells of what is written: when it
// does not, all watches are begun anew at another endpoint.
func (p *pulse) listen() {
	told := p.view.get(p.key).Mod
	now := p.c.clock.Now()
	p.mu.Lock()
	deaf := false
	switch {
	case p.unseen == 0:
	case told >= p.unseen:
		p.unseen = 0
	case now.Sub(p.unseenAt) > max(p.timing.TTL/3, 500*time.Millisecond):
		deaf = true
		p.unseenAt = now
	}
	p.mu.Unlock()
	if deaf {
		p.feed.leave()
		p.c.restarts.wake()
	}
}

// until is s + 0.95 T of the last acknowledged pulse; zero when it is lost.
func (p *pulse) until() sdk.Instant {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rev == 0 || errors.Is(p.over, errPulseLost) {
		return 0
	}
	return p.sent.Add(p.timing.Until)
}

// written waits until a pulse is acknowledged that was sent at since or later,
// asking for one.
func (p *pulse) written(ctx context.Context, since sdk.Instant) error {
	for {
		p.mu.Lock()
		ok, over, changed := p.rev != 0 && p.sent >= since, p.over, p.changed
		p.mu.Unlock()
		switch {
		case over != nil:
			return over
		case ok:
			return nil
		}
		poke(p.wake)
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("renew pulse: %w", context.Cause(ctx))
		}
	}
}

// birth is the revision of the record's creation; 0 when it does not exist.
func (p *pulse) birth() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.create
}

// add hangs a lease on the pulse.
func (p *pulse) add(l *lease) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over != nil {
		l.forfeit(p.over)
		return
	}
	p.leases = append(p.leases, l)
	p.tell()
}

// drop takes a lease off the pulse.
func (p *pulse) drop(l *lease) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leases = slices.DeleteFunc(p.leases, func(x *lease) bool { return x == l })
	p.tell()
	if p.retired {
		poke(p.wake)
	}
}

// retire has the pulse end with the leases that hang on it now: one of those
// that did is left for another process to adopt.
func (p *pulse) retire() {
	p.mu.Lock()
	p.retired, p.kept = true, true
	p.mu.Unlock()
	p.c.replace(p)
	poke(p.wake)
}
