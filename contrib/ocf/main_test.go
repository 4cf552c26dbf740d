package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// TestMain is the plugin's own main when a host or an agent starts this program,
// and else the tests.
func TestMain(m *testing.M) {
	if os.Getenv("PLUGIN_UNIX_SOCKET_DIR") != "" || isTool(filepath.Base(os.Args[0])) {
		main()
		os.Exit(0)
	}
	netlab.Main(m)
}

// A bench has a resource that an agent of the tests runs.
type bench struct {
	*testing.T
	root  string
	state string
	log   *lockedBuffer
}

func newBench(t *testing.T) *bench {
	t.Helper()
	program, err := filepath.Abs("testdata/agent")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{T: t, root: t.TempDir(), state: t.TempDir(), log: &lockedBuffer{}}
	dir := filepath.Join(b.root, "resource.d", "lab")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"Simple", "Role", "Mute", "Odd", "SimpleNotify", "RoleNotify", "Stateful", "mysql"} {
		if err := os.Symlink(program, filepath.Join(dir, kind)); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// set writes a file of the resource.
func (b *bench) set(file, text string) {
	b.Helper()
	if err := os.WriteFile(filepath.Join(b.state, file), []byte(text+"\n"), 0o600); err != nil {
		b.Fatal(err)
	}
}

// get reads one; empty when it is not there.
func (b *bench) get(file string) string {
	text, _ := os.ReadFile(filepath.Join(b.state, file))
	return strings.TrimSpace(string(text))
}

// calls are the actions so far.
func (b *bench) calls() string {
	var all []string
	for line := range strings.Lines(b.get("calls")) {
		all = append(all, strings.Fields(line)[0])
	}
	return strings.Join(all, " ")
}

// resource is the plugin with the given agent.
func (b *bench) resource(kind string) *resource {
	b.Helper()
	return newPart(b.T, settings{
		Agent: "ocf:lab:" + kind, Root: b.root, Kind: "auto", Level: 10,
		Parameters: map[string]string{"state": b.state},
	}, b.log)
}

// setup is the same for a plugin in a process of its own.
func (b *bench) setup(kind string) wire.Setup {
	return wire.Setup{Service: "orders", Node: "db1", Part: "ocf", StateDir: b.TempDir(), Config: map[string]any{
		"agent": "ocf:lab:" + kind, "root": b.root, "parameters": map[string]any{"state": b.state},
	}}
}

// newPart makes the plugin.
func newPart(t *testing.T, s settings, log *lockedBuffer) *resource {
	t.Helper()
	r, err := newResource(t.Context(), s, sdk.Host{
		Service: "orders", Part: "ocf", Node: "db1", StateDir: t.TempDir(),
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// within is a context that ends.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
