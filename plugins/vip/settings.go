package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
)

// settings are what one may write.
type settings struct {
	Address         place            `toml:"address" doc:"the address that moves, such as 192.0.2.10 or 2001:db8::10; without a length it is /32 or /128"`
	Addresses       []place          `toml:"addresses" doc:"the addresses that move, when there are several"`
	Interface       string           `toml:"interface" doc:"the network interface that they are added to, by its name or an alternative name (altname)" required:"true"`
	Label           string           `toml:"label" doc:"a label for IPv4 addresses, beginning with the interface's name, such as eth0:ha"`
	Deprecated      bool             `toml:"deprecated" doc:"the host does not choose the address as the source of connections of its own" default:"true"`
	Guard           bool             `toml:"guard" doc:"the kernel silences the address when the lease is not renewed; without it a frozen node keeps its address" default:"true"`
	MonitorLink     bool             `toml:"monitor_link" doc:"a node whose interface is down, or has no carrier, is not fit" default:"true"`
	KillConnections bool             `toml:"kill_connections" doc:"a demotion ends the TCP connections of the address, so that clients connect anew at once" default:"true"`
	Announce        announceSettings `toml:"announce" doc:"how neighbours are told where the address is now: gratuitous ARP, unsolicited neighbour advertisements"`
	Probe           probeSettings    `toml:"probe" doc:"how another host that has the address is looked for, before a failover alone"`
}

type announceSettings struct {
	Count    int             `toml:"count" doc:"announcements in a row; 0: none, as for addresses that a routing daemon announces" default:"5" min:"0" max:"100"`
	Interval time.Duration   `toml:"interval" doc:"between them" default:"200ms" min:"10ms" max:"10s"`
	Repeat   []time.Duration `toml:"repeat" doc:"further ones, this long after the promotion" default:"1s,5s" min:"0s" max:"1h"`
	Refresh  time.Duration   `toml:"refresh" doc:"and one each time, after those, for as long as the role lasts; 0s: none" default:"60s" min:"0s" max:"24h"`
}

type probeSettings struct {
	Count      int           `toml:"count" doc:"how often one asks for the address; 0: never" default:"3" min:"0" max:"20"`
	Interval   time.Duration `toml:"interval" doc:"how long one waits for an answer each time" default:"20ms" min:"10ms" max:"10s"`
	OnConflict string        `toml:"on_conflict" doc:"when another host answers: fail the promotion, wait until it does so no more, or force: take the address all the same" default:"fail" enum:"fail|wait|force"`
}

// A place is an address and the length of its prefix.
type place struct{ netip.Prefix }

// UnmarshalText reads an address with or without a length.
func (p *place) UnmarshalText(text []byte) error {
	s := string(text)
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" { // the interface is a setting of its own
			return errors.New("must be an IP address such as 192.0.2.10 or 2001:db8::10/64")
		}
		p.Prefix = netip.PrefixFrom(a, a.BitLen())
		return nil
	}
	var err error
	if p.Prefix, err = netip.ParsePrefix(s); err != nil {
		return errors.New("must be an IP address such as 192.0.2.10 or 2001:db8::10/64")
	}
	return nil
}

// Validate tells what is wrong with the whole.
func (s *settings) Validate() error {
	var wrong []error
	mistake := func(key, format string, args ...any) {
		wrong = append(wrong, &sdk.KeyError{Key: key, Err: fmt.Errorf(format, args...)})
	}
	switch {
	case s.Address.IsValid() && len(s.Addresses) > 0:
		mistake("addresses", "is given besides address: write them all here, or only that one there")
	case !s.Address.IsValid() && len(s.Addresses) == 0:
		mistake("address", "is missing, and it is required: the address that moves; several go to addresses")
	}
	v4 := false
	for i, p := range s.places() {
		key := "address"
		if len(s.Addresses) > 0 {
			key = fmt.Sprintf("addresses[%d]", i)
		}
		switch a := p.Addr(); {
		case a.Is4In6():
			mistake(key, "%s is an IPv4 address in IPv6 clothes: write %s", a, a.Unmap())
		case a.IsUnspecified(), a.IsMulticast(), a.IsLoopback(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			mistake(key, "%s is no address that a host can have for others", a)
		case p.Bits() == 0:
			mistake(key, "%s: a prefix of length 0 is no address", p)
		}
		if slices.ContainsFunc(s.places()[:i], func(other netip.Prefix) bool { return other.Addr() == p.Addr() }) {
			mistake(key, "%s is given twice", p.Addr())
		}
		v4 = v4 || p.Addr().Is4()
	}
	if err := interfaceName(s.Interface); err != nil {
		mistake("interface", "%w", err)
	}
	switch {
	case s.Label == "":
	case !v4:
		mistake("label", "is for IPv4 addresses, and there is none")
	case len(s.Label) >= unix.IFNAMSIZ || !strings.HasPrefix(s.Label, s.Interface):
		mistake("label", "%q must begin with %s and have no more than 15 characters", s.Label, s.Interface)
	}
	return errors.Join(wrong...)
}

// interfaceName tells what is wrong with the name of an interface, as Linux
// has it (dev_valid_name); alternative names are longer (ALTIFNAMSIZ).
func interfaceName(name string) error {
	if len(name) > 127 || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n\v\f\r") {
		return fmt.Errorf("%q cannot be the name of an interface", name)
	}
	return nil
}

// places are all addresses, however they were given.
func (s *settings) places() []netip.Prefix {
	if s.Address.IsValid() {
		return []netip.Prefix{s.Address.Prefix}
	}
	all := make([]netip.Prefix, 0, len(s.Addresses))
	for _, p := range s.Addresses {
		all = append(all, p.Prefix)
	}
	return all
}

func (s *settings) addrs() []netip.Addr {
	var all []netip.Addr
	for _, p := range s.places() {
		all = append(all, p.Addr())
	}
	return all
}
