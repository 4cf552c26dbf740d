// Tcp is the plugin of deputy that asks a server by TCP, or by a unix socket,
// whether it is well.
//
// What it guarantees: with expect, a check passes only once the server itself
// has answered with what was expected, within the check's timeout. What it does
// not: without expect, only the kernel of the server's host has answered, which
// it does for a frozen server as well. README.md tells its limits.
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
	return sdk.New("tcp", newProbe, sdk.Version(version), sdk.Doc(strings.TrimPrefix(readme, "# tcp\n\n")))
}

func main() { sdk.Main(plugin()) }
