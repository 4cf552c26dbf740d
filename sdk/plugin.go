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
	//
	// It is called once this node has won t.Term, part after part, and again when
	// the settings have changed or a switchover is undone. No other act of the plugin
	// runs at the same time; Renew and Check may. ctx ends at t.Timeout, by a demotion
	// (ErrSuperseded), or because the process is to end (ErrDrained); soon after, the
	// process is killed. What begins to serve last has to see before that
	// t.LeaseUntil, or what Renew has told since, is not over.
	Promote(ctx context.Context, t *Transition) error
}

// A Demoter makes its part not act as primary.
type Demoter interface {
	// Demote returns nil, or ErrAlready, once the part really does not act as
	// primary, as seen by looking, also when it never did. It is called at
	// every start, and may be asked again. With t.Mode Forced it stops acting
	// as primary by any means before its time is over, and leaves tidying for
	// later. It is never refused for its term.
	//
	// Any error says that the part may be primary, or still is: it is asked again, by
	// force in the end, and the node keeps the role for as long as that fails. No
	// other act runs at the same time: those that were asked for before have
	// returned. ctx ends at t.Timeout; of a forced one the process is killed then.
	Demote(ctx context.Context, t *Transition) error
}

// A Renewer extends what expires by itself.
type Renewer interface {
	// Renew is called after each confirmed renewal of the lease, from the beginning
	// of a promote to the end of a demote: each sixth of the service's ttl. Nothing
	// it extends may last beyond until, an instant on the clock of Host.Now, nor may
	// anything be promoted by it. What has expired must not come back: Renew then
	// takes it down and returns ErrExpired, and a primary leaves its role at once.
	// Other errors cost the role when they last for three quarters of the ttl.
	//
	// One renewal at a time is asked for, beside acts and checks. ctx ends after a
	// sixth of the ttl, and a later renewal replaces one that was not delivered.
	Renew(ctx context.Context, until Instant) error
}

// A Checker tells whether this node is fit for a role.
type Checker interface {
	// Check only looks, and may run several times at once, also beside acts. It is
	// asked for RolePrimary of a primary, for RoleStandby or RoleCandidate of the
	// others, for as long as the service's check says. An error is a check that gave
	// no answer; it counts as not fit. ctx ends when that is so: at the check's
	// timeout, 500 ms by default.
	Check(ctx context.Context, role Role) (Health, error)
}

// A Watcher is a Checker that notices by itself when its answer may have
// changed. The supervisor then asks at once, and not at its interval.
type Watcher interface {
	Checker
	// Watch calls changed then, which never blocks and may be called from any
	// goroutine, until ctx ends: with the process, or once other settings are in
	// force. It runs beside everything else, once at a time. Where it returns before,
	// it is called again a little later; an error only says why, for the log.
	Watch(ctx context.Context, changed func()) error
}

// A Ranker compares the positions that Check has told.
type Ranker interface {
	// Rank returns how mine, a position that Check has told here, compares with each
	// of the others, by node. A node that is left out is Incomparable. It is called
	// when the role is vacant, on each candidate, and it delays the next primary: it
	// compares what it is given, and has no need to ask anybody. An error makes all
	// Incomparable. It may run beside checks. ctx ends at the check's timeout.
	Rank(ctx context.Context, mine string, others map[string]string) (map[string]Order, error)
}

// A Follower points its part to the primary on another node.
type Follower interface {
	// Follow returns nil, or ErrAlready, once the part follows t.Primary. It is
	// called on a standby once t.Primary is primary; where the primary before has left
	// its role by itself, as soon as this part is promoted there. It is asked again
	// until that has succeeded or another node is primary, also by a process that
	// has just started. ctx ends at t.Timeout, that of a promote, or when this node is
	// no standby any more. It never promotes.
	Follow(ctx context.Context, t *Transition) error
}

// A Fencer forces another node out of the role.
type Fencer interface {
	// Fence returns nil, or ErrAlready, once the victim is proven to be down, as
	// seen by asking after the deed: then this node promotes. It may be asked again,
	// and is never asked for the node that it runs on. The lease is renewed while it
	// lasts. Any error keeps this node from promoting. victim is t.Primary. ctx ends at
	// t.Timeout.
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

// A Plugin is what Main serves. New makes one; it never changes, so that it may be
// used by any number of goroutines and served any number of times.
type Plugin struct {
	name         string
	version      string
	doc          string
	forcedBound  time.Duration
	capabilities []Capability
	settings     *settings
	make         func(ctx context.Context, config reflect.Value, h Host) (any, error)
}

// An Option tells New more of a plugin.
type Option func(*Plugin)

// Version tells the plugin's version, for people; by default it is that of the
// module that the program is built from.
func Version(v string) Option { return func(p *Plugin) { p.version = v } }

// Doc tells people what the plugin does, in Markdown; its first line is a summary.
// It is shown by --help and by deputy plugin describe.
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
