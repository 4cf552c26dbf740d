package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A resource is what one agent runs with one set of parameters.
type resource struct {
	settings
	host       sdk.Host
	agent      agent
	about      metadata
	promotable bool
	tools      string // the folder of what stands in for Pacemaker's

	mu     sync.Mutex
	placed bool                // the tools are
	warned map[sdk.Action]bool // that the agent advises more time
}

func newResource(ctx context.Context, s settings, h sdk.Host) (*resource, error) {
	a, err := s.find()
	if err != nil {
		return nil, err
	}
	a.log = h.Log
	about, err := a.metadata(ctx)
	if err != nil {
		return nil, &sdk.KeyError{Key: "agent", Err: err}
	}
	r := &resource{settings: s, host: h, agent: a, about: about, promotable: s.promotable(about), warned: map[sdk.Action]bool{}}
	if h.StateDir != "" {
		r.tools = filepath.Join(h.StateDir, "ocf-tools")
	} else if r.tools, err = os.MkdirTemp("", "ocf-tools-"); err != nil {
		return nil, fmt.Errorf("make the folder of tools: %w", err)
	}
	return r, nil
}

// Close removes what nobody else uses.
func (r *resource) Close() error {
	if r.host.StateDir != "" {
		return nil
	}
	return os.RemoveAll(r.tools)
}

// A state is what monitor says of a resource.
type state int

const (
	unknown state = iota
	stopped
	running  // of a promotable one: and not promoted
	promoted // of a simple one: the same as running
	broken   // promoted, and failed
)

// A sight is what monitor has said, with its words.
type sight struct {
	state state
	words string
}

// primary reports whether a resource in this state acts as primary.
func (r *resource) primary(s state) bool { return s == promoted || s == running && !r.promotable }

// standby reports whether it surely does not.
func (r *resource) standby(s state) bool { return s == stopped || s == running && r.promotable }

// often is the interval that a recurring monitor is told. It matters only in that
// it is not zero, which says that the monitor is a probe: that the resource may
// well not be there.
const often = 10 * time.Second

// look has the agent say what is. As a probe it does not expect the resource to
// be there; what is missing for it to run is then no error.
func (r *resource) look(ctx context.Context, probe bool) (sight, error) {
	interval := often
	if probe {
		interval = 0
	}
	a, err := r.call(ctx, "monitor", interval)
	if err != nil {
		return sight{}, err
	}
	s := sight{}
	switch a.code {
	case codeDone:
		s = sight{running, "running"}
	case codeDegraded:
		s = sight{running, "running, and degraded"}
	case codeStopped:
		return sight{stopped, "not running"}, nil // why would only repeat that
	case codePromoted:
		return sight{promoted, "promoted"}, nil
	case codePromotedDegraded:
		s = sight{promoted, "promoted, and degraded"}
	case codePromotedFailed:
		s = sight{broken, "promoted, and failed"}
	default:
		return sight{}, fmt.Errorf("monitor: %w", a.err())
	}
	if s.state == running && r.promotable {
		s.words += " as a standby"
	}
	if a.code != codeDone && a.said != "" {
		s.words += ": " + a.said
	}
	return s, nil
}

// Promote starts it, and promotes it where that is another thing.
func (r *resource) Promote(ctx context.Context, t *sdk.Transition) error {
	r.advise(t)
	seen, err := r.look(ctx, true)
	switch {
	case err != nil:
		return err
	case r.primary(seen.state):
		return fmt.Errorf("%s is %s: %w", r.Agent, seen.words, sdk.ErrAlready)
	case !r.standby(seen.state):
		return fmt.Errorf("it is %s: only a demotion puts that right", seen.words)
	}
	var actions []string
	if seen.state == stopped {
		actions = append(actions, "start")
	}
	if r.promotable {
		actions = append(actions, "promote")
	}
	for _, action := range actions {
		sdk.Progress(ctx, -1, "%s of %s", action, r.Agent)
		a, err := r.call(ctx, action, 0)
		switch {
		case err != nil:
			return r.unlessSeen(ctx, err, false)
		case a.code != codeDone:
			return r.unlessSeen(ctx, fmt.Errorf("%s: %w", action, a.err()), a.lasting())
		}
	}
	seen, err = r.look(ctx, false)
	switch {
	case err != nil:
		return fmt.Errorf("%s went well, and then %w", strings.Join(actions, " and "), err)
	case !r.primary(seen.state):
		return r.unlessSeen(ctx, fmt.Errorf("%s went well, and monitor does not prove it: it is %s", strings.Join(actions, " and "), seen.words), false)
	}
	sdk.Note(ctx, "%s is %s", r.Agent, seen.words)
	return nil
}

