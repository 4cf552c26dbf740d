package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/oklog/run"
	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/control"
	"github.com/deputy-ha/deputy/supervisor/systemd"
)

func (a *app) runCommand() *cobra.Command {
	level, probe := new(control.Level), false
	c := &cobra.Command{
		Use:   "run [SERVICE...]",
		Short: "Take part in the elections of services, and keep their roles on this node",
		Long: "Take part in the elections of the named services, or of all that are defined here.\n\n" +
			"SIGTERM and SIGINT hand over what this node leads and end the process once it is\n" +
			"demoted; where systemd says that it restarts the unit the role is kept for the next\n" +
			"process instead. SIGHUP reads the definitions again, without a role change. A definition\n" +
			"that is wrong keeps only its own service from running, unless it was named.\n\n" +
			"What an earlier process of a service has left primary here, because it crashed, is\n" +
			"demoted even where the definition is wrong by now, or gone: by the one last in force.",
		RunE: func(c *cobra.Command, names []string) error {
			if probe {
				return a.probeHere(names)
			}
			e, err := a.engine(names, newLog(a.stderr, a.env, level), level)
			if err == nil {
				err = drive(c.Context(), e)
			}
			if next := nextOf(e); err == nil && next != "" {
				err = e.become(next)
			}
			a.lastWord(err)
			return err
		},
	}
	c.Flags().BoolVar(&probe, "probe", false, "only see whether it could run, and touch nothing")
	c.Flags().Lookup("probe").Hidden = true // for the program that this one takes over from
	c.Flags().TextVar(level, "log-level", level, "debug, info, warn or error")
	return c
}

// newLog logs to the journal where w is connected to it, else as text, without
// the time where somebody else adds it.
func newLog(w io.Writer, env func(string) string, level slog.Leveler) *slog.Logger {
	if f, ok := w.(*os.File); ok && systemd.IsJournal(env, f) {
		if j, err := systemd.NewJournal(level, w); err == nil {
			return slog.New(j)
		}
	}
	o := &slog.HandlerOptions{Level: level}
	if env("JOURNAL_STREAM") != "" {
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// drive runs the engine until it ends, by itself or by a signal.
func drive(ctx context.Context, e *engine) error {
	var g run.Group
	running, stop := context.WithCancelCause(ctx)
	e.stop = stop
	g.Add(func() error { return e.run(running) }, func(error) { stop(supervisor.ErrStop) })

	// Without this a log that nobody reads any more would end the process. It is
	// not ignored, because hooks would inherit that.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	listening, deafen := context.WithCancelCause(ctx)
	g.Add(func() error { return heed(listening, signals, e, stop) }, func(cause error) { deafen(cause) })
	return g.Run()
}

// heed does what signals ask for, until ctx ends.
func heed(ctx context.Context, signals <-chan os.Signal, e *engine, stop context.CancelCauseFunc) error {
	stopping := false
	end := func(by string) {
		stopping = true
		e.told.Store(true)
		cause := e.ending(ctx)
		if errors.Is(cause, supervisor.ErrRestart) {
			e.log.Info("told to restart: roles are kept", "signal", by)
		} else {
			e.log.Info("told to stop: roles are handed over", "signal", by)
		}
		stop(fmt.Errorf("%w by %s", cause, by))
	}
	if is, told := tookOver(); told || is && e.endingAlready(ctx) {
		end("a signal to the program before this one")
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-signals:
			switch {
			case s == syscall.SIGHUP && !stopping:
				if err := e.reload(ctx); err != nil {
					e.log.Error("definitions not read again in full", "cause", err)
				}
			case s == syscall.SIGHUP:
			case !stopping:
				end(s.String())
			default:
				// A second one makes nothing faster: only a proven demotion ends this.
				e.tellWhatIsLeft()
			}
		}
	}
}

// nextOf is the program that takes over from an engine; empty when none does.
func nextOf(e *engine) string {
	if e == nil || e.next.Load() == nil {
		return ""
	}
	return *e.next.Load()
}
