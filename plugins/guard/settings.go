package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/plugins/kernelguard"
	"github.com/deputy-ha/deputy/sdk"
)

// settings are what one may write.
type settings struct {
	Ports           []ports `toml:"ports" doc:"what is guarded, such as tcp/3306, udp/53 or tcp/8000-8010: ports of this host, whatever its address" required:"true"`
	Allow           []peers `toml:"allow" doc:"addresses and prefixes that are always let through: replicas, monitoring"`
	Loopback        bool    `toml:"loopback" doc:"this host itself is always let through" default:"true"`
	Action          string  `toml:"action" doc:"what becomes of packets while the guard is closed: reject tells the sender at once (TCP reset, port unreachable), drop tells nothing" default:"reject" enum:"reject|drop"`
	KillConnections bool    `toml:"kill_connections" doc:"a demotion ends the TCP connections to the ports, so that clients connect anew at once" default:"true"`
}

// Ports are read from a text.
type ports struct{ kernelguard.PortRange }

// UnmarshalText reads a protocol and a port or a range of ports.
func (p *ports) UnmarshalText(text []byte) error {
	const want = "must be a protocol and a port or a range of ports, such as tcp/3306, udp/53 or tcp/8000-8010"
	name, numbers, _ := strings.Cut(string(text), "/")
	switch name {
	case "tcp":
		p.Protocol = unix.IPPROTO_TCP
	case "udp":
		p.Protocol = unix.IPPROTO_UDP
	default:
		return errors.New(want)
	}
	first, last, isRange := strings.Cut(numbers, "-")
	if !isRange {
		last = first
	}
	for _, n := range []struct {
		text string
		into *uint16
	}{{first, &p.First}, {last, &p.Last}} {
		port, err := strconv.ParseUint(n.text, 10, 16)
		if err != nil || port == 0 {
			return fmt.Errorf("%s; ports go from 1 to 65535", want)
		}
		*n.into = uint16(port)
	}
	if p.First > p.Last {
		return fmt.Errorf("%s; the range begins after its end", want)
	}
	return nil
}

// Peers are an address or a prefix.
type peers struct{ netip.Prefix }

// UnmarshalText reads an address or a prefix.
func (p *peers) UnmarshalText(text []byte) error {
	s := string(text)
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		p.Prefix = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
		return nil
	}
	var err error
	if p.Prefix, err = netip.ParsePrefix(s); err != nil || p.Addr().Is4In6() {
		return errors.New("must be an address or a prefix such as 192.0.2.12, 192.0.2.0/24 or 2001:db8::/64")
	}
	return nil
}

// Validate tells what is wrong with the whole.
func (s *settings) Validate() error {
	var wrong []error
	for i, p := range s.Allow {
		if p.Masked() != p.Prefix {
			wrong = append(wrong, &sdk.KeyError{Key: fmt.Sprintf("allow[%d]", i), Err: fmt.Errorf("%s has bits beyond its length: write %s for all of it, or %s for the one", p, p.Masked(), p.Addr())})
		}
	}
	return errors.Join(wrong...)
}

// guarded is what the kernel has to know.
func (s *settings) guarded() kernelguard.Ports {
	p := kernelguard.Ports{Loopback: s.Loopback, Reject: s.Action == "reject"}
	for _, r := range s.Ports {
		p.Ranges = append(p.Ranges, r.PortRange)
	}
	for _, a := range s.Allow {
		p.Allow = append(p.Allow, a.Prefix)
	}
	return p
}
