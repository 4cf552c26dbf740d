package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/deputy-ha/deputy/sdk"
)

// settings are what one may write.
type settings struct {
	Zone          domain        `toml:"zone" doc:"the zone that the names are in, as its name server has it" required:"true"`
	Server        endpoint      `toml:"server" doc:"the zone's primary name server, which takes the updates: an address or a name, with a port unless it is 53" required:"true"`
	TSIG          tsig          `toml:"tsig" doc:"the key that questions and updates are signed with" required:"true"`
	Records       []record      `toml:"records" doc:"what points to the primary; all of it changes at once" required:"true"`
	TTL           time.Duration `toml:"ttl" doc:"how long resolvers may keep the records; many keep them for 5s at least" default:"10s" min:"0s" max:"24h"`
	Owner         domain        `toml:"owner" doc:"the name of the owner record; without it _deputy. and the name of the first record"`
	OnDemote      string        `toml:"on_demote" doc:"keep: the records stay until the next primary replaces them; delete: they go when this node leaves the role" default:"keep" enum:"keep|delete"`
	Verify        []endpoint    `toml:"verify" doc:"the name servers that have to serve the records; without it all that the zone names (NS), at the port of server"`
	VerifyTimeout time.Duration `toml:"verify_timeout" doc:"how long they have for it" default:"2s" min:"10ms" max:"1m"`
	OnUnverified  string        `toml:"on_unverified" doc:"when one of them does not serve the records by then: warn, or fail the promotion; server itself always has to" default:"warn" enum:"warn|fail"`
	Notify        bool          `toml:"notify" doc:"tell the other servers of a change at once (NOTIFY, signed with the key), for a primary that takes its time to; they have to allow it" default:"false"`
	Timeout       time.Duration `toml:"timeout" doc:"how long a name server may take for one answer" default:"1s" min:"10ms" max:"30s"`
}

// A record is one that points to the primary.
type record struct {
	Name     domain `toml:"name" doc:"the whole name, such as db.example.com" required:"true"`
	Type     string `toml:"type" doc:"what it is" default:"A" enum:"A|AAAA|CNAME|SRV"`
	Value    string `toml:"value" doc:"A and AAAA: an address, or auto for this node's; CNAME and SRV: the name of the host, in which {node} is this node's name" default:"auto"`
	Port     uint16 `toml:"port" doc:"of an SRV record"`
	Priority uint16 `toml:"priority" doc:"of an SRV record" default:"0"`
	Weight   uint16 `toml:"weight" doc:"of an SRV record" default:"0"`
}

// A tsig is a key shared with the name server.
type tsig struct {
	Name      domain `toml:"name" doc:"the key's name, as the name server has it" required:"true"`
	Algorithm string `toml:"algorithm" doc:"how it signs" default:"hmac-sha256" enum:"hmac-sha256|hmac-sha384|hmac-sha512"`
	Secret    string `toml:"secret" doc:"the key itself, in base64 as tsig-keygen and keymgr write it" required:"true" sensitive:"true"`
}

// A domain is a name with a dot at its end, in small letters.
type domain string

// UnmarshalText reads a whole name; a dot at its end changes nothing.
func (d *domain) UnmarshalText(text []byte) error {
	name, err := nameOf(string(text))
	*d = domain(name)
	return err
}

// nameOf reads a name of letters, digits, dashes and underscores (RFC 1123, 2.1;
// RFC 2782).
func nameOf(s string) (string, error) {
	bad := strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	})
	if _, ok := dns.IsDomainName(s); !ok || bad || strings.Trim(s, ".") == "" {
		return "", errors.New("must be a whole name such as db.example.com")
	}
	return dns.CanonicalName(s), nil
}

// An endpoint is where a name server is: a host and a port.
type endpoint string

