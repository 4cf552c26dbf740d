package main

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/supervisor/control"
)

// completeTime is how long somebody waits for the names of nodes after a Tab.
const completeTime = 300 * time.Millisecond

// completeWords has the shell offer nodes and services where they can be
// written, and the words that flags know. What a command has chosen for itself
// stays.
func (a *app) completeWords(c *cobra.Command) {
	for _, below := range c.Commands() {
		a.completeWords(below)
	}
	switch {
	case strings.Contains(c.Use, "[NODE]"):
		c.ValidArgsFunction = a.completeNodes
	case c.Name() == "log-level":
		c.ValidArgsFunction = func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return a.completeServices(c, args, begun)
			}
			return levels(), cobra.ShellCompDirectiveNoFileComp
		}
	case strings.HasSuffix(c.Use, "SERVICE NODE"):
		c.ValidArgsFunction = func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			switch len(args) {
			case 0:
				return a.completeServices(c, args, begun)
			case 1:
				return a.completeNodes(c, args, begun)
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
	}
	services := func(c *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return a.completeServices(c, nil, begun) // whatever the arguments are
	}
	words := func(all ...string) cobra.CompletionFunc {
		return cobra.FixedCompletions(all, cobra.ShellCompDirectiveNoFileComp)
	}
	for flag, offer := range map[string]cobra.CompletionFunc{
		"to":        a.completeNodes,
		"node":      a.completeNodes,
		"service":   services,
		"log-level": words(levels()...),
		"mode":      words("planned", "forced"),
		"role":      words("primary", "standby", "candidate"),
	} {
		if c.LocalNonPersistentFlags().Lookup(flag) == nil {
			continue
		}
		if err := c.RegisterFlagCompletionFunc(flag, offer); err != nil {
			panic(err) // registered twice: a mistake in this program
		}
	}
}

// completeNodes offers the nodes that this node's daemons know, of the service
// that was written already if there is one.
func (a *app) completeNodes(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), completeTime)
	defer cancel()
	daemons := a.daemons()
	if len(args) > 0 {
		if strings.Contains(c.Use, "[NODE]") {
			return nil, cobra.ShellCompDirectiveNoFileComp // it takes one
		}
		daemons = slices.DeleteFunc(daemons, func(s string) bool { return s != args[0] })
	}
	var mu sync.Mutex
	var names []string
	each(daemons, func(_ int, service string) {
		st, err := control.NewClient(a.dir(service)).Status(ctx)
		if err != nil {
			return // somebody types: there is nobody to tell
		}
		mu.Lock()
		defer mu.Unlock()
		for _, node := range st.State.Candidates {
			names = append(names, node.Node.Name)
		}
		for _, d := range st.State.Drained {
			names = append(names, d.Node)
		}
		for _, b := range st.State.Banned {
			names = append(names, b.Node)
		}
	})
	slices.Sort(names)
	return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
}
