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
	var length span
	timeout := time.Minute
	c := &cobra.Command{
		Use:   "drain [NODE]",
		Short: "Hand over everything that a node leads, and lead nothing there",
		Long: "Hand over everything that a node leads, this one if none is named; it leads nothing\n" +
			"until `deputy undrain` or the given time. Waits until the node is primary of nothing.",
		Example: "  deputy drain --reason \"new memory\"\n  deputy drain db1 --for 2h",
		Args:    atMostOne("NODE"),
		RunE: func(c *cobra.Command, args []string) error {
			node, err := a.nodeArg(args)
			if err != nil {
				return err
			}
			return a.order(c, "", func(ctx context.Context, way *contact) error {
				services, err := led(ctx, way, node)
				if err != nil {
					return err
				}
				d.Node, d.By = node, a.operator()
				d.Since, d.Until = length.from(time.Now())
				if err := way.Drain(ctx, d); err != nil {
					return err
				}
				until := ""
				if !d.Until.IsZero() {
					until = " until " + d.Until.Format(time.RFC3339)
				}
				fmt.Fprintf(a.stdout, "%s: drained%s\n", node, until)
				return a.waitUntilFree(ctx, way, node, services, timeout, fmt.Sprintf("`deputy undrain %s`", node))
			})
		},
	}
	c.Flags().Var(&length, "for", "for how long, such as 30m, 12h, or forever")
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

// led returns the services that a node is primary of.
func led(ctx context.Context, way *contact, node string) ([]string, error) {
	services, err := way.Services(ctx)
	if err != nil {
		return nil, err
	}
	leads, faults := make([]bool, len(services)), make([]error, len(services))
	each(services, func(i int, service string) {
		var s supervisor.State
		s, faults[i] = way.State(ctx, service)
		leads[i] = holdsRole(s, node)
	})
	var found []string
	for i, service := range services {
		if leads[i] {
			found = append(found, service)
		}
	}
	return found, errors.Join(faults...)
}

// holdsRole reports whether the records name the node as primary, and nobody
// may take the role from it.
func holdsRole(s supervisor.State, node string) bool {
	return s.Primary != nil && !s.Vacant && s.Primary.Node == node
}

// waitUntilFree returns when the node is primary of none of the services, and
// says of each when that is so. Whoever does not wait for it ends nothing: that
// takes what undo says.
func (a *app) waitUntilFree(ctx context.Context, way *contact, node string, services []string, timeout time.Duration, undo string) error {
	var mu sync.Mutex
	var stuck []error
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not within %s", timeout))
	defer cancel()
	each(services, func(_ int, service string) {
		began := time.Now()
		var last supervisor.State
		for last = range way.Watch(ctx, service) {
			if last.Unreachable == "" && !holdsRole(last, node) {
				mu.Lock()
				defer mu.Unlock()
				fmt.Fprintf(a.stdout, "%s: %s left the role after %s\n", service, node, short(time.Since(began)))
				return
			}
		}
		mu.Lock()
		defer mu.Unlock()
		stuck = append(stuck, fmt.Errorf("hand over %s: %w%s", service, context.Cause(ctx), whereItStands(last)))
	})
	if stuck == nil {
		return nil
	}
	return fmt.Errorf("%w; %s goes on handing over by itself, and %s ends the order", errors.Join(stuck...), node, undo)
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
