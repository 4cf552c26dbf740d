package main

import (
	"os"
	"testing"
)

// TestMain is the plugin's own main when a host starts this program, and else
// the tests.
func TestMain(m *testing.M) {
	if os.Getenv("PLUGIN_UNIX_SOCKET_DIR") != "" {
		main()
	}
	code := m.Run()
	os.RemoveAll(templates())
	os.Exit(code)
}
