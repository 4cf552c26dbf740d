// Guard is the plugin of deputy that lets traffic to a service's ports in only
// on the primary.
//
// What it guarantees: from the instant on until which the plugin was told that
// the lease holds, the kernel itself refuses the ports to everybody but those
// who are always let through; so it does on a standby from its first demotion
// on. What it does not: that the ports are closed before that, after a boot.
// README.md tells its limits.
package main

import (
	_ "embed"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

var version string // set by the linker

//go:embed README.md
var readme string

// forcedBound is what a forced demotion takes at most. Measured on two cores
// that others use, too: see README.md.
const forcedBound = 100 * time.Millisecond

func plugin() sdk.Plugin {
	return sdk.New("guard", newGuard, sdk.Version(version), sdk.Doc(strings.TrimPrefix(readme, "# guard\n\n")), sdk.ForcedBound(forcedBound))
}

func main() { sdk.Main(plugin()) }
