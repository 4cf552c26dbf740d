package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/control"
)

func (a *app) reloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reload [SERVICE...]",
		Short: "Have this node's daemon read definitions again, without a role change",
		Long: "Have this node's daemon read the definitions again, of the named services or of all\n" +
			"that run here. What cannot change under a running service is refused, with the way\n" +
			"to put it in force; the old definition then stays.\n\n" +
			"Where the daemon's program was replaced by another version, that takes over in the\n" +
			"same process and the roles are kept, once it has found configuration and state to be\n" +
			"right. It exits with 0 only when all of that is done.",
		RunE: func(c *cobra.Command, names []string) error {
			ctx, stop := interruptible(c.Context())
			defer stop()
			if len(names) == 0 {
				names = a.daemons()
			}
			if len(names) == 0 {
				return a.noDaemon()
			}
			return a.reload(ctx, names)
		},
	}
}

func (a *app) reload(ctx context.Context, names []string) error {
	faults, said := make([]error, len(names)), make([]string, len(names))
	each(names, func(i int, name string) {
		if said[i], faults[i] = a.reloadOne(ctx, name); faults[i] != nil {
			faults[i] = fmt.Errorf("reload %s: %w", name, faults[i])
		}
	})
	for i, name := range names {
		if faults[i] == nil {
			fmt.Fprintf(a.stdout, "%s: %s\n", name, said[i])
		}
	}
	return errors.Join(faults...)
}

var errNotKept = errors.New("the role was not kept")

// reloadOne returns what a reload came to once that is in force: where another
// program takes over, once that answers and has what the one before had.
func (a *app) reloadOne(ctx context.Context, name string) (string, error) {
	c := control.NewClient(a.dir(name))
	old, err := c.Process(ctx)
	if err != nil {
		return "", err
	}
	was, err := c.Status(ctx)
	if err != nil {
		return "", err
	}
	r, err := c.Reload(ctx)
	switch {
	case err != nil:
		return "", err
	case !r.Replaced:
		return "reloaded, definition " + r.Hash, nil
	}
	now, is, err := a.successor(ctx, c, old)
	if err != nil {
		return "", err
	}
	if was.Role == sdk.RolePrimary && (is.Role != sdk.RolePrimary || is.Term != was.Term) {
		return "", fmt.Errorf("%w: deputy %s runs, and is %s: %s", errNotKept, now.Version, is.Role, is.Cause)
	}
	said := fmt.Sprintf("deputy %s has taken over from %s in process %d: %s", now.Version, old.Version, now.PID, is.Role)
	if is.Role == sdk.RolePrimary {
		said += fmt.Sprintf(" of term %d", is.Term)
	}
	return said + ", definition " + r.Hash, nil
}

// takeOverTime bounds how long another program may take until it has a role.
const takeOverTime = 30 * time.Second

// successor waits for the program that takes over from old, until it knows its
// role.
func (a *app) successor(ctx context.Context, c *control.Client, old control.Process) (control.Process, supervisor.Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, takeOverTime, fmt.Errorf("not within %s", takeOverTime))
	defer cancel()
	last := errors.New("the one before still runs")
	for {
		now, err := c.Process(ctx)
		var is supervisor.Status
		if err == nil && now.ID != old.ID {
			is, err = c.Status(ctx)
		}
		switch {
		case err != nil:
			last = err
		case now.ID != old.ID && is.Role != sdk.RoleUnknown && (is.Role != sdk.RoleDemoting):
			return now, is, nil
		case now.ID != old.ID:
			last = fmt.Errorf("it is %s: %s", is.Role, is.Cause)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return now, is, fmt.Errorf("the program that takes over is not ready: %w: %w; see its log", context.Cause(ctx), last)
		}
	}
}
