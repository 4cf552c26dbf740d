package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/supervisor"
)

func (a *app) drainCommand() *cobra.Command {
	var d supervisor.Drain
	timeout := time.Minute
	c := &cobra.Command{
		Use:   "drain [NODE]",
		Short: "Hand over everything that a node leads, and lead nothing there",
		Long: "Hand over everything that a node leads, this one if none is named; it leads nothing\n" +
			"until `deputy undrain`. Waits until the node is primary of nothing.",
		Args: atMostOne("NODE"),
		RunE: func(c *cobra.Command, args []string) error {
			node, err := a.nodeArg(args)
			if err != nil {
				return err
			}
			return a.order(c, "", func(ctx context.Context, way *contact) error {
				d.Node, d.Since, d.By = node, time.Now().UTC().Truncate(time.Second), a.operator()
				if err := way.Drain(ctx, d); err != nil {
					return err
				}
				fmt.Fprintf(a.stdout, "%s: drained\n", node)
				return a.waitUntilFree(ctx, way, node, timeout)
			})
		},
	}
	c.Flags().StringVar(&d.Reason, "reason", "", "why, for others to see")
	c.Flags().DurationVar(&timeout, "timeout", timeout, "wait no longer for the services to leave")
	return c
}

func (a *app) undrainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "undrain [NODE]",
		Short: "Let a node lead again",
		Args:  atMostOne("NODE"),
		RunE: func(c *cobra.Command, args []string) error {
			node, err := a.nodeArg(args)
			if err != nil {
				return err
			}
			return a.order(c, "", func(ctx context.Context, way *contact) error {
				if err := way.Undrain(ctx, node); err != nil {
					return err
				}
				fmt.Fprintf(a.stdout, "%s: may lead again\n", node)
				return nil
			})
		},
	}
}

// nodeArg is the node that a command is about: the one named, or this one.
func (a *app) nodeArg(args []string) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	return a.nodeName()
}

// waitUntilFree returns when the node is primary of nothing, and says of each
// service when that is so.
func (a *app) waitUntilFree(ctx context.Context, way *contact, node string, timeout time.Duration) error {
	services, err := way.Services(ctx)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var stuck []error
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not within %s", timeout))
	defer cancel()
	each(services, func(_ int, service string) {
		began, led := time.Now(), false
		var last supervisor.State
		for s := range way.Watch(ctx, service) {
			if last = s; s.Unreachable == "" && (s.Primary == nil || s.Vacant || s.Primary.Node != node) {
				break
			}
			led = true
		}
		mu.Lock()
		defer mu.Unlock()
		switch {
		case ctx.Err() != nil:
			stuck = append(stuck, fmt.Errorf("hand over %s: %w%s", service, context.Cause(ctx), whereItStands(last)))
		case led:
			fmt.Fprintf(a.stdout, "%s: %s left the role after %s\n", service, node, short(time.Since(began)))
		}
	})
	return errors.Join(stuck...)
}

// whereItStands is the end of a sentence about a service that did not move.
func whereItStands(s supervisor.State) string {
	switch {
	case s.Unreachable != "":
		return "; " + s.Unreachable
	case s.Primary == nil:
		return ""
	}
	text := fmt.Sprintf("; %s is %s", s.Primary.Node, s.Primary.State)
	if c := s.Candidate(s.Primary.Node); c != nil && c.Verdict != "" {
		text += " (" + c.Verdict + ")"
	}
	return text
}
