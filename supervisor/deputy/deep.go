package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"

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
		plugins, err := a.plugins(node, s, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		sound := true
		for i, p := range plugins {
			found := pluginFinding{Service: s.Name, Plugin: s.Parts[i].Name}
			asked, cancel := context.WithTimeout(ctx, askTime)
			err := p.Verify(asked)
			cancel()
			if err != nil {
				found.Error, sound = err.Error(), false
				wrong = append(wrong, mark(blame(s, s.Parts[i], err), errConfig))
			}
			f.Plugins = append(f.Plugins, found)
		}
		if sound { // now it is known what they can do, and in what time
			wrong = append(wrong, bounded(s, plugins), fencers(s, plugins))
		}
	}
	for _, n := range node.Notify {
		asked, cancel := context.WithTimeout(ctx, askTime)
		wrong = append(wrong, mark(verify(asked, node, n), errConfig))
		cancel()
	}
	in, err := a.inspect(ctx, services)
	f.Etcd = in
	return errors.Join(append(wrong, err)...)
}

// deepText shows what the plugins and etcd said.
func (f finding) deepText(s screen) string {
	var b strings.Builder
	if len(f.Plugins) > 0 {
		t := table{head: []string{"SERVICE", "PLUGIN", "VERDICT"}}
		for _, p := range f.Plugins {
			verdict := cell{"can be called", good}
			if p.Error != "" {
				verdict = cell{p.Error, bad}
			}
			t.add(cell{p.Service, plain}, cell{p.Plugin, plain}, verdict)
		}
		b.WriteString("\n")
		t.write(&b, s, "  ")
	}
	if f.Etcd != nil {
		b.WriteString("\n" + inspectionText(*f.Etcd, s))
	}
	return b.String()
}
