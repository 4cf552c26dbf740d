package sdk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/deputy-ha/deputy/sdk/manual"
)

// byHand is a plugin's binary when a person has started it.
type byHand struct {
	p        Plugin
	in       io.Reader
	out, err io.Writer
}

// run does what the arguments say and returns the exit code. When ctx ends, so
// does what runs.
func (b byHand) run(ctx context.Context, args []string) int {
	if len(args) == 0 {
		args = []string{"help"}
	}
	verb, args := args[0], args[1:]
	switch verb {
	case "help", "-h", "-help", "--help":
		b.help()
		return exitDone
	case "version", "-version", "--version":
		fmt.Fprintln(b.out, b.p.name, b.p.versionOrBuild())
		return exitDone
	case "describe":
		return b.describe(args)
	case "validate":
		return b.validate(args)
	case "call":
		return b.call(ctx, args)
	case "test":
		return b.test(args)
	}
	fmt.Fprintf(b.err, "unknown command %q; %s\n", verb, suggest(verb, []string{"describe", "validate", "call", "test"}))
	return exitUsage
}

func (b byHand) help() {
	name := "deputy-plugin-" + b.p.name
	fmt.Fprintf(b.out, `%[1]s

This is the plugin %[2]q of deputy, which starts it by itself: installed as
%[3]s/%[4]s, or below /usr/local, it is
	use = %[2]q
in the definition of a service.

By hand:
	%[4]s describe [-o FORM]                  what it is: table, json, schema, man, markdown
	%[4]s validate FILE|-                     settings as JSON: what is wrong with them
	%[4]s call ACT [--settings FILE|-] [...]  one act, tried here and now; call --help tells more
	%[4]s test [--settings FILE.toml] [...]   does it keep the contract? (needs deputy)
	%[4]s --version

`, b.p.says().Summary(), b.p.name, pluginDir, name)
	b.print(b.p.says().SettingsText(textWidth))
}

// textWidth is how wide text for people is.
const textWidth = 100

// says is what the plugin says of itself.
func (p Plugin) says() manual.Plugin {
	m := manual.Plugin{
		Name: p.name, Version: p.versionOrBuild(), Doc: p.doc, ForcedBound: p.forcedBound,
		Schema: json.RawMessage(p.settings.schema()),
	}
	for _, c := range p.capabilities {
		m.Capabilities = append(m.Capabilities, string(c))
	}
	return m
}

// print prints what was to be written, or why it was not.
func (b byHand) print(text string, err error) int {
	if err != nil {
		fmt.Fprintln(b.err, "describe:", err)
		return exitUnknown
	}
	fmt.Fprint(b.out, text)
	return exitDone
}

// pluginDir is where packages install plugins.
const pluginDir = "/usr/libexec/deputy/plugins"

// flags returns an empty set of flags. Its usage is the first line of its help.
func flags(usage string) *flag.FlagSet {
	f := flag.NewFlagSet(usage, flag.ContinueOnError)
	f.SetOutput(io.Discard) // parse tells
	return f
}

// parse reads flags that may stand before and after the other arguments, which
// it returns; ok is false when there is nothing left to do.
func (b byHand) parse(f *flag.FlagSet, args []string) (rest []string, exit int, ok bool) {
	for {
		switch err := f.Parse(args); {
		case errors.Is(err, flag.ErrHelp):
			b.usage(b.out, f)
			return nil, exitDone, false
		case err != nil:
			fmt.Fprintln(b.err, err)
			return nil, exitUsage, false
		}
		if args = f.Args(); len(args) == 0 {
			return rest, 0, true
		}
		rest, args = append(rest, args[0]), args[1:]
	}
}

func (b byHand) usage(w io.Writer, f *flag.FlagSet) int {
	fmt.Fprintf(w, "usage: deputy-plugin-%s %s\n", b.p.name, f.Name())
	f.SetOutput(w)
	f.PrintDefaults()
	return exitUsage
}

// describe says what the plugin is, as deputy plugin describe does.
func (b byHand) describe(args []string) int {
	f := flags("describe [-o table|json|schema|man|markdown]")
	form := f.String("o", "table", "table, json, schema: a JSON Schema of the settings, man: a manual page for man -l, or markdown: the settings for a README")
	rest, exit, ok := b.parse(f, args)
	if !ok {
		return exit
	}
	if len(rest) > 0 {
		return b.usage(b.err, f)
	}
	p := b.p
	switch *form {
	case "table":
		return b.print(p.says().Text(textWidth, nil, nil))
	case "json":
		return b.print(indented(json.Marshal(struct {
			Name         string          `json:"name"`
			Version      string          `json:"version,omitempty"`
			SDK          string          `json:"sdk,omitempty"`
			Capabilities []Capability    `json:"capabilities"`
			ForcedBound  time.Duration   `json:"forced_bound_ns,omitempty"`
			Heartbeats   bool            `json:"heartbeats"`
			Schema       json.RawMessage `json:"schema"`
			Doc          string          `json:"doc,omitempty"`
		}{p.name, p.versionOrBuild(), sdkVersion(), p.capabilities, p.forcedBound, true, json.RawMessage(p.settings.schema()), p.doc})))
	case "schema":
		return b.print(indented(p.says().EditorSchema()))
	case "man":
		return b.print(p.says().Page())
	case "markdown":
		return b.print(SettingsTable(p), nil)
	}
	fmt.Fprintf(b.err, "unknown form %q; %s\n", *form, suggest(*form, []string{"table", "json", "schema", "man", "markdown"}))
	return exitUsage
}

// indented writes JSON for people.
func indented[T ~[]byte](text T, err error) (string, error) {
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	err = json.Indent(&b, text, "", "  ")
	return b.String() + "\n", err
}

// read returns the settings in a file, or in the standard input.
func (b byHand) read(file string) (string, error) {
	var text []byte
	var err error
	switch file {
	case "":
		return "{}", nil
	case "-":
		text, err = io.ReadAll(b.in)
	default:
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return "", fmt.Errorf("read settings: %w", err)
	}
	return string(text), nil
}

func (b byHand) validate(args []string) int {
	f := flags("validate FILE|-")
	rest, exit, ok := b.parse(f, args)
	if !ok {
		return exit
	}
	if len(rest) != 1 {
		return b.usage(b.err, f)
	}
	config, err := b.read(rest[0])
	if err == nil {
		_, err = b.p.settings.decode(config)
	}
	return b.wrong(err)
}

// wrong prints what is wrong with settings, a mistake a line.
func (b byHand) wrong(err error) int {
	for _, one := range apart(err) {
		fmt.Fprintln(b.err, one)
	}
	if err != nil {
		return exitConfig
	}
	return exitDone
}

// test hands over to deputy, which has the tests.
func (b byHand) test(args []string) int {
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(b.err, "test:", err)
		return exitUnknown
	}
	deputy := os.Getenv("DEPUTY")
	if deputy == "" {
		deputy = "deputy"
	}
	path, err := exec.LookPath(deputy)
	if err == nil {
		err = syscall.Exec(path, append([]string{path, "plugin", "test", self}, args...), os.Environ())
	}
	fmt.Fprintf(b.err, "test: %v\nThe tests come with deputy: install it, or name its binary in $DEPUTY.\nIn a Go test they are package github.com/deputy-ha/deputy/sdk/sdktest.\n", err)
	return exitUnknown
}
