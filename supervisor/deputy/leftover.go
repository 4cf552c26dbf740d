package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/plugin"
)

// A leftover is what an earlier process may have left primary, as long as the
// member that would see to it does not run. While its lease can still be taken
// over it stays as it is. From then on, or once it is known that the member
// will not run, each part is demoted as soon as its plugin is open.
type leftover struct {
	term sdk.Term
	at   sdk.Instant             // from here on its lease cannot be taken over any more
	late bool                    // that was so when it was found
	stop context.CancelCauseFunc // ends the guard
	over chan struct{}           // closed when the guard has ended

	mu    sync.Mutex
	due   bool
	taken []bool // which parts are demoted, or being demoted
	tries []int
}

// leftover reads what there is; none is nil. What cannot be read may be
// anything.
func (t *seat) leftover() *leftover {
	l := newLeftover(len(t.plugins))
	note, err := t.dir.Load()
	switch tenure := note.Tenure; {
	case err != nil:
		t.log.Error("run directory not read, so everything that can be is demoted", "cause", err)
		l.term = note.Last.Term
	case tenure == nil && len(note.Promoted) == 0:
		return nil
	case tenure == nil: // lost before all was demoted
		l.term = note.Last.Term
	case tenure.Boot != t.e.here.Boot:
		l.term = tenure.Term
	default:
		timing := supervisor.NewTiming(t.ttl)
		l.term, l.at = tenure.Term, tenure.Until.Add(timing.Lost-timing.Until)
	}
	l.late = l.at <= t.e.clock.Now()
	return l
}

func newLeftover(parts int) *leftover {
	return &leftover{over: make(chan struct{}), taken: make([]bool, parts), tries: make([]int, parts)}
}

// guard takes down what is left when it is due, and tries again where that
// fails, until ctx ends. It has to be waited for by l.over.
func (t *seat) guard(ctx context.Context, l *leftover) {
	defer close(l.over)
	due := t.e.clock.Timer(l.at)
	defer due.Stop()
	select {
	case <-due.C():
	case <-ctx.Done():
		return
	}
	for {
		t.takeDown(l)
		select {
		case <-time.After(guardRetry):
		case <-ctx.Done():
			return
		}
	}
}

// guardRetry is between one try to take down what is left and the next.
const guardRetry = time.Second

// handOver leaves what is left to the member. Nothing is being taken down when
// it returns.
func (t *seat) handOver() {
	if l := t.left; l != nil {
		l.stop(errEnded)
		<-l.over
		t.left = nil
	}
}

// abandon takes down what is left for good, lease or not: the member will not
// run in this process. No plugin is being opened any more.
func (t *seat) abandon() {
	if l := t.left; l != nil {
		t.handOver()
		t.takeDown(l)
		t.recall(l)
	}
}

// recall takes down, by the definition as it was last in force, the parts that
// the one of now does not have, or whose plugins could not be opened by it. It
// is forgotten once all that it names is demoted.
func (t *seat) recall(l *leftover) {
	was, err := t.dir.Definition()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		t.log.Error("what an earlier process left may not all be demoted", "cause", err)
		return
	}
	parts, all := was.Parts, true
	was.Parts = nil
	for _, part := range parts {
		now := slices.IndexFunc(t.service.Parts, func(p supervisor.Part) bool { return p.Name == part.Name })
		switch {
		case now >= 0 && (t.opened[now].Load() || same(t.service.Parts[now], part)): // it has been tried
			all = all && (l.taken[now] || t.opened[now].Load() && !t.plugins[now].Describe().Can(sdk.CanDemote))
		default:
			was.Parts = append(was.Parts, part)
		}
	}
	past := &seat{name: t.name, ttl: was.TTL, e: t.e, log: t.log, dir: t.dir, service: was}
	all = past.takeDownOnce(l.term) && all
	if !all {
		return
	}
	if err := t.dir.ForgetDefinition(); err != nil {
		t.log.Warn("definition of before not forgotten", "cause", err)
	}
}

// takeDownOnce opens the plugins of a service, takes down what it can and ends
// them. It reports whether all is proven to be down.
func (t *seat) takeDownOnce(term sdk.Term) bool {
	plugins, wrong := t.e.a.plugins(t.e.node, t.service, t.e.clock, t.log)
	t.only(plugins)
	t.left = newLeftover(len(t.plugins))
	t.left.term, t.left.due = term, true
	t.opened = make([]atomic.Bool, len(t.plugins))
	err := errors.Join(wrong, openAll(context.Background(), t.service, t.plugins, t.opened, t.came))
	t.takeDown(t.left) // once more what has failed
	closeAll(t.plugins, t.log)
	if err != nil {
		t.log.Error("what an earlier process left is not all demoted", "cause", err)
		return false
	}
	for i, p := range t.plugins {
		if !t.left.taken[i] && p.Describe().Can(sdk.CanDemote) {
			return false
		}
	}
	return true
}

// only leaves the parts of which there is a plugin.
func (t *seat) only(plugins []plugin.Plugin) {
	parts := t.service.Parts
	t.service.Parts, t.plugins = nil, nil
	for i, p := range plugins {
		if p != nil {
			t.service.Parts, t.plugins = append(t.service.Parts, parts[i]), append(t.plugins, p)
		}
	}
}

// same reports whether two definitions of a part are the same to its plugin.
func same(a, b supervisor.Part) bool {
	x, err := json.Marshal(a)
	y, also := json.Marshal(b)
	return err == nil && also == nil && bytes.Equal(x, y)
}

// came is told of each plugin as soon as it is open.
func (t *seat) came() {
	l := t.left
	if l == nil {
		return
	}
	l.mu.Lock()
	due := l.due
	l.mu.Unlock()
	if due {
		t.takeDown(l)
	}
}

// takeDown demotes by force the parts whose plugins are open and, by came,
// those whose plugins open later.
func (t *seat) takeDown(l *leftover) {
	var running sync.WaitGroup
	defer running.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.due = true
	for i, p := range t.plugins {
		if l.taken[i] || !t.opened[i].Load() || !p.Describe().Can(sdk.CanDemote) {
			continue
		}
		l.taken[i] = true
		l.tries[i]++
		attempt := l.tries[i]
		running.Go(func() {
			if t.demote(i, l.term, attempt) {
				return
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.taken[i] = false
		})
	}
}

// demote demotes one part by force, and reports whether that is proven.
func (t *seat) demote(i int, term sdk.Term, attempt int) bool {
	name := t.service.Parts[i].Name
	timeout := max(supervisor.NewTiming(t.ttl).Forced(), time.Second)
	ctx, cancel := context.WithTimeoutCause(context.Background(), timeout, fmt.Errorf("not within %s", timeout))
	defer cancel()
	r := t.plugins[i].Do(ctx, sdk.Transition{
		ID: fmt.Sprintf("%s-%d-leftover-%s", t.e.here.Name, term, name), Action: sdk.Demote, Mode: sdk.Forced,
		Service: t.name, Node: t.e.here.Name, Term: term, Reason: sdk.ReasonStart, Attempt: attempt, Timeout: timeout,
		Cause: "an earlier process may have left it primary, and not all of the service's plugins are open",
	}, nil)
	if err := r.Err(); err != nil {
		t.log.Error("what an earlier process left is not demoted", "plugin", name, "term", uint64(term), "attempt", attempt, "cause", err)
		return false
	}
	t.log.Warn("what an earlier process left is demoted", "plugin", name, "term", uint64(term), "outcome", string(r.Outcome))
	return true
}
