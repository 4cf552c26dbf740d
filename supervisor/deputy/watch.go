package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/control"
)

// How often the screen is drawn: at the latest so long after the last time,
// and at the earliest.
const (
	redrawLatest   = time.Second
	redrawEarliest = 100 * time.Millisecond
)

func (a *app) watchCommand() *cobra.Command {
	c := a.prints(&cobra.Command{
		Use:   "watch [SERVICE...]",
		Short: "Show the status live",
		Long: "Show the status live: at each change and once a second, until interrupted. Where the\n" +
			"output is no terminal, each change is printed below the one before; as JSON, one\n" +
			"array a line.",
		RunE: func(c *cobra.Command, names []string) error {
			ctx, stop := interruptible(c.Context())
			defer stop()
			err := a.watch(ctx, names)
			if errors.Is(err, errInterrupted) {
				return nil // that is how one leaves
			}
			return err
		},
	})
	return c
}

func (a *app) watch(ctx context.Context, names []string) error {
	changed := make(chan struct{}, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errors.New("the watch has ended"))

	here := a.daemons()
	if len(names) > 0 {
		here = slices.DeleteFunc(here, func(s string) bool { return !slices.Contains(names, s) })
	}
	for _, name := range here {
		wg.Go(func() { a.notice(ctx, name, changed) })
	}
	if a.screen.terminal && !a.json() {
		fmt.Fprint(a.stdout, enterScreen)
		defer fmt.Fprint(a.stdout, leaveScreen)
	}
	var last string
	for ctx.Err() == nil {
		reports, err := a.reports(ctx, names)
		if err != nil && len(reports) == 0 {
			return orCause(ctx, err)
		}
		if last, err = a.draw(reports, last); err != nil {
			return err
		}
		wait(ctx, changed)
	}
	return context.Cause(ctx)
}

// notice says when this node's daemon has something new.
func (a *app) notice(ctx context.Context, name string, changed chan<- struct{}) {
	for ctx.Err() == nil {
		role := ""
		for st, err := range control.NewClient(a.dir(name)).WatchStatus(ctx) {
			if err != nil {
				break
			}
			now := fmt.Sprint(st.Role, st.Term, st.Verdict, st.Doing, st.State.Primary, st.State.Reservation, st.State.Pause)
			if now == role {
				continue // a beat
			}
			role = now
			select {
			case changed <- struct{}{}:
			default:
			}
		}
		select {
		case <-time.After(redrawLatest):
		case <-ctx.Done():
		}
	}
}

// wait returns when it is time to draw again.
func wait(ctx context.Context, changed <-chan struct{}) {
	earliest, latest := time.After(redrawEarliest), time.After(redrawLatest)
	select {
	case <-earliest:
	case <-ctx.Done():
		return
	}
	select {
	case <-changed:
	case <-latest:
	case <-ctx.Done():
	}
}

// draw shows the reports: in place of the last ones on a terminal, else below
// them where they differ.
func (a *app) draw(reports []supervisor.Report, last string) (string, error) {
	now := time.Now()
	if a.json() {
		return last, a.printJSONLine(reports)
	}
	if !a.screen.terminal {
		text := statusText(steady(reports), a.screen, now, false)
		if text != last {
			fmt.Fprintf(a.stdout, "--- %s\n%s", now.Format(time.TimeOnly), text)
		}
		return text, nil
	}
	s := screenOf(a.stdout, a.env) // it may have a new size
	text := fmt.Sprintf("deputy watch  %s  (Ctrl-C ends)\n\n", now.Format(time.TimeOnly)) + statusText(reports, s, now, false)
	_, err := fmt.Fprint(a.stdout, s.page(text))
	return text, err
}

// steady returns the reports without what moves by itself.
func steady(reports []supervisor.Report) []supervisor.Report {
	for i := range reports {
		for j := range reports[i].Nodes {
			n := &reports[i].Nodes[j]
			n.Since, n.LeaseLeft = time.Time{}, 0
		}
	}
	return reports
}

func orCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
