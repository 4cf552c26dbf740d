package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/sdk/manual"
	"github.com/deputy-ha/deputy/sdk/wire"
	"github.com/deputy-ha/deputy/supervisor/config"
)

func (a *app) pluginDescribeCommand() *cobra.Command {
	forms := a.describers()
	return a.printsOneOf(&cobra.Command{
		Use:   "describe NAME|PATH",
		Short: "Show what a plugin does, what it can be called for, and its settings",
		Long: "Show what a plugin does, what it can be called for, and its settings: what stands under\n" +
			"config in a service's definition. The plugin is started for a moment and asked;\n" +
			"nothing is changed. Schema is a JSON Schema of its settings, man a manual page.",
		Example: "  deputy plugin describe vip\n" +
			"  deputy plugin describe exec -o man | man -l -\n" +
			"  deputy plugin describe vip -o schema >vip.schema.json",
		Args: one("NAME or PATH"),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := interruptible(c.Context())
			defer stop()
			p, err := a.pick(args[0])
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, openTime)
			defer cancel()
			d, err := a.describe(ctx, p)
			if err != nil {
				return mistaken(config.Settings{}, err)
			}
			if err := forms[a.output](p, d); err != nil {
				return fmt.Errorf("describe %s: %w", p.use, err)
			}
			return nil
		},
	}, "table", "json", "schema", "man")
}

// about is what a plugin says it is.
type about = wire.Description

// describers write what a plugin says of itself, by what --output asks for.
func (a *app) describers() map[string]func(picked, about) error {
	return map[string]func(picked, about) error{
		"json": func(_ picked, d about) error { return a.printJSON(d) },
		"table": func(p picked, d about) error {
			return a.printText(says(p, d).Text(min(a.screen.width, plainWidth), a.screen.painter(bold), a.screen.painter(faint)))
		},
		"man": func(p picked, d about) error { return a.printText(says(p, d).Page()) },
		"schema": func(p picked, d about) error {
			schema, err := says(p, d).EditorSchema()
			if err != nil {
				return err
			}
			return a.printJSON(schema)
		},
	}
}

func (a *app) printText(text string, err error) error {
	fmt.Fprint(a.stdout, text)
	return err
}

func says(p picked, d about) manual.Plugin {
	m := manual.Plugin{
		Name: d.Name, Version: d.Version, Path: p.path, Doc: d.Doc, ForcedBound: d.ForcedBound,
		Silent: p.path != "" && !d.Heartbeats, Schema: d.Schema,
	}
	for _, c := range d.Capabilities {
		m.Capabilities = append(m.Capabilities, string(c))
	}
	return m
}