// UnmarshalText reads a host, with a port unless that is 53.
func (e *endpoint) UnmarshalText(text []byte) error {
	const want = "must be an address or a name, with or without a port, such as 192.0.2.53, [2001:db8::53]:5353 or ns1.example.com"
	host, port, err := net.SplitHostPort(string(text))
	if err != nil {
		host, port = string(text), "53"
	}
	if _, err := netip.ParseAddr(host); err != nil {
		if _, err := nameOf(host); err != nil {
			return errors.New(want)
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errors.New(want)
	}
	*e = endpoint(net.JoinHostPort(host, port))
	return nil
}

// port is that of the endpoint.
func (e endpoint) port() string {
	_, port, _ := net.SplitHostPort(string(e))
	return port
}

// shortestSecret is what a secret has to have at least: half of what the
// weakest algorithm makes of it (RFC 8945, 10).
const shortestSecret = 16

// Validate tells what is wrong with a key.
func (k *tsig) Validate() error {
	switch raw, err := base64.StdEncoding.DecodeString(k.Secret); {
	case err != nil:
		return &sdk.KeyError{Key: "secret", Err: errors.New("is not base64; take the text between the quotes of what tsig-keygen or keymgr wrote")}
	case len(raw) < shortestSecret:
		return &sdk.KeyError{Key: "secret", Err: fmt.Errorf("is of %d bytes, and %d is the least: make one by tsig-keygen", len(raw), shortestSecret)}
	}
	return nil
}

// Validate tells what is wrong with a record.
func (r *record) Validate() error {
	var wrong []error
	mistake := func(key, format string, args ...any) {
		wrong = append(wrong, &sdk.KeyError{Key: key, Err: fmt.Errorf(format, args...)})
	}
	switch r.Type {
	case "A", "AAAA":
		if a, err := netip.ParseAddr(r.Value); r.Value != "auto" && (err != nil || !fits(r.Type, a)) {
			mistake("value", "%q is no address for an %s record; write one, or auto for this node's", r.Value, r.Type)
		}
	case "CNAME", "SRV":
		if r.Value == "auto" {
			mistake("value", `must be the name of a host, such as "{node}.example.com"; auto is for addresses`)
		} else if _, err := nameOf(strings.ReplaceAll(r.Value, "{node}", "node")); err != nil {
			mistake("value", "%q: %w", r.Value, err)
		}
	}
	switch {
	case r.Type == "SRV" && r.Port == 0:
		mistake("port", "is missing; an SRV record tells at which port the service is")
	case r.Type != "SRV" && (r.Port != 0 || r.Priority != 0 || r.Weight != 0):
		mistake("port", "port, priority and weight are for SRV records")
	}
	return errors.Join(wrong...)
}

// fits reports whether an address is one for records of the type.
func fits(kind string, a netip.Addr) bool {
	return a.Zone() == "" && (kind == "A" && a.Is4() || kind == "AAAA" && a.Is6() && !a.Is4In6())
}

// Validate tells what is wrong with the whole.
func (s *settings) Validate() error {
	var wrong []error
	mistake := func(key, format string, args ...any) {
		wrong = append(wrong, &sdk.KeyError{Key: key, Err: fmt.Errorf(format, args...)})
	}
	if s.TTL%time.Second != 0 {
		mistake("ttl", "%s is not in whole seconds, as DNS counts", s.TTL)
	}
	types := map[domain]string{}
	seen := map[record]bool{}
	for i, r := range s.Records {
		key := fmt.Sprintf("records[%d]", i)
		switch {
		case !dns.IsSubDomain(string(s.Zone), string(r.Name)):
			mistake(key+".name", "%s is not in the zone %s; write the whole name", r.Name, s.Zone)
		case seen[r]:
			mistake(key, "is there twice")
		case types[r.Name] == "CNAME" || types[r.Name] != "" && r.Type == "CNAME":
			mistake(key+".type", "%s has a CNAME, which allows no other record at its name (RFC 1034, 3.6.2)", r.Name)
		case r.Type == "CNAME" && r.Name == s.Zone:
			mistake(key+".type", "the zone's own name cannot be a CNAME (RFC 1912, 2.4)")
		}
		seen[r], types[r.Name] = true, r.Type
	}
	owner := s.owner()
	switch kind, used := types[owner]; {
	case s.Owner != "" && !dns.IsSubDomain(string(s.Zone), string(owner)):
		mistake("owner", "%s is not in the zone %s; write the whole name", owner, s.Zone)
	case used && kind == "CNAME":
		mistake("owner", "%s has a CNAME, which allows no other record at its name", owner)
	}
	if _, ok := dns.IsDomainName(string(owner)); !ok {
		mistake("owner", "%s is longer than a name may be: set one that is shorter", owner)
	}
	return errors.Join(wrong...)
}

// owner is the name of the owner record.
func (s *settings) owner() domain {
	if s.Owner != "" {
		return s.Owner
	}
	return "_deputy." + s.Records[0].Name
}
