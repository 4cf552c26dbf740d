package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/config"
	"github.com/deputy-ha/deputy/supervisor/plugin"
	"github.com/deputy-ha/deputy/supervisor/systemd"
)

// Where plugins are installed, searched before plugin_dirs.
const (
	pluginDir      = "/usr/libexec/deputy/plugins"
	localPluginDir = "/usr/local/libexec/deputy/plugins"
)

// plugins returns one plugin for each part of a service, not open yet. The
// error is errConfig and names the file; a part of which there is no plugin then
// has nil.
func (a *app) plugins(node config.Node, s supervisor.Service, clock supervisor.Clock, log *slog.Logger) ([]plugin.Plugin, error) {
	host := plugin.Host{
		Service: s.Name, Node: node.Name, RunDir: a.dir(s.Name), StateDir: filepath.Join(a.paths.state, s.Name), UID: os.Geteuid(),
		Dirs:  append([]string{pluginDir, localPluginDir}, node.PluginDirs...),
		Stall: plugin.StallTime(s.TTL), Clock: clock, Log: log, Reveal: reveal(node),
	}
	plugins := make([]plugin.Plugin, len(s.Parts))
	wrong := make([]error, len(s.Parts))
	for i, part := range s.Parts {
		switch {
		case part.Use == targetsUse:
			plugins[i] = targetsPlugin{systemd.NewTargets(a.bus, s.Name, log)}
			continue
		case part.Name == targetsPart:
			wrong[i] = fmt.Errorf("%s: no plugin may be called %q, as the role targets of systemd are: give it another name", s.File, targetsPart)
			continue
		}
		p, err := plugin.New(host, part)
		if err != nil {
			wrong[i] = blame(s, part, err)
			continue
		}
		plugins[i] = p
	}
	if err := errors.Join(wrong...); err != nil {
		return plugins, mark(err, errConfig)
	}
	return plugins, bounded(s, plugins)
}

// reveal reads the secrets of plugins as those of the node are read.
func reveal(node config.Node) func(map[string]any) (string, error) {
	return func(where map[string]any) (string, error) {
		s, err := config.SecretOf(where)
		if err != nil {
			return "", err
		}
		return node.Reveal(s)
	}
}

// blame tells what is wrong with a part by file, plugin and, where it is about
// a setting, line and key.
func blame(s supervisor.Service, part supervisor.Part, err error) error {
	blamed := config.PartSettings(s, part.Name).Blame(err)
	if wrong := config.Mistakes(nil); errors.As(blamed, &wrong) {
		return blamed
	}
	return fmt.Errorf("%s: plugin %s: %w", s.File, part.Name, err)
}

// bounded holds the service's timing against what its plugins say so far. The
// error is errConfig.
func bounded(s supervisor.Service, plugins []plugin.Plugin) error {
	bounds := map[string]time.Duration{}
	for i, p := range plugins {
		bounds[s.Parts[i].Name] = p.Describe().ForcedBound
	}
	return mark(config.CheckForced(s, bounds), errConfig)
}

// fencers holds the service's wish for fences against what its plugins, which are
// open, can do. The error is errConfig.
func fencers(s supervisor.Service, plugins []plugin.Plugin) error {
	n := 0
	for _, p := range plugins {
		if p.Describe().Can(sdk.CanFence) {
			n++
		}
	}
	return mark(config.CheckFence(s, n), errConfig)
}

// machine returns plugins as the role machine wants them.
func machine(plugins []plugin.Plugin) []supervisor.Plugin {
	all := make([]supervisor.Plugin, len(plugins))
	for i, p := range plugins {
		all[i] = p
	}
	return all
}

// The bounds of a plugin's beginning and end. The plugin's host has its own,
// which are tighter; these are for what they do not see.
const (
	beginTime  = 15 * time.Second
	endTime    = 5 * time.Second
	reloadTime = 10 * time.Second
)

// openAll opens plugins at the same time, and calls came when one is open. The
// error is errConfig where trying again is of no use; those that did open then
// stay open all the same.
func openAll(ctx context.Context, s supervisor.Service, plugins []plugin.Plugin, opened []atomic.Bool, came func()) error {
	ctx, cancel := context.WithTimeoutCause(ctx, beginTime, fmt.Errorf("not within %s", beginTime))
	defer cancel()
	faults := make([]error, len(plugins))
	var running sync.WaitGroup
	for i, p := range plugins {
		if opened[i].Load() {
			continue
		}
		running.Go(func() {
			err := p.Open(ctx)
			if err == nil {
				opened[i].Store(true)
				came()
				return
			}
			faults[i] = blame(s, s.Parts[i], err)
			if plugin.Lasting(err) {
				faults[i] = mark(faults[i], errConfig)
			}
		})
	}
	running.Wait()
	if err := errors.Join(faults...); err != nil {
		return err
	}
	return errors.Join(bounded(s, plugins), fencers(s, plugins))
}

// closeAll ends plugins at the same time.
func closeAll(plugins []plugin.Plugin, log *slog.Logger) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), endTime, fmt.Errorf("not within %s", endTime))
	defer cancel()
	var running sync.WaitGroup
	for _, p := range plugins {
		running.Go(func() {
			if err := p.Close(ctx); err != nil {
				log.Error("plugin not ended", "cause", err)
			}
		})
	}
	running.Wait()
}

// configureAll puts another definition's settings in force, and returns the
// plugins that have them, and of each whether they have changed. With an error,
// which is errConfig, those of before are in force in all of them.
func configureAll(ctx context.Context, was, s supervisor.Service, plugins []plugin.Plugin) (next []plugin.Plugin, changed []bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, reloadTime, fmt.Errorf("not within %s", reloadTime))
	defer cancel()
	wrong := make([]error, len(plugins))
	for i, p := range plugins {
		if err := p.Validate(ctx, s.Parts[i]); err != nil {
			wrong[i] = blame(s, s.Parts[i], err)
		}
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, nil, mark(err, errConfig)
	}
	next, changed = slices.Clone(plugins), make([]bool, len(plugins))
	defer func() {
		if err == nil {
			return
		}
		for i, p := range next { // what has not changed does nothing
			if _, _, undo := p.Configure(context.WithoutCancel(ctx), was.Parts[i]); undo != nil {
				err = errors.Join(err, fmt.Errorf("put back the settings of %s: %w", was.Parts[i].Name, undo))
			}
		}
	}()
	for i, p := range plugins {
		other, altered, fault := p.Configure(ctx, s.Parts[i])
		if fault != nil {
			return next, nil, mark(blame(s, s.Parts[i], fault), errConfig)
		}
		next[i], changed[i] = other, altered
	}
	return next, changed, errors.Join(bounded(s, next), fencers(s, next))
}
