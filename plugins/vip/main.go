// Vip is the plugin of deputy that gives the primary its addresses.
//
// What it guarantees: an address answers only here and only while the lease
// holds, because the kernel itself drops all traffic to and from it, ARP and
// neighbour discovery included, from the instant on until which the plugin was
// told that the lease holds. It reports what it has read back from the kernel.
//
// What it does not: that peers or switches learn at once where the address is
// if they ignore announcements. README.md tells its limits.
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
	return sdk.New("vip", newVIP, sdk.Version(version), sdk.Doc(strings.TrimPrefix(readme, "# vip\n\n")), sdk.ForcedBound(forcedBound))
}

func main() { sdk.Main(plugin()) }
