package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A fencer fences by one agent with one set of settings.
type fencer struct {
	settings
	log   *slog.Logger
	node  string // this one
	agent agent

	turn     chan struct{} // held by who calls the agent: many devices serve one at a time
	watching sync.WaitGroup
	end      context.CancelCauseFunc

	mu      sync.Mutex
	give    context.CancelCauseFunc // has the look that goes on end; nil when there is none
	found   map[string]error        // how the last look at each other node went
	waiting int                     // fences that want their turn
}

func newFencer(ctx context.Context, s settings, h sdk.Host) (*fencer, error) {
	a, err := findAgent(s.Agent)
	if err != nil {
		return nil, &sdk.KeyError{Key: "agent", Err: err}
	}
	a.log = h.Log
	f := &fencer{settings: s, log: h.Log, node: h.Node, agent: a, turn: make(chan struct{}, 1), found: map[string]error{}}
	if len(f.others()) == 0 {
		return nil, &sdk.KeyError{Key: "nodes", Err: fmt.Errorf("has no node besides this one, %s: name those that are to be fenced", h.Node)}
	}
	ctx, f.end = context.WithCancelCause(ctx)
	if s.Monitor > 0 {
		f.watching.Go(func() { f.monitor(ctx) })
	}
	return f, nil
}

// Close ends what goes on by itself.
func (f *fencer) Close() error {
	f.end(errors.New("other settings are in force"))
	f.watching.Wait()
	return nil
}

// others are the nodes that can be fenced, without this one.
func (f *fencer) others() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(f.Nodes)), func(node string) bool { return node == f.node })
}

// Fence turns the victim off, and returns once it is seen to be off.
func (f *fencer) Fence(ctx context.Context, victim sdk.Peer, _ *sdk.Transition) error {
	options, ok := f.of(victim.Node)
	if !ok {
		return sdk.Refuse(fmt.Errorf("%s is not among nodes, which are %s: add it there with the options by which %s reaches it",
			victim.Node, strings.Join(slices.Sorted(maps.Keys(f.Nodes)), ", "), f.agent.name))
	}
	if err := f.first(ctx); err != nil {
		return sdk.Unchanged(err)
	}
	defer f.done()
	err := f.fence(ctx, victim.Node, options)
	if err != nil && !errors.Is(err, sdk.ErrAlready) {
		return fmt.Errorf("%s: %w", f.agent.name, err)
	}
	f.note(victim.Node, nil)
	return err
}

// fence is Fence once the agent is free.
func (f *fencer) fence(ctx context.Context, victim string, options map[string]string) error {
	if f.Verify {
		sdk.Progress(ctx, -1, "asks for the status of %s", victim)
		// An error is no reason not to try: the proof comes afterwards.
		if on, err := f.status(ctx, options); err == nil && !on {
			return fmt.Errorf("%s says that %s is off: %w", f.agent.name, victim, sdk.ErrAlready)
		}
	}
	sdk.Progress(ctx, -1, "turns %s off", victim)
	err := f.bounded(ctx, func(ctx context.Context) error { return f.agent.done(ctx, "off", options) })
	if !f.Verify {
		if err == nil {
			sdk.Note(ctx, "%s says that it has turned %s off; nobody has looked", f.agent.name, victim)
		}
		return err
	}
	if err := f.prove(ctx, victim, options, err); err != nil {
		return err
	}
	sdk.Note(ctx, "%s is off, says %s", victim, f.agent.name)
	if f.Action == "reboot" {
		sdk.Progress(ctx, -1, "turns %s on again", victim)
		if err := f.bounded(ctx, func(ctx context.Context) error { return f.agent.done(ctx, "on", options) }); err != nil {
			f.log.Warn("fenced, and not turned on again: somebody has to", "victim", victim, "cause", err)
			sdk.Note(ctx, "%s is off, says %s, and could not be turned on again: %v", victim, f.agent.name, err)
		}
	}
	return nil
}

// again is how long after an answer the agent is asked anew whether a node is off.
const again = 500 * time.Millisecond

// prove returns nil once the agent says that the victim is off. After a deed that
// went well it asks for as long as ctx lasts, since some devices take their time;
// after one that did not, once.
func (f *fencer) prove(ctx context.Context, victim string, options map[string]string, deed error) error {
	for {
		sdk.Progress(ctx, -1, "looks whether %s is off", victim)
		on, err := f.status(ctx, options)
		switch {
		case err == nil && !on:
			return nil
		case err == nil:
			err = errors.New("it is on")
		}
		if deed != nil {
			return fmt.Errorf("off: %w; and then status: %w", deed, err)
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return fmt.Errorf("off went well, and status does not prove it: %w (%w)", err, context.Cause(ctx))
		}
	}
}

// status asks whether a node is on.
func (f *fencer) status(ctx context.Context, options map[string]string) (on bool, err error) {
	err = f.bounded(ctx, func(ctx context.Context) (err error) {
		on, err = f.agent.status(ctx, options)
		return err
	})
	return on, err
}

// bounded makes one call of the agent within its time.
func (f *fencer) bounded(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, f.Timeout, fmt.Errorf("no answer within %s", f.Timeout))
	defer cancel()
	return call(ctx)
}

// first takes the turn for a fence. Looks give way, and do not begin meanwhile.
func (f *fencer) first(ctx context.Context) error {
	f.mu.Lock()
	f.waiting++
	if f.give != nil {
		f.give(errors.New("a fence needs the agent"))
	}
	f.mu.Unlock()
	select {
	case f.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		f.mu.Lock()
		f.waiting--
		f.mu.Unlock()
		return fmt.Errorf("the agent is busy: %w", context.Cause(ctx))
	}
}

// done gives the turn back.
func (f *fencer) done() {
	<-f.turn
	f.mu.Lock()
	f.waiting--
	f.mu.Unlock()
}
