package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/config"
	"github.com/deputy-ha/deputy/supervisor/notify"
	"github.com/deputy-ha/deputy/supervisor/systemd"
)

// The manual and the program tell the same: what one has the other has.

const manDir = "../../packaging/man"

func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(manDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// agree complains about what only one of two sets has.
func agree(t *testing.T, name string, program, told []string) {
	t.Helper()
	slices.Sort(program)
	slices.Sort(told)
	for _, s := range slices.Compact(program) {
		if !slices.Contains(told, s) {
			t.Errorf("%s does not tell of %s", name, s)
		}
	}
	for _, s := range slices.Compact(told) {
		if !slices.Contains(program, s) {
			t.Errorf("%s tells of %s, which there is not", name, s)
		}
	}
}

// usages are all commands of the program as they are written, with their flags.
func usages() map[string][]string {
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, env: func(string) string { return "" }}
	all := map[string][]string{}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		switch {
		case c.Name() == "help":
			return
		case c.Name() == "completion":
			all["deputy completion bash|zsh|fish"] = nil
			return
		case !c.HasSubCommands():
			flags := []string{}
			c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
				if f.Name != "help" && !f.Hidden {
					flags = append(flags, "--"+f.Name)
				}
			})
			all[strings.TrimSuffix(c.UseLine(), " [flags]")] = flags
		}
		for _, below := range c.Commands() {
			walk(below)
		}
	}
	walk(a.root())
	return all
}

func TestManualHasEveryCommandAndFlag(t *testing.T) {
	text := page(t, "deputy.1.md")
	flag := regexp.MustCompile(`(?m)^\*\*.*?(--[a-z-]+)\*\*.*\n:`)
	written := map[string][]string{}
	for _, section := range strings.Split(text, "\n### ")[1:] {
		usage, rest, _ := strings.Cut(section, "\n")
		rest, _, _ = strings.Cut(rest, "\n## ")
		written[usage] = []string{}
		for _, m := range flag.FindAllStringSubmatch(rest, -1) {
			written[usage] = append(written[usage], m[1])
		}
	}
	program := usages()
	agree(t, "deputy(1)", slices.Collect(maps.Keys(program)), slices.Collect(maps.Keys(written)))
	for usage, flags := range program {
		if _, ok := written[usage]; ok {
			agree(t, "deputy(1), "+usage+",", flags, written[usage])
		}
	}
}

func TestManualHasWhatAllCommandsShare(t *testing.T) {
	text := page(t, "deputy.1.md")
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, env: func(string) string { return "" }}
	a.root().PersistentFlags().VisitAll(func(f *pflag.Flag) {
		_, env, _ := strings.Cut(f.Usage, "; also ")
		if want := fmt.Sprintf("Default *%s*, or *$%s*.", f.DefValue, env); !strings.Contains(text, "**--"+f.Name+"** ") || !strings.Contains(text, want) {
			t.Errorf("deputy(1) does not tell of --%s: %s", f.Name, want)
		}
	})
	_, text, _ = strings.Cut(text, "## EXIT STATUS\n")
	text, _, _ = strings.Cut(text, "\n## ")
	var written []string
	for _, m := range regexp.MustCompile(`(?m)^\*\*(\d+)\*\*$`).FindAllStringSubmatch(text, -1) {
		written = append(written, m[1])
	}
	var codes []string
	for _, code := range []int{exitDone, exitFailed, exitUsage, exitUnreachable, exitDenied, exitConfig} {
		codes = append(codes, fmt.Sprint(code))
	}
	agree(t, "EXIT STATUS of deputy(1)", codes, written)
}

func TestManualHasEveryEvent(t *testing.T) {
	_, text, _ := strings.Cut(page(t, "deputy.1.md"), "## JOURNAL\n")
	text, _, _ = strings.Cut(text, "\n## ")
	var program, written []string
	for _, e := range systemd.Events() {
		program = append(program, fmt.Sprint(e.ID, " ", e.Name, " ", e.Grave))
	}
	for _, m := range regexp.MustCompile(`(?m)^([0-9a-f]{32})\n: (.*?)(: \*\*somebody has to see to it\*\*)?\.$`).FindAllStringSubmatch(text, -1) {
		written = append(written, fmt.Sprint(m[1], " ", strings.ToLower(m[2][:1])+m[2][1:], " ", m[3] != ""))
	}
	agree(t, "JOURNAL of deputy(1)", program, written)
}

