package sdktest

import (
	"context"
	"regexp"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// A Subject is a plugin to be examined.
type Subject interface {
	// Open starts it afresh, as a new supervisor process would, without
	// settings as yet.
	Open(ctx context.Context) (Hosted, error)
}

// A Hosted is a plugin that a host has started. Its methods may be called at
// the same time, and return soon after their context ends, whatever the plugin
// does.
type Hosted interface {
	// Describe asks what the plugin is.
	Describe(ctx context.Context) (wire.Description, error)
	// Validate only judges settings. Mistakes are joined errors, an
	// sdk.KeyError each where it is one setting's.
	Validate(ctx context.Context, s wire.Setup) error
	// Configure puts settings in force, or returns the mistakes in them.
	Configure(ctx context.Context, s wire.Setup) error
	// Do has one act done. Each sign of life, asked for each heartbeat, is told
	// to heard. An act whose result never came is OutcomeUnknown.
	Do(ctx context.Context, t sdk.Transition, heartbeat time.Duration, heard func(progress string)) sdk.Result
	// Check asks once whether this node is fit for the role.
	Check(ctx context.Context, role sdk.Role, t sdk.Term) (sdk.Health, error)
	// Renew extends what expires by itself.
	Renew(ctx context.Context, until sdk.Instant) error
	// Ping asks for a sign of life.
	Ping(ctx context.Context) error
	// PIDs are the processes that stay between calls, the one that serves
	// first. A plugin that has a process for each call alone has none.
	PIDs() []int
	// Orphan has t begun by a host that dies of SIGKILL the given time later,
	// and returns the processes that have to end then. Without an action the
	// plugin is idle when its host dies. Nothing can be called afterwards.
	Orphan(ctx context.Context, t sdk.Transition, after time.Duration) (doomed []int, err error)
	// Kill ends the plugin by SIGKILL, with all that runs for it.
	Kill(ctx context.Context) error
	// Close ends the plugin as a host does that stops. It is an error if it had
	// to be killed.
	Close(ctx context.Context) error
	// Left tells what there still is of a plugin that has ended.
	Left() Left
	// Said is what the plugin printed last, for people.
	Said() string
}

// A Left is what there still is of a plugin that has ended.
type Left struct {
	Processes []int    // that it has started and that live
	Sockets   []string // outside of the folder it was given, or not removed
	Outputs   []int    // processes that keep the plugin's own outputs open
}

// A Config tells how a plugin is examined.
type Config struct {
	// Settings are some that the plugin accepts. The cases promote and demote
	// with them.
	Settings map[string]any
	// Promoted looks at the world, not at the plugin, and reports whether the
	// part acts as primary. Without it the suite has only the plugin's word.
	Promoted func() (bool, error)
	// Expires says that what was promoted ends by itself when the lease does,
	// so that the suite proves it with Promoted.
	Expires bool

	// Victim is a node that may really be fenced, several times; without one a
	// plugin that can fence is only tried on the node that it runs on.
	Victim sdk.Peer

	StateDir string         // for what the plugin wants to keep; a temporary one by default
	Node     sdk.Peer       // this node; sdktest at 127.0.0.1 by default
	Timeout  time.Duration  // for an act; 10 s by default
	Lease    time.Duration  // how long the lease holds from the beginning of each act; a minute by default
	Term     sdk.Term       // the first; seconds since 1970 by default, so that it grows from run to run
	Only     *regexp.Regexp // the names of the cases to run; all by default
}

// A Verdict is what came out of one case.
type Verdict string

// The verdicts.
const (
	Passed  Verdict = "pass" // the rule was kept
	Failed  Verdict = "fail" // it was not
	Skipped Verdict = "skip" // it does not apply, or cannot be tried
)

// A Result tells of one case.
type Result struct {
	Case     string        `json:"case"`           // its name
	Contract string        `json:"contract"`       // the rule that it proves; of a failure the rule that is broken
	Verdict  Verdict       `json:"verdict"`        // what came of it
	Took     time.Duration `json:"took_ns"`        // from its beginning to its verdict
	Note     string        `json:"note,omitempty"` // of a pass: what was measured; of a skip: why
	Did      []string      `json:"did,omitempty"`  // of a failure: what was done, in order, with the time since the first step
	Saw      string        `json:"saw,omitempty"`  // of a failure: what came of it
	Said     string        `json:"said,omitempty"` // of a failure: what the plugin printed last
	Cure     string        `json:"cure,omitempty"` // of a failure: what usually puts it right
}
