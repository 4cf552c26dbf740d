package supervisor

import (
	"math/rand/v2"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A Service is the definition of one service: one file, one election. What
// supervisor/config returns is valid.
type Service struct {
	Name            string
	Description     string
	TTL             time.Duration
	Priority        int  // higher is preferred; 0 never leads
	Preempt         bool // a fit node of higher priority takes the role back
	OnDemoteFailure DemoteFailure
	OnUnclean       Unclean
	OnBehind        OnBehind
	User            string
	Parts           []Part // promoted in this order, demoted in reverse
	File            string
	Hash            string // of the definition's meaning, not of its spelling
}

// A Part is one ordered part of a service and the policy of its plugin.
type Part struct {
	Use     string // which plugin
	Name    string // unique in the service; Use where not given
	Promote ActPolicy
	Demote  ActPolicy
	Fence   ActPolicy
	Check   CheckPolicy
	Config  map[string]any // the plugin's own settings
}

// An ActPolicy bounds a promotion, a fence or a planned demotion. A forced one
// has what is left of the lease.
type ActPolicy struct {
	Timeout time.Duration
	Retries int // further attempts after the first
}

// Longest is how long all attempts take together at most, with the waits in
// between left out.
func (a ActPolicy) Longest() time.Duration { return a.Timeout * time.Duration(1+a.Retries) }

// A CheckPolicy tells how a part is checked and what counts.
type CheckPolicy struct {
	Interval     time.Duration
	FastInterval time.Duration // between answers that are on the way to another verdict; zero: Interval
	Jitter       int           // percent of the interval by which each comes earlier or later, at random
	Timeout      time.Duration
	Fall         int // failures in a row that make it unfit
	Rise         int // successes in a row that make it fit again
	On           On
	Severity     Severity
	StartGrace   time.Duration // failures do not count so long after the role began, until a first success
}

// Pause is how long after an answer the next is asked for, within the jitter.
// Turning says that the answers are on the way to another verdict.
func (c CheckPolicy) Pause(turning bool) time.Duration {
	if turning && c.FastInterval > 0 {
		return c.FastInterval
	}
	return c.Interval
}

// spread returns a pause with the jitter in it.
func (c CheckPolicy) spread(pause time.Duration) time.Duration {
	most := pause * time.Duration(c.Jitter) / 100
	return pause - most + rand.N(2*most+1)
}

// On tells for which role a check counts.
type On string

// The roles that a check can count for. The zero On is OnPrimary for a plugin
// that promotes and OnBoth for one that does not, or whose check is about
// eligibility.
const (
	OnPrimary On = "primary"
	OnStandby On = "standby"
	OnBoth    On = "both"
)

// A Severity tells what a check that fails costs.
type Severity string

// The severities of a check. The zero Severity is Critical.
const (
	Critical    Severity = "critical"    // a primary leaves its role, and nobody unfit takes it
	Eligibility Severity = "eligibility" // nobody unfit takes the role; who has it keeps it
	Warning     Severity = "warning"     // it is only told
)

// A DemoteFailure tells what to do about a part that cannot be demoted.
type DemoteFailure string

// The policies for a failed demotion.
const (
	Block  DemoteFailure = "block"  // keep the role so that nobody else starts
	Reboot DemoteFailure = "reboot" // force this node down
)

// An Unclean tells what a winner does when the previous primary did not resign.
type Unclean string

// The policies for an unclean loss.
const (
	UncleanWait  Unclean = "wait"  // the lease and its fences are enough
	UncleanFence Unclean = "fence" // make sure of the old primary's node first
)

// An OnBehind tells whether a candidate may lead that lacks data another has.
type OnBehind string

// The policies for a candidate that is behind.
const (
	BehindRefuse  OnBehind = "refuse"
	BehindPromote OnBehind = "promote"
)

// A Node is this machine as its members present it.
type Node struct {
	Name    string `json:"node"`
	Address string `json:"address,omitempty"`
	Boot    string `json:"boot"`    // boot id
	Machine string `json:"machine"` // machine id
	Version string `json:"version"` // of deputy
}

// Peer returns the node as others reach it.
func (n Node) Peer() sdk.Peer { return sdk.Peer{Node: n.Name, Address: n.Address} }
