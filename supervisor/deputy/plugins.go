package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/config"
	"github.com/deputy-ha/deputy/supervisor/plugin"
)

// Where plugins are installed, searched before plugin_dirs.
const (
	pluginDir      = "/usr/libexec/deputy/plugins"
	localPluginDir = "/usr/local/libexec/deputy/plugins"
)

// plugins returns one plugin for each part of a service. The error is
// errConfig and names the file.
func (a *app) plugins(node config.Node, s supervisor.Service, clock supervisor.Clock, log *slog.Logger) ([]plugin.Plugin, error) {
	host := plugin.Host{
		Service: s.Name, Node: node.Name, StateDir: filepath.Join(a.paths.state, s.Name), UID: os.Geteuid(),
		Dirs: append([]string{pluginDir, localPluginDir}, node.PluginDirs...), Clock: clock, Log: log,
	}
	var plugins []plugin.Plugin
	var wrong []error
	for _, part := range s.Parts {
		p, err := plugin.New(host, part)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: plugin %s: %w", s.File, part.Name, err))
			continue
		}
		plugins = append(plugins, p)
	}
	return plugins, mark(errors.Join(wrong...), errConfig)
}

// fitPlugins returns the plugins as the role machine wants them, once they fit
// the service's timing. The error is errConfig.
func (a *app) fitPlugins(node config.Node, s supervisor.Service, clock supervisor.Clock, log *slog.Logger) ([]supervisor.Plugin, error) {
	plugins, err := a.plugins(node, s, clock, log)
	if err != nil {
		return nil, err
	}
	bounds := map[string]time.Duration{}
	machine := make([]supervisor.Plugin, len(plugins))
	for i, p := range plugins {
		machine[i] = p
		bounds[s.Parts[i].Name] = p.Describe().ForcedBound
	}
	return machine, mark(config.CheckForced(s, bounds), errConfig)
}
