package kernelguard

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
)

// A Cutter finds and ends connections for a demotion, which goes on whatever
// comes of that: only the log is told. To find them takes some milliseconds, to
// end them none. Its methods may be called at the same time.
type Cutter struct {
	log  *slog.Logger
	idle bool
	deaf atomic.Bool // that connections cannot be ended has been said
}

// NewCutter returns a cutter that logs there. One that is not wanted finds and
// ends nothing.
func NewCutter(log *slog.Logger, wanted bool) *Cutter { return &Cutter{log: log, idle: !wanted} }

// OfAddresses finds the connections that have one of the addresses at this end.
func (c *Cutter) OfAddresses(ctx context.Context, addrs []netip.Addr) Connections {
	if c.idle {
		return Connections{}
	}
	return c.found(ofAddresses(ctx, addrs))
}

// OfPorts finds the connections that a guard of ports would not let through.
func (c *Cutter) OfPorts(ctx context.Context, p Ports) Connections {
	if c.idle {
		return Connections{}
	}
	return c.found(ofPorts(ctx, p))
}

func (c *Cutter) found(all Connections, err error) Connections {
	if err != nil {
		c.log.Warn("connections not ended: clients notice when they next send", "cause", err)
	}
	return all
}

// End ends connections, with a reset to both ends. What the guard does not let
// out does not reach the other end.
func (c *Cutter) End(ctx context.Context, all Connections) {
	n, err := all.end(ctx)
	switch {
	case errors.Is(err, errNoDestroy) && c.deaf.Swap(true): // it was said
	case err != nil:
		c.log.Warn("connections not ended: clients notice when they next send", "ended", n, "cause", err)
	case n > 0:
		c.log.Info("connections ended", "count", n)
	}
}
