// Http is the plugin of deputy that asks a server by HTTP whether it is well.
//
// What it guarantees: a check passes only on an answer that the settings call
// right, by its status and, where wanted, its body, come within the check's
// timeout over a new connection. What it does not: that the rest of what the
// server does is well, too. README.md tells its limits.
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
	return sdk.New("http", newProbe, sdk.Version(version), sdk.Doc(strings.TrimPrefix(readme, "# http\n\n")))
}

func main() { sdk.Main(plugin()) }
