package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/contrib/agents"
)

// metadata is what an agent says of itself.
type metadata struct {
	Parameters []struct {
		Name     string `xml:"name,attr"`
		Required string `xml:"required,attr"`
	} `xml:"parameters>parameter"`
	Actions []struct {
		Name    string `xml:"name,attr"`
		Timeout string `xml:"timeout,attr"`
	} `xml:"actions>action"`
}

// metadata asks the agent what it is.
func (a agent) metadata(ctx context.Context) (about metadata, err error) {
	r, err := a.call(ctx, "meta-data", []string{"OCF_ROOT=" + a.root})
	if err == nil && r.code != codeDone {
		err = fmt.Errorf("meta-data: %w", r.err())
	}
	if err != nil {
		return about, err
	}
	if err := agents.ReadMetadata(a.name, r.stdout, &about); err != nil {
		return about, err
	}
	for _, action := range []string{"start", "stop", "monitor"} {
		if !about.can(action) {
			return about, fmt.Errorf("%s has no action %s by its metadata; the standard asks for start, stop and monitor", a.name, action)
		}
	}
	return about, nil
}

func (m metadata) can(action string) bool {
	for _, a := range m.Actions {
		if a.Name == action {
			return true
		}
	}
	return false
}

// names are those of the parameters.
func (m metadata) names() (all []string) {
	for _, p := range m.Parameters {
		all = append(all, p.Name)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// required are the parameters that have no default.
func (m metadata) required() (all []string) {
	for _, p := range m.Parameters {
		if slices.Contains([]string{"1", "true", "yes"}, p.Required) {
			all = append(all, p.Name)
		}
	}
	return all
}

// advised is how long the actions, one after the other, may take at most by the
// agent's advice.
func (m metadata) advised(actions ...string) (sum time.Duration) {
	for _, action := range actions {
		var most time.Duration
		for _, a := range m.Actions {
			if a.Name == action {
				most = max(most, durationOf(a.Timeout))
			}
		}
		sum += most
	}
	return sum
}

// durationOf reads a time as Pacemaker writes it: a number, seconds where it has
// no unit. Zero is none that it could read.
func durationOf(text string) time.Duration {
	text = strings.TrimSpace(text)
	if n, err := strconv.Atoi(text); err == nil {
		return time.Duration(n) * time.Second
	}
	d, err := time.ParseDuration(strings.NewReplacer("sec", "s", "min", "m").Replace(text))
	if err != nil {
		return 0
	}
	return d
}

// needs are what an agent is known to need a whole cluster for, by its kind.
var needs = map[string]string{
	"mysql":  "it makes the server read-only in notify, and its demote would leave it open for writes: use the plugin mysql",
	"galera": "it finds the node to begin with by attributes that all nodes of a Pacemaker cluster share, and promotes several",
}

// idle are the agents whose notify does nothing.
var idle = []string{"Stateful"}

// comment is what does not count in a shell script.
var comment = regexp.MustCompile(`(?m)^\s*#.*$`)

// wants is what the agent needs of a cluster that there is not, each with the
// reason.
func (a agent) wants(about metadata) (map[string]string, error) {
	all := map[string]string{}
	if about.can("notify") && !slices.Contains(idle, a.kind) {
		all["notify"] = "its metadata has the action notify, by which Pacemaker tells each node what the others are about to do; deputy does not, and what the agent does there would never be done"
	}
	text, err := os.ReadFile(a.path)
	if err != nil {
		return nil, err
	}
	text = comment.ReplaceAll(text, nil)
	for _, tool := range clustered {
		if regexp.MustCompile(`\b` + tool + `\b`).Match(text) {
			all[tool] = "it calls " + tool + ", which only a Pacemaker cluster can answer"
		}
	}
	return all, nil
}
