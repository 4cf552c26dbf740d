// Dns is the plugin of deputy that has names of a zone point to the primary, by
// signed dynamic updates (RFC 2136, RFC 8945).
//
// What it guarantees: all records change in one message or none does, and the
// name server itself refuses the message of a primary whose term is over,
// because an owner record holds the term. What it reports as published it has
// read back from the name server, and it tells which other servers of the zone
// do not serve it yet.
//
// What it does not: that clients stop using what they know. Answers live in
// caches, connections live on, and nothing expires by itself when a node is
// frozen: a name is no fence. Pair it with vip or guard. README.md tells its
// limits.
package main

import (
	"context"
	_ "embed"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

var version string // set by the linker

//go:embed README.md
var readme string

// forcedBound is what a forced demotion takes at most, tidyingBound what it
// gives the name server of that. Measured on two cores that others use, too:
// see README.md.
const (
	forcedBound  = 300 * time.Millisecond
	tidyingBound = 250 * time.Millisecond
)

// plugin signs with the clock given.
func plugin(now func() time.Time) sdk.Plugin {
	return sdk.New("dns", func(_ context.Context, s settings, h sdk.Host) (*publisher, error) {
		return &publisher{settings: s, service: h.Service, node: h.Node, log: h.Log, now: now}, nil
	}, sdk.Version(version), sdk.Doc(strings.TrimPrefix(readme, "# dns\n\n")), sdk.ForcedBound(forcedBound))
}

func main() { sdk.Main(plugin(time.Now)) }
