package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

func (a *app) historyCommand() *cobra.Command {
	limit := 20
	c := a.prints(&cobra.Command{
		Use:   "history SERVICE",
		Short: "Show each change of role, with its cause and how long each step took",
		Long: "Show each change of role, oldest first: when, from which node to which, its term,\n" +
			"its cause, and how long each step took. As JSON it is an array of what etcd holds\n" +
			"under services/SERVICE/history; durations are nanoseconds.",
		Args: one("SERVICE"),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := interruptible(c.Context())
			defer stop()
			_, changes, err := a.past(ctx, args[0])
			if err != nil {
				return err
			}
			if limit > 0 && len(changes) > limit {
				changes = changes[len(changes)-limit:]
			}
			if a.json() {
				return a.printJSON(nonNil(changes))
			}
			fmt.Fprint(a.stdout, historyText(changes, a.screen, time.Local))
			return nil
		},
	})
	c.Flags().IntVarP(&limit, "lines", "n", limit, "show that many changes, the newest; 0 shows all")
	return c
}

func historyText(changes []supervisor.Change, s screen, zone *time.Location) string {
	if len(changes) == 0 {
		return "no change of role yet\n"
	}
	t := table{head: []string{"WHEN", "TERM", "FROM", "TO", "TOOK", "WHY"}}
	for _, c := range changes {
		from := c.From
		if from == "" {
			from = "-"
		}
		why := fmt.Sprintf("%s: %s", c.Reason, c.Cause)
		fences, promotions := apart(c.Steps)
		if len(fences) > 0 {
			why += "\nfenced: " + steps(fences)
		}
		if len(promotions) > 0 {
			why += "\npromoted: " + steps(promotions)
		}
		if !c.Ended.IsZero() {
			why += fmt.Sprintf("\nended after %s, %s: %s", age(c.Ended.Sub(c.At)), c.EndReason, c.EndCause)
		}
		if len(c.EndSteps) > 0 {
			why += "\ndemoted: " + steps(c.EndSteps)
		}
		t.add(cell{c.At.In(zone).Format(time.DateTime), plain}, cell{termText(c.Term), plain},
			cell{tidy(from), plain}, cell{tidy(c.Node), plain}, cell{took(c.Steps), plain}, cell{why, plain})
	}
	var b strings.Builder
	t.write(&b, s, "")
	return b.String()
}

// took is how long all steps took together.
func took(steps []supervisor.Step) string {
	if len(steps) == 0 {
		return "-"
	}
	var d time.Duration
	for _, s := range steps {
		d += s.Dur
	}
	return short(d)
}

// apart tells fences from promotions.
func apart(all []supervisor.Step) (fences, promotions []supervisor.Step) {
	for _, s := range all {
		if s.Action == sdk.Fence {
			s.Plugin = s.Victim + " by " + s.Plugin
			fences = append(fences, s)
		} else {
			promotions = append(promotions, s)
		}
	}
	return fences, promotions
}

// steps tells what each plugin did, how long it took and, where it did not go
// well, how it went.
func steps(steps []supervisor.Step) string {
	var parts []string
	for _, s := range steps {
		text := fmt.Sprintf("%s %s", s.Plugin, short(s.Dur))
		if !s.Outcome.OK() {
			text += " " + string(s.Outcome)
			if s.Detail != "" {
				text += " (" + s.Detail + ")"
			}
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}
