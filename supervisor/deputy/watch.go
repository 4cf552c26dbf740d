package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
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
		Long: "Show the status live: at each change and once a second, until you leave.\n\n" +
			"On a terminal, choose a service with the arrows (or j and k) to see its nodes and last\n" +
			"changes; s moves its role, p pauses or resumes it, d drains or undrains a node: each\n" +
			"shows the command and asks first. q leaves.\n\n" +
			"Where the output is no terminal, each change is printed below the one before; as JSON,\n" +
			"one array of deputy-json(7) a line.",
		RunE: func(c *cobra.Command, names []string) error {
			ctx, stop := interruptible(c.Context())
			defer stop()
			watch := a.watch
			if a.screen.terminal && !a.json() && a.env("TERM") != "dumb" {
				watch = a.live
			}
			err := watch(ctx, names)
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

	a.noticeAll(ctx, &wg, names, changed)
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

// noticeAll says when a daemon here of the named services, or of any, has
// something new, until ctx ends.
func (a *app) noticeAll(ctx context.Context, wg *sync.WaitGroup, names []string, changed chan<- struct{}) {
	for _, name := range a.daemons() {
		if len(names) == 0 || slices.Contains(names, name) {
			wg.Go(func() { a.notice(ctx, name, changed) })
		}
	}
}

// notice says when this node's daemon has something new.
func (a *app) notice(ctx context.Context, name string, changed chan<- struct{}) {
	last := ""
	for st := range a.statuses(ctx, name) {
		now := fmt.Sprint(st.Role, st.Term, st.Verdict, st.Doing, st.State.Primary, st.State.Reservation, st.State.Pause)
		if now == last {
			continue // a beat
		}
		last = now
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}

// statuses yields what this node's daemon says of a service, at each change and
// at least once in a Beat, until ctx ends. While it does not answer it is asked
// again and again.
func (a *app) statuses(ctx context.Context, name string) iter.Seq[supervisor.Status] {
	return func(yield func(supervisor.Status) bool) {
		for ctx.Err() == nil {
			for st, err := range control.NewClient(a.dir(name)).WatchStatus(ctx) {
				if err != nil {
					break
				}
				if !yield(st) {
					return
				}
			}
			select {
			case <-time.After(control.Beat):
			case <-ctx.Done():
			}
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

// draw shows the reports below the last ones where they differ.
func (a *app) draw(reports []supervisor.Report, last string) (string, error) {
	if a.json() {
		return last, a.printJSONLine(reports)
	}
	now := time.Now()
	text := statusText(steady(reports), a.screen, now, false)
	if text != last {
		fmt.Fprintf(a.stdout, "--- %s\n%s", now.Format(time.TimeOnly), text)
	}
	return text, nil
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
