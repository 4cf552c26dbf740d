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
			"the lease, and why the node can or cannot lead. Of several services, those that need\n" +
			"somebody come first, with what to type; of more than three there is one line each,\n" +
			"marked ! where somebody is needed and ~ where something is not as usual.\n" +
			"`deputy status SERVICE` shows the whole, with the plugins on this node.\n\n" +
			"Asks this node's daemon where one runs, else etcd. Only a primary's own daemon\n" +
			"knows what is left of its lease, and who took part before and is missing.\n\n" +
			"Its JSON is described in deputy-json(7).",
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

// fewServices is up to how many services are shown node by node unasked.
const fewServices = 3

// statusText is what status shows on a screen. Detail shows the whole of each
// service.
func statusText(reports []supervisor.Report, s screen, now time.Time, detail bool) string {
	var b strings.Builder
	ordered := heaviestFirst(reports, now)
	if len(reports) > 1 {
		summaryText(&b, ordered, s, now, detail)
		b.WriteString("\n")
	}
	if !detail && len(reports) > fewServices {
		listText(&b, ordered, s, now)
		return b.String()
	}
	for i, r := range ordered {
		if i > 0 {
			b.WriteString("\n")
		}
		reportText(&b, r, s, now, detail)
	}
	return b.String()
}

// heaviestFirst orders reports: what needs somebody first, else as they were.
func heaviestFirst(reports []supervisor.Report, now time.Time) []supervisor.Report {
	ordered := slices.Clone(reports)
	slices.SortStableFunc(ordered, func(x, y supervisor.Report) int { return weigh(x, now).Heavier(weigh(y, now)) })
	return ordered
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
