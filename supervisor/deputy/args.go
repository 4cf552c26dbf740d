package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// one wants exactly one argument, named what in the help.
func one(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		return mark(count(c, args, 1, 1, what), errUsage)
	}
}

// atMostOne wants one argument or none.
func atMostOne(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		return mark(count(c, args, 0, 1, what), errUsage)
	}
}

// exactly wants these arguments, no fewer and no more.
func exactly(what ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != len(what) {
			return mark(fmt.Errorf("%s needs %s, and got %d arguments", c.Name(), strings.Join(what, " and "), len(args)), errUsage)
		}
		return nil
	}
}

// noArgs wants none.
func noArgs(c *cobra.Command, args []string) error {
	return mark(count(c, args, 0, 0, ""), errUsage)
}

// unknownCommand refuses a command that there is not, and offers what there is.
func unknownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	if like := root.SuggestionsFor(args[0]); len(like) > 0 {
		hint = fmt.Sprintf("; did you mean %s?", strings.Join(like, " or "))
	}
	return mark(fmt.Errorf("unknown command %q%s", args[0], hint), errUsage)
}

func count(c *cobra.Command, args []string, least, most int, what string) error {
	switch {
	case len(args) < least:
		return fmt.Errorf("%s needs %s", c.Name(), article(what))
	case len(args) > most && most == 0:
		return fmt.Errorf("%s takes no arguments, and got %q", c.Name(), args[0])
	case len(args) > most:
		return fmt.Errorf("%s takes one %s, and got %d: %s", c.Name(), what, len(args), strings.Join(args, " "))
	}
	return nil
}

func article(what string) string { return "a " + what }

// completeServices offers the services that are known on this node.
func (a *app) completeServices(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	names := append(a.daemons(), a.defined()...)
	slices.Sort(names)
	names = slices.DeleteFunc(slices.Compact(names), func(s string) bool { return slices.Contains(args, s) })
	if c.Args != nil && len(args) > 0 {
		names = nil // it takes one
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
