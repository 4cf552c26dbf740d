package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// authorities are the servers that have to serve the records: those of verify,
// or all that the zone names. An error tells of those whose address is not
// known; the others are returned with it.
func (p *publisher) authorities(ctx context.Context, l *line) ([]server, error) {
	if len(p.Verify) > 0 {
		var all []server
		for _, at := range p.Verify {
			all = append(all, p.unsigned(at))
		}
		return all, nil
	}
	zone := string(p.Zone)
	named, err := l.set(ctx, zone, dns.TypeNS)
	if err != nil {
		return nil, fmt.Errorf("ask for the zone's name servers: %w", err)
	}
	var all []server
	var wrong []error
	for _, rr := range named.records {
		name := dns.CanonicalName(rr.(*dns.NS).Ns)
		a, err := p.addressOf(ctx, l, name)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("name server %s: %w: correct the zone, or set verify", name, err))
			continue
		}
		at := endpoint(net.JoinHostPort(a.String(), p.Server.port()))
		if !slices.ContainsFunc(all, func(s server) bool { return s.at == at }) {
			all = append(all, p.unsigned(at))
		}
	}
	return all, errors.Join(wrong...)
}

// addressOf finds out where a name server is: by the zone, or for a name
// outside of it by the host's resolver.
func (p *publisher) addressOf(ctx context.Context, l *line, name string) (netip.Addr, error) {
	if dns.IsSubDomain(string(p.Zone), name) {
		for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
			x, err := l.set(ctx, name, kind)
			if err != nil {
				return netip.Addr{}, err
			}
			if len(x.records) > 0 {
				return netip.ParseAddr(dns.Field(x.records[0], 1))
			}
		}
		return netip.Addr{}, errors.New("has no address")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.Timeout, fmt.Errorf("its address is not known within %s", p.Timeout))
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", strings.TrimSuffix(name, ".")) // with its dot, files are passed by
	if err != nil {
		return netip.Addr{}, causeOf(ctx, err)
	}
	for _, a := range found {
		if a.Unmap().Is4() {
			return a.Unmap(), nil
		}
	}
	return found[0], nil
}

// A zone's other servers need not know the key.
func (p *publisher) unsigned(at endpoint) server {
	return server{at: at, zone: string(p.Zone), timeout: p.Timeout, now: p.now}
}

// Between two looks at a server one waits this long at first, and at most.
const (
	firstLook = 2 * time.Millisecond
	lastLook  = 100 * time.Millisecond
)

// verify waits until all servers of the zone serve the sets. The error names
// each that does not within the time.
func (p *publisher) verify(ctx context.Context, l *line, want []set, within time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %s", within))
	defer cancel()
	all, err := p.authorities(ctx, l)
	return errors.Join(err, each(all, func(s server) error {
		l := s.line()
		defer l.hangUp()
		var unheard error
		for wait := firstLook; ; wait = min(2*wait, lastLook) {
			if wait == firstLook || wait == lastLook { // one that transfers just then may pass it by
				unheard = p.notify(ctx, s)
			}
			lacks, err := l.lacking(ctx, want, false)
			if err == nil && lacks == "" {
				return nil
			}
			select {
			case <-time.After(wait):
				continue
			case <-ctx.Done():
			}
			if err == nil {
				err = fmt.Errorf("name server %s, zone %s: %s: see that it is notified of changes and may transfer the zone", s.at, s.zone, lacks)
			}
			return errors.Join(fmt.Errorf("%w (%w)", err, context.Cause(ctx)), unheard)
		}
	}))
}

// notify tells a server that the zone has changed, where that is wanted. It
// then asks the primary by itself (RFC 1996).
func (p *publisher) notify(ctx context.Context, s server) error {
	if !p.Notify || s.at == p.Server {
		return nil
	}
	s.key = &p.TSIG
	l := s.line()
	defer l.hangUp()
	if _, err := l.ask(ctx, new(dns.Msg).SetNotify(s.zone)); err != nil {
		return fmt.Errorf("notify it: %w", err)
	}
	return nil
}

// each has f look at each of the servers, at once.
func each(all []server, f func(server) error) error {
	errs := make([]error, len(all))
	var looking sync.WaitGroup
	for i, s := range all {
		looking.Go(func() { errs[i] = f(s) })
	}
	looking.Wait()
	return errors.Join(errs...)
}
