package main

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/supervisor/control"
)

// levels are those that can be asked for.
func levels() []string { return []string{"debug", "info", "warn", "error"} }

func (a *app) logLevelCommand() *cobra.Command {
	var span time.Duration
	c := &cobra.Command{
		Use:   "log-level SERVICE [debug|info|warn|error]",
		Short: "Show or change what this node's daemon logs, while it runs",
		Long: "Show the least level that this node's daemon of a service logs, or change it while it\n" +
			"runs. With --for it goes back by itself, also when you are not there any more; without,\n" +
			"when the daemon is started again. A daemon of several services has one level for all.",
		Example: "  deputy log-level orders-db debug --for 10m",
		Args: func(c *cobra.Command, args []string) error {
			return mark(count(c, args, 1, 2, "SERVICE"), errUsage)
		},
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("for") && (span <= 0 || len(args) == 1) {
				return mark(errors.New("--for is a time span above zero, of a level: deputy log-level SERVICE debug --for 10m"), errUsage)
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			daemon := control.NewClient(a.dir(args[0]))
			if len(args) == 2 {
				to := control.LogLevel{For: span}
				if err := to.Level.UnmarshalText([]byte(args[1])); err != nil || strings.ContainsAny(args[1], "+-") {
					return mark(fmt.Errorf("a level is one of %s, not %q", strings.Join(levels(), ", "), args[1]), errUsage)
				}
				if err := daemon.SetLogLevel(ctx, to); err != nil {
					return err
				}
			}
			now, err := daemon.LogLevel(ctx)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, levelText(args[0], now))
			return nil
		},
	}
	c.Flags().DurationVar(&span, "for", 0, "go back to the usual level by itself after so long, such as 10m")
	return c
}

func levelText(service string, l control.LogLevel) string {
	name := func(l slog.Level) string { return strings.ToLower(l.String()) }
	text := fmt.Sprintf("%s: logs %s", service, name(l.Level))
	switch {
	case l.For > 0:
		text += fmt.Sprintf(" for %s, then %s again", l.For.Round(time.Second), name(l.Usual))
	case l.Level != l.Usual:
		text += fmt.Sprintf(", until it is started again; then %s", name(l.Usual))
	}
	return text
}
