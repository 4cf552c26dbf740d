package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// An heir is a node that may come next, with a connection to its server.
type heir struct {
	sdk.Peer
	link *link
	err  error // why there is no connection
}

// reach connects to the nodes that may come next, while writes go on still.
func (m *mysql) reach(ctx context.Context, t *sdk.Transition) []heir {
	if m.Replication.User == "" || m.Demotion.WaitReplicas == 0 || t.Reason == sdk.ReasonStart {
		return nil
	}
	var heirs []heir
	for _, p := range successors(t) {
		heirs = append(heirs, heir{Peer: p})
	}
	var all sync.WaitGroup
	for i := range heirs {
		all.Go(func() {
			at, err := m.other(heirs[i].Address)
			if err == nil {
				heirs[i].link, err = newServer(at, m.ConnectTimeout).connect(ctx)
			}
			heirs[i].err = err
		})
	}
	all.Wait()
	return heirs
}

func closeAll(heirs []heir) {
	for _, h := range heirs {
		if h.link != nil {
			h.link.close()
		}
	}
}

// handOver waits until the successor has applied all that this server has: the
// one that is named, else the first of the members. Without an account to ask
// them by it waits until the server has sent all to its replicas.
func (m *mysql) handOver(ctx context.Context, t *sdk.Transition, f facts, heirs []heir) (seen string, err error) {
	within := m.Demotion.WaitReplicas
	if deadline, ok := ctx.Deadline(); ok {
		within = max(0, min(within, time.Until(deadline)-2*reserve))
	}
	if within == 0 || t.Reason == sdk.ReasonStart {
		return "nobody was waited for", nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %s", within.Round(time.Millisecond)))
	defer cancel()
	if len(heirs) == 0 {
		return m.awaitSent(ctx)
	}
	answers := make(chan answer, len(heirs))
	ctx, enough := context.WithCancelCause(ctx)
	defer enough(nil)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer enough(errors.New("another one has it"))
	for _, h := range heirs {
		asking.Go(func() { answers <- answer{h.Peer, h.await(ctx, f)} })
	}
	var lacking []string
	for range heirs {
		a := <-answers
		if a.err == nil {
			return a.Node + " has all of it", nil
		}
		lacking = append(lacking, fmt.Sprintf("%s: %s", a.Node, a.err))
	}
	return "", fmt.Errorf("wait for the successor to have all up to %s: %s", brief(f.position), strings.Join(lacking, "; "))
}

type answer struct {
	sdk.Peer
	err error
}

// successors are the nodes that may come next.
func successors(t *sdk.Transition) []sdk.Peer {
	if t.Primary.Node != "" && t.Primary.Node != t.Node && t.Primary.Address != "" {
		return []sdk.Peer{t.Primary}
	}
	var all []sdk.Peer
	for _, p := range t.Members {
		if p.Node != t.Node && p.Address != "" {
			all = append(all, p)
		}
	}
	return all
}

// await waits until an heir's server has applied what this one has.
func (h heir) await(ctx context.Context, f facts) error {
	if h.link == nil {
		return h.err
	}
	for {
		answer, err := h.link.one(ctx, h.link.awaitApplied(f.applied, time.Second))
		if err != nil || answer == "0" {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// awaitSent waits until the server has sent its whole binary log to a replica.
func (m *mysql) awaitSent(ctx context.Context) (seen string, err error) {
	l, err := m.server.connect(ctx)
	if err != nil {
		return "", err
	}
	defer l.close()
	for {
		all, err := l.threads(ctx)
		if err != nil {
			return "", err
		}
		replicas := 0
		for _, t := range all {
			if !t.dumps() {
				continue
			}
			if replicas++; strings.Contains(t.state, "has sent all") {
				return "all is sent to a replica", nil
			}
		}
		if replicas == 0 {
			return "no replica was connected", nil
		}
		if err := sleep(ctx, pollEvery); err != nil {
			return "", fmt.Errorf("send the rest to %d replicas: %w", replicas, err)
		}
	}
}
