package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/supervisor/config"
	"github.com/deputy-ha/deputy/supervisor/plugin"
)

func (a *app) pluginValidateCommand() *cobra.Command {
	o := origin{}
	c := a.prints(&cobra.Command{
		Use:   "validate NAME|PATH [FILE|-]",
		Short: "Have a plugin judge its settings",
		Long: "Have a plugin judge its settings, from a file that holds what stands under config in a\n" +
			"service's definition, or from a definition with --service. Every mistake is told with\n" +
			"its line and key; the exit status is then 78. Nothing is changed.",
		Example: "  deputy plugin validate vip address.toml\n  deputy plugin validate vip --service orders-db",
		Args: func(c *cobra.Command, args []string) error {
			switch len(args) {
			case 0:
				return mark(fmt.Errorf("%s needs a NAME or PATH", c.Name()), errUsage)
			case 1, 2:
				return nil
			}
			return mark(fmt.Errorf("%s takes one plugin and one FILE, and got %q as well", c.Name(), args[2]), errUsage)
		},
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := interruptible(c.Context())
			defer stop()
			switch {
			case len(args) == 2:
				o.file = args[1]
			case o.service == "":
				return mark(errors.New("validate needs settings: a FILE, - for standard input, or --service NAME for those of a definition"), errUsage)
			}
			return a.pluginValidate(ctx, args[0], o)
		},
	})
	c.Flags().StringVar(&o.service, "service", "", "service that it works for; without a FILE its definition has the settings")
	c.Flags().StringVar(&o.part, "part", "", "name of the part in that definition, where several use this plugin")
	return c
}

// A judged is what `deputy plugin validate -o json` prints.
type judged struct {
	Plugin   string          `json:"plugin"`
	Right    bool            `json:"right"`
	Mistakes config.Mistakes `json:"mistakes,omitempty"`
	Error    string          `json:"error,omitempty"` // with no place in a file
}

func (a *app) pluginValidate(ctx context.Context, what string, o origin) error {
	p, err := a.pick(what)
	if err != nil {
		return err
	}
	err = a.judge(ctx, p, o)
	if a.json() {
		j := judged{Plugin: p.use, Right: err == nil}
		if err != nil && !errors.As(err, &j.Mistakes) {
			j.Error = err.Error()
		}
		return orPrint(err, a.printJSON(j))
	}
	if err == nil {
		where := o.file
		if where == "" {
			where = filepath.Join(a.paths.services, o.service+".toml")
		}
		fmt.Fprintf(a.stdout, "%s: %s takes these settings\n", where, p.use)
	}
	return err
}

// judge returns what is wrong with settings; nil is nothing.
func (a *app) judge(ctx context.Context, p picked, o origin) error {
	host, part, settings, err := o.of(a, p)
	if err != nil {
		return err
	}
	made, err := plugin.New(host, part)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, openTime)
		defer cancel()
		err = made.Verify(ctx)
	}
	return mistaken(settings, err)
}

// mistaken tells what a plugin says of its settings by their lines. The error
// is errConfig where it is about the settings, or about the plugin as it is
// installed.
func mistaken(s config.Settings, err error) error {
	if plugin.Lasting(err) {
		return mark(s.Blame(err), errConfig)
	}
	return err
}
