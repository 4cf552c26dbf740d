package main

import (
	"strings"
	"testing"

	"github.com/deputy-ha/deputy/sdk/sdktest"
)

func TestSettings(t *testing.T) {
	t.Parallel()
	h := sdktest.Own(t)
	key := m{"name": "deputy", "secret": secret}
	base := func(more m) m {
		c := m{"zone": zone, "server": "192.0.2.53", "tsig": key, "records": []any{m{"name": "db." + zone}}}
		for k, v := range more {
			if c[k] = v; v == nil {
				delete(c, k)
			}
		}
		return c
	}
	records := func(all ...any) m { return base(m{"records": all}) }
	for _, c := range []struct {
		name   string
		config m
		want   string // empty when it is right; else part of what is wrong
	}{
		{"the least", base(nil), ""},
		{"everything", base(m{
			"server": "[2001:db8::53]:5353", "ttl": "0s", "owner": "_ha.example.test.", "on_demote": "delete", "verify": []string{"ns1.example.org", "192.0.2.54:53"},
			"verify_timeout": "10ms", "on_unverified": "fail", "notify": true, "timeout": "10ms",
			"tsig": m{"name": "K.example.", "algorithm": "hmac-sha512", "secret": secret},
			"records": []any{
				m{"name": "DB.Example.Test."},
				m{"name": "db." + zone, "type": "AAAA", "value": "2001:db8::1"},
				m{"name": "db." + zone, "value": "192.0.2.1"},
				m{"name": "www." + zone, "type": "CNAME", "value": "{node}.example.org"},
				m{"name": "_db._tcp." + zone, "type": "SRV", "value": "{node}.example.org", "port": 1, "priority": 1, "weight": 1},
			},
		}), ""},

		{"no zone", base(m{"zone": nil}), "zone: is missing"},
		{"no server", base(m{"server": nil}), "server: is missing"},
		{"no key", base(m{"tsig": nil}), "tsig: is missing"},
		{"no records", base(m{"records": []any{}}), "records: is empty"},
		{"a name that is none", base(m{"zone": "exa mple"}), `zone: "exa mple": must be a whole name such as db.example.com`},
		{"the root", base(m{"zone": "."}), "must be a whole name such as db.example.com"},
		{"a label too long", base(m{"zone": strings.Repeat("a", 64) + ".test"}), "must be a whole name such as db.example.com"},
		{"a server that is none", base(m{"server": "192.0.2.53:dns"}), `server: "192.0.2.53:dns": must be an address or a name, with or without a port`},
		{"a port that is none", base(m{"verify": []string{"192.0.2.53:0"}}), `verify[0]: "192.0.2.53:0": must be an address or a name`},
		{"a weak algorithm", base(m{"tsig": m{"name": "k", "secret": secret, "algorithm": "hmac-md5"}}), "tsig.algorithm: "},
		{"no base64", base(m{"tsig": m{"name": "k", "secret": "not base64!"}}), "tsig.secret: is not base64"},
		{"a short secret", base(m{"tsig": m{"name": "k", "secret": "c2hvcnQ="}}), "tsig.secret: is of 5 bytes, and 16 is the least"},
		{"half a second", base(m{"ttl": "1500ms"}), "ttl: 1.5s is not in whole seconds"},
		{"an owner elsewhere", base(m{"owner": "_deputy.example.org"}), "owner: _deputy.example.org. is not in the zone example.test."},
		{"a name elsewhere", records(m{"name": "db.example.org"}), "records[0].name: db.example.org. is not in the zone example.test.; write the whole name"},
		{"a short name", records(m{"name": "db"}), "records[0].name: db. is not in the zone example.test.; write the whole name"},
		{"another type", records(m{"name": "db." + zone, "type": "MX"}), "records[0].type: "},
		{"A with IPv6", records(m{"name": "db." + zone, "value": "2001:db8::1"}), `records[0].value: "2001:db8::1" is no address for an A record`},
		{"AAAA with IPv4", records(m{"name": "db." + zone, "type": "AAAA", "value": "192.0.2.1"}), "is no address for an AAAA record"},
		{"A with a name", records(m{"name": "db." + zone, "value": "a.example.test"}), "is no address for an A record; write one, or auto for this node's"},
		{"a CNAME to auto", records(m{"name": "db." + zone, "type": "CNAME"}), "records[0].value: must be the name of a host"},
		{"an SRV without port", records(m{"name": "_db._tcp." + zone, "type": "SRV", "value": "a.example.test"}), "records[0].port: is missing"},
		{"an A with port", records(m{"name": "db." + zone, "port": 1}), "are for SRV records"},
		{"twice", records(m{"name": "db." + zone}, m{"name": "DB." + zone}), "records[1]: is there twice"},
		{"a CNAME beside another", records(m{"name": "db." + zone}, m{"name": "db." + zone, "type": "CNAME", "value": "a.test"}), "records[1].type: db.example.test. has a CNAME"},
		{"the zone a CNAME", records(m{"name": zone, "type": "CNAME", "value": "a.test"}), "the zone's own name cannot be a CNAME"},
		{"the owner at a CNAME", base(m{"owner": "www." + zone, "records": []any{m{"name": "www." + zone, "type": "CNAME", "value": "a.test"}}}), "owner: www.example.test. has a CNAME"},
	} {
		err := h.Validate(t.Context(), setup("a", c.config))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: got %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		case err != nil && strings.Contains(err.Error(), "c2hvcnQ"):
			t.Errorf("%s: it tells the secret: %v", c.name, err)
		}
	}
}

// README.md has each setting, with its default, as the schema has it.
func TestReadmeHasTheSettings(t *testing.T) {
	t.Parallel()
	d, err := sdktest.Own(t).Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d.ForcedBound != forcedBound {
		t.Errorf("it promises to demote within %s, want %s", d.ForcedBound, forcedBound)
	}
	sdktest.Readme(t, readme, d.Schema)
}

// What is written into an owner record is what is read of it.
func TestOwner(t *testing.T) {
	for _, o := range []owner{{term: 1, node: "a", service: "orders"}, {service: "orders"}, {term: 18446744073709551615, node: "a-1.x_y", service: "s", left: 7}} {
		got, err := ownerOf(o.texts())
		if err != nil || got != o {
			t.Errorf("%s is read as %s, %v", o, got, err)
		}
	}
	for _, bad := range [][]string{nil, {"v=spf1 -all"}, {"term=x", "node=a", "service=s"}, {"term=1", "node=a"}, {"node=a", "term=1", "service=s"}, {"term=1", "node=a", "service=s", "more=1"}, {"term=01", "node=a", "service=s"}} {
		if o, err := ownerOf(bad); err == nil {
			t.Errorf("%q is read as %s", bad, o)
		}
	}
}
