package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// leftover is what an earlier process may have left primary, as long as the
// member that would see to it cannot run.
type leftover struct {
	term sdk.Term
	at   sdk.Instant // from here on its lease cannot be taken over any more
}

// leftover reads what there is; none is nil. What cannot be read may be
// anything.
func (t *seat) leftover() *leftover {
	note, err := t.dir.Load()
	switch tenure := note.Tenure; {
	case err != nil:
		t.log.Error("run directory not read, so everything that can be is demoted", "cause", err)
		return &leftover{term: note.Last.Term}
	case tenure == nil:
		return nil
	case tenure.Boot != t.e.here.Boot:
		return &leftover{term: tenure.Term}
	default:
		timing := supervisor.NewTiming(t.ttl)
		return &leftover{tenure.Term, tenure.Until.Add(timing.Lost - timing.Until)}
	}
}

// takeDown demotes by force the parts whose plugins are open. The others are
// demoted by the member, once it runs.
func (t *seat) takeDown(l *leftover) {
	var running sync.WaitGroup
	for i, p := range t.plugins {
		if !t.opened[i] || !p.Describe().Can(sdk.CanDemote) {
			continue
		}
		name := t.service.Parts[i].Name
		running.Go(func() {
			timeout := max(supervisor.NewTiming(t.ttl).Forced(), time.Second)
			ctx, cancel := context.WithTimeoutCause(context.Background(), timeout, fmt.Errorf("not within %s", timeout))
			defer cancel()
			r := p.Do(ctx, sdk.Transition{
				ID: fmt.Sprintf("%s-%d-leftover-%s", t.e.here.Name, l.term, name), Action: sdk.Demote, Mode: sdk.Forced,
				Service: t.name, Node: t.e.here.Name, Term: l.term, Reason: sdk.ReasonStart, Attempt: 1, Timeout: timeout,
				Cause: "an earlier process may have left it primary, and another part's plugin does not open",
			}, nil)
			if err := r.Err(); err != nil {
				t.log.Error("what an earlier process left is not demoted", "plugin", name, "term", uint64(l.term), "cause", err)
				return
			}
			t.log.Warn("what an earlier process left is demoted", "plugin", name, "term", uint64(l.term), "outcome", string(r.Outcome))
		})
	}
	running.Wait()
}

// untilDue is how long to wait before takeDown.
func (l *leftover) untilDue(clock supervisor.Clock) time.Duration {
	if l == nil {
		return 1<<63 - 1
	}
	return max(0, l.at.Sub(clock.Now()))
}
