package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/config"
)

// A pluginFinding is what one plugin of one service says of itself.
type pluginFinding struct {
	Service string `json:"service"`
	Plugin  string `json:"plugin"`
	Error   string `json:"error,omitempty"` // why it cannot be called now
}

// deep asks etcd and each plugin, and adds what they say to f.
func (a *app) deep(ctx context.Context, node config.Node, services []supervisor.Service, f *finding) error {
	var wrong []error
	for _, s := range services {
		plugins, err := a.plugins(node, s, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		for i, p := range plugins {
			found := pluginFinding{Service: s.Name, Plugin: s.Parts[i].Name}
			asked, cancel := context.WithTimeout(ctx, askTime)
			err := p.Verify(asked)
			cancel()
			if err != nil {
				found.Error = err.Error()
				wrong = append(wrong, mark(fmt.Errorf("%s: plugin %s: %w", s.File, s.Parts[i].Name, err), errConfig))
			}
			f.Plugins = append(f.Plugins, found)
		}
	}
	return errors.Join(errors.Join(wrong...), a.deepEtcd(ctx, f))
}

// printDeep shows what etcd and the plugins said.
func (f finding) printDeep(a *app) {
	if f.Etcd == nil && len(f.Plugins) == 0 {
		return
	}
	fmt.Fprintln(a.stdout)
	for _, p := range f.Plugins {
		text := "can be called"
		if p.Error != "" {
			text = p.Error
		}
		fmt.Fprintf(a.stdout, "  %s: plugin %s: %s\n", p.Service, p.Plugin, tidy(text))
	}
	if f.Etcd != nil {
		f.Etcd.print(a)
	}
}