// unlessSeen judges an error of a promotion by looking: what does not act as
// primary has not been promoted.
func (r *resource) unlessSeen(ctx context.Context, err error, lasting bool) error {
	seen, unseen := r.look(ctx, true)
	switch {
	case unseen != nil || !r.standby(seen.state):
		return err
	case lasting:
		return sdk.Refuse(err)
	}
	return sdk.Unchanged(err)
}

// Demote stops it, or demotes it where that is another thing. The action is taken
// even where monitor sees no need: a promotion that was cut short may have left
// what monitor does not look at.
func (r *resource) Demote(ctx context.Context, t *sdk.Transition) error {
	r.advise(t)
	var before sight
	if t.Mode != sdk.Forced { // it would only take time
		before, _ = r.look(ctx, true) // unknown is as good a reason to act
	}
	act := r.stop
	if r.promotable {
		act = r.depose
	}
	if err := act(ctx); err != nil {
		return err
	}
	if r.promotable && t.Mode != sdk.Forced {
		r.keepStandby(ctx)
	}
	if r.standby(before.state) {
		return fmt.Errorf("%s is %s: %w", r.Agent, before.words, sdk.ErrAlready)
	}
	return nil
}

// stop stops it, and returns nil once that has gone well and monitor agrees.
func (r *resource) stop(ctx context.Context) error {
	sdk.Progress(ctx, -1, "stop of %s", r.Agent)
	a, err := r.call(ctx, "stop", 0)
	if err == nil && a.code != codeDone {
		err = fmt.Errorf("stop: %w", a.err())
	}
	seen, unseen := r.look(ctx, true)
	switch {
	case err != nil && unseen != nil:
		return fmt.Errorf("%w; and then %w", err, unseen)
	case err != nil:
		return fmt.Errorf("%w; and then monitor: %s", err, seen.words)
	case unseen != nil:
		return fmt.Errorf("stop went well, and then %w", unseen)
	case seen.state != stopped:
		return fmt.Errorf("stop went well, and monitor does not prove it: it is %s", seen.words)
	}
	sdk.Note(ctx, "%s is %s", r.Agent, seen.words)
	return nil
}

// demoteShare is how much of a demotion's time the action demote may take, so
// that some is left to stop what does not want to be demoted.
const demoteShare = 0.6

// depose demotes it, and stops it where that does not come about.
func (r *resource) depose(ctx context.Context) error {
	sdk.Progress(ctx, -1, "demote of %s", r.Agent)
	err := r.demoteAlone(ctx)
	if err == nil || ctx.Err() != nil {
		return err
	}
	r.host.Log.Warn("it could not be demoted, so it is stopped", "agent", r.Agent, "cause", err)
	if stopErr := r.stop(ctx); stopErr != nil {
		return fmt.Errorf("%w; and %w", err, stopErr)
	}
	sdk.Note(ctx, "%s is stopped, since it could not be demoted: %v", r.Agent, err)
	return nil
}

func (r *resource) demoteAlone(all context.Context) error {
	ctx := all
	if end, ok := all.Deadline(); ok {
		share := time.Duration(demoteShare * float64(time.Until(end)))
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(all, share, fmt.Errorf("not done within %s", share.Round(time.Millisecond)))
		defer cancel()
	}
	a, err := r.call(ctx, "demote", 0)
	switch {
	case err != nil:
		return err
	case a.code != codeDone && a.code != codeStopped: // many say so of what does not run
		return fmt.Errorf("demote: %w", a.err())
	}
	seen, err := r.look(ctx, true)
	switch {
	case err != nil:
		return fmt.Errorf("demote went well, and then %w", err)
	case !r.standby(seen.state):
		return fmt.Errorf("demote went well, and monitor does not prove it: it is %s", seen.words)
	}
	sdk.Note(all, "%s is %s", r.Agent, seen.words)
	return nil
}

// keepStandby starts what is to run on a standby, too. That it cannot is for the
// checks to tell: the demotion is done.
func (r *resource) keepStandby(ctx context.Context) {
	if err := r.startStandby(ctx); err != nil && !errors.Is(err, sdk.ErrAlready) {
		r.host.Log.Warn("demoted, and not started again as a standby", "agent", r.Agent, "cause", err)
	}
}

// startStandby starts it, unless it runs.
func (r *resource) startStandby(ctx context.Context) error {
	seen, err := r.look(ctx, true)
	switch {
	case err != nil:
		return err
	case !r.standby(seen.state):
		return fmt.Errorf("it is %s, and this node is not primary", seen.words)
	case seen.state == running:
		return fmt.Errorf("%s is %s: %w", r.Agent, seen.words, sdk.ErrAlready)
	}
	a, err := r.call(ctx, "start", 0)
	if err == nil && a.code != codeDone {
		err = fmt.Errorf("start: %w", a.err())
	}
	if err != nil {
		return err
	}
	switch seen, err = r.look(ctx, false); {
	case err != nil:
		return fmt.Errorf("start went well, and then %w", err)
	case seen.state != running:
		return fmt.Errorf("start went well, and then it is %s", seen.words)
	}
	sdk.Note(ctx, "%s is %s", r.Agent, seen.words)
	return nil
}

