package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// monitor looks at the other nodes, again and again until ctx ends.
func (f *fencer) monitor(ctx context.Context) {
	for {
		for _, node := range f.others() {
			f.look(ctx, node)
		}
		select {
		case <-time.After(f.Monitor):
		case <-ctx.Done():
			return
		}
	}
}

// look asks about one node what a fence of it would ask. A fence that comes
// meanwhile goes first, and nothing is known then.
func (f *fencer) look(ctx context.Context, node string) {
	ctx, give := context.WithCancelCause(ctx)
	defer give(nil)
	select {
	case f.turn <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-f.turn }()
	f.mu.Lock()
	busy := f.waiting > 0
	f.give = give
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.give = nil
		f.mu.Unlock()
	}()
	if busy {
		return
	}
	options, _ := f.of(node)
	err := f.bounded(ctx, func(ctx context.Context) error {
		if !f.Verify {
			return f.agent.done(ctx, "monitor", options)
		}
		_, err := f.agent.status(ctx, options)
		return err
	})
	if ctx.Err() == nil {
		f.note(node, err)
	}
}

// note keeps how a look went, and tells when that is news.
func (f *fencer) note(node string, err error) {
	f.mu.Lock()
	was, known := f.found[node]
	f.found[node] = err
	f.mu.Unlock()
	switch {
	case err != nil && (!known || was == nil):
		f.log.Warn("a node could not be fenced now: while that is so, nobody follows it as primary unless it resigns", "victim", node, "agent", f.agent.name, "cause", err)
	case err == nil && was != nil:
		f.log.Info("the node can be fenced again", "victim", node, "agent", f.agent.name)
	}
}

// Check tells whether the other nodes could be fenced, as of the last look. What
// it finds makes nobody unfit: a fence is for the worst case, and a service that
// left its primary because a power switch is away would make one of it.
func (f *fencer) Check(context.Context, sdk.Role) (sdk.Health, error) {
	var well, unknown []string
	var broken []error
	f.mu.Lock()
	for _, node := range f.others() {
		switch err, known := f.found[node]; {
		case !known:
			unknown = append(unknown, node)
		case err != nil:
			broken = append(broken, fmt.Errorf("%s: %w", node, err))
		default:
			well = append(well, node)
		}
	}
	f.mu.Unlock()
	var said []string
	if len(broken) > 0 {
		said = append(said, "warning: cannot fence "+strings.ReplaceAll(errors.Join(broken...).Error(), "\n", ", nor "))
	}
	if len(well) > 0 {
		said = append(said, "can fence "+strings.Join(well, ", "))
	}
	if len(unknown) > 0 {
		said = append(said, "not asked yet: "+strings.Join(unknown, ", "))
	}
	return sdk.Health{Fit: true, Detail: strings.Join(said, "; ")}, nil
}
