package sdk_test

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// goSays runs the go command in this package's folder, and returns what it prints.
func goSays(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// What an author's module has to trust for this one is little.
func TestFewModulesAreNeeded(t *testing.T) {
	const most = 10
	owner, all := map[string]string{}, map[string]bool{} // of packages; the modules
	for line := range strings.Lines(goSays(t, "list", "-deps", "-f", "{{with .Module}}{{$.ImportPath}} {{.Path}} {{.Main}}{{end}}", "./...")) {
		f := strings.Fields(line)
		if len(f) == 3 && f[2] == "false" {
			owner[f[0]] = f[1]
			all[f[1]] = true
		}
	}
	direct := map[string]bool{}
	for imported := range strings.Lines(goSays(t, "list", "-f", `{{join .Imports "\n"}}`, "./...")) {
		if module := owner[strings.TrimSpace(imported)]; module != "" {
			direct[module] = true
		}
	}
	names := slices.Sorted(maps.Keys(direct))
	t.Logf("%d modules are needed directly, %d in all: %s", len(direct), len(all), strings.Join(names, " "))
	if len(direct) > most || len(direct) == 0 {
		t.Errorf("packages of sdk need %d modules of others directly (%s), want 1 to %d", len(direct), strings.Join(names, " "), most)
	}
}

// A plugin is small enough to have one for each part of each service.
func TestAPluginIsSmall(t *testing.T) {
	const most = 15e6 // bytes
	program := filepath.Join(t.TempDir(), "plugin")
	goSays(t, "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "../examples/plugin-go")
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.2f MB", float64(info.Size())/1e6)
	if info.Size() > most {
		t.Errorf("a plugin has %d bytes, want %d at most", info.Size(), int(most))
	}
}
