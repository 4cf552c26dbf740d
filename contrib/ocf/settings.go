package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/contrib/agents"
	"github.com/deputy-ha/deputy/sdk"
)

// settings are what one may write.
type settings struct {
	Agent      string            `toml:"agent" doc:"the agent, as crm and pcs name it: ocf:heartbeat:IPaddr2" required:"true"`
	Parameters map[string]string `toml:"parameters" doc:"the agent's parameters: texts by name, or { credential = ... }" sensitive:"true"`
	Kind       string            `toml:"kind" doc:"simple: promote starts it and demote stops it; promotable: it runs on every node, and is promoted on one; auto: promotable if its metadata has the actions promote and demote" default:"auto" enum:"auto|simple|promotable"`
	Level      int               `toml:"check_level" doc:"OCF_CHECK_LEVEL of the checks of a primary; which there are, the agent's metadata tells by depth" default:"0" min:"0" max:"100"`
	Without    []string          `toml:"without" doc:"what the agent wants of a Pacemaker cluster and shall do without, once you know that it can: notify, or a tool such as crm_resource, which then fails"`
	Root       string            `toml:"root" doc:"the folder of all agents, OCF_ROOT" default:"/usr/lib/ocf"`
}

// aboutTime is how long an agent may take to tell about itself, and to judge its
// parameters. Some load an interpreter for it.
const aboutTime = 3 * time.Second

// parameterName is what can be part of a variable's name in every shell.
var parameterName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Validate tells what is wrong with the whole, as the agent itself knows its
// parameters.
func (s *settings) Validate() error {
	wrong := s.texts()
	a, err := s.find()
	if err != nil {
		return errors.Join(append(wrong, err)...)
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), aboutTime, fmt.Errorf("no answer within %s", aboutTime))
	defer cancel()
	about, err := a.metadata(ctx)
	if err != nil {
		return errors.Join(append(wrong, &sdk.KeyError{Key: "agent", Err: err})...)
	}
	if wrong = append(wrong, s.judge(a, about)...); len(wrong) == 0 {
		wrong = append(wrong, s.ask(ctx, a, about))
	}
	return errors.Join(wrong...)
}

// find finds the agent.
func (s *settings) find() (agent, error) {
	a, err := findAgent(s.Agent, s.Root)
	if err != nil {
		return agent{}, &sdk.KeyError{Key: "agent", Err: err}
	}
	a.hide = agents.Hider(s.Parameters)
	return a, nil
}

// texts finds parameters that cannot be handed over by an environment.
func (s *settings) texts() (wrong []error) {
	for _, name := range slices.Sorted(maps.Keys(s.Parameters)) {
		switch key := "parameters." + name; {
		case !parameterName.MatchString(name):
			wrong = append(wrong, &sdk.KeyError{Key: key, Err: fmt.Errorf("%q cannot be the name of a parameter", name)})
		case strings.HasPrefix(name, "CRM_meta_") || name == "crm_feature_set":
			wrong = append(wrong, &sdk.KeyError{Key: key, Err: errors.New("is for deputy to say; remove it")})
		case strings.ContainsRune(s.Parameters[name], 0):
			wrong = append(wrong, &sdk.KeyError{Key: key, Err: errors.New("has a NUL byte in it; programs cannot be given that")})
		}
	}
	return wrong
}

// judge holds the settings against what the agent says of itself.
func (s *settings) judge(a agent, about metadata) (wrong []error) {
	add := func(key, format string, args ...any) {
		wrong = append(wrong, &sdk.KeyError{Key: key, Err: fmt.Errorf(format, args...)})
	}
	known := about.names()
	for _, name := range slices.Sorted(maps.Keys(s.Parameters)) {
		if !slices.Contains(known, name) {
			add("parameters."+name, "%s has no such parameter; there are %s", s.Agent, strings.Join(known, ", "))
		}
	}
	for _, name := range about.required() {
		if s.Parameters[name] == "" {
			add("parameters."+name, "is missing, and %s requires it", s.Agent)
		}
	}
	if s.Kind == "promotable" && !(about.can("promote") && about.can("demote")) {
		add("kind", "%s has no actions promote and demote, so it can only be simple", s.Agent)
	}
	if why := needs[a.kind]; why != "" {
		add("agent", "%s needs a Pacemaker cluster: %s", s.Agent, why)
		return wrong
	}
	wants, err := a.wants(about)
	if err != nil {
		add("agent", "look at it: %w", err)
	}
	for _, what := range slices.Sorted(maps.Keys(wants)) {
		if !slices.Contains(s.Without, what) {
			add("agent", `%s needs a Pacemaker cluster: %s. If you know that it can do without, say so by without = [%q]`, s.Agent, wants[what], what)
		}
	}
	for i, what := range s.Without {
		if _, ok := wants[what]; !ok {
			add(fmt.Sprintf("without[%d]", i), "%s does not use %q", s.Agent, what)
		}
	}
	return wrong
}

// ask has the agent judge its parameters. What only is not well on this node just
// now is no mistake in them.
func (s *settings) ask(ctx context.Context, a agent, about metadata) error {
	if !about.can("validate-all") {
		return nil
	}
	r := resource{settings: *s, agent: a, about: about, host: sdk.Host{Service: "validate", Part: a.kind}}
	answer, err := a.call(ctx, "validate-all", r.environ("validate-all", aboutTime, 0))
	if err == nil && (answer.code == codeArgs || answer.code == codeConfigured) {
		return &sdk.KeyError{Key: "parameters", Err: fmt.Errorf("%s does not like them: %w", s.Agent, answer.err())}
	}
	return nil
}

// promotable says which of the two kinds it is.
func (s *settings) promotable(about metadata) bool {
	return s.Kind == "promotable" || s.Kind == "auto" && about.can("promote") && about.can("demote")
}
