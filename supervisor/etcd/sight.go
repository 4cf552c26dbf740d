package etcd

import (
	"context"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// stretch is what a challenger waits longer than a TTL, for clocks that do not
// run at quite the same rate: 1/500 on top of the 5 % between Until and TTL.
func stretch(ttl time.Duration) time.Duration { return ttl + ttl/500 }

// A sight is what this process has seen of a pulse of another: when it last
// changed, and whether it is dead.
//
// What was seen was committed before it was seen, and sent before that; so a
// holder reckons its lease from an earlier instant than a sight its silence.
// That nothing was written since is for the compare of the take to prove.
type sight struct {
	c      *Client
	id     string
	view   *view
	feed   *feed
	change signal
	poked  chan struct{}

	mu       sync.Mutex
	users    int
	released bool // the last user is gone, and a next one gets another sight
	stop     context.CancelCauseFunc

	ttl time.Duration // that the pulse states; 0: never seen present
	rev int64         // 0: gone
	// at is when rev was first seen. Of a pulse that is gone it is when its last
	// value was first seen, if that is known, else when it was found gone.
	at     sdk.Instant
	count  uint64 // of changes seen, to tell whether a read was overtaken
	known  bool   // whether it is present has been seen
	deaf   bool   // the last change was found by reading, not told by the watch
	silent bool   // for its whole TTL, and a read after that confirmed it
	alive  bool   // it was silent, and is not any more: to be told
}

// A verdict is what a sight says of its pulse.
type verdict struct {
	Dead bool
	Rev  int64 // compare with this; 0: it is gone
}

func newSight(c *Client, id string) *sight {
	s := &sight{c: c, id: id, view: newView(one(c.keys.pulse(id))), poked: make(chan struct{}, 1)}
	s.view.seen = s.saw
	s.feed = newFeed(c, s.view.spans[0], s.view)
	return s
}

// saw takes note of a change.
func (s *sight) saw(ev event) {
	now := s.c.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	if ev.Deleted && s.known && s.rev == 0 {
		return // known already
	}
	s.known, s.deaf = true, false
	s.alive = s.alive || s.silent
	s.silent = false
	switch {
	case !ev.Deleted:
		s.rev, s.at = ev.Mod, now
		if rec, err := decode[pulseRecord](ev.record); err == nil {
			s.ttl = rec.ttl()
		}
	case s.rev != 0 && ev.Prev.Mod == s.rev:
		// Its silence goes on from the last change, whoever deleted it.
		s.rev = 0
	default:
		s.rev, s.at = 0, now
	}
}

// verdict says whether the pulse is dead.
func (s *sight) verdict() verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	return verdict{Dead: s.silent, Rev: s.rev}
}

// expect tells the TTL of a pulse that was never seen present, as those who
// hung a role on it noted it.
func (s *sight) expect(ttl time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ttl == 0 || s.rev == 0 && ttl > s.ttl {
		s.ttl = ttl
		poke(s.poked)
	}
}

// buried takes note that this process deleted the pulse by compare.
func (s *sight) buried() {
	s.mu.Lock()
	news := !s.silent || s.alive || !s.known || s.rev != 0
	s.silent, s.alive, s.known, s.rev = true, false, true, 0
	s.mu.Unlock()
	if news { // of the many services that hung on it, each deletes it once more
		s.change.tell()
	}
}

// breather is how long a pulse that is named anew is not looked at: the role has
// just moved there, and etcd has what that still needs to do first.
const breather = 20 * time.Millisecond

// watch follows the pulse until ctx ends. While it is silent, reads make sure
// that it really is: a watch can hang.
func (s *sight) watch(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		nap(ctx, breather)
		s.feed.run(ctx)
	})
	defer s.view.change.add(s.poked)()
	for {
		s.mu.Lock()
		next := s.nextLook()
		s.mu.Unlock()
		t := s.c.clock.Timer(next)
		select {
		case <-t.C():
			s.look(ctx)
		case <-s.poked:
			s.weigh()
		case <-ctx.Done():
			t.Stop()
			return
		}
		t.Stop()
	}
}

// weigh takes note that the pulse was found absent when it was first read, and
// tells those who took it for dead that it is not.
func (s *sight) weigh() {
	synced, now := s.view.synced(), s.c.clock.Now()
	s.mu.Lock()
	if synced && !s.known {
		s.known, s.at = true, now
	}
	alive := s.alive
	s.alive = false
	s.mu.Unlock()
	if alive {
		s.change.tell()
	}
}

// nextLook is when the pulse is to be read.
func (s *sight) nextLook() sdk.Instant {
	now := s.c.clock.Now()
	if !s.known {
		return now.Add(time.Second) // the feed reads it first
	}
	ttl := max(s.ttl, supervisor.MinTTL)
	renew := supervisor.NewTiming(ttl).Renew
	end := s.at.Add(stretch(s.ttl))
	switch {
	case s.silent:
		return now.Add(ttl)
	case s.rev != 0 && !s.deaf && now < s.at.Add(2*renew):
		return s.at.Add(2 * renew)
	case now < end:
		return min(end, now.Add(renew))
	default:
		return now
	}
}

// look reads the pulse. When it has been silent for its whole TTL and the read
// shows that nothing has changed since, it is dead.
func (s *sight) look(ctx context.Context) {
	s.mu.Lock()
	before := s.count
	renew := supervisor.NewTiming(max(s.ttl, supervisor.MinTTL)).Renew
	due := s.known && s.c.clock.Now() >= s.at.Add(stretch(s.ttl))
	s.mu.Unlock()
	rctx, cancel := context.WithTimeoutCause(ctx, renew, errNoAnswer)
	defer cancel()
	if _, err := s.c.sync(rctx, s.view); err != nil {
		nap(ctx, hedgeDelay/10) // denied at once, else time has passed
		return
	}
	s.mu.Lock()
	s.deaf = s.deaf || s.count != before
	died := due && s.count == before && !s.silent
	if died {
		s.silent = true
	}
	s.mu.Unlock()
	if died {
		s.change.tell()
	}
}

// sight returns what is seen of a pulse, and has it watched until release.
func (c *Client) sight(id string) *sight {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sights[id]
	if s == nil {
		s = newSight(c, id)
		if _, ok := c.buried[id]; ok {
			s.silent, s.known = true, true
		}
		c.sights[id] = s
		c.spawnLocked(s.run)
	}
	s.mu.Lock()
	s.users++
	s.mu.Unlock()
	return s
}

// run watches the pulse until it is released or ctx ends.
func (s *sight) run(ctx context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.mu.Lock()
	s.stop = cancel
	released := s.released
	s.mu.Unlock()
	if !released {
		s.watch(ctx)
	}
}

func (c *Client) release(s *sight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users--
	if s.users > 0 {
		return
	}
	delete(c.sights, s.id)
	s.released = true
	if s.stop != nil {
		s.stop(errReleased)
	}
}

// bury takes note that this process deleted a pulse by compare.
func (c *Client) bury(id string) {
	c.mu.Lock()
	c.buried[id] = struct{}{}
	s := c.sights[id]
	c.mu.Unlock()
	if s != nil {
		s.buried()
	}
}
