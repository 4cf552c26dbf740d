package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk/sdktest"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/plugin"
)

func (a *app) pluginTestCommand() *cobra.Command {
	o := origin{optional: true}
	var only, victim string
	var timeout time.Duration
	yes, list := false, false
	c := a.printsOneOf(&cobra.Command{
		Use:   "test NAME|PATH --settings FILE",
		Short: "Prove that a plugin keeps the contract",
		Long: "Prove that a plugin, or scripts by the plugin exec, keep the contract: act twice, be\n" +
			"interrupted, be killed or frozen in the middle, lose their host, and leave nothing\n" +
			"behind. Each case starts the plugin afresh, as deputy would.\n\n" +
			"It really promotes and demotes here, dozens of times, with the settings given. Never\n" +
			"test where the part is in use, nor with an address that another node has. Asks first;\n" +
			"without a terminal it needs --yes.\n\n" +
			"A case that fails is told with what was done, what was seen, what the contract says and\n" +
			"what usually puts it right; the exit status is then 1. A case that needs what the plugin\n" +
			"lacks is skipped with the reason. Interrupted, it demotes, and tells of the cases so far.\n\n" +
			"A plugin that needs no settings needs no --settings. For CI there is -o junit.",
		Example: "  deputy plugin test exec --settings hooks.toml\n" +
			"  deputy plugin test ./deputy-plugin-hello --settings hello.toml --yes --run 'promote|demote'\n" +
			"  deputy plugin test ./deputy-plugin-hello --settings hello.toml --yes -o junit >junit.xml\n" +
			"  deputy plugin test --list",
		Args: func(c *cobra.Command, args []string) error {
			if list {
				return noArgs(c, args)
			}
			return one("NAME or PATH")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			pattern, err := regexp.Compile(only)
			if err != nil {
				return mark(fmt.Errorf("--run %q is no regular expression: %w", only, err), errUsage)
			}
			if list && a.output == "junit" {
				return mark(errors.New("--list is a table or json: junit tells of cases that were run"), errUsage)
			}
			if list {
				return a.pluginCases(pattern)
			}
			if timeout <= 0 {
				return mark(fmt.Errorf("--timeout is more than nothing, not %s", timeout), errUsage)
			}
			// Whoever reads may stop: that is an error of printing, and no end
			// in the middle of a tenure.
			signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
			ctx, stop := interruptible(c.Context())
			defer stop()
			return a.pluginTest(ctx, args[0], o, sdktest.Config{Only: pattern, Timeout: timeout, Victim: peerOf(victim)}, yes)
		},
	}, "table", "json", "junit")
	o.flags(c)
	c.Flags().StringVar(&only, "run", "", "run only the cases whose names match this regular expression")
	c.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "how long one promote or demote may take")
	c.Flags().StringVar(&victim, "victim", "", "NODE or NODE=ADDRESS that is really fenced, several times, by a plugin that can; none if not given")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask before promoting and demoting here")
	c.Flags().BoolVar(&list, "list", false, "only list the cases and what they prove")
	return c
}

// pluginCases lists what can be run.
func (a *app) pluginCases(only *regexp.Regexp) error {
	type named struct {
		Name     string `json:"name"`
		Contract string `json:"contract"`
		Cure     string `json:"cure"`
	}
	cases := []named{}
	t := table{head: []string{"CASE", "CONTRACT"}}
	for _, c := range sdktest.Cases() {
		if only.MatchString(c.Name) {
			cases = append(cases, named{c.Name, c.Contract, c.Cure})
			t.add(cell{c.Name, bold}, cell{c.Contract, plain})
		}
	}
	if a.json() {
		return a.printJSON(cases)
	}
	var b strings.Builder
	t.write(&b, a.screen, "")
	fmt.Fprint(a.stdout, b.String())
	return nil
}

