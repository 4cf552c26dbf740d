package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor/plugin"
)

func (a *app) pluginListCommand() *cobra.Command {
	return a.prints(&cobra.Command{
		Use:   "list",
		Short: "List the plugins that are installed",
		Long: "List the plugins that are installed, and what each can be called for. Each is started\n" +
			"for a moment and asked what it is; nothing is changed. One that cannot be used is\n" +
			"listed with the reason, and does not disturb the others.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := interruptible(c.Context())
			defer stop()
			return a.pluginList(ctx)
		},
	})
}

// A listed is one plugin of `deputy plugin list -o json`.
type listed struct {
	Name         string           `json:"name"`
	Version      string           `json:"version,omitempty"`
	Path         string           `json:"path,omitempty"` // of its program; none for one that is built in
	Capabilities []sdk.Capability `json:"capabilities,omitempty"`
	ShadowedBy   string           `json:"shadowed_by,omitempty"` // the program that is used in its place
	Error        string           `json:"error,omitempty"`       // why it cannot be used
}

func (a *app) pluginList(ctx context.Context) error {
	dirs, err := a.pluginDirs()
	if err != nil {
		return err
	}
	all := a.installed(ctx, dirs)
	if a.json() {
		return a.printJSON(all)
	}
	t := table{head: []string{"PLUGIN", "VERSION", "CAN", "PROGRAM"}}
	for _, p := range all {
		program := cell{p.Path, plain}
		switch {
		case p.Path == "":
			program = cell{"built in", faint}
		case p.ShadowedBy != "":
			program = cell{p.Path + "\nnot used: " + p.ShadowedBy + " comes first", faint}
		case strings.HasPrefix(p.Error, p.Path):
			program = cell{p.Error, bad}
		case p.Error != "":
			program = cell{p.Path + "\n" + p.Error, bad}
		}
		t.add(cell{p.Name, bold}, cell{dash(p.Version), plain}, cell{dash(strings.ReplaceAll(can(p.Capabilities), ",", "")), plain}, program)
	}
	var b strings.Builder
	t.write(&b, a.screen, "")
	fmt.Fprint(a.stdout, b.String())
	if len(all) == 1 {
		fmt.Fprintf(a.stderr, "No program %s* in %s.\n", programPrefix, strings.Join(dirs, ", "))
	}
	return nil
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// installed looks at every plugin that there is, by directory.
func (a *app) installed(ctx context.Context, dirs []string) []listed {
	about := execAbout()
	all := []listed{{Name: about.Name, Version: about.Version, Capabilities: about.Capabilities}}
	first := map[string]string{}
	for _, dir := range dirs {
		for _, found := range plugin.Installed([]string{dir}, os.Geteuid()) {
			p := listed{Name: found.Name, Path: found.Path, ShadowedBy: first[found.Name]}
			if p.ShadowedBy == "" {
				first[found.Name] = found.Path
			}
			switch {
			case found.Name == execPlugin:
				p.Error = "exec is built in: give it another name"
			case found.Err != nil:
				p.Error = found.Err.Error()
			}
			all = append(all, p)
		}
	}
	var asked sync.WaitGroup
	slots := make(chan struct{}, 4) // so that many plugins are no storm
	for i := range all {
		p := &all[i]
		if p.Path == "" || p.Error != "" || p.ShadowedBy != "" {
			continue
		}
		asked.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			ask, cancel := context.WithTimeout(ctx, askTime)
			defer cancel()
			d, err := a.describe(ask, picked{use: p.Name, path: p.Path, dirs: dirs})
			if err != nil {
				p.Error = err.Error()
				return
			}
			p.Version, p.Capabilities = d.Version, d.Capabilities
		})
	}
	asked.Wait()
	return all
}

// describe asks a plugin what it is.
func (a *app) describe(ctx context.Context, p picked) (about, error) {
	if p.use == execPlugin {
		return execAbout(), nil
	}
	return plugin.Describe(ctx, plugin.Host{
		Service: "none", Node: a.thisNode(), UID: os.Geteuid(), Dirs: p.dirs, Log: slog.New(slog.DiscardHandler),
	}, p.use)
}
