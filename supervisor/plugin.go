package supervisor

import (
	"context"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A Plugin is one part of a service in a process of its own, as the role
// machine sees it. Its methods may be called at the same time; each returns
// soon after its context ends, whatever the process does.
type Plugin interface {
	// Describe tells what the plugin is; it never blocks.
	Describe() Description
	// Do runs one act to its end. At the deadline, or when ctx ends, the
	// process is told to end and soon after killed with all it started; the
	// outcome of an act cut short is Unknown. Progress, where given, is told
	// what the plugin says about its act.
	Do(ctx context.Context, t sdk.Transition, progress func(string)) sdk.Result
	// Check asks once whether this node is fit for the role. An error is a
	// check that gave no answer; it counts as not fit.
	Check(ctx context.Context, role sdk.Role, t sdk.Term) (sdk.Health, error)
	// Renew extends whatever expires by itself, never beyond until.
	Renew(ctx context.Context, until sdk.Instant) error
	// Rank compares this node's position with those of others, by node.
	Rank(ctx context.Context, mine string, others map[string]string) (map[string]sdk.Order, error)
	// Kill ends at once, by SIGKILL to the process group, every act that is
	// running, and returns when their processes are gone or ctx ends. The
	// plugin can be called again afterwards, with a fresh process.
	Kill(ctx context.Context) error
}

// A Watcher is a Plugin that says by itself when its health may have changed.
type Watcher interface {
	// Watch calls changed then, which never blocks, until ctx ends, whatever
	// becomes of the process meanwhile. It returns before only when the plugin
	// is closed, or cannot watch.
	Watch(ctx context.Context, changed func()) error
}

// A Description is what a plugin says about itself.
type Description struct {
	Name         string
	Version      string
	Capabilities []sdk.Capability
	ForcedBound  time.Duration // a forced demotion that is given this long is done in that time; zero when it does not say
}

// Can reports whether the plugin can be called for c.
func (d Description) Can(c sdk.Capability) bool {
	for _, have := range d.Capabilities {
		if have == c {
			return true
		}
	}
	return false
}
