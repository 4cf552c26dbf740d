package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/sdk/manual"
	"github.com/deputy-ha/deputy/supervisor/systemd"
)

// An app is one run of the command line.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) string
	screen         screen
	bus            *systemd.Bus // opened when it is first used
	paths          paths
	output         string // table or json
}

// paths are the roots of all files that deputy uses on this node.
type paths struct {
	config   string // deputy.toml
	services string // the definitions
	run      string // runtime state, gone after a boot
	state    string // lasting state
}

// main runs one command and returns what the process exits with.
func (a *app) main(ctx context.Context, args []string) int {
	a.bus = systemd.NewBus()
	defer a.bus.Close()
	root := a.root()
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	code := exitCode(err)
	if err != nil {
		fmt.Fprintln(a.stderr, "deputy: "+tidy(err.Error()))
		if code == exitUsage {
			fmt.Fprintf(a.stderr, "Try `%s --help`.\n", command.CommandPath())
		}
	}
	return code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "deputy",
		Short: "Keeps one node at a time primary for each service",
		Long: "Keeps one node at a time primary for each service.\n\n" +
			"Exit status: 0 done, 1 failed, 64 wrong usage, 69 etcd or daemon not reachable,\n" +
			"77 not permitted, 78 configuration.",
		SilenceErrors:              true,
		SuggestionsMinimumDistance: 2,
		SilenceUsage:               true,
		DisableAutoGenTag:          true,
		Args:                       unknownCommand,
		RunE:                       func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return mark(err, errUsage) })
	flags := root.PersistentFlags()
	for _, p := range []struct {
		value                      *string
		name, env, otherwise, what string
	}{
		{&a.paths.config, "config", "DEPUTY_CONFIG", "/etc/deputy/deputy.toml", "this node's settings"},
		{&a.paths.services, "services", "DEPUTY_SERVICES", "/etc/deputy/services.d", "directory of the services' definitions"},
		{&a.paths.run, "run-dir", "DEPUTY_RUN_DIR", "/run/deputy", "directory of runtime state"},
		{&a.paths.state, "state-dir", "DEPUTY_STATE_DIR", "/var/lib/deputy", "directory of lasting state"},
	} {
		otherwise := p.otherwise
		if v := a.env(p.env); v != "" {
			otherwise = v
		}
		flags.StringVar(p.value, p.name, otherwise, p.what+"; also "+p.env)
	}
	root.AddGroup(
		&cobra.Group{ID: "see", Title: "See:"},
		&cobra.Group{ID: "steer", Title: "Steer:"},
		&cobra.Group{ID: "node", Title: "This node:"},
	)
	in := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			if strings.Contains(c.Use, "SERVICE") {
				c.ValidArgsFunction = a.completeServices
			}
			root.AddCommand(c)
		}
	}
	in("see", a.statusCommand(), a.watchCommand(), a.explainCommand(), a.historyCommand())
	in("steer", a.switchoverCommand(), a.failoverCommand(), a.pauseCommand(), a.resumeCommand(),
		a.drainCommand(), a.undrainCommand(), a.banCommand(), a.unbanCommand(), a.clearCommand(), a.removeCommand())
	in("node", a.runCommand(), a.httpCommand(), a.checkCommand(), a.reloadCommand(), a.enableCommand(), a.disableCommand(), a.logLevelCommand(), a.supportCommand(),
		a.pluginCommand(), a.notifyCommand(), a.versionCommand(), a.gateCommand(), a.cleanupCommand())
	root.CompletionOptions.DisableNoDescFlag = true
	root.InitDefaultCompletionCmd()
	forShells(root)
	a.completeWords(root)
	return root
}

// forShells leaves the completion scripts of the shells that deputy's systems have.
func forShells(root *cobra.Command) {
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			continue
		}
		c.GroupID = "node"
		c.RunE = func(*cobra.Command, []string) error {
			return mark(errors.New("completion needs a shell: bash, zsh or fish"), errUsage)
		}
		for _, shell := range c.Commands() {
			if shell.Name() == "powershell" {
				c.RemoveCommand(shell)
			}
		}
	}
}

// prints lets a command print a table or JSON.
func (a *app) prints(c *cobra.Command) *cobra.Command { return a.printsOneOf(c, "table", "json") }

// printsOneOf lets a command print in any of these forms, the first by default.
func (a *app) printsOneOf(c *cobra.Command, forms ...string) *cobra.Command {
	last := len(forms) - 1
	known := strings.Join(forms[:last], ", ") + " or " + forms[last]
	c.Flags().StringVarP(&a.output, "output", "o", forms[0], known)
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(forms, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	run := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if !slices.Contains(forms, a.output) {
			return mark(fmt.Errorf("--output is %s, not %q", known, a.output), errUsage)
		}
		return run(c, args)
	}
	return c
}

func (a *app) json() bool { return a.output == "json" }

// printJSON prints one value, indented.
func (a *app) printJSON(v any) error { return a.encode(v, "  ") }

// printJSONLine prints one value in one line.
func (a *app) printJSONLine(v any) error { return a.encode(v, "") }

func (a *app) encode(v any, indent string) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", indent)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

var errInterrupted = errors.New("interrupted")

// interruptible returns a context that ends, with errInterrupted, at the first
// SIGINT or SIGTERM, or SIGHUP where that is not ignored; a second one ends the
// process. The returned func waits for what it started.
func interruptible(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // by nohup(1)
		signal.Notify(signals, syscall.SIGHUP)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-signals:
			cancel(errInterrupted)
		case <-ctx.Done():
		}
		signal.Stop(signals)
	}()
	return ctx, func() {
		cancel(nil)
		<-ended
	}
}

// tidy makes text of others fit to print.
func tidy(s string) string { return manual.Tidy(s) }
