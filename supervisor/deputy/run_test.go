package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/supervisor/control"
)

// A supervisor whose log nobody reads any more goes on, and ends in order.
func TestNobodyReadsTheLog(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"deputy.toml":            "node = \"db1\"\n[etcd]\nendpoints = [\"http://127.0.0.1:1\"]\n",
		"services.d/orders.toml": "ttl = \"1s\"\n[[plugin]]\nuse = \"exec\"\nconfig = { promote = [\"/bin/true\"], demote = [\"/bin/true\"] }\n",
	} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{Path: self, Args: []string{"deputy", "run", "orders"}, Stderr: w, Env: []string{
		"PATH=/bin:/usr/bin", "DEPUTY_CONFIG=" + filepath.Join(dir, "deputy.toml"), "DEPUTY_SERVICES=" + filepath.Join(dir, "services.d"),
		"DEPUTY_RUN_DIR=" + filepath.Join(dir, "run"), "DEPUTY_STATE_DIR=" + filepath.Join(dir, "lib"),
	}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := control.NewClient(filepath.Join(dir, "run", "orders"))
	for _, err := c.Status(ctx); err != nil; _, err = c.Status(ctx) {
		select {
		case err := <-ended:
			t.Fatalf("it ended when its log could not be written: %v", err)
		case <-ctx.Done():
			cmd.Process.Kill()
			t.Fatalf("it does not answer: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("told to stop it ended with %v, want status 0", err)
		}
	case <-ctx.Done():
		cmd.Process.Kill()
		t.Error("told to stop it did not end")
	}
}

func TestLogHasNoTimeUnderJournald(t *testing.T) {
	for stream, want := range map[string]bool{"": true, "8:1234": false} {
		var b bytes.Buffer
		newLog(&b, func(string) string { return stream }, slog.LevelInfo).Info("hello", "service", "orders")
		if got := strings.Contains(b.String(), "time="); got != want {
			t.Errorf("JOURNAL_STREAM=%q: %s, want time %v", stream, fmt.Sprintf("%q", b.String()), want)
		}
	}
}
