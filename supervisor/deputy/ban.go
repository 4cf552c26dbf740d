package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/supervisor"
)

// banTime is how long a ban holds where nothing is said: one that is forgotten
// ends.
const banTime = 24 * time.Hour

func (a *app) banCommand() *cobra.Command {
	var b supervisor.Ban
	length, timeout := span(banTime), time.Minute
	c := &cobra.Command{
		Use:   "ban SERVICE NODE",
		Short: "Keep a node from leading a service, for a while",
		Long: "Keep a node from leading one service. A primary hands it over as with a drain, and the\n" +
			"node leads it again only after `deputy unban` or the given time: a day, if none is\n" +
			"given. A ban without an end has to be asked for: --for forever.\n\n" +
			"Waits until the node is not primary of the service. A switchover or failover to the\n" +
			"node is refused meanwhile. What the node leads besides stays: that is `deputy drain`.",
		Example: "  deputy ban orders-db db1 --for 12h --reason \"disk is slow\"\n  deputy unban orders-db db1",
		Args:    exactly("SERVICE", "NODE"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.order(c, args[0], func(ctx context.Context, way *contact) error {
				s, err := way.state(ctx, args[0])
				if err != nil {
					return err
				}
				b.Node, b.By = args[1], a.operator()
				b.Since, b.Until = length.from(time.Now())
				if err := way.Ban(ctx, args[0], b); err != nil {
					return err
				}
				s.Banned, s.Drained = []supervisor.Ban{b}, nil
				fmt.Fprintf(a.stdout, "%s: %s is %s\n", args[0], b.Node, tidy(s.Barred(b.Node)))
				if s.Candidate(b.Node) == nil && !holdsRole(s, b.Node) {
					fmt.Fprintf(a.stdout, "%s: %s is not present: %s\n", args[0], b.Node, present(s))
				}
				var leads []string
				if holdsRole(s, b.Node) {
					leads = []string{args[0]}
				}
				return a.waitUntilFree(ctx, way, b.Node, leads, timeout, fmt.Sprintf("`deputy unban %s %s`", args[0], b.Node))
			})
		},
	}
	c.Flags().Var(&length, "for", "for how long, such as 30m, 12h, or forever")
	c.Flags().StringVar(&b.Reason, "reason", "", "why, for others to see")
	c.Flags().DurationVar(&timeout, "timeout", timeout, "wait no longer for the service to leave")
	return c
}

func (a *app) unbanCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unban SERVICE NODE",
		Short: "Let a node lead a service again",
		Args:  exactly("SERVICE", "NODE"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.order(c, args[0], func(ctx context.Context, way *contact) error {
				s, err := way.state(ctx, args[0])
				if err != nil {
					return err
				}
				if err := way.Unban(ctx, args[0], args[1]); err != nil {
					return err
				}
				if s.IsBanned(args[1]) {
					fmt.Fprintf(a.stdout, "%s: %s may lead again\n", args[0], args[1])
					return nil
				}
				fmt.Fprintf(a.stdout, "%s: %s was not banned\n", args[0], args[1])
				return nil
			})
		},
	}
}
