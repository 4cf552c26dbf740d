package main

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/deputy-ha/deputy/sdk/manual"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/plugin"
)

// What `describe exec` says has to be what exec takes.
func TestExecIsDescribedAsItIs(t *testing.T) {
	settings, err := manual.Settings(execAbout().Schema)
	if err != nil {
		t.Fatal(err)
	}
	config := map[string]any{}
	for _, s := range settings {
		switch s.Value {
		case "array of texts":
			config[s.Key] = []any{"/bin/true"}
		case "duration":
			config[s.Key] = "1s"
		case "text":
			config[s.Key] = "root"
		case `"unfit" or "warning"`:
			config[s.Key] = "warning"
		default:
			t.Errorf("%s is of a kind that exec does not have: %s", s.Key, s.Value)
		}
	}
	p, err := plugin.New(plugin.Host{Log: slog.New(slog.DiscardHandler)}, supervisor.Part{Use: execPlugin, Name: execPlugin, Config: config})
	if err != nil {
		t.Fatalf("exec does not take what its schema has: %v", err)
	}
	if diff := cmp.Diff(execAbout().Capabilities, p.Describe().Capabilities); diff != "" {
		t.Errorf("capabilities (-described +with all settings):\n%s", diff)
	}
	if p.Describe().ForcedBound == 0 {
		t.Error("exec has not taken forced_bound")
	}
}

// The pages of the plugins that come with deputy, and of exec, are read by
// those who read pages, without a complaint but that there is no date.
func TestEveryPluginsPageIsRead(t *testing.T) {
	readmes, err := filepath.Glob("../../*/*/README.md")
	if err != nil || len(readmes) < 9 {
		t.Fatal(readmes, err)
	}
	pages := map[string]manual.Plugin{execPlugin: says(picked{}, execAbout())}
	for _, readme := range readmes {
		if top := filepath.Base(filepath.Dir(filepath.Dir(readme))); top != "plugins" && top != "contrib" {
			continue
		}
		text, err := os.ReadFile(readme)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(filepath.Dir(readme))
		pages[name] = manual.Plugin{Name: name, Doc: strings.TrimPrefix(string(text), "# "+name+"\n\n"), Capabilities: []string{"promote", "demote"}}
	}
	for name, p := range pages {
		page, err := p.Page()
		if err != nil {
			t.Error(err)
			continue
		}
		file := written(t, name+".8", page)
		if said, err := exec.Command("groff", "-ww", "-man", "-Tutf8", "-z", file).CombinedOutput(); err != nil || len(said) > 0 {
			t.Errorf("groff on the page of %s: %v\n%s", name, err, said)
		}
		said, _ := exec.Command("mandoc", "-T", "lint", "-W", "warning", file).CombinedOutput()
		if lines := strings.Split(strings.TrimSpace(string(said)), "\n"); len(lines) != 1 || !strings.Contains(lines[0], "missing date") {
			t.Errorf("mandoc on the page of %s:\n%s", name, said)
		}
	}
}
