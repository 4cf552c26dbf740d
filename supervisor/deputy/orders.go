package main

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/supervisor"
)

// order finds a way to the records of a service, or of all when service is
// empty, and carries f out over it, within a bounded time.
func (a *app) order(c *cobra.Command, service string, f func(context.Context, *contact) error) error {
	ctx, stop := interruptible(c.Context())
	defer stop()
	way, err := a.contact(ctx, service)
	if err != nil {
		return err
	}
	defer way.close()
	err = f(ctx, way)
	switch {
	case errors.Is(err, supervisor.ErrNoService) && service != "":
		return a.noService(service)
	case err != nil && errors.Is(context.Cause(ctx), errInterrupted) && !errors.Is(err, errGoesOn):
		status := strings.TrimSpace("deputy status " + service)
		return fmt.Errorf("%w before there was an answer: what was asked may come into force all the same; `%s` tells", errInterrupted, status)
	}
	return way.fault(err)
}

// known returns an error for a service that nobody knows: an order for it is
// most likely a slip of the pen.
func (c *contact) known(ctx context.Context, service string) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	_, err := c.State(ctx, service)
	return err
}

// operator is who gives an order, for the record.
func (a *app) operator() string {
	if who := a.env("SUDO_USER"); who != "" {
		return who
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "somebody"
}

func (a *app) pauseCommand() *cobra.Command {
	var p supervisor.Pause
	var length span
	c := &cobra.Command{
		Use:   "pause SERVICE",
		Short: "Suspend automatic take-overs",
		Long: "Suspend automatic take-overs of a service, until `deputy resume` or the given time.\n\n" +
			"A primary stays one while it is fit; a demotion that safety asks for is never\n" +
			"suspended. `deputy switchover --to` and `deputy failover` work all the same.",
		Example: "  deputy pause orders-db --for 1h --reason \"new switch in rack 3\"",
		Args:    one("SERVICE"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.order(c, args[0], func(ctx context.Context, way *contact) error {
				if err := way.known(ctx, args[0]); err != nil {
					return err
				}
				p.By = a.operator()
				p.Since, p.Until = length.from(time.Now())
				if err := way.Pause(ctx, args[0], p); err != nil {
					return err
				}
				fmt.Fprintf(a.stdout, "%s: paused %s\n", args[0], &p)
				return nil
			})
		},
	}
	c.Flags().Var(&length, "for", "resume by itself after so long, such as 30m, 12h, or forever")
	c.Flags().StringVar(&p.Reason, "reason", "", "why, for others to see")
	return c
}

func (a *app) resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "resume SERVICE",
		Short: "End a pause",
		Args:  one("SERVICE"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.order(c, args[0], func(ctx context.Context, way *contact) error {
				if err := way.known(ctx, args[0]); err != nil {
					return err
				}
				if err := way.Resume(ctx, args[0]); err != nil {
					return err
				}
				fmt.Fprintf(a.stdout, "%s: resumed\n", args[0])
				return nil
			})
		},
	}
}

func (a *app) clearCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "clear SERVICE",
		Short: "Tell this node that what kept it blocked or failed has been put right",
		Long: "Tell this node's daemon that an operator has put right what kept the service blocked\n" +
			"or failed here. It demotes once more and believes only what it then sees. It also\n" +
			"ends the time that a node sits out after a failed promotion.",
		Args: one("SERVICE"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.order(c, args[0], func(ctx context.Context, way *contact) error {
				if way.daemon == nil {
					return fmt.Errorf("clear works on the node itself: %w", way.noDaemon)
				}
				err := way.daemon.Clear(ctx)
				if errors.Is(err, supervisor.ErrNotHere) {
					return fmt.Errorf("%w: `deputy status %s` tells which node is blocked or failed, and it is cleared there", err, args[0])
				}
				if err != nil {
					return err
				}
				fmt.Fprintf(a.stdout, "%s: cleared, it demotes once more\n", args[0])
				return nil
			})
		},
	}
}

func (a *app) removeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove SERVICE",
		Short: "Forget a service: its keys and its history",
		Long: "Forget a service: its keys in etcd and its history. Refused while a node takes part\n" +
			"in it: stop its supervisors first.",
		Args: one("SERVICE"),
		RunE: func(c *cobra.Command, args []string) error {
			if enabled(args[0]) {
				return fmt.Errorf("remove %s: it is enabled on this node: `deputy disable %s` first", args[0], args[0])
			}
			return a.order(c, args[0], func(ctx context.Context, way *contact) error {
				if err := way.known(ctx, args[0]); err != nil {
					return err
				}
				if err := way.Remove(ctx, args[0]); err != nil {
					return err
				}
				fmt.Fprintf(a.stdout, "%s: removed; terms begin again at 1\n", args[0])
				return nil
			})
		},
	}
}
