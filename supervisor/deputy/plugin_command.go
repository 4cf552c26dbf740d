package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/config"
	"github.com/deputy-ha/deputy/supervisor/plugin"
)

func (a *app) pluginCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "plugin",
		Short: "See, try and prove plugins",
		Long: "See, try and prove plugins: what promotes, demotes and checks the parts of services.\n\n" +
			"A plugin is a program deputy-plugin-NAME in " + pluginDir + ",\n" +
			localPluginDir + " or a directory of plugin_dirs in deputy.toml, or\n" +
			"scripts of your own, run by the plugin exec, which is built in. The commands take its\n" +
			"NAME, or the PATH of the program.",
		Args: unknownCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	for _, sub := range []*cobra.Command{
		a.pluginListCommand(), a.pluginDescribeCommand(), a.pluginValidateCommand(), a.pluginCallCommand(), a.pluginTestCommand(), a.pluginNewCommand(),
	} {
		if strings.Contains(sub.Use, "NAME|PATH") {
			sub.ValidArgsFunction = a.completePlugins
		}
		c.AddCommand(sub)
	}
	return c
}

// execPlugin is the plugin that is built in.
const execPlugin = "exec"

// programPrefix begins the file name of every other one.
const programPrefix = "deputy-plugin-"

// A picked is the plugin that a command is about.
type picked struct {
	use  string
	path string   // of its program; empty when it is built in
	dirs []string // where it is found
}

// pick finds a plugin by its name, or by the path of its program. The error is
// errConfig.
func (a *app) pick(what string) (picked, error) {
	if what == execPlugin {
		return picked{use: execPlugin}, nil
	}
	if strings.ContainsRune(what, '/') {
		path, err := filepath.Abs(what)
		if err != nil {
			return picked{}, err
		}
		name, ok := strings.CutPrefix(filepath.Base(path), programPrefix)
		switch _, err := os.Stat(path); {
		case errors.Is(err, fs.ErrNotExist):
			return picked{}, mark(fmt.Errorf("%s is not there: build it, or correct the path", what), errConfig)
		case err != nil:
			return picked{}, mark(fmt.Errorf("look at %s: %w", what, err), errConfig)
		case !ok || name == "":
			return picked{}, mark(fmt.Errorf("%s: a plugin's file is named %sNAME, or nobody would find it; "+
				"a script is run by the plugin exec, whose settings name it: promote = [%q], demote = …", what, programPrefix, path), errConfig)
		}
		return usable(picked{use: name, path: path, dirs: []string{filepath.Dir(path)}})
	}
	dirs, err := a.pluginDirs()
	if err != nil {
		return picked{}, err
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, programPrefix+what)
		if _, err := os.Lstat(path); err == nil {
			return usable(picked{use: what, path: path, dirs: []string{dir}})
		}
	}
	// The plugin's host says what there is.
	_, err = plugin.New(plugin.Host{Dirs: dirs, UID: os.Geteuid(), Log: slog.New(slog.DiscardHandler)}, supervisor.Part{Use: what, Name: what})
	return picked{}, mark(err, errConfig)
}

// usable returns a plugin that can be run as it is installed.
func usable(p picked) (picked, error) {
	for _, found := range plugin.Installed(p.dirs, os.Geteuid()) {
		if found.Name == p.use && found.Err != nil {
			return picked{}, mark(fmt.Errorf("use plugin %s: %w", p.use, found.Err), errConfig)
		}
	}
	return p, nil
}

// pluginDirs are the directories of plugins, in the order in which they count.
// A node without settings has those that every node has.
func (a *app) pluginDirs() ([]string, error) {
	node, err := a.settings()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return append([]string{pluginDir, localPluginDir}, node.PluginDirs...), nil
}

// completePlugins offers the plugins that are installed.
func (a *app) completePlugins(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		if c.Name() == "call" && len(args) == 1 {
			return acts(), cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveDefault
	}
	names := []string{execPlugin}
	dirs, _ := a.pluginDirs() // what can be found without
	for _, found := range plugin.Installed(dirs, os.Geteuid()) {
		names = append(names, found.Name)
	}
	slices.Sort(names)
	return names, cobra.ShellCompDirectiveDefault
}

