package sdk

import (
	"fmt"
	"os"

	wire "github.com/deputy-ha/deputy/sdk/proto"
)

// Main is the main function of a plugin's binary: it serves the plugin to the
// supervisor that started it, and never returns. Run by hand it answers
// questions; see --help.
func Main(p Plugin) {
	if os.Getenv(wire.CookieKey) == wire.CookieValue {
		os.Exit(hosted(p))
	}
	fmt.Fprintf(os.Stderr, "%s is a plugin of deputy\n", p.name)
	os.Exit(64)
}