// keysOf are the keys that mistakes about unknown ones name, each behind the
// table that it is in; tables are left out.
func keysOf(t *testing.T, mistakes error) (keys []string) {
	t.Helper()
	if mistakes == nil {
		t.Fatal("a file of unknown keys has no mistakes")
	}
	line := regexp.MustCompile(`(?m): ((?:[a-z_]+\.)*)qqqqqqqqqqqqqqq: unknown key; (?:there are|the only one is) (.*)$`)
	key := regexp.MustCompile(`"([a-z_]+)"`)
	tables := []string{"etcd", "http", "notify", "plugin", "plugin.promote", "plugin.demote", "plugin.fence", "plugin.check"}
	for _, m := range line.FindAllStringSubmatch(mistakes.Error(), -1) {
		for _, k := range key.FindAllStringSubmatch(m[2], -1) {
			if name := m[1] + k[1]; !slices.Contains(tables, name) {
				keys = append(keys, name)
			}
		}
	}
	if len(keys) < 5 {
		t.Fatalf("mistakes name few keys: %v", mistakes)
	}
	return keys
}

// terms are the keys that a page explains.
func terms(text, pattern string) (keys []string) {
	term := regexp.MustCompile(`(?m)^\*\*.*\n:`)
	key := regexp.MustCompile(`\*\*(` + pattern + `)\*\* = `)
	for _, line := range term.FindAllString(text, -1) {
		for _, m := range key.FindAllStringSubmatch(line, -1) {
			keys = append(keys, m[1])
		}
	}
	return keys
}

const unknown = "qqqqqqqqqqqqqqq = 1\n"

func TestManualHasEveryKeyOfANode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "deputy.toml")
	if err := os.WriteFile(file, []byte(unknown+"[etcd]\n"+unknown+"[http]\n"+unknown+"[[notify]]\n"+unknown), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := config.LoadNode(file)
	agree(t, "deputy.toml(5)", keysOf(t, err), terms(page(t, "deputy.toml.5.md"), `[a-z_.]+`))
}

func TestManualHasEveryKeyOfAService(t *testing.T) {
	file := filepath.Join(t.TempDir(), "orders-db.toml")
	text := unknown + "[[plugin]]\nuse = \"exec\"\n" + unknown + "[plugin.promote]\n" + unknown + "[plugin.demote]\n" + unknown + "[plugin.fence]\n" + unknown +
		"[plugin.check]\n" + unknown + "[plugin.config]\n" + unknown
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := config.LoadService(file, nil)
	var service, scripts []string
	for _, key := range keysOf(t, err) {
		if name, ok := strings.CutPrefix(key, "plugin.config."); ok {
			scripts = append(scripts, "config."+name)
		} else {
			service = append(service, key)
		}
	}
	agree(t, "deputy-service(5)", service, terms(page(t, "deputy-service.5.md"), `[a-z_.]+`))
	agree(t, "exec in deputy-plugins(7)", scripts, terms(page(t, "deputy-plugins.7.md"), `config\.[a-z_]+`))
}

func TestManualHasEveryPlugin(t *testing.T) {
	mains, err := filepath.Glob("../../plugins/*/main.go")
	if err != nil || len(mains) == 0 {
		t.Fatal(mains, err)
	}
	program := []string{execPlugin}
	for _, m := range mains {
		name := filepath.Base(filepath.Dir(m))
		program = append(program, name)
		readme, err := os.ReadFile(filepath.Join(filepath.Dir(m), "README.md"))
		if err != nil || !strings.Contains(string(readme), "\n## Settings\n") {
			t.Errorf("README of %s, which deputy-plugins(7) refers to, has no settings: %v", name, err)
		}
	}
	var written []string
	for _, m := range regexp.MustCompile(`(?m)^### (\S+)$`).FindAllStringSubmatch(page(t, "deputy-plugins.7.md"), -1) {
		written = append(written, m[1])
	}
	agree(t, "deputy-plugins(7)", program, written)
}

