package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk/sdktest"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/plugin"
)

func (a *app) pluginTestCommand() *cobra.Command {
	o := origin{}
	var only, victim string
	var timeout time.Duration
	yes, list := false, false
	c := a.prints(&cobra.Command{
		Use:   "test NAME|PATH --settings FILE",
		Short: "Prove that a plugin keeps the contract",
		Long: "Prove that a plugin, or scripts by the plugin exec, keep the contract: act twice, be\n" +
			"interrupted, be killed or frozen in the middle, lose their host, and leave nothing\n" +
			"behind. Each case starts the plugin afresh, as deputy would.\n\n" +
			"It really promotes and demotes here, dozens of times, with the settings given. Never\n" +
			"test where the part is in use, nor with an address that another node has. Asks first;\n" +
			"without a terminal it needs --yes.\n\n" +
			"A case that fails is told with what was done, what was seen, and the rule; the exit\n" +
			"status is then 1. A case that needs what the plugin lacks is skipped with the reason.",
		Example: "  deputy plugin test exec --settings hooks.toml\n" +
			"  deputy plugin test ./deputy-plugin-hello --settings hello.toml --yes --run 'promote|demote'\n" +
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
			if list {
				return a.pluginCases(pattern)
			}
			if timeout <= 0 {
				return mark(fmt.Errorf("--timeout is more than nothing, not %s", timeout), errUsage)
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			return a.pluginTest(ctx, args[0], o, sdktest.Config{Only: pattern, Timeout: timeout, Victim: peerOf(victim)}, yes)
		},
	})
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
	}
	cases := []named{}
	t := table{head: []string{"CASE", "CONTRACT"}}
	for _, c := range sdktest.Cases() {
		if only.MatchString(c.Name) {
			cases = append(cases, named{c.Name, c.Contract})
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
	if err == nil && p.use == execPlugin {
		looking, cancel := context.WithTimeout(ctx, openTime)
		defer cancel()
		err = made.Verify(looking) // else each case would find the same
	}
	if err == nil && p.use != execPlugin {
		part.Config, err = revealed(ctx, host, part)
	}
	if err != nil {
		return mistaken(settings, err)
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
	began := time.Now()
	results, err := sdktest.Examine(ctx, subject, c, func(r sdktest.Result) {
		if !a.json() {
			fmt.Fprint(a.stdout, verdictLine(r, width, a.screen))
		}
	})
	if a.json() {
		err = orPrint(err, a.printJSON(nonNil(results)))
	}
	if err != nil {
		return err
	}
	return a.verdict(p, results, time.Since(began))
}

// revealed returns a part's settings as its plugin is given them.
func revealed(ctx context.Context, h plugin.Host, part supervisor.Part) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	says, err := plugin.Describe(ctx, h, part.Use)
	if err != nil {
		return nil, err
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

// verdictLine is one case as it is shown once it is known.
func verdictLine(r sdktest.Result, width int, s screen) string {
	st := map[sdktest.Verdict]style{sdktest.Passed: good, sdktest.Failed: bad, sdktest.Skipped: faint}[r.Verdict]
	note := r.Note
	if r.Verdict == sdktest.Failed {
		note = r.Saw
	}
	line := fmt.Sprintf("%-*s  %s  %7s  ", width, r.Case, s.paint(st, string(r.Verdict)), short(r.Took))
	indent := "\n" + strings.Repeat(" ", width+17)
	return strings.TrimRight(line+strings.Join(wrap(tidy(note), max(s.width-width-17, minLast)), indent), " ") + "\n"
}

// verdict sums up, and tells more of what failed. It is an error if something
// did.
func (a *app) verdict(p picked, results []sdktest.Result, took time.Duration) error {
	count := map[sdktest.Verdict]int{}
	var b strings.Builder
	for _, r := range results {
		count[r.Verdict]++
		if r.Verdict != sdktest.Failed {
			continue
		}
		fmt.Fprintf(&b, "\n%s\n", a.screen.paint(bold, r.Case))
		for _, part := range []struct{ name, text string }{
			{"contract", r.Contract}, {"did", strings.Join(r.Did, "\n")}, {"saw", r.Saw}, {"said", r.Said},
		} {
			if part.text == "" {
				continue
			}
			lines := wrap(tidy(part.text), max(a.screen.width-12, minLast))
			fmt.Fprintf(&b, "  %-8s  %s\n", part.name, strings.Join(lines, "\n            "))
		}
	}
	failed := count[sdktest.Failed]
	if !a.json() {
		fmt.Fprintf(a.stdout, "%s\n%d passed, %d failed, %d skipped in %s\n", b.String(), count[sdktest.Passed], failed, count[sdktest.Skipped], short(took))
	}
	switch {
	case len(results) == 0:
		return mark(errors.New("no case has such a name: see deputy plugin test --list"), errUsage)
	case failed > 0:
		return fmt.Errorf("%s breaks the contract: %d of %d cases failed", p.use, failed, len(results))
	}
	return nil
}