func (a *app) pluginTest(ctx context.Context, what string, o origin, c sdktest.Config, yes bool) error {
	if o.file == "-" {
		return mark(errors.New("test reads the settings several times: --settings needs a file"), errUsage)
	}
	p, err := a.pick(what)
	if err != nil {
		return err
	}
	host, part, settings, err := o.of(a, p)
	if err != nil {
		return err
	}
	made, err := plugin.New(host, part)
	if err == nil {
		looking, cancel := context.WithTimeout(ctx, openTime)
		defer cancel()
		err = made.Verify(looking)
		if !plugin.Lasting(err) || errors.Is(err, plugin.ErrContract) || errors.Is(err, plugin.ErrVersion) {
			err = nil // the cases tell what is wrong with it
		}
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil && o.none():
		return mark(fmt.Errorf("%s needs settings: --settings FILE, or --service NAME for those of a definition: %w", p.use, err), errUsage)
	case err != nil: // each case would find the same
		return mistaken(settings, err)
	case p.use != execPlugin:
		if part.Config, err = revealed(ctx, host, part); err != nil {
			return mistaken(settings, err)
		}
	}
	if !yes {
		if err := a.agree(ctx, p); err != nil {
			return err
		}
	}
	subject := sdktest.Binary(p.path)
	if p.use == execPlugin {
		subject = &scripts{app: a, host: host, part: part, origin: o}
	}
	c.Settings = part.Config
	c.Node.Node, c.Node.Address = host.Node, "127.0.0.1"

	width := 0
	for _, k := range sdktest.Cases() {
		width = max(width, len(k.Name))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	v := verdicts{
		Format: verdictsFormat, Plugin: p.use, Path: p.path, Version: made.Describe().Version, Deputy: versionOf().Version,
		Node: host.Node, Began: time.Now(), Cases: []sdktest.Result{},
	}
	_, cut := sdktest.Examine(ctx, subject, c, func(r sdktest.Result) {
		v.add(r)
		if a.output == "table" {
			if _, err := fmt.Fprint(a.stdout, v.line(r, width, a.screen)); err != nil {
				cancel(fmt.Errorf("print: %w", err)) // nobody reads on: leave nothing promoted
			}
		}
	})
	if v.Took = time.Since(v.Began); cut != nil {
		v.Interrupted = context.Cause(ctx).Error()
	}
	if len(v.Cases) == 0 {
		return mark(fmt.Errorf("no case matches --run %q: see deputy plugin test --list", c.Only), errUsage)
	}
	switch a.output {
	case "json":
		err = a.printJSON(v)
	case "junit":
		err = v.junit(a.stdout)
	default:
		fmt.Fprint(a.stdout, v.text(a.screen))
	}
	switch {
	case cut != nil:
		return fmt.Errorf("%s was not examined to the end: %w", p.use, context.Cause(ctx))
	case v.Failed > 0:
		hint := ""
		if os.Geteuid() != 0 && v.denied() {
			hint = "; not all was permitted: run it as the service's user, which may be root"
		}
		return fmt.Errorf("%s breaks the contract: %d of %d cases failed%s", p.use, v.Failed, len(v.Cases), hint)
	}
	return err
}

// revealed returns a part's settings as its plugin is given them; as they are
// written where it does not say what they are.
func revealed(ctx context.Context, h plugin.Host, part supervisor.Part) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	says, err := plugin.Describe(ctx, h, part.Use)
	if err != nil {
		return part.Config, nil
	}
	return h.Settings(says.Schema, part.Config)
}

// agree asks whether to promote and demote here.
func (a *app) agree(ctx context.Context, p picked) error {
	in, ok := a.stdin.(*os.File)
	if ok {
		_, err := unix.IoctlGetTermios(int(in.Fd()), unix.TCGETS)
		ok = err == nil
	}
	if !ok {
		return mark(errors.New("this really promotes and demotes here: without a terminal to ask, it needs --yes"), errUsage)
	}
	fmt.Fprintf(a.stderr, "This really promotes and demotes %s on this node, dozens of times. Go on? [y/N] ", p.use)
	answer := make(chan string, 1)
	go func() { // which a terminal may hold until the process ends
		var text string
		_, _ = fmt.Fscanln(in, &text)
		answer <- strings.ToLower(text)
	}()
	select {
	case text := <-answer:
		if text != "y" && text != "yes" {
			return errors.New("not tested: you did not agree")
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
