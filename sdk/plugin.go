package sdk

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"time"
)

// A Promoter makes its part act as primary.
type Promoter interface {
	// Promote returns nil once the part really serves as primary, as seen by
	// looking. It may be asked again, also by a process that did not promote:
	// when nothing has to be done it returns an error that is ErrAlready, and a
	// supervisor that comes back after a crash keeps the role only then.
	// A plain error is OutcomeUnknown: the part may be primary.
	Promote(ctx context.Context, t *Transition) error
}

// A Demoter makes its part not act as primary.
type Demoter interface {
	// Demote returns nil, or ErrAlready, once the part really does not act as
	// primary, as seen by looking, also when it never did. It is called at
	// every start, and may be asked again. With t.Mode Forced it stops acting
	// as primary by any means before its time is over, and leaves tidying for
	// later. It is never refused for its term.
	Demote(ctx context.Context, t *Transition) error
}

// A Renewer extends what expires by itself.
type Renewer interface {
	// Renew is called after each confirmed renewal of the lease, also while
	// Promote runs. Nothing it extends may last beyond until. What has expired
	// must not come back: Renew then takes it down and returns ErrExpired.
	Renew(ctx context.Context, until Instant) error
}

// A Checker tells whether this node is fit for a role.
type Checker interface {
	// Check only looks, and may run several times at once. An error is a check
	// that gave no answer; it counts as not fit.
	Check(ctx context.Context, role Role) (Health, error)
}

// A Watcher is a Checker that notices by itself when its answer may have
// changed. The supervisor then asks at once, and not at its interval.
type Watcher interface {
	Checker
	// Watch calls changed then, which never blocks, until ctx ends. An error
	// only says why it ended before.
	Watch(ctx context.Context, changed func()) error
}

// A Ranker compares the positions that Check has told.
type Ranker interface {
	// Rank returns how mine compares with each of the others, by node. A node
	// that is left out is Incomparable.
	Rank(ctx context.Context, mine string, others map[string]string) (map[string]Order, error)
}

// A Follower points its part to the primary on another node.
type Follower interface {
	// Follow is called once t.Primary is primary. Where the primary before has left
	// its role by itself, it is called as soon as this part is promoted there.
	Follow(ctx context.Context, t *Transition) error
}

// A Fencer forces another node out of the role.
type Fencer interface {
	// Fence returns nil, or ErrAlready, once the victim is proven to be down, as
	// seen by asking after the deed. It may be asked again, and is never asked
	// for the node that it runs on. The lease is renewed while it lasts.
	Fence(ctx context.Context, victim Peer, t *Transition) error
}

// A Host is what a plugin knows of where it runs.
type Host struct {
	Service string // the service's name
	Node    string // this node's name
	Part    string // the part's name, unique in the service
	// StateDir is a directory of this part's own, for what has to outlast the
	// process and a boot: settings of before, or who promoted last. It is there
	// before New's function is called, 0700, and belongs to the user that the
	// plugin runs as; nobody else writes to it, and it is never emptied, nor by an
	// upgrade. Only where its file system cannot be written it may be missing,
	// which the supervisor's log says: a demotion must not need it. By hand it is
	// what --state-dir says, else a temporary one.
	StateDir string
	// Log goes to the supervisor's log, with levels and attributes; those for
	// service, node and part are there already. It may be used at any time, also
	// after an act.
	Log *slog.Logger

	now func() Instant
}

// Now is the present time on the clock that leases are told by: that of
// Transition.LeaseUntil and Renew's until. Served by a supervisor it is that of
// the function Now; under the fake supervisor of sdk/sdktest it is virtual, which
// the function is not. It may be called at any time.
func (h Host) Now() Instant {
	if h.now == nil {
		return Now()
	}
	return h.now()
}

// A Plugin is what Main serves. New makes one.
type Plugin struct {
	name         string
	version      string
	doc          string
	forcedBound  time.Duration
	capabilities []Capability
	settings     *settings
	make         func(ctx context.Context, config reflect.Value, h Host) (any, error)
}

// An Option tells more of a plugin.
type Option func(*Plugin)

// Version tells the plugin's version.
func Version(v string) Option { return func(p *Plugin) { p.version = v } }

// Doc tells people what the plugin does, in Markdown; its first line is a
// summary.
func Doc(text string) Option { return func(p *Plugin) { p.doc = text } }

// ForcedBound promises that a forced demotion that is given this long is done in
// that time; given more, it may take more. A service whose ttl leaves less is
// refused with the smallest ttl that works.
func ForcedBound(d time.Duration) Option { return func(p *Plugin) { p.forcedBound = d } }

// New returns a plugin. The struct C is its settings: the schema, its
// documentation and its validation in one (see README.md of this package). The
// methods of I are what the plugin can be called for: any of Promoter,
// Demoter, Renewer, Checker, Watcher, Ranker, Follower and Fencer. For each set of
// settings f returns the I to be called from then on, or tells what is wrong
// with them, with a KeyError where it is one setting's; it changes nothing in
// the world. ctx ends when that I is not called any more. An I that is an
// io.Closer is closed then.
//
// New panics if C is no struct of settings, or if I can promote but not demote.
func New[C, I any](name string, f func(ctx context.Context, c C, h Host) (I, error), options ...Option) Plugin {
	settings, err := settingsOf(reflect.TypeFor[C]())
	p := Plugin{name: name, settings: settings, capabilities: capabilitiesOf(reflect.TypeFor[I]())}
	for _, o := range options {
		o(&p)
	}
	p.make = func(ctx context.Context, config reflect.Value, h Host) (any, error) {
		return f(ctx, config.Interface().(C), h)
	}
	switch {
	case err != nil:
		panic(fmt.Sprintf("plugin %s: settings: %v", name, err))
	case len(p.capabilities) == 0:
		panic(fmt.Sprintf("plugin %s: %s has none of the methods that a plugin is called for", name, reflect.TypeFor[I]()))
	case p.can(CanPromote) && !p.can(CanDemote):
		panic(fmt.Sprintf("plugin %s: %s can promote but not demote: what is promoted must be able to leave the role", name, reflect.TypeFor[I]()))
	}
	return p
}

func (p Plugin) can(c Capability) bool { return slices.Contains(p.capabilities, c) }

// capabilitiesOf reads off a type what it can be called for.
func capabilitiesOf(t reflect.Type) []Capability {
	var all []Capability
	for _, c := range []struct {
		capability Capability
		method     reflect.Type
	}{
		{CanPromote, reflect.TypeFor[Promoter]()},
		{CanDemote, reflect.TypeFor[Demoter]()},
		{CanRenew, reflect.TypeFor[Renewer]()},
		{CanCheck, reflect.TypeFor[Checker]()},
		{CanWatch, reflect.TypeFor[Watcher]()},
		{CanRank, reflect.TypeFor[Ranker]()},
		{CanFollow, reflect.TypeFor[Follower]()},
		{CanFence, reflect.TypeFor[Fencer]()},
	} {
		if t.Implements(c.method) {
			all = append(all, c.capability)
		}
	}
	return all
}
