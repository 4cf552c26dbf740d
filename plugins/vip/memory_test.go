package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/sdktest"
)

// What a process takes once it has been called for a while. Its own memory is
// then twice that of one just started: the runtime keeps lists for each size of
// object, which it fills by collecting, and of which 1.6 MB stay.
func TestMemoryAfterManyCalls(t *testing.T) {
	l := netlab.New(t)
	program := sdktest.Build(t, ".")
	n := &node{Host: l.Host("192.0.2.11/24", "2001:db8::11/64"), t: t, name: "a", service: "orders", part: "vip", term: 1}
	n.Must(func() (err error) {
		n.hosted, err = sdktest.Binary(program).Open(t.Context())
		return err
	})
	defer n.kill()
	n.configure(both())
	rss, own := n.memory()
	t.Logf("configured: %d KiB in memory, %d of them its own", rss, own)
	n.promote(sdk.OutcomeDone)
	rss, own = n.memory()
	t.Logf("promoted: %d KiB in memory, %d of them its own", rss, own)
	for i := range 1000 {
		if i%2 == 0 {
			n.check(sdk.RolePrimary, true, "")
		} else if err := n.renew(time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	rss, own = n.memory()
	t.Logf("after 1000 calls: %d KiB in memory, %d of them its own", rss, own)
	if rss > 20<<10 || own > 6<<10 {
		t.Errorf("after 1000 calls: %d KiB in memory, %d of them its own: more than %d and %d", rss, own, 20<<10, 6<<10)
	}
}

// memory is what the plugin's process has in memory, and what of it is its own
// wherever others run the same program, in KiB, see proc_pid_smaps(5).
func (n *node) memory() (rss, own int) {
	n.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", n.hosted.PIDs()[0]))
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		_, _ = fmt.Sscanf(line, "Rss: %d kB", &rss)
		_, _ = fmt.Sscanf(line, "Anonymous: %d kB", &own)
	}
	if rss == 0 || own == 0 {
		n.t.Fatalf("no memory in:\n%s", text)
	}
	return rss, own
}
