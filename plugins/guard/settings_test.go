package main

import (
	"strings"
	"testing"

	"github.com/deputy-ha/deputy/sdk/sdktest"
)

func TestSettings(t *testing.T) {
	h := sdktest.Own(t)
	type m = map[string]any
	for _, c := range []struct {
		name   string
		config m
		want   string // empty when it is right; else part of what is wrong
	}{
		{"a port", m{"ports": []string{"tcp/3306"}}, ""},
		{"everything", m{
			"ports": []string{"tcp/1-65535", "udp/53"}, "allow": []string{"192.0.2.12", "198.51.100.0/24", "2001:db8::/32", "::1"},
			"loopback": false, "action": "drop", "kill_connections": false,
		}, ""},

		{"nothing", m{}, "ports: is missing"},
		{"no port", m{"ports": []string{}}, "ports: is empty"},
		{"no protocol", m{"ports": []string{"3306"}}, "must be a protocol and a port"},
		{"another protocol", m{"ports": []string{"sctp/3306"}}, "must be a protocol and a port"},
		{"no number", m{"ports": []string{"tcp/mysql"}}, "ports go from 1 to 65535"},
		{"zero", m{"ports": []string{"tcp/0"}}, "ports go from 1 to 65535"},
		{"too high", m{"ports": []string{"tcp/65536"}}, "ports go from 1 to 65535"},
		{"backwards", m{"ports": []string{"tcp/8010-8000"}}, "begins after its end"},
		{"an open range", m{"ports": []string{"tcp/8010-"}}, "ports go from 1 to 65535"},
		{"a name", m{"ports": []string{"tcp/1"}, "allow": []string{"replica"}}, "must be an address or a prefix"},
		{"bits beyond the prefix", m{"ports": []string{"tcp/1"}, "allow": []string{"192.0.2.12/24"}}, "write 192.0.2.0/24 for all of it, or 192.0.2.12 for the one"},
		{"action", m{"ports": []string{"tcp/1"}, "action": "allow"}, "action: "},
	} {
		err := h.Validate(t.Context(), setup(c.config))
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
