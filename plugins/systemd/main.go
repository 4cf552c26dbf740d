// Systemd is the plugin of deputy that runs systemd's units on the primary and
// nowhere else.
//
// What it guarantees: a unit counts as started once it is active and has stayed
// so, and as stopped once systemd says so and its control group has no process
// left; what it reports it has seen. A unit that cannot be stopped for sure is
// refused before it is started. With the guard nothing but this plugin starts a
// unit, neither an operator nor the boot nor systemd after a crash.
//
// What it does not: that a unit stops when this plugin and its supervisor are
// frozen or dead; the gate (deputy-lease@.service) does that. That processes are
// found which have left the unit's control group. README.md tells its limits.
package main

import (
	"context"
	_ "embed"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

var version string // set by the linker

//go:embed README.md
var readme string

// forcedBound is what a forced demotion takes at most. Measured on two cores
// that others use, too: see README.md.
const forcedBound = 300 * time.Millisecond

// A place is where the plugin finds what it works on.
type place struct {
	buses   []string // addresses of D-Bus, the first that answers counts
	run     string   // the supervisor's run directories
	cgroups string   // where control groups are mounted
}

func onHost() place {
	return place{
		buses:   []string{"unix:path=/run/dbus/system_bus_socket", privateBus},
		run:     "/run/deputy",
		cgroups: "/sys/fs/cgroup",
	}
}

func plugin(at place) sdk.Plugin {
	return sdk.New("systemd", func(_ context.Context, s settings, h sdk.Host) (*systemd, error) {
		return newSystemd(at, s, h), nil
	}, sdk.Version(version), sdk.Doc(strings.TrimPrefix(readme, "# systemd\n\n")), sdk.ForcedBound(forcedBound))
}

func main() { sdk.Main(plugin(onHost())) }
