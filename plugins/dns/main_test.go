package main

import (
	"os"
	"path"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// TestMain is the plugin's own main when a host starts this program, and else
// the tests. Its clock is then off by what the last word of HOME says, which is
// one of the few things that a host passes on.
func TestMain(m *testing.M) {
	if os.Getenv("PLUGIN_UNIX_SOCKET_DIR") != "" {
		off, _ := time.ParseDuration(path.Base(os.Getenv("HOME")))
		sdk.Main(plugin(func() time.Time { return time.Now().Add(off) }))
	}
	os.Exit(m.Run())
}
