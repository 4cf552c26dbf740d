package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

func (a *app) historyCommand() *cobra.Command {
	limit, span := 20, time.Duration(0)
	c := a.prints(&cobra.Command{
		Use:   "history SERVICE",
		Short: "Show each change of role, with its cause and how long each step took",
		Long: "Show each change of role, oldest first: when, from which node to which, its term,\n" +
			"its cause, how long each step took, and how long nobody was primary before, as the\n" +
			"clocks of both nodes tell it.\n\n" +
			"Its JSON, an array, is described in deputy-json(7).",
		Example: "  deputy history orders-db\n  deputy history orders-db --since 24h -n 0",
		Args:    one("SERVICE"),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := interruptible(c.Context())
			defer stop()
			if c.Flags().Changed("since") && span <= 0 {
				return mark(fmt.Errorf("--since is a time span above zero, not %s", span), errUsage)
			}
			_, changes, err := a.past(ctx, args[0])
			if err != nil {
				return err
			}
			told := recount(changes)
			if span > 0 {
				from := time.Now().Add(-span)
				told = slices.DeleteFunc(told, func(c change) bool { return c.At.Before(from) && (c.Ended.IsZero() || c.Ended.Before(from)) })
			}
			if limit > 0 && len(told) > limit {
				told = told[len(told)-limit:]
			}
			if a.json() {
				return a.printJSON(told)
			}
			fmt.Fprint(a.stdout, historyText(told, a.screen, time.Local))
			return nil
		},
	})
	c.Flags().DurationVar(&span, "since", 0, "leave out what was over so long ago, such as 30m, 24h")
	c.Flags().IntVarP(&limit, "lines", "n", limit, "show that many changes, the newest; 0 shows all")
	return c
}

// A change is one of `deputy history -o json`: what etcd holds, and what follows
// from the one before.
type change struct {
	Format string `json:"format"`
	supervisor.Change
	// Without is how long nobody was primary before, from the end of the tenure
	// before to the end of the last promotion, by the clocks of two nodes; zero
	// where no end was recorded, as of a node that was lost.
	Without time.Duration `json:"without_ns,omitempty"`
}

const changeFormat = "deputy.change/1"

// recount puts to each change what follows from the one before.
func recount(changes []supervisor.Change) []change {
	told := []change{}
	for i, c := range changes {
		t := change{Format: changeFormat, Change: c}
		if i > 0 && changes[i-1].Term+1 == c.Term && !changes[i-1].Ended.IsZero() {
			t.Without = max(c.At.Add(total(c.Steps)).Sub(changes[i-1].Ended), 0)
		}
		told = append(told, t)
	}
	return told
}

func historyText(changes []change, s screen, zone *time.Location) string {
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
		if c.Without > 0 {
			why += "\nnobody was primary for " + short(c.Without)
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
	return short(total(steps))
}

func total(steps []supervisor.Step) (d time.Duration) {
	for _, s := range steps {
		d += s.Dur
	}
	return d
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
