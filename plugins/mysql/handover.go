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

// A call is a connection to another node's server, made in the background. Its
// link and its error, why there is none, are for who has seen made closed.
type call struct {
	sdk.Peer
	made chan struct{}
	link *link
	err  error
	end  context.CancelCauseFunc
}

func (m *mysql) call(ctx context.Context, p sdk.Peer) *call {
	ctx, end := context.WithCancelCause(ctx)
	c := &call{Peer: p, made: make(chan struct{}), end: end}
	go func() { // hangUp waits for it
		defer close(c.made)
		at, err := m.other(p.Address)
		if err == nil {
			c.link, err = newServer(at, m.ConnectTimeout).connect(ctx)
		}
		c.err = err
	}()
	return c
}

// hangUp ends the connection, or what would make it.
func (c *call) hangUp() {
	c.end(errors.New("nobody waits for the connection any more"))
	if <-c.made; c.link != nil {
		c.link.close()
	}
}

// reach connects to the nodes that may come next, while writes go on still.
func (m *mysql) reach(ctx context.Context, t *sdk.Transition) []*call {
	if m.Replication.User == "" || m.Demotion.WaitReplicas == 0 || t.Reason == sdk.ReasonStart {
		return nil
	}
	var heirs []*call
	for _, p := range successors(t) {
		heirs = append(heirs, m.call(ctx, p))
	}
	for _, h := range heirs {
		<-h.made
	}
	return heirs
}

func hangUp(all []*call) {
	for _, c := range all {
		c.hangUp()
	}
}

// handOver waits until the successor has applied all that this server has: the
// one that is named, else the first of the members. Without an account to ask
// them by it waits until the server has sent all to its replicas.
func (m *mysql) handOver(ctx context.Context, t *sdk.Transition, f facts, heirs []*call) (seen string, err error) {
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

// await waits until the server called has applied what this one has.
func (c *call) await(ctx context.Context, f facts) error {
	if c.link == nil {
		return c.err
	}
	for {
		answer, err := c.link.one(ctx, c.link.awaitApplied(f.applied, time.Second))
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
