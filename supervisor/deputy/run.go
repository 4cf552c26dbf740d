package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/oklog/run"
	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/supervisor"
)

func (a *app) runCommand() *cobra.Command {
	level := new(slog.LevelVar)
	c := &cobra.Command{
		Use:   "run [SERVICE...]",
		Short: "Take part in the elections of services, and keep their roles on this node",
		Long: "Take part in the elections of the named services, or of all that are defined here.\n\n" +
			"SIGTERM and SIGINT hand over what this node leads and end the process once it is\n" +
			"demoted. SIGHUP reads the definitions again, without a role change. A definition\n" +
			"that is wrong keeps only its own service from running, unless it was named.\n\n" +
			"What an earlier process of a service has left primary here, because it crashed, is\n" +
			"demoted even where the definition is wrong by now, or gone: by the one last in force.",
		RunE: func(c *cobra.Command, names []string) error {
			e, err := a.engine(names, newLog(a.stderr, a.env, level), level)
			if err != nil {
				return err
			}
			return drive(c.Context(), e)
		},
	}
	c.Flags().TextVar(level, "log-level", level, "debug, info, warn or error")
	return c
}

// newLog logs as text, without the time where journald adds its own.
func newLog(w io.Writer, env func(string) string, level slog.Leveler) *slog.Logger {
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
				stopping = true
				e.log.Info("told to stop: roles are handed over", "signal", s.String())
				stop(fmt.Errorf("%w by %s", supervisor.ErrStop, s))
			default:
				// A second one makes nothing faster: only a proven demotion ends this.
				e.tellWhatIsLeft()
			}
		}
	}
}
