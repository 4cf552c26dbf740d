package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/config"
	"github.com/deputy-ha/deputy/supervisor/etcd"
)

func (a *app) checkCommand() *cobra.Command {
	deep, quiet := false, false
	c := a.prints(&cobra.Command{
		Use:   "check [SERVICE...]",
		Short: "Check this node's settings and definitions, and print their arithmetic",
		Long: "Check this node's settings and the definitions of the named services, or of all, and\n" +
			"print what follows from them: how often the lease is renewed, when a node demotes\n" +
			"itself, when another may take over, and what each layer guarantees. Every mistake\n" +
			"is told with its file and line; the exit status is then 78.\n\n" +
			"With --deep it also asks etcd and each plugin, and looks at the programs and secrets of\n" +
			"[[notify]]. Nothing is changed, and nobody is told anything.",
		RunE: func(c *cobra.Command, names []string) error {
			ctx, stop := interruptible(c.Context())
			defer stop()
			return a.check(ctx, names, deep, quiet)
		},
	})
	c.Flags().BoolVar(&deep, "deep", false, "ask etcd and each plugin as well")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "tell mistakes alone")
	return c
}

// A finding is what `deputy check -o json` prints.
type finding struct {
	Node     string           `json:"node"`
	Services []config.Table   `json:"services"`
	Etcd     *etcd.Inspection `json:"etcd,omitempty"`    // with --deep
	Plugins  []pluginFinding  `json:"plugins,omitempty"` // with --deep
}

func (a *app) check(ctx context.Context, names []string, deep, quiet bool) error {
	node, wrong := a.settings()
	services, err := a.chosen(names)
	wrong = errors.Join(wrong, err)
	f := finding{Node: node.Name, Services: []config.Table{}}
	for _, s := range services {
		if _, err := a.plugins(node, s, nil, slog.New(slog.DiscardHandler)); err != nil {
			wrong = errors.Join(wrong, err)
			continue
		}
		f.Services = append(f.Services, config.Arithmetic(s))
	}
	if wrong == nil && deep {
		wrong = a.deep(ctx, node, services, &f)
	}
	switch {
	case quiet:
		return wrong
	case a.json():
		return orPrint(wrong, a.printJSON(f))
	}
	for i, t := range f.Services {
		if i > 0 {
			fmt.Fprintln(a.stdout)
		}
		if err := t.Write(a.stdout); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	fmt.Fprint(a.stdout, f.deepText(a.screen))
	return wrong
}

// chosen returns the named services, or all. The error tells what is wrong
// with the others.
func (a *app) chosen(names []string) ([]supervisor.Service, error) {
	all, err := a.services()
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return all.Good, mark(all.Err(), errConfig)
	}
	var services []supervisor.Service
	var wrong []error
	for _, name := range names {
		s, err := all.Get(name)
		if err != nil {
			wrong = append(wrong, mark(err, errConfig))
			continue
		}
		services = append(services, s)
	}
	return services, errors.Join(wrong...)
}
