package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/deputy-ha/deputy/supervisor"
)

// live shows the status on a terminal until somebody leaves, and gives the
// orders that are asked for there.
func (a *app) live(ctx context.Context, names []string) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errInterrupted) // an order that is carried out goes on without us

	f := &feed{app: a, names: names, orders: make(chan []string), again: make(chan struct{}, 1)}
	f.screen = tea.NewProgram(newLive(a.screen, f), tea.WithContext(ctx), tea.WithInput(a.stdin), tea.WithOutput(a.stdout), tea.WithoutSignalHandler())
	wg.Go(func() { f.look(ctx) })
	wg.Go(func() { f.carryOut(ctx) })
	a.noticeAll(ctx, &wg, names, f.again)
	_, err := f.screen.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// A feed is what is behind the live screen: it has it know what is new, and
// carries out what somebody there confirms.
type feed struct {
	app    *app
	names  []string
	screen *tea.Program
	chosen atomic.Pointer[string] // the service of which the past is shown
	orders chan []string          // one at a time; arguments of a command
	again  chan struct{}          // there is something new to look at
}

// What the live screen is told.
type (
	seen struct { // how things are
		reports []supervisor.Report
		err     error
		at      time.Time
	}
	past struct { // of one service, the newest last
		service string
		changes []change
	}
	said  string              // by an order that is carried out
	ended struct{ err error } // it
)

// look asks again and again how things are.
func (f *feed) look(ctx context.Context) {
	var known struct {
		service string
		state   string
	}
	for ctx.Err() == nil {
		reports, err := f.app.reports(ctx, f.names)
		f.screen.Send(seen{reports, err, time.Now()})
		if chosen := f.chosen.Load(); chosen != nil {
			state := ""
			for _, r := range reports {
				if r.Service == *chosen {
					state = fmt.Sprint(r.Term, r.Vacant, r.Primary)
				}
			}
			if known.service != *chosen || known.state != state {
				if _, changes, err := f.app.past(ctx, *chosen); err == nil {
					known.service, known.state = *chosen, state
					f.screen.Send(past{*chosen, recount(changes)})
				}
			}
		}
		wait(ctx, f.again)
	}
}

// choose says whose past is wanted.
func (f *feed) choose(service string) {
	if was := f.chosen.Load(); was == nil || *was != service {
		f.chosen.Store(&service)
		f.refresh()
	}
}

func (f *feed) refresh() {
	select {
	case f.again <- struct{}{}:
	default:
	}
}

// order has a command carried out. It reports whether none is already.
func (f *feed) order(args []string) bool {
	select {
	case f.orders <- args:
		return true
	default:
		return false
	}
}

// carryOut runs the commands that are ordered, the very ones of the command
// line.
func (f *feed) carryOut(ctx context.Context) {
	for {
		select {
		case args := <-f.orders:
			f.screen.Send(ended{f.app.inside(ctx, args, lines(func(l string) { f.screen.Send(said(l)) }))})
			f.refresh()
		case <-ctx.Done():
			return
		}
	}
}

// inside runs another command with the paths of this one.
func (a *app) inside(ctx context.Context, args []string, out io.Writer) error {
	b := *a
	b.stdin, b.stdout, b.stderr = new(bytes.Buffer), out, out
	b.screen, b.output = screen{width: a.screen.width}, ""
	root := b.root()
	root.SetArgs(append([]string{
		"--config", a.paths.config, "--services", a.paths.services, "--run-dir", a.paths.run, "--state-dir", a.paths.state,
	}, args...))
	return root.ExecuteContext(ctx)
}

// lines is a writer of whole lines.
type lines func(line string)

// Write tells each line. Commands write whole ones.
func (f lines) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		f(strings.TrimSpace(line))
	}
	return len(p), nil
}
