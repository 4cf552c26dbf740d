package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/deputy-ha/deputy/sdk"
)

// A set is all records of one type at one name: what DNS keeps, answers and
// replaces as one (RFC 2181, 5).
type set struct {
	name    string
	kind    uint16 // dns.TypeA and its like
	ttl     uint32 // seconds
	records []dns.RR
}

// setsOf is what the records are when a node is primary.
func (s *settings) setsOf(p sdk.Peer) ([]set, error) {
	all := s.empty()
	for _, r := range s.Records {
		i := slices.IndexFunc(all, func(x set) bool { return x.name == string(r.Name) && x.kind == dns.StringToType[r.Type] })
		rr, err := r.on(p, dns.RR_Header{Name: all[i].name, Rrtype: all[i].kind, Class: dns.ClassINET, Ttl: all[i].ttl})
		if err != nil {
			return nil, fmt.Errorf("record %s %s: %w", r.Name, r.Type, err)
		}
		if !slices.ContainsFunc(all[i].records, func(other dns.RR) bool { return dns.IsDuplicate(rr, other) }) {
			all[i].records = append(all[i].records, rr)
		}
	}
	return all, nil
}

// empty are the sets without their records.
func (s *settings) empty() []set {
	var all []set
	for _, r := range s.Records {
		x := set{name: string(r.Name), kind: dns.StringToType[r.Type], ttl: uint32(s.TTL.Seconds())}
		if !slices.ContainsFunc(all, func(other set) bool { return other.name == x.name && other.kind == x.kind }) {
			all = append(all, x)
		}
	}
	return all
}

// on is the record when a node is primary.
func (r *record) on(p sdk.Peer, h dns.RR_Header) (dns.RR, error) {
	switch r.Type {
	case "CNAME", "SRV":
		target, err := nameOf(strings.ReplaceAll(r.Value, "{node}", p.Node))
		if err != nil {
			return nil, fmt.Errorf("the node's name %q does not go into %q: %w", p.Node, r.Value, err)
		}
		if r.Type == "CNAME" {
			return &dns.CNAME{Hdr: h, Target: target}, nil
		}
		return &dns.SRV{Hdr: h, Priority: r.Priority, Weight: r.Weight, Port: r.Port, Target: target}, nil
	}
	value := r.Value
	if value == "auto" {
		value = p.Address
	}
	a, err := netip.ParseAddr(value)
	switch {
	case err != nil && value == "":
		return nil, fmt.Errorf("it is not known which address this node has: set value, or address in the node's file")
	case err != nil || !fits(r.Type, a):
		return nil, fmt.Errorf("this node's address %s is none for it: set value, or address in the node's file", value)
	case r.Type == "A":
		return &dns.A{Hdr: h, A: a.AsSlice()}, nil
	}
	return &dns.AAAA{Hdr: h, AAAA: a.AsSlice()}, nil
}

// values are the records' data, in order.
func (x set) values() string {
	if len(x.records) == 0 {
		return "nothing"
	}
	var all []string
	for _, rr := range x.records {
		all = append(all, strings.ToLower(strings.TrimPrefix(rr.String(), rr.Header().String())))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// String is the set as people write it.
func (x set) String() string {
	return fmt.Sprintf("%s %s %s", x.name, dns.TypeToString[x.kind], x.values())
}

// lacks tells what is wrong with a set that is served instead, or nothing. How
// long it lives counts where the updates go; elsewhere its age may show.
func (x set) lacks(served set, withTTL bool) string {
	switch {
	case x.values() != served.values():
		return fmt.Sprintf("%s %s is %s there, not %s", x.name, dns.TypeToString[x.kind], served.values(), x.values())
	case withTTL && len(x.records) > 0 && x.ttl != served.ttl:
		return fmt.Sprintf("%s %s has a ttl of %d s there, not %d s", x.name, dns.TypeToString[x.kind], served.ttl, x.ttl)
	}
	return ""
}

// setOf picks a set out of an answer.
func setOf(name string, kind uint16, answer []dns.RR) set {
	x := set{name: name, kind: kind}
	for _, rr := range answer {
		if h := rr.Header(); h.Rrtype == kind && dns.CanonicalName(h.Name) == name {
			x.records, x.ttl = append(x.records, rr), h.Ttl
		}
	}
	return x
}

// list names sets for people.
func list(sets []set) string {
	var all []string
	for _, x := range sets {
		all = append(all, x.String())
	}
	return strings.Join(all, "; ")
}
