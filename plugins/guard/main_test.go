package main

import (
	"os"
	"testing"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
)

// TestMain is the plugin's own main when a host starts this program, and else
// the tests.
func TestMain(m *testing.M) {
	if os.Getenv("PLUGIN_UNIX_SOCKET_DIR") != "" {
		main()
	}
	netlab.Main(m)
}
