package main

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/sdktest"
)

// The contract of all plugins, judged by what a real name server serves: with
// records that are deleted when the role is left, as the suite can see those.
func TestConformance(t *testing.T) {
	t.Parallel()
	conform(t, newLab(t, brands()[0]), m{"on_demote": "delete"}, true)
}

// The same with records that stay, as is the default. Nobody can tell by them
// who is primary.
func TestConformanceKeep(t *testing.T) {
	t.Parallel()
	conform(t, newLab(t, brands()[1]), nil, false)
}

func conform(t *testing.T, l *lab, with m, visible bool) {
	c := sdktest.Config{Settings: l.config(with), Node: sdk.Peer{Node: "sdktest", Address: node4}}
	if visible {
		c.Promoted = func() (bool, error) {
			x, err := l.look(l.primary, "db."+zone, dns.TypeA)
			return err == nil && x.values() == node4, err
		}
	}
	sdktest.Run(t, sdktest.Binary(sdktest.Build(t, ".")), c)
}
