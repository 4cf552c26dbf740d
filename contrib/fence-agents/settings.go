package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// settings are what one may write.
type settings struct {
	Agent   string                       `toml:"agent" doc:"the agent's program, such as fence_ipmilan: a name, looked for in /usr/sbin and then in $PATH, or an absolute path" required:"true"`
	Options map[string]string            `toml:"options" doc:"the agent's options that are the same for all nodes: texts by name, or { credential = ... }" sensitive:"true"`
	Nodes   map[string]map[string]string `toml:"nodes" doc:"for each node of the service, by its name, the agent's options that are for it alone, such as { db1 = { plug = \"1\" }, db2 = { plug = \"2\" } }" required:"true" sensitive:"true"`
	Action  string                       `toml:"action" doc:"off: the node is turned off and stays so; reboot: it is turned off, seen to be off, and turned on again" default:"off" enum:"off|reboot"`
	Verify  bool                         `toml:"verify" doc:"a fence is done only once the agent says that the node is off, asked after the deed; without it, once the agent says that it has done it" default:"true"`
	Timeout time.Duration                `toml:"timeout" doc:"how long one call of the agent may take" default:"20s" min:"1s" max:"10m"`
	Monitor time.Duration                `toml:"monitor" doc:"how often the agent is asked about the other nodes, so that a device that does not answer is known before it is needed; 0s: never" default:"1m" min:"0s" max:"1h"`
}

// metadataTime is how long an agent may take to tell about itself. Most load an
// interpreter for it.
const metadataTime = 3 * time.Second

// Validate tells what is wrong with the whole, as the agent itself knows its
// options. One that does not tell in time is not asked further: it may only be
// slow, and is looked at again when it is to be used.
func (s *settings) Validate() error {
	wrong := s.texts()
	a, err := findAgent(s.Agent)
	if err != nil {
		return errors.Join(append(wrong, &sdk.KeyError{Key: "agent", Err: err})...)
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), metadataTime, fmt.Errorf("not within %s", metadataTime))
	defer cancel()
	if about, err := a.metadata(ctx); err == nil {
		wrong = append(wrong, s.judge(about)...)
	}
	return errors.Join(wrong...)
}

// each calls f for every option, with its key.
func (s *settings) each(f func(key, name, value string)) {
	for _, name := range slices.Sorted(maps.Keys(s.Options)) {
		f("options."+name, name, s.Options[name])
	}
	for _, node := range slices.Sorted(maps.Keys(s.Nodes)) {
		for _, name := range slices.Sorted(maps.Keys(s.Nodes[node])) {
			f("nodes."+node+"."+name, name, s.Nodes[node][name])
		}
	}
}

// texts finds options that cannot be handed over: an agent reads a line for each,
// as name=value.
func (s *settings) texts() (wrong []error) {
	s.each(func(key, name, value string) {
		switch {
		case name == "action" || name == "option":
			wrong = append(wrong, &sdk.KeyError{Key: key, Err: errors.New("is for deputy to say; remove it, and see the setting action of the plugin")})
		case name == "" || strings.ContainsAny(name, "=#\n\r "):
			wrong = append(wrong, &sdk.KeyError{Key: key, Err: fmt.Errorf("%q cannot be the name of an option", name)})
		case strings.ContainsAny(value, "\n\r\x00"):
			wrong = append(wrong, &sdk.KeyError{Key: key, Err: errors.New("has more than one line; agents read a line for each option")})
		}
	})
	return wrong
}

// judge holds the settings against what the agent says of itself.
func (s *settings) judge(about metadata) (wrong []error) {
	known := about.names()
	s.each(func(key, name, _ string) {
		if name != "action" && name != "option" && !slices.Contains(known, strings.ReplaceAll(name, "-", "_")) {
			wrong = append(wrong, &sdk.KeyError{Key: key, Err: fmt.Errorf("%s has no such option; %s", s.Agent, suggest(name, known))})
		}
	})
	needs := []string{"off"}
	if s.Action == "reboot" {
		needs = append(needs, "on")
	}
	for _, action := range needs {
		if !about.can(action) {
			wrong = append(wrong, &sdk.KeyError{Key: "agent", Err: fmt.Errorf("%s cannot do %q, only %s, so it cannot fence with action = %q", s.Agent, action, strings.Join(about.actions(), ", "), s.Action)})
		}
	}
	if s.Verify && !about.can("status") {
		wrong = append(wrong, &sdk.KeyError{Key: "verify", Err: fmt.Errorf("%s cannot tell whether a node is off; use another agent, or trust its word by verify = false", s.Agent)})
	}
	return wrong
}

// of returns the options for one node, and whether it has any.
func (s *settings) of(node string) (map[string]string, bool) {
	own, ok := s.Nodes[node]
	all := maps.Clone(s.Options)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, own)
	return all, ok
}

// suggest says which of the known names was probably meant, else which there are.
func suggest(name string, known []string) string {
	best, least := "", 1+max(1, len(name)/3)
	for _, k := range known {
		if d := distance(strings.ReplaceAll(name, "-", "_"), k); d < least {
			best, least = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return "there are " + strings.Join(known, ", ")
}

// distance counts the letters that are to be inserted, dropped or replaced to make
// one word of the other.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		above := row[0] // left of the one above
		row[0] = i + 1
		for j := range len(b) {
			change := above
			if a[i] != b[j] {
				change++
			}
			above = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
