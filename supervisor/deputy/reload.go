package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/supervisor/control"
)

func (a *app) reloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reload [SERVICE...]",
		Short: "Have this node's daemon read definitions again, without a role change",
		Long: "Have this node's daemon read the definitions again, of the named services or of all\n" +
			"that run here. What cannot change under a running service is refused, with the way\n" +
			"to put it in force; the old definition then stays.",
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
	faults := make([]error, len(names))
	each(names, func(i int, name string) {
		if err := control.NewClient(a.dir(name)).Reload(ctx); err != nil {
			faults[i] = fmt.Errorf("reload %s: %w", name, err)
		}
	})
	for i, name := range names {
		if faults[i] == nil {
			fmt.Fprintf(a.stdout, "%s: reloaded\n", name)
		}
	}
	return errors.Join(faults...)
}
