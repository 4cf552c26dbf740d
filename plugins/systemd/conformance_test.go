package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/deputy-ha/deputy/sdk/sdktest"
)

// The contract of all plugins, judged by the processes of two units.
func TestConformance(t *testing.T) {
	h := newFakeHost(t)
	guarded := func(u *fakeUnit) { u.Conditions[0].Parameter = h.at().run + "/sdktest/allow-" + u.name }
	a, b := h.unit("a.service", guarded), h.unit("b.service", guarded)
	plugin := program(t) // as long as HOME is that of go
	t.Setenv("HOME", h.dir)
	sdktest.Run(t, sdktest.Binary(plugin), sdktest.Config{
		Settings: map[string]any{"units": []string{"a.service", "b.service"}},
		Promoted: func() (bool, error) { return h.runs(a) && h.runs(b), nil },
	})
}

// program builds this test as the plugin that TestMain makes of it, without the
// race detector: with that, each process takes a second to end.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "deputy-plugin-systemd")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the plugin: %v\n%s", err, out)
	}
	return path
}
