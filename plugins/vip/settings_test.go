package main

import (
	"os"
	"strings"
	"testing"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/sdktest"
)

func TestSettings(t *testing.T) {
	n := node{t: t, name: "a", service: "orders", part: "vip", hosted: sdktest.Own(t)}
	type m = map[string]any
	for _, c := range []struct {
		name   string
		config m
		want   string // empty when it is right; else the key and part of what is wrong
	}{
		{"one address", m{"address": "192.0.2.10", "interface": "eth0"}, ""},
		{"one address with a length", m{"address": "192.0.2.10/24", "interface": "eth0"}, ""},
		{"one of several", m{"addresses": []string{"2001:db8::10/64"}, "interface": "eth0"}, ""},
		{"label", m{"address": "192.0.2.10", "interface": "eth0", "label": "eth0:ha"}, ""},
		{"everything", m{
			"addresses": []string{"192.0.2.10", "2001:db8::10"}, "interface": "bond0.100", "deprecated": false, "guard": false, "kill_connections": false,
			"announce": m{"count": 0, "interval": "1s", "repeat": []string{}}, "probe": m{"count": 0, "interval": "20ms", "on_conflict": "force"},
		}, ""},

		{"nothing", m{}, "interface: is missing"},
		{"no address", m{"interface": "eth0"}, "address: is missing"},
		{"both forms", m{"address": "192.0.2.10", "addresses": []string{"192.0.2.11"}, "interface": "eth0"}, "addresses: is given besides address"},
		{"no address at all", m{"address": "primary", "interface": "eth0"}, "must be an IP address"},
		{"a length too long", m{"address": "192.0.2.10/33", "interface": "eth0"}, "must be an IP address"},
		{"twice", m{"addresses": []string{"192.0.2.10", "192.0.2.10/24"}, "interface": "eth0"}, "addresses[1]: 192.0.2.10 is given twice"},
		{"loopback", m{"address": "::1", "interface": "lo"}, "address: ::1 is no address that a host can have for others"},
		{"multicast", m{"address": "224.0.0.18", "interface": "eth0"}, "address: 224.0.0.18 is no address"},
		{"everybody", m{"address": "255.255.255.255", "interface": "eth0"}, "address: 255.255.255.255 is no address"},
		{"unspecified", m{"addresses": []string{"0.0.0.0"}, "interface": "eth0"}, "addresses[0]: 0.0.0.0 is no address"},
		{"IPv4 in IPv6", m{"address": "::ffff:192.0.2.10", "interface": "eth0"}, "address: ::ffff:192.0.2.10 is an IPv4 address in IPv6 clothes: write 192.0.2.10"},
		{"zone", m{"address": "fe80::1%eth0", "interface": "eth0"}, "must be an IP address"},
		{"interface", m{"address": "192.0.2.10", "interface": "a name that is too long"}, "interface: "},
		{"path", m{"address": "192.0.2.10", "interface": "../eth0"}, "interface: "},
		{"label of another interface", m{"address": "192.0.2.10", "interface": "eth0", "label": "eth1:ha"}, "label: \"eth1:ha\" must begin with eth0"},
		{"label for IPv6", m{"address": "2001:db8::10", "interface": "eth0", "label": "eth0:ha"}, "label: is for IPv4"},
		{"policy", m{"address": "192.0.2.10", "interface": "eth0", "probe": m{"on_conflict": "ignore"}}, "probe.on_conflict: "},
		{"interval", m{"address": "192.0.2.10", "interface": "eth0", "announce": m{"interval": "1ms"}}, "announce.interval: "},
	} {
		err := n.hosted.Validate(t.Context(), n.setup(c.config))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: got %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// README.md has each setting, with its default, as the schema has it.
func TestReadmeHasTheSettings(t *testing.T) {
	d, err := sdktest.Own(t).Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d.ForcedBound != forcedBound {
		t.Errorf("it promises to demote within %s, want %s", d.ForcedBound, forcedBound)
	}
	sdktest.Readme(t, readme, d.Schema)
}

// Without the rights a plugin says which one is missing, and where it comes
// from.
func TestMissingRights(t *testing.T) {
	netlab.Require(t)
	if _, err := os.Stat("/usr/bin/setpriv"); err != nil {
		t.Skip("this needs setpriv, to give rights away")
	}
	l := netlab.New(t)
	h := l.Host("192.0.2.11/24", "2001:db8::11/64")
	for lacks, keep := range map[string]string{"CAP_NET_ADMIN": "-net_admin", "CAP_NET_RAW": "-net_raw"} {
		t.Run(lacks, func(t *testing.T) {
			exe, err := os.Readlink("/proc/self/exe")
			if err != nil {
				t.Fatal(err)
			}
			script := t.TempDir() + "/plugin"
			if err := os.WriteFile(script, []byte("#!/bin/sh\nexec setpriv --bounding-set="+keep+" --inh-caps="+keep+" "+exe+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			n := &node{Host: h, t: t, name: "a", service: "orders", part: "vip", term: 1}
			h.Must(func() (err error) {
				n.hosted, err = sdktest.Binary(script).Open(t.Context())
				return err
			})
			defer n.kill()
			n.configure(both())
			n.check(sdk.RoleStandby, false, lacks+" is missing: give the service user = \"root\"")
			if r := n.do(n.transition(sdk.Promote)); r.Outcome != sdk.OutcomeUnchanged || !strings.Contains(r.Detail, lacks) {
				t.Errorf("promote: got %+v", r)
			}
			n.owns(false)
		})
	}
}
