package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/boottime"
	"github.com/deputy-ha/deputy/supervisor/config"
	"github.com/deputy-ha/deputy/supervisor/rundir"
	"github.com/deputy-ha/deputy/supervisor/systemd"
)

func (a *app) gateCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "gate SERVICE",
		Short:  "Live for as long as this node holds the lease of a service",
		Hidden: true,
		Long: "Live for as long as this node holds the lease of a service, and end when it is not\n" +
			"renewed in time. This is what deputy-lease@SERVICE.service runs: units that are bound\n" +
			"to it stop then, and what its supervisor has not demoted is demoted from outside. On a\n" +
			"node that does not hold the lease it ends at once, with the reason.",
		Args: one("SERVICE"),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := interruptible(c.Context())
			defer stop()
			return a.gate(ctx, args[0])
		},
	}
}

// gate is READY once it has seen that the lease holds. It ends with ctx, or at
// s + 0.9 T of a lease that is not renewed, and then demotes what is primary. It
// does so at s + 0.75 T where no supervisor lives that could: from then on the
// next one must not take the lease over any more.
func (a *app) gate(ctx context.Context, service string) error {
	clock, err := boottime.New()
	if err != nil {
		return err
	}
	defer clock.Close()
	notifier, err := systemd.NewNotifier(a.env)
	if err != nil {
		return err
	}
	defer notifier.Close()
	g := gate{service: service, sight: rundir.Sight(a.dir(service)), clock: clock}
	err = g.live(ctx, func() {
		if err := tell(ctx, notifier, "READY=1", "STATUS=the lease is held"); err != nil {
			fmt.Fprintln(a.stderr, "deputy: "+err.Error())
		}
	})
	if errors.Is(err, errNotRenewed) {
		// By this PID 1 stops at once what is bound to this unit, whether or not
		// anything else gets through to it.
		if err := notifier.Send("STOPPING=1"); err != nil {
			fmt.Fprintln(a.stderr, "deputy: "+err.Error())
		}
		// There is no time to wait until systemd runs the clean-up behind this,
		// which it does all the same.
		err = errors.Join(err, a.cleanup(context.WithoutCancel(ctx), service, true))
	}
	return err
}

var errNotRenewed = errors.New("not renewed in time")

// tell sends to PID 1, and waits while that is busy.
func tell(ctx context.Context, n *systemd.Notifier, assignments ...string) error {
	for {
		err := n.Send(assignments...)
		if !errors.Is(err, systemd.ErrFull) {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// A gate looks at the lease of a service, by a clock and a timer of its own.
type gate struct {
	service string
	sight   rundir.Sight
	clock   supervisor.Clock
}

// live returns nil when ctx ends, or the lease with nothing primary any more,
// and an error when there is none to live by. It calls ready once it has seen one.
func (g gate) live(ctx context.Context, ready func()) error {
	end, again := g.look()
	if end <= g.clock.Now() {
		return g.refusal()
	}
	ready()
	for {
		timer := g.clock.Timer(again)
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		if end, again = g.look(); end <= g.clock.Now() {
			if note, err := g.sight.Note(); err == nil && len(note.Promoted) == 0 {
				return nil // there is nothing left to be behind of
			}
			return fmt.Errorf("the lease of %s was %w: what is still primary here is demoted from outside", g.service, errNotRenewed)
		}
	}
}

// look returns when to end if nothing is renewed, or zero when no lease is held;
// and when to look again, which is sooner: a lease may be given back before its
// time, and a supervisor may die or be there again.
func (g gate) look() (end, again sdk.Instant) {
	until := g.sight.Until()
	if until == 0 {
		return 0, 0
	}
	t := supervisor.NewTiming(g.ttl())
	lost := until.Add(t.Lost - t.Until)
	end = lost
	if !isAbandoned(g.sight) {
		end = until.Add(t.Trigger - t.Until)
	}
	now := g.clock.Now()
	again = min(end, now.Add(t.Renew))
	if now < lost {
		again = min(again, lost)
	}
	return end, again
}

// isAbandoned reports whether whoever held a run directory last is dead.
func isAbandoned(s rundir.Sight) bool { return command(s.Holder()) == "" }

// ttl is that of the definition in force.
func (g gate) ttl() time.Duration {
	if s, err := g.sight.Definition(); err == nil && s.TTL > 0 {
		return s.TTL
	}
	return config.DefaultTTL
}

// refusal tells why the gate does not live on this node.
func (g gate) refusal() error {
	why := "no supervisor of it has run here since boot"
	note, err := g.sight.Note()
	switch {
	case err != nil:
		why = err.Error()
	case note.Tenure != nil:
		why = fmt.Sprintf("its lease of term %d has run out", note.Tenure.Term)
	case note.Role != "":
		why = fmt.Sprintf("this node is %s", note.Role)
		if note.Cause != "" {
			why += " (" + note.Cause + ")"
		}
	}
	return fmt.Errorf("this node does not hold the lease of %s: %s: what belongs to its primary starts by itself where it is primary, see `deputy status %s`", g.service, why, g.service)
}
