package main

import (
	"os"
	"testing"

	"github.com/deputy-ha/deputy/sdk"
)

// TestMain is the plugin's own main when a host starts this program, and else
// the tests. The fake host is then below the folder that HOME names, which is
// one of the few things that a host passes on.
func TestMain(m *testing.M) {
	if os.Getenv("PLUGIN_UNIX_SOCKET_DIR") != "" {
		sdk.Main(plugin(placeBelow(os.Getenv("HOME"))))
	}
	os.Exit(m.Run())
}
