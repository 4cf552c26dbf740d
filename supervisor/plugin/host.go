package plugin

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk/wire"
	"github.com/deputy-ha/deputy/supervisor"
)

// A Host is what the plugins of one service share.
type Host struct {
	Service  string
	Node     string
	RunDir   string        // the service's; sockets lie in plugins/PART below it; empty: in a temporary place
	StateDir string        // the service's; what its plugins keep lies in plugins/PART below it
	UID      int           // of the supervisor: besides root, whose programs are trusted
	Dirs     []string      // searched for deputy-plugin-NAME, in this order
	Stall    time.Duration // without a sign of life for so long a process is frozen; zero: the longest of StallTime
	Clock    supervisor.Clock
	Log      *slog.Logger

	// Reveal reads the secret that a setting only tells where to find, such as
	// { credential = "mysql" }. Without it there are none but those written out.
	Reveal func(where map[string]any) (string, error)
}

// The bounds of a stall time.
const (
	minStall = 250 * time.Millisecond
	maxStall = 2 * time.Second
)

// StallTime is how long a process of a service with that ttl may give no sign
// of life: long enough for a busy machine, and short enough that a process in
// its place can still do something before the lease is lost.
func StallTime(ttl time.Duration) time.Duration { return min(max(ttl/3, minStall), maxStall) }

func (h Host) stall() time.Duration {
	if h.Stall <= 0 {
		return maxStall
	}
	return h.Stall
}

// A Plugin is a supervisor.Plugin with a beginning and an end. Before Open and
// after Close it does nothing, and says that it can nothing where it takes a
// process to know.
type Plugin interface {
	supervisor.Plugin
	// Open starts what must run, and gives it its settings. It returns soon
	// after ctx ends. With an error nothing runs; Lasting tells whether another
	// try is of any use.
	Open(ctx context.Context) error
	// Validate judges another definition of the part, and changes nothing.
	// Mistakes are joined errors, an sdk.KeyError each where it is one
	// setting's.
	Validate(ctx context.Context, p supervisor.Part) error
	// Configure puts another definition of the part in force, and returns the
	// plugin that has it: this one, or one in its place that needs no Open; and
	// whether its settings, the secrets in them included, are others than
	// before. With an error the definition of before stays in force. Use and
	// Name have to be as before.
	Configure(ctx context.Context, p supervisor.Part) (next Plugin, changed bool, err error)
	// Verify reports everything that would keep the plugin from being called
	// now, such as a program that is missing or that others could change. It
	// has nothing done; what it has to start it ends again.
	Verify(ctx context.Context) error
	// Close ends what runs, and returns when it is gone or soon after ctx ends.
	// What was promoted stays.
	Close(ctx context.Context) error
}

// prefix begins the file name of every plugin that is not built in.
const prefix = "deputy-plugin-"

// New returns the plugin of a part. It starts nothing. Mistakes in the part's
// config are joined errors, an sdk.KeyError each where it is one setting's, as
// far as they can be told without a process; an unknown plugin is ErrNotFound,
// one that others could change ErrUnsafe.
func New(h Host, p supervisor.Part) (Plugin, error) {
	if p.Use == "exec" {
		return newExec(h, p)
	}
	path, err := h.find(p.Use)
	if err != nil {
		return nil, err
	}
	return newProcess(h, p, path), nil
}

// find returns the program of a plugin, the first that is there.
func (h Host) find(name string) (string, error) {
	for _, found := range Installed(h.Dirs, h.UID) {
		if found.Name == name {
			if found.Err != nil {
				return "", fmt.Errorf("find plugin %q: %w", name, found.Err)
			}
			return found.Path, nil
		}
	}
	known := []string{"exec"}
	for _, found := range Installed(h.Dirs, h.UID) {
		known = append(known, found.Name)
	}
	slices.Sort(known)
	where := "not built in"
	if len(h.Dirs) > 0 {
		where += " and not in " + strings.Join(h.Dirs, ", ")
	}
	return "", fmt.Errorf("find plugin %q: %w: %s; known: %s", name, ErrNotFound, where, strings.Join(slices.Compact(known), ", "))
}

// A Found is a plugin that is installed.
type Found struct {
	Name string
	Path string
	Err  error // why it cannot be run; nil when it can
}

// Installed returns the plugins in the directories, by name. Of several of one
// name the first counts. A directory that cannot be read has none.
func Installed(dirs []string, uid int) []Found {
	var all []Found
	for _, dir := range dirs {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			name, ok := strings.CutPrefix(e.Name(), prefix)
			if !ok || name == "" || slices.ContainsFunc(all, func(f Found) bool { return f.Name == name }) {
				continue
			}
			path := filepath.Join(dir, e.Name())
			all = append(all, Found{Name: name, Path: path, Err: trusted(path, uid)})
		}
	}
	slices.SortFunc(all, func(a, b Found) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Describe starts the plugin of that name once, asks what it is, and ends it.
func Describe(ctx context.Context, h Host, name string) (wire.Description, error) {
	p, err := New(h, supervisor.Part{Use: name, Name: name})
	if err != nil {
		return wire.Description{}, err
	}
	process, ok := p.(*Process)
	if !ok {
		return wire.Description{}, fmt.Errorf("describe %s: it is built in and has no process", name)
	}
	var says wire.Description
	err = process.visit(ctx, func(l *life) (err error) {
		says, err = l.describe(ctx)
		return err
	})
	if err != nil {
		return wire.Description{}, fmt.Errorf("describe %s: %w", name, err)
	}
	return says, nil
}