// Follow sees to it that a promotable one runs as a standby.
func (r *resource) Follow(ctx context.Context, _ *sdk.Transition) error {
	if !r.promotable {
		return fmt.Errorf("%s runs on the primary alone: %w", r.Agent, sdk.ErrAlready)
	}
	return r.startStandby(ctx)
}

// Check says what monitor does. What does not run on a standby is started when
// it is promoted, so that is no reason not to be.
func (r *resource) Check(ctx context.Context, role sdk.Role) (sdk.Health, error) {
	primary := role == sdk.RolePrimary
	seen, err := r.look(ctx, !primary)
	if err != nil {
		return sdk.Health{}, err
	}
	h := sdk.Health{Fit: r.standby(seen.state), Detail: seen.words}
	switch {
	case primary:
		h.Fit = r.primary(seen.state)
	case !h.Fit:
		h.Detail += ", and this node is not primary"
	case r.promotable && seen.state == stopped:
		h.Detail = "warning: not running; it is started with the next change of role"
	}
	return h, nil
}

// advise warns, once, that the agent's own advice is to give it more time.
func (r *resource) advise(t *sdk.Transition) {
	actions := []string{"start"}
	switch {
	case t.Action == sdk.Promote && r.promotable:
		actions = []string{"start", "promote"}
	case t.Action == sdk.Demote && r.promotable:
		actions = []string{"demote"}
	case t.Action == sdk.Demote:
		actions = []string{"stop"}
	}
	advised := r.about.advised(actions...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.Mode == sdk.Forced || t.Timeout >= advised || r.warned[t.Action] {
		return
	}
	r.warned[t.Action] = true
	r.host.Log.Warn("the agent advises more time", "agent", r.Agent, "action", string(t.Action), "timeout", t.Timeout, "advised", advised)
}

// call has the agent do one action.
func (r *resource) call(ctx context.Context, action string, interval time.Duration) (answer, error) {
	if err := r.place(); err != nil {
		return answer{}, err
	}
	left := max(r.about.advised(action), time.Second)
	if end, ok := ctx.Deadline(); ok {
		left = max(time.Until(end), time.Millisecond)
	}
	return r.agent.call(ctx, action, r.environ(action, left, interval))
}

// place places the tools before they are needed first.
func (r *resource) place() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.placed {
		return nil
	}
	err := placeTools(r.tools)
	r.placed = err == nil
	return err
}

// usualPath is where agents expect programs, after those of the environment.
const usualPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// features is the version of Pacemaker's feature set that agents are told. From
// 3.10.0 on they write promotion scores by crm_attribute.
const features = "3.10.0"

// environ is what the agent gets for an action, besides this program's own
// environment.
func (r *resource) environ(action string, timeout, interval time.Duration) []string {
	all := map[string]string{
		"OCF_ROOT":                   r.Root,
		"OCF_RA_VERSION_MAJOR":       "1",
		"OCF_RA_VERSION_MINOR":       "1",
		"OCF_RESOURCE_INSTANCE":      r.host.Service + "-" + r.host.Part,
		"OCF_RESOURCE_TYPE":          r.agent.kind,
		"OCF_RESOURCE_PROVIDER":      r.agent.provider,
		"OCF_EXIT_REASON_PREFIX":     reasonPrefix,
		"OCF_CHECK_LEVEL":            "0",
		"HA_SBIN_DIR":                r.tools,
		"HA_LOGFACILITY":             "none",
		"PATH":                       r.tools + ":" + os.Getenv("PATH") + ":" + usualPath,
		"OCF_RESKEY_crm_feature_set": features,
	}
	if action == "monitor" && interval > 0 {
		all["OCF_CHECK_LEVEL"] = strconv.Itoa(r.Level)
	}
	meta := map[string]string{
		"name": action, "interval": millis(interval), "timeout": millis(timeout),
		"on_node": r.host.Node, "on_node_uuid": r.host.Node,
	}
	if r.promotable {
		maps.Copy(meta, map[string]string{
			"promotable": "true", "promoted_max": "1", "promoted_node_max": "1", "master_max": "1", "master_node_max": "1",
			"clone": "0", "clone_max": "2", "clone_node_max": "1", "globally_unique": "false", "notify": "false",
		})
	}
	for name, value := range meta {
		all["OCF_RESKEY_CRM_meta_"+name] = value
	}
	for name, value := range r.Parameters {
		all["OCF_RESKEY_"+name] = value
	}
	var env []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		env = append(env, name+"="+all[name])
	}
	return env
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
