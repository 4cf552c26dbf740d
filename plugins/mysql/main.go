// Mysql is the plugin of deputy that makes the MariaDB or MySQL server of a node
// primary or read-only.
//
// What it guarantees: a demotion has been done once the server itself says that
// it is read-only, no statement of this plugin is left that could change that,
// and no connection that may be ended is left with a write; or once no process
// of its unit is left. A promotion loses no transaction that was received,
// unless it is told to. Transactions that the primary does not have are never
// papered over. What it does not: keep accounts that read_only does not bind
// from writing. README.md tells its limits.
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

// forcedBound is the least that a forced demotion needs: half of it is for the
// server to obey, the rest for the end of one that does not. It fits a ttl of
// 3 s, which leaves 450 ms.
const forcedBound = 400 * time.Millisecond

func plugin() sdk.Plugin {
	return sdk.New("mysql", newMySQL, sdk.Version(version), sdk.Doc(strings.TrimPrefix(readme, "# mysql\n\n")), sdk.ForcedBound(forcedBound))
}

func main() { sdk.Main(plugin()) }
