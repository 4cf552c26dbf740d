package plugin

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/deputy-ha/deputy/supervisor"
)

// A Host is what the plugins of one service share.
type Host struct {
	Service  string
	Node     string
	StateDir string   // for what a plugin wants to keep
	UID      int      // of the supervisor: besides root, whose programs are trusted
	Dirs     []string // searched for deputy-plugin-NAME, in this order
	Clock    supervisor.Clock
	Log      *slog.Logger
}

// A Plugin is a supervisor.Plugin that can tell whether it could be called.
type Plugin interface {
	supervisor.Plugin
	// Verify reports everything that would keep the plugin from being called
	// now, such as a program that is missing or that others could change. It
	// runs none of them.
	Verify(ctx context.Context) error
}

// prefix begins the file name of every plugin that is not built in.
const prefix = "deputy-plugin-"

// New returns the plugin of a part. It starts nothing and touches no file of
// the plugin's. Mistakes in the part's config are joined errors, a [KeyError]
// each where it is one setting's; an unknown plugin is ErrNotFound.
func New(h Host, p supervisor.Part) (Plugin, error) {
	switch p.Use {
	case "exec":
		return newExec(h, p)
	}
	known := append([]string{"exec"}, h.installed()...)
	slices.Sort(known)
	where := "not built in"
	if len(h.Dirs) > 0 {
		where += " and not in " + strings.Join(h.Dirs, ", ")
	}
	if slices.Contains(known, p.Use) {
		where = "installed, but this version hosts only the kinds that are built in"
	}
	return nil, fmt.Errorf("find plugin %q: %w: %s; known: %s", p.Use, ErrNotFound, where, strings.Join(slices.Compact(known), ", "))
}

// installed names the plugins in the directories searched. One that cannot be
// read has none.
func (h Host) installed() []string {
	var names []string
	for _, dir := range h.Dirs {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if name, ok := strings.CutPrefix(e.Name(), prefix); ok {
				names = append(names, name)
			}
		}
	}
	return names
}