// An origin tells where a plugin's settings come from, and whom it is told that
// it works for.
type origin struct {
	file    string
	service string
	part    string
	node    string

	optional bool // none will do
}

// none reports whether nobody said where settings come from.
func (o *origin) none() bool { return o.file == "" && o.service == "" }

func (o *origin) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.file, "settings", "", "file with the plugin's settings: what stands under config in a definition; - is standard input")
	c.Flags().StringVar(&o.service, "service", "", "service that it works for; without --settings its definition has the settings")
	c.Flags().StringVar(&o.part, "part", "", "name of the part in that definition, where several use this plugin")
	c.Flags().StringVar(&o.node, "node", "", "node that it works on (default: this one)")
}

// of returns what the plugin is called with. The error is errConfig.
func (o *origin) of(a *app, p picked) (plugin.Host, supervisor.Part, config.Settings, error) {
	host := plugin.Host{
		Service: o.service, Node: o.node, UID: os.Geteuid(), Dirs: p.dirs, Log: slog.New(slog.DiscardHandler),
	}
	if host.Service == "" {
		host.Service = "by-hand"
	}
	if host.Node == "" {
		host.Node = a.thisNode()
	}
	host.StateDir = filepath.Join(a.paths.state, host.Service)
	node, _ := a.settings() // where its credentials are is known all the same
	host.Reveal = reveal(node)
	part := supervisor.Part{Use: p.use, Name: o.part}
	if part.Name == "" {
		part.Name = p.use
	}
	var s config.Settings
	var err error
	switch {
	case o.file == "-":
		s, err = config.ReadSettings("-", a.stdin)
	case o.file != "":
		s, err = config.LoadSettings(o.file)
	case o.service != "":
		part, s, err = a.definedPart(o.service, p.use, o.part)
		return host, part, s, mark(err, errConfig)
	case !o.optional:
		return host, part, s, mark(errors.New("the plugin needs settings: --settings FILE, or --service NAME for those of a definition"), errUsage)
	}
	part.Config = s.Table
	return host, part, s, mark(err, errConfig)
}

// thisNode is this node's name, as far as it is known.
func (a *app) thisNode() string {
	if n, err := a.settings(); err == nil {
		return n.Name
	}
	name, err := os.Hostname()
	if err != nil {
		return "here"
	}
	return name
}

// definedPart returns the part of a service's definition that uses a plugin.
func (a *app) definedPart(service, use, name string) (part supervisor.Part, _ config.Settings, _ error) {
	s, err := config.LoadService(filepath.Join(a.paths.services, service+".toml"), nil)
	if err != nil {
		return part, config.Settings{}, err
	}
	var fit []supervisor.Part
	var names []string
	for _, p := range s.Parts {
		names = append(names, p.Name)
		if p.Use == use && (name == "" || p.Name == name) {
			fit = append(fit, p)
		}
	}
	switch {
	case len(fit) == 1:
		return fit[0], config.PartSettings(s, fit[0].Name), nil
	case len(fit) > 1:
		err = fmt.Errorf("%s: several parts use %s: name one with --part: %s", s.File, use, strings.Join(names, ", "))
	case name != "":
		err = fmt.Errorf("%s: no part named %s uses %s: there are %s", s.File, name, use, strings.Join(names, ", "))
	default:
		err = fmt.Errorf("%s: no part uses %s: there are %s", s.File, use, strings.Join(names, ", "))
	}
	return part, config.Settings{}, err
}

// The bounds of what is asked of a plugin by hand.
const (
	openTime  = 15 * time.Second // to start and take its settings
	closeTime = 5 * time.Second
)

// can joins capabilities for people.
func can(all []sdk.Capability) string {
	text := make([]string, len(all))
	for i, c := range all {
		text[i] = string(c)
	}
	return strings.Join(text, ", ")
}
