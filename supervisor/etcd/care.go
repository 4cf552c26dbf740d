package etcd

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

const (
	// healthEvery is how often each process looks at the members of etcd, and
	// ailingEvery how often while one of them needs care.
	healthEvery = time.Minute
	ailingEvery = 10 * time.Second
	// remindEvery is how often the same complaint is repeated.
	remindEvery = time.Hour
	// lookPause is between two looks, whatever calls for them.
	lookPause = time.Second
)

// A care tells in the log what ails etcd, endpoint by endpoint, and when that
// is over: long before there is trouble, and soon after calls had to go another
// way. Each complaint is told once, and again every hour.
type care struct {
	c    *Client
	wake chan struct{}
	// Of run alone: when what was told last, by who and what it is about.
	told map[ailment]sdk.Instant
	// What was found under other prefixes, and when to look again.
	neighbours []string
	next       sdk.Instant
}

// An ailment is what a complaint is about.
type ailment struct{ end, about string }

// A look is what one endpoint has shown of itself.
type look struct {
	way     kv
	health  health
	unwell  error // why there is no health
	silence error // why it carries out nothing; nil when it does
	alive   bool  // it greets, though it has no health to show
}

func newCare(c *Client) *care {
	return &care{c: c, wake: make(chan struct{}, 1), told: make(map[ailment]sdk.Instant)}
}

// run looks until ctx ends.
func (a *care) run(ctx context.Context) {
	defer a.c.hedge.left.add(a.wake)()
	defer a.c.contact.change.add(a.wake)()
	for {
		looks := a.c.lookAround(ctx)
		if ctx.Err() != nil {
			return
		}
		a.lookNextDoor(ctx)
		every := healthEvery
		if a.tell(looks) {
			every = ailingEvery
		}
		a.c.sleep(ctx, lookPause)
		t := a.c.clock.Timer(a.c.clock.Now().Add(every))
		select {
		case <-t.C():
		case <-a.wake:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// lookNextDoor looks under other prefixes, from time to time, for the services
// that this process takes part in.
func (a *care) lookNextDoor(ctx context.Context) {
	now, c := a.c.clock.Now(), a.c
	if now < a.next {
		return
	}
	hashes := make(map[string]string)
	c.mu.Lock()
	for name, e := range c.elections {
		own := c.keys.candidate(name, c.cfg.Node.Name)
		if rec, err := decode[supervisor.Candidate](e.view.get(own)); err == nil && rec.Hash != "" {
			hashes[name] = rec.Hash
		}
	}
	c.mu.Unlock()
	if len(hashes) == 0 {
		return // they are published soon
	}
	a.neighbours, a.next = c.Neighbours(ctx, hashes), now.Add(remindEvery)
}

// lookAround asks all endpoints at once how they are doing, and to carry
// something out.
func (c *Client) lookAround(ctx context.Context) []look {
	looks := make([]look, len(c.hedge.ways))
	var wg sync.WaitGroup
	for i, way := range c.hedge.ways {
		wg.Go(func() { looks[i] = c.look(ctx, way) })
	}
	wg.Wait()
	if ctx.Err() == nil && c.past.rollCalled() {
		c.turnover.tell()
	}
	return looks
}

func (c *Client) look(ctx context.Context, way kv) look {
	l := look{way: way}
	hctx, cancel := context.WithTimeoutCause(ctx, attemptTimeout, errNoAnswer)
	defer cancel()
	l.health, l.unwell = way.Health(hctx)
	if l.unwell != nil {
		l.silence = l.unwell
		if e, ok := way.(*endpoint); ok && errors.Is(l.unwell, context.DeadlineExceeded) {
			gctx, cancel := context.WithTimeoutCause(ctx, attemptTimeout, errNoAnswer)
			defer cancel()
			_, err := e.greet(gctx)
			l.alive = err == nil
		}
		return l
	}
	if c.past.belongs(way.Name(), l.health.Cluster) {
		c.turnover.tell()
	}
	tctx, cancel := context.WithTimeoutCause(ctx, attemptTimeout, errNoAnswer)
	defer cancel()
	// Linearizable, so a member alone cannot.
	_, l.silence = way.Txn(tctx, txn{Then: []op{getKeys(one(c.keys.origin()))}})
	return l
}

// tell complains of what is found, and reports whether anything was.
func (a *care) tell(looks []look) (ailing bool) {
	now, found := a.c.clock.Now(), make(map[ailment]string)
	id, _, _ := a.c.past.now()
	answers := 0
	for _, l := range looks {
		if l.silence == nil {
			answers++
		}
	}
	a.c.contact.diagnose(diagnosis(looks, answers))
	silent := map[string]bool{"all": true} // of these nothing else is known
	for _, l := range looks {
		end := l.way.Name()
		silent[end] = l.unwell != nil
		silent["all"] = silent["all"] && silent[end]
		// That none answers is told as what it is: etcd cannot be reached.
		if l.silence != nil && answers > 0 && !errors.Is(l.silence, errDenied) {
			found[ailment{end, "silence"}] = l.ails()
		}
		if l.unwell != nil {
			continue
		}
		if l.health.Cluster != id && id != 0 && l.health.Cluster != 0 {
			found[ailment{end, "cluster"}] = foreign(l.health.Cluster, id)
		}
		for _, what := range l.health.complaints() {
			if what.about == "leader" && answers > 0 {
				continue // it is cut off, and that is told
			}
			by := end
			if what.whole {
				by = "all"
			}
			found[ailment{by, what.about}] = what.text
		}
	}
	for _, text := range a.neighbours {
		found[ailment{"all", text}] = text
	}
	for what, text := range found {
		if at, again := a.told[what]; !again || now.Sub(at) >= remindEvery {
			a.c.log.Warn(saidCare, "endpoint", what.end, "cause", text)
			a.told[what] = now
		}
	}
	for what := range a.told {
		_, still := found[what]
		unknown := silent[what.end]
		if what.about == "silence" {
			unknown = answers == 0
		}
		if !still && !unknown {
			a.c.log.Info(saidCured, "endpoint", what.end, "about", what.about)
			delete(a.told, what)
		}
	}
	return len(found) > 0
}

// diagnosis is why no endpoint carries out anything; empty while one does.
func diagnosis(looks []look, answers int) string {
	if answers > 0 {
		return ""
	}
	for _, l := range looks {
		if l.unwell == nil && l.health.Leader == 0 {
			return lostMajority + ": " + cureMajority
		}
		if l.unwell == nil {
			return "" // slow, or denied
		}
	}
	return cutOff
}

// ails tells why an endpoint carries out nothing, while others do.
func (l look) ails() string {
	why := strings.TrimPrefix(l.silence.Error(), l.way.Name()+": ")
	var said *explained
	switch {
	case l.unwell == nil && l.health.Leader == 0:
		return sawCut
	case l.alive, l.unwell == nil && errors.Is(l.silence, context.DeadlineExceeded):
		return "this member answers and carries out nothing: " + cureStalled
	case errors.As(l.silence, &said):
		return "this member does not answer, and others do: " + why
	}
	return "this member does not answer, and others do: " + why + " (" + cureSilent + ")"
}
