package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/deputy-ha/deputy/contrib/agents"
	"github.com/deputy-ha/deputy/sdk"
)

// An agent is a program that one resource is run by. It is told what to do by its
// one argument, and with what by its environment (Open Cluster Framework, Resource
// Agent API 1.1).
type agent struct {
	name     string // ocf:PROVIDER:KIND
	provider string
	kind     string
	root     string // of all agents
	path     string
	hide     func(string) string
	log      *slog.Logger // what agents print; nil: nowhere
}

// nameOf is how an agent is named: as in crm and pcs.
var nameOf = regexp.MustCompile(`^ocf:([A-Za-z0-9][A-Za-z0-9._-]*):([A-Za-z0-9][A-Za-z0-9._-]*)$`)

// findAgent finds an agent's program.
func findAgent(name, root string) (agent, error) {
	parts := nameOf.FindStringSubmatch(name)
	if parts == nil {
		return agent{}, fmt.Errorf(`%q is not the name of an agent, such as "ocf:heartbeat:IPaddr2"`, name)
	}
	a := agent{name: name, provider: parts[1], kind: parts[2], root: root, hide: func(text string) string { return text }}
	a.path = filepath.Join(root, "resource.d", a.provider, a.kind)
	switch err := agents.CheckProgram(a.path); {
	case errors.Is(err, os.ErrNotExist):
		return agent{}, fmt.Errorf("no %s: install it (Debian: resource-agents; of ocf:pacemaker: pacemaker-resource-agents)", a.path)
	case err != nil:
		return agent{}, err
	}
	return a, nil
}

// The exit codes of agents (Resource Agent API 1.1, exit status). Any other says
// that something went wrong, and not what is.
const (
	codeDone             = 0 // of monitor: running, and not promoted
	codeArgs             = 2
	codePermission       = 4
	codeInstalled        = 5
	codeConfigured       = 6
	codeStopped          = 7
	codePromoted         = 8
	codePromotedFailed   = 9
	codeDegraded         = 190 // running, and likely to fail soon
	codePromotedDegraded = 191
)

// An answer is what a call of an agent came to.
type answer struct {
	code   int
	stdout string
	said   string // why, for people
}

// lasting says that to try again is of no use before somebody has changed
// something.
func (a answer) lasting() bool {
	switch a.code {
	case codeArgs, codePermission, codeInstalled, codeConfigured:
		return true
	}
	return false
}

// err tells that it is not what was hoped for.
func (a answer) err() error {
	words := fmt.Sprintf("exit code %d", a.code)
	switch a.code {
	case codeArgs:
		words += " (wrong arguments)"
	case 3:
		words += " (not implemented)"
	case codePermission:
		words += " (not permitted)"
	case codeInstalled:
		words += " (something is not installed)"
	case codeConfigured:
		words += " (wrong configuration)"
	case codeStopped:
		words += " (not running)"
	}
	if a.said != "" {
		words += ": " + a.said
	}
	return errors.New(words)
}

// reasonPrefix is before the line of standard error that tells why.
const reasonPrefix = "ocf-exit-reason:"

// call runs the agent for one action. The error is that there is no answer. What
// was under way when ctx ends is killed with all of its process group, at once, as
// agents are used to.
func (a agent) call(ctx context.Context, action string, env []string) (answer, error) {
	cmd := sdk.Command(ctx, a.path, action)
	cmd.Dir = "/"
	cmd.Env = append(cmd.Env, env...)
	var left error // of the group, something
	await := cmd.Cancel
	cmd.Cancel = func() error {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if left = await(); errors.Is(left, os.ErrProcessDone) {
			left = nil
		}
		return os.ErrProcessDone // ctx tells why
	}
	code, out, errs, err := agents.Run(cmd)
	said := a.hide(reason(errs, out))
	if a.log != nil && said != "" {
		a.log.Debug("agent says", "agent", a.name, "action", action, "text", said)
	}
	switch {
	case ctx.Err() != nil:
		if err = context.Cause(ctx); left != nil {
			err = fmt.Errorf("%w, and %w", err, left)
		}
		return answer{}, fmt.Errorf("%s: %w", action, err)
	case err != nil && said != "":
		return answer{}, fmt.Errorf("%s: %w: %s", action, err, said)
	case err != nil:
		return answer{}, fmt.Errorf("%s: %w", action, err)
	}
	return answer{code: code, stdout: out, said: said}, nil
}

// maxReason bounds what an agent's words come to in a message, in bytes.
const maxReason = 300

// reason is the last line that is told as one, else the last line of either output.
func reason(errs, out string) string {
	var told, last string
	for line := range strings.Lines(out + "\n" + errs) {
		if line = strings.TrimSpace(strings.ToValidUTF8(line, "?")); line != "" {
			last = line
		}
		if why, ok := strings.CutPrefix(line, reasonPrefix); ok {
			told = strings.TrimSpace(why)
		}
	}
	if told == "" {
		told = last
	}
	return strings.ToValidUTF8(told[:min(len(told), maxReason)], "")
}
