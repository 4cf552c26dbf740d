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
	published := p.published.Load()
	switch {
	case err != nil && role == sdk.RolePrimary:
		return warning("not seen what is served: %w", err), nil
	case err != nil:
		return sdk.Health{Detail: fmt.Sprintf("could not publish: %s", oneLine(err))}, nil
	case holds != nil && holds.service != p.service:
		return sdk.Health{Fit: role == sdk.RolePrimary, Detail: fmt.Sprintf("the owner record %s is of service %s: give each service names of its own, or remove that record by nsupdate", p.owner(), holds.service)}, nil
	case role != sdk.RolePrimary && !p.allowed(ctx, l, &err):
		return sdk.Health{Detail: fmt.Sprintf("could not publish: %s", oneLine(err))}, nil
	case role != sdk.RolePrimary && holds == nil:
		return sdk.Health{Fit: true, Detail: fmt.Sprintf("%s can be asked; nobody has published", p.Server)}, nil
	case role != sdk.RolePrimary:
		return sdk.Health{Fit: true, Detail: fmt.Sprintf("%s can be asked; %s has published in term %d", p.Server, holds.node, holds.term)}, nil
	case published == nil:
		return warning("nothing is published by this process yet"), nil
	case holds == nil:
		return warning("the owner record %s is gone: somebody has removed it; the next promotion makes it anew", p.owner()), nil
	case holds.outranks(published.term, p.node):
		return sdk.Health{Detail: fmt.Sprintf("the owner record %s knows of term %d, published by %s in term %d, and this node has published in term %d", p.owner(), holds.newest(), holds.node, holds.term, published.term)}, nil
	}
	all, err := p.authorities(ctx, l)
	err = errors.Join(err, p.each(all, func(s server) error {
		l := s.line()
		defer l.hangUp()
		lacks, err := l.lacking(ctx, published.sets, false)
		if err == nil && lacks != "" {
			err = fmt.Errorf("name server %s: %s", s.at, lacks)
		}
		return err
	}))
	if err != nil {
		return warning("not served everywhere: %w", err), nil
	}
	return sdk.Health{Fit: true, Detail: fmt.Sprintf("%s, as all servers of the zone serve", list(published.sets))}, nil
}

// allowedFor is how long it counts that the key was seen to have its rights:
// name servers log each update that they are asked for.
const allowedFor = 10 * time.Minute

// allowed asks the name server for an update that it cannot do, and so finds
// out whether it would: the owner record is never one of no service. It changes
// nothing.
func (p *publisher) allowed(ctx context.Context, l *line, why *error) bool {
	if seen := p.rights.Load(); seen != 0 && sdk.Now().Sub(sdk.Instant(seen)) < allowedFor {
		return true
	}
	if err := l.replace(ctx, p.owner(), &owner{}, owner{}, p.empty()); effectOf(err) != changed {
		*why = err
		if err == nil {
			*why = fmt.Errorf("name server %s, zone %s: does not heed prerequisites (RFC 2136, 3.2): a stale primary could publish; use another", l.at, l.zone)
		}
		return false
	}
	p.rights.Store(int64(sdk.Now()))
	return true
}

// warning is a health that moves no role.
func warning(format string, args ...any) sdk.Health {
	return sdk.Health{Fit: true, Detail: "warning: " + oneLine(fmt.Errorf(format, args...))}
}