// TestManualHasAScriptsEnvironment compares with what the plugin exec tells.
func TestManualHasAScriptsEnvironment(t *testing.T) {
	variable := regexp.MustCompile(`DEPUTY_[A-Z_]+`)
	text := page(t, "deputy-plugins.7.md")
	_, section, _ := strings.Cut(text, "## A SCRIPT'S ENVIRONMENT\n")
	section, _, _ = strings.Cut(section, "\n## ")
	program := append(variable.FindAllString(execAbout().Doc, -1), "DEPUTY_ROLE")
	agree(t, "A SCRIPT'S ENVIRONMENT of deputy-plugins(7)", program, variable.FindAllString(section, -1))
}

func TestManualHasEveryNotice(t *testing.T) {
	_, text, _ := strings.Cut(page(t, "deputy.toml.5.md"), "## EVENTS\n")
	text, _, _ = strings.Cut(text, "\n## ")
	var program, written []string
	for _, kind := range supervisor.EventKinds() {
		program = append(program, string(kind))
	}
	for _, m := range regexp.MustCompile(`(?m)^\*\*([a-z-]+)\*\*\n:`).FindAllStringSubmatch(text, -1) {
		written = append(written, m[1])
	}
	agree(t, "EVENTS of deputy.toml(5)", program, written)

	program, written = nil, nil
	for name := range (notify.Message{}).Env() {
		program = append(program, "DEPUTY_"+name)
	}
	agree(t, "EVENTS of deputy.toml(5)", program, regexp.MustCompile(`DEPUTY_[A-Z_]+`).FindAllString(text, -1))

	message := notify.Message{Folded: 1, Event: supervisor.Event{Node: "a", Term: 1, From: "b", Cause: "c", WithoutPrimary: 1}}
	in, err := message.Input()
	var fields map[string]any
	if err != nil || json.Unmarshal(in, &fields) != nil {
		t.Fatalf("%s, %v", in, err)
	}
	for _, line := range regexp.MustCompile(`(?m)^\*[a-z][a-z_*, ]+\*\n:`).FindAllString(text, -1) {
		written = append(written, regexp.MustCompile(`[a-z_]+`).FindAllString(line, -1)...)
	}
	agree(t, "the message in deputy.toml(5)", slices.Collect(maps.Keys(fields)), written)
}

// TestManualsExamplesAreRight reads the examples in TOML as the program does.
func TestManualsExamplesAreRight(t *testing.T) {
	block := regexp.MustCompile("(?s)```\n(.*?)```")
	for _, name := range []string{"deputy.toml.5.md", "deputy-service.5.md", "deputy-plugins.7.md"} {
		for i, m := range block.FindAllStringSubmatch(page(t, name), -1) {
			var err error
			switch {
			case strings.HasPrefix(m[1], "[etcd]"):
				_, err = config.LoadNode(written(t, "deputy.toml", "node = \"db1\"\n"+m[1]))
			case strings.Contains(m[1], "[[plugin]]"):
				_, err = config.LoadService(written(t, "orders-db.toml", m[1]), nil)
			}
			if err != nil {
				t.Errorf("example %d of %s: %v", i+1, name, err)
			}
		}
	}
}

// TestPackagedSettingsAreRight takes the comments away from the settings that
// the package brings.
func TestPackagedSettingsAreRight(t *testing.T) {
	text, err := os.ReadFile("../../packaging/config/deputy.toml")
	if err != nil {
		t.Fatal(err)
	}
	settings := regexp.MustCompile(`(?m)^#([a-z_]+ *= |\[\[)`).ReplaceAllString(string(text), "$1")
	if _, err := config.LoadNode(written(t, "deputy.toml", settings)); err != nil {
		t.Error(err)
	}
	if n := strings.Count(settings, "\n#"); n == 0 || settings == string(text) {
		t.Errorf("%d comments are left of\n%s", n, text)
	}
}

func written(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
