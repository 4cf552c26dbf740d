package main

import (
	"context"
	"errors"
	"time"
)

// keepInterval is how often one looks whether a closed guard is still there.
// While it is open, Renew looks.
const keepInterval = time.Second

// A keeping sees to it that a closed guard that somebody has removed comes
// back: without its tables the ports are open to all.
type keeping struct {
	stop context.CancelCauseFunc
	over chan struct{}
}

// keep begins it, unless it goes on already.
func (g *guard) keep() {
	if g.keeping != nil {
		return
	}
	ctx, stop := context.WithCancelCause(context.Background())
	k := &keeping{stop: stop, over: make(chan struct{})}
	g.keeping = k
	go func() {
		defer close(k.over)
		tick := time.NewTicker(keepInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				g.mend()
			case <-ctx.Done():
				return
			}
		}
	}()
}

func (g *guard) mend() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held {
		return
	}
	state, err := g.kernel.State()
	if err != nil || state.Installed {
		return // Check tells
	}
	if err := g.kernel.Disarm(0); err != nil {
		g.log.Warn("guard is gone, and cannot be installed again", "cause", err)
		return
	}
	g.log.Warn("guard installed again", "cause", "somebody had removed its nftables tables (nft flush ruleset? a firewall that reloads?)")
}

// end returns when nothing is kept any more.
func (k *keeping) end() {
	if k != nil {
		k.stop(errors.New("other settings are in force"))
		<-k.over
	}
}
