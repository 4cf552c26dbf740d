package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/packaging/e2e/checker"
	"github.com/deputy-ha/deputy/packaging/e2e/prober"
)

const (
	healthPort  = 7420
	healthEvery = 10 * time.Millisecond
)

// A health is what the hosts tell load balancers of who is primary. To those a
// 200 is an act of a primary: it has them send clients there.
type health struct {
	service string

	mu      sync.Mutex
	replies []prober.Reply
	heard   int // answers of 200, in all
}

// ask asks one host until ctx ends, more often than a load balancer.
func (k *health) ask(ctx context.Context, h *host) error {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: time.Second}
	url := fmt.Sprintf("http://%s:%d/services/%s/primary", h.addr, healthPort, k.service)
	for ctx.Err() == nil {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		asked := now()
		answer, err := client.Do(request)
		told := now()
		if err == nil { // else it is off, frozen, or cut off
			if answer.StatusCode == http.StatusOK {
				k.note(prober.Reply{Asked: asked, Told: told, By: h.name})
			}
			_, _ = io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
		}
		rest(ctx, healthEvery-(now()-asked))
	}
	return nil
}

func (k *health) note(r prober.Reply) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.replies = append(k.replies, r)
	k.heard++
}

// said is how often a host has told that it is primary.
func (k *health) said() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.heard
}

// acts is when each host is proven to have told that it is primary, since from.
// What came before is forgotten.
func (k *health) acts(from prober.Instant) []prober.Span {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.replies = slices.DeleteFunc(k.replies, func(r prober.Reply) bool { return r.Told < from })
	return prober.Proven(k.replies, from)
}

// healthHistory is what load balancers were told, to be held against the same
// rules as what hosts did.
func (l *lab) healthHistory(from prober.Instant) checker.History {
	return checker.History{
		Service: l.health.service + " over HTTP", Acts: l.health.acts(from),
		Records: l.notes.records(l.health.service, from), Late: seenLate,
	}
}
