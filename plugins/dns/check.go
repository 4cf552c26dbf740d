package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// Check looks whether this node could publish, and whether all servers of the
// zone serve what it has published. A primary stays fit whatever they do: no
// other node would be served better, and its own work goes on.
func (p *publisher) Check(ctx context.Context, role sdk.Role) (sdk.Health, error) {
	if until, ok := ctx.Deadline(); ok { // a late answer would be none
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, time.Until(until)*3/4, errors.New("the check has no more time"))
		defer cancel()
	}
	l := p.primary().line()
	defer l.hangUp()
	holds, err := l.owner(ctx, p.owner())
	if err == nil && holds != nil && holds.service != p.service {
		err = p.ofAnother(holds)
	}
	if role == sdk.RolePrimary {
		return p.checkServed(ctx, l, holds, err), nil
	}
	if err == nil {
		err = p.allowed(ctx, l)
	}
	switch {
	case err != nil:
		return sdk.Health{Detail: "could not publish: " + oneLine(err)}, nil
	case holds == nil || holds.node == "":
		return sdk.Health{Fit: true, Detail: fmt.Sprintf("could publish at %s; nobody has", p.Server)}, nil
	}
	return sdk.Health{Fit: true, Detail: fmt.Sprintf("could publish at %s; %s has in term %d", p.Server, holds.node, holds.term)}, nil
}

// checkServed compares what is served with what this node has published. What
// the owner record holds was read, or err tells why not.
func (p *publisher) checkServed(ctx context.Context, l *line, holds *owner, err error) sdk.Health {
	published := p.published.Load()
	switch {
	case err != nil:
		return warning("not seen what is served: %w", err)
	case published == nil:
		return warning("nothing is published by this process yet")
	case holds == nil:
		return warning("the owner record %s is gone: somebody has removed it; the next promotion makes it anew", p.owner())
	case holds.outranks(published.term, p.node):
		return sdk.Health{Detail: fmt.Sprintf("the owner record %s knows of term %d, published by %s in term %d, and this node has published in term %d", p.owner(), holds.newest(), holds.node, holds.term, published.term)}
	}
	all, err := p.authorities(ctx, l)
	err = errors.Join(err, each(all, func(s server) error {
		l := s.line()
		defer l.hangUp()
		lacks, err := l.lacking(ctx, published.sets, false)
		if err == nil && lacks != "" {
			err = fmt.Errorf("name server %s, zone %s: %s", s.at, s.zone, lacks)
		}
		return err
	}))
	if err != nil {
		return warning("not served everywhere: %w", err)
	}
	return sdk.Health{Fit: true, Detail: fmt.Sprintf("%s, as all servers of the zone serve", list(published.sets))}
}

// ofAnother tells that the names are another service's.
func (p *publisher) ofAnother(o *owner) error {
	return fmt.Errorf("the owner record %s is of service %s: give each service names of its own, or remove that record by nsupdate", p.owner(), o.service)
}

// allowedFor is how long it counts that the key was seen to have its rights:
// name servers log each update that they are asked for.
const allowedFor = 10 * time.Minute

// allowed asks the name server for an update that it cannot do, and so finds
// out whether it would: the owner record is never one of no service. It changes
// nothing.
func (p *publisher) allowed(ctx context.Context, l *line) error {
	if seen := p.rights.Load(); seen != 0 && sdk.Now().Sub(sdk.Instant(seen)) < allowedFor {
		return nil
	}
	err := l.replace(ctx, p.owner(), &owner{}, owner{}, p.empty())
	switch effectOf(err) {
	case changed:
		p.rights.Store(int64(sdk.Now()))
		return nil
	case done:
		return fmt.Errorf("name server %s, zone %s: does not heed prerequisites (RFC 2136, 3.2), so that a stale primary could publish: use another", l.at, l.zone)
	}
	return err
}

// warning is a health that moves no role.
func warning(format string, args ...any) sdk.Health {
	return sdk.Health{Fit: true, Detail: "warning: " + oneLine(fmt.Errorf(format, args...))}
}
