package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/supervisor"
)

// askTime bounds each question to a daemon or to etcd. It covers an etcd that
// is electing.
const askTime = 5 * time.Second

func (a *app) statusCommand() *cobra.Command {
	return a.prints(&cobra.Command{
		Use:   "status [SERVICE...]",
		Short: "Show every service, node by node",
		Long: "Show every service, node by node: role, health, term, since when, what is left of\n" +
			"the lease, and why the node can or cannot lead.\n\n" +
			"Asks this node's daemon where one runs, else etcd. Only a primary's own daemon\n" +
			"knows what is left of its lease.\n\n" +
			"As JSON it is an array with an object for each service: service, description, source\n" +
			"(daemon, etcd or none), primary, vacant, term, nodes, pause, reservation, frozen,\n" +
			"unreachable, hashes_differ, problem, and local, which is the daemon's own status. Each\n" +
			"of nodes has node, address, present, role, fit, health, term, since, lease_left_ns,\n" +
			"priority, drained, banned, held, verdict, hash and version. What is not known is left out;\n" +
			"durations are nanoseconds.",
		Example: "  deputy status\n  deputy status orders-db -o json",
		RunE: func(c *cobra.Command, names []string) error {
			ctx, stop := interruptible(c.Context())
			defer stop()
			reports, err := a.reports(ctx, names)
			if a.json() {
				if len(reports) > 0 || err == nil {
					return orPrint(err, a.printJSON(nonNil(reports)))
				}
				return err
			}
			if err != nil {
				// Of these nothing is known but what the error says.
				reports = slices.DeleteFunc(reports, func(r supervisor.Report) bool { return r.Source == "none" })
			}
			if len(reports) == 0 && err == nil {
				fmt.Fprintf(a.stdout, "no services: %s has no definitions, and etcd knows of none\n", a.paths.services)
			}
			fmt.Fprint(a.stdout, statusText(reports, a.screen, time.Now(), len(names) > 0))
			return err
		},
	})
}

// statusText is what status shows on a screen.
func statusText(reports []supervisor.Report, s screen, now time.Time, detail bool) string {
	var b strings.Builder
	for i, r := range reports {
		if i > 0 {
			b.WriteString("\n")
		}
		reportText(&b, r, s, now, detail)
	}
	return b.String()
}

// orPrint returns what is wrong with what was asked, else with printing it.
func orPrint(err, printed error) error {
	if err != nil {
		return err
	}
	return printed
}

// nonNil has JSON show an empty list as one.
func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
