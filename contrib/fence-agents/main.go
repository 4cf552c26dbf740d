// Fence is the plugin of deputy that turns off the node of a primary that was
// lost, by any agent of the fence-agents family.
//
// What it guarantees: a fence is done only once the agent, asked again after the
// deed, says that the node is off. What it does not: that the agent tells the
// truth, and is asked about the right machine. README.md tells its limits.
package main

import (
	_ "embed"
	"strings"

	"github.com/deputy-ha/deputy/sdk"
)

var version string // set by the linker

//go:embed README.md
var readme string

func plugin() sdk.Plugin {
	return sdk.New("fence", newFencer, sdk.Version(version), sdk.Doc(strings.TrimPrefix(readme, "# fence\n\n")))
}

func main() { sdk.Main(plugin()) }
