package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/sdk/wire"
	"github.com/deputy-ha/deputy/supervisor/config"
)

func (a *app) pluginDescribeCommand() *cobra.Command {
	schema := false
	c := a.prints(&cobra.Command{
		Use:   "describe NAME|PATH",
		Short: "Show what a plugin does, what it can be called for, and its settings",
		Long: "Show what a plugin does, what it can be called for, and its settings: what stands under\n" +
			"config in a service's definition. The plugin is started for a moment and asked;\n" +
			"nothing is changed.",
		Example: "  deputy plugin describe vip\n  deputy plugin describe exec\n  deputy plugin describe vip --schema >vip.schema.json",
		Args:    one("NAME or PATH"),
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
			switch {
			case err != nil:
				return mistaken(config.Settings{}, err)
			case schema:
				return a.printJSON(d.Schema)
			case a.json():
				return a.printJSON(d)
			}
			return a.showAbout(p, d)
		},
	})
	c.Flags().BoolVar(&schema, "schema", false, "print only the JSON Schema of its settings, for editors")
	return c
}

// about is what a plugin says it is.
type about = wire.Description

func (a *app) showAbout(p picked, d about) error {
	settings, err := settingsOf("", d.Schema)
	if err != nil {
		return fmt.Errorf("read the schema of %s: %w", p.use, err)
	}
	var b strings.Builder
	b.WriteString(a.screen.paint(bold, d.Name))
	if d.Version != "" {
		b.WriteString(" " + d.Version)
	}
	if p.path != "" {
		b.WriteString("  " + a.screen.paint(faint, p.path))
	}
	b.WriteString("\n")
	if doc := strings.TrimSpace(tidy(d.Doc)); doc != "" {
		b.WriteString("\n" + doc + "\n")
	}
	b.WriteString("\nCan " + can(d.Capabilities) + ".\n")
	if d.ForcedBound > 0 {
		b.WriteString(fmt.Sprintf("A forced demotion needs at most %s.\n", d.ForcedBound))
	}
	if p.path != "" && !d.Heartbeats {
		b.WriteString("It sends no heartbeats: while it works, a slow one cannot be told from a frozen one.\n")
	}
	b.WriteString("\n")
	if len(settings) == 0 {
		b.WriteString("It has no settings.\n")
	} else {
		t := table{head: []string{"SETTING", "TYPE", "DEFAULT", "WHAT"}}
		for _, s := range settings {
			standard := cell{s.standard, plain}
			if s.required {
				standard = cell{"required", bold}
			}
			t.add(cell{s.key, bold}, cell{s.kind, plain}, standard, cell{s.what, plain})
		}
		t.write(&b, a.screen, "")
	}
	fmt.Fprint(a.stdout, b.String())
	return nil
}

// A setting is one line of a plugin's settings.
type setting struct {
	key      string
	kind     string
	standard string
	what     string
	required bool
}

// A property is the schema of one setting, as far as it is shown.
type property struct {
	Type        string            `json:"type"`
	Format      string            `json:"format"`
	Pattern     string            `json:"pattern"`
	Description string            `json:"description"`
	Default     json.RawMessage   `json:"default"`
	Enum        []json.RawMessage `json:"enum"`
	Items       json.RawMessage   `json:"items"`
	Properties  json.RawMessage   `json:"properties"`
	Required    []string          `json:"required"`
	WriteOnly   bool              `json:"writeOnly"` // a secret
}

// settingsOf returns the settings that a JSON Schema has, in its order, those
// of tables under dotted keys.
func settingsOf(prefix string, schema json.RawMessage) ([]setting, error) {
	if len(schema) == 0 {
		return nil, nil
	}
	var top property
	if err := json.Unmarshal(schema, &top); err != nil {
		return nil, err
	}
	if len(top.Properties) == 0 {
		return nil, nil
	}
	var all []setting
	dec := json.NewDecoder(bytes.NewReader(top.Properties))
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, err
		}
		var p property
		if err := json.Unmarshal(raw, &p); err != nil {
			return nil, err
		}
		name := fmt.Sprint(key)
		all = append(all, setting{
			key: prefix + name, kind: kindOf(p), standard: tidy(string(p.Default)), what: tidy(p.Description),
			required: slices.Contains(top.Required, name),
		})
		for at, inner := range map[string]json.RawMessage{".": raw, "[].": p.Items} {
			below, err := settingsOf(prefix+name+at, inner)
			if err != nil {
				return nil, err
			}
			all = append(all, below...)
		}
	}
	return all, nil
}

// kindOf names a setting's type for people.
func kindOf(p property) string {
	switch {
	case p.WriteOnly && p.Type == "string":
		return "secret"
	case len(p.Enum) > 0:
		var values []string
		for _, v := range p.Enum {
			values = append(values, strings.Trim(string(v), `"`))
		}
		return strings.Join(values, " | ")
	case p.Type == "array":
		var item property
		_ = json.Unmarshal(p.Items, &item) // of any type, if it does not say
		return strings.TrimSpace("list of " + kindOf(item))
	case p.Type == "object":
		return "table"
	case p.Format != "":
		return p.Format
	case p.Type == "string" && strings.Contains(p.Pattern, "ns|us"):
		return "duration"
	case p.Type == "string":
		return "text"
	case p.Type == "boolean":
		return "true | false"
	}
	return p.Type
}
