package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// completed is what a shell offers after a Tab behind the arguments.
func completed(t *testing.T, services, run string, args ...string) []string {
	t.Helper()
	var out bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: io.Discard, env: func(string) string { return "" }}
	args = append([]string{"__complete", "--services", services, "--run-dir", run}, args...)
	if code := a.main(t.Context(), args); code != exitDone {
		t.Fatalf("deputy %q: %d", args, code)
	}
	var words []string
	for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		if word, _, _ := strings.Cut(line, "\t"); !strings.HasPrefix(word, ":") {
			words = append(words, word)
		}
	}
	return words
}

func TestCompletionKnowsServicesAndWords(t *testing.T) {
	services, run := t.TempDir(), t.TempDir()
	for _, name := range []string{"orders-db", "binlog"} {
		if err := os.WriteFile(filepath.Join(services, name+".toml"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"switchover", ""}, "binlog orders-db"},
		{[]string{"status", "orders-db", ""}, "binlog"},
		{[]string{"explain", "binlog", ""}, ""},
		{[]string{"status", "-o", ""}, "table json"},
		{[]string{"plugin", "test", "exec", "-o", ""}, "table json junit"},
		{[]string{"plugin", "call", "exec", "check", "--role", ""}, "primary standby candidate"},
		{[]string{"plugin", "validate", "exec", "--service", ""}, "binlog orders-db"},
		{[]string{"failover", "binlog", "--to", ""}, ""}, // no daemon, no node
		{[]string{"plugin", "new", ""}, ""},              // no plugin that there is
		{[]string{"plugin", "new", "greeter", "--lang", ""}, "go python shell"},
		{[]string{"completion", ""}, "bash fish zsh"},
	} {
		if got := strings.Join(completed(t, services, run, c.args...), " "); got != c.want {
			t.Errorf("deputy %q: offered %q, want %q", c.args, got, c.want)
		}
	}
	commands := completed(t, services, run, "")
	for _, name := range []string{"status", "switchover", "failover", "check", "plugin"} {
		if !slices.Contains(commands, name) {
			t.Errorf("deputy: %s is not offered: %q", name, commands)
		}
	}
}

// TestCompletionScripts has each shell that is installed read its script.
func TestCompletionScripts(t *testing.T) {
	for shell, read := range map[string][]string{"bash": {"-n"}, "zsh": {"-n"}, "fish": {"--no-execute"}} {
		t.Run(shell, func(t *testing.T) {
			var out bytes.Buffer
			a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: io.Discard, env: func(string) string { return "" }}
			if code := a.main(t.Context(), []string{"completion", shell}); code != exitDone || !strings.Contains(out.String(), "__complete") {
				t.Fatalf("completion %s: %d: %.200s", shell, code, out.String())
			}
			if _, err := exec.LookPath(shell); err != nil {
				t.Skipf("%s is not installed: its script was made, not read", shell)
			}
			script := filepath.Join(t.TempDir(), "completion")
			if err := os.WriteFile(script, out.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			if said, err := exec.Command(shell, append(read, script)...).CombinedOutput(); err != nil {
				t.Errorf("%s does not read its completion: %v\n%s", shell, err, said)
			}
		})
	}
}
