package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/deputy-ha/deputy/contrib/agents"
	"github.com/deputy-ha/deputy/sdk"
)

// An agent is a program of the fence-agents family (FenceAgentAPI of ClusterLabs).
// It reads its options and what to do from standard input, a line each, and tells
// by its exit status how that went.
type agent struct {
	name string
	path string
	log  *slog.Logger // what agents print; nil: nowhere
}

// The exit statuses that mean something; any other is an error.
const (
	exitDone = 0 // of status: the node is on
	exitOff  = 2 // of status alone: the node is off
)

// agentDir is where packages install agents. It is not in everybody's PATH.
const agentDir = "/usr/sbin"

// findAgent finds an agent's program.
func findAgent(name string) (agent, error) {
	path := name
	if !strings.Contains(name, "/") {
		path = filepath.Join(agentDir, name)
		if _, err := os.Stat(path); err != nil {
			if path, err = exec.LookPath(name); err != nil {
				return agent{}, fmt.Errorf("no %s in %s or $PATH: install it (Debian: fence-agents; Red Hat: %s), or write its absolute path",
					name, agentDir, strings.ReplaceAll(strings.Replace(name, "fence_", "fence-agents-", 1), "_", "-"))
			}
		}
	}
	if !filepath.IsAbs(path) {
		return agent{}, fmt.Errorf("%q is neither a name nor an absolute path", name)
	}
	if err := agents.CheckProgram(path); err != nil {
		return agent{}, err
	}
	return agent{name: filepath.Base(path), path: path}, nil
}

// An answer is what a call of an agent came to.
type answer struct {
	exit   int
	stdout string
	said   string // what it printed last, for people
}

// err tells that it is not what was hoped for.
func (a answer) err() error {
	if a.said == "" {
		return fmt.Errorf("exit status %d", a.exit)
	}
	return fmt.Errorf("exit status %d: %s", a.exit, a.said)
}

// call runs the agent. The error is that there is no answer. What was under way
// when ctx ends has ended then, with all that it has started; what it had a device
// do has not.
func (a agent) call(ctx context.Context, action string, options map[string]string) (answer, error) {
	cmd := sdk.Command(ctx, a.path)
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(input(action, options))
	exit, out, errs, err := agents.Run(cmd)
	said := agents.Hider(options)(lastLines(errs + "\n" + out))
	if a.log != nil && action != "metadata" && said != "" {
		a.log.Debug("agent says", "agent", a.name, "action", action, "text", said)
	}
	switch {
	case ctx.Err() != nil:
		return answer{}, withWords(context.Cause(ctx), said)
	case err != nil:
		return answer{}, withWords(err, said)
	}
	return answer{exit: exit, stdout: out, said: said}, nil
}

func withWords(err error, said string) error {
	if said == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, said)
}

// input is what an agent reads.
func input(action string, options map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "action=%s\n", action)
	for _, name := range slices.Sorted(maps.Keys(options)) {
		value := options[name]
		if len(value) > 1 && strings.HasPrefix(value, `"`) && strings.HasSuffix(value, `"`) {
			value = `"` + value + `"` // agents take one pair of quotes away
		}
		fmt.Fprintf(&b, "%s=%s\n", name, value)
	}
	return b.String()
}

// off is what an agent prints for a node that is off.
var off = regexp.MustCompile(`(?im)^\s*status:\s*off\s*$`)

// status asks whether a node is on. That it is off has to be said twice, by exit
// status and in words: interpreters exit with 2 as well when they cannot run the
// agent, and agents when they do not like an option.
func (a agent) status(ctx context.Context, options map[string]string) (on bool, err error) {
	r, err := a.call(ctx, "status", options)
	switch {
	case err != nil:
		return false, err
	case r.exit == exitDone:
		return true, nil
	case r.exit == exitOff && off.MatchString(r.stdout):
		return false, nil
	case r.exit == exitOff:
		return false, fmt.Errorf("it exits as if the node were off, and does not say so: %w", r.err())
	}
	return false, r.err()
}

// done has an action done, or monitors.
func (a agent) done(ctx context.Context, action string, options map[string]string) error {
	r, err := a.call(ctx, action, options)
	if err == nil && r.exit != exitDone {
		err = r.err()
	}
	return err
}

// metadata is what an agent says of itself.
type metadata struct {
	Parameters []struct {
		Name string `xml:"name,attr"`
	} `xml:"parameters>parameter"`
	Actions []struct {
		Name string `xml:"name,attr"`
	} `xml:"actions>action"`
}

// metadata asks the agent what it is.
func (a agent) metadata(ctx context.Context) (about metadata, err error) {
	r, err := a.call(ctx, "metadata", nil)
	if err != nil {
		return about, err
	}
	if err := agents.ReadMetadata(a.name, r.stdout, &about); err != nil {
		return about, err
	}
	if len(about.Parameters) == 0 || len(about.Actions) == 0 {
		return about, fmt.Errorf("the metadata of %s tells of no options or actions", a.name)
	}
	return about, nil
}

// names are those of the options, with underscores.
func (m metadata) names() (all []string) {
	for _, p := range m.Parameters {
		if p.Name != "action" {
			all = append(all, strings.ReplaceAll(p.Name, "-", "_"))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (m metadata) actions() (all []string) {
	for _, a := range m.Actions {
		all = append(all, a.Name)
	}
	return all
}

func (m metadata) can(action string) bool { return slices.Contains(m.actions(), action) }

// lastLines are the last three lines of a text, on one line.
func lastLines(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			kept = append(kept, line[:min(len(line), 300)])
		}
	}
	return strings.Join(kept[max(0, len(kept)-3):], "; ")
}
