// Ocf is the plugin of deputy that runs resource agents by the standard of the
// Open Cluster Framework, as ClusterLabs makes them for Pacemaker.
//
// What it guarantees: the part counts as promoted only once the agent's monitor
// says so after the deed, and as demoted only once stop or demote has gone well
// and monitor agrees. What it does not: that the agent tells the truth, nor
// anything that an agent has the rest of a Pacemaker cluster do, which is why
// agents that need that are refused. README.md tells its limits.
package main

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/deputy-ha/deputy/sdk"
)

var version string // set by the linker

//go:embed README.md
var readme string

func plugin() sdk.Plugin {
	return sdk.New("ocf", newResource, sdk.Version(version), sdk.Doc(strings.TrimPrefix(readme, "# ocf\n\n")))
}

func main() {
	// Agents call this program in place of Pacemaker's tools.
	if name := filepath.Base(os.Args[0]); isTool(name) {
		out, err := answerFor(name, os.Args[1:], os.Getenv)
		fmt.Print(out)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(toolFailed)
		}
		return
	}
	sdk.Main(plugin())
}
