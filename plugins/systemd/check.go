package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
)

// Check looks whether the units could run here, and whether they run just when
// they should. A unit that has ended is certain; one that systemd is about to
// start again is given the time that the service's own policy leaves it.
func (s *systemd) Check(ctx context.Context, role sdk.Role) (sdk.Health, error) {
	l, err := s.bus.link(ctx)
	if err != nil {
		return sdk.Health{}, err
	}
	var faults []error
	for _, unit := range s.names() {
		v, err := l.look(ctx, unit)
		if err != nil {
			return sdk.Health{}, err
		}
		if role == sdk.RolePrimary {
			if h := s.serving(unit, &v); !h.Fit {
				return h, nil
			}
			continue
		}
		if v.Active != "inactive" && v.Active != "failed" {
			faults = append(faults, fmt.Errorf("%s is %s although this node is %s: somebody else has started it; deputy stops it when it starts, and before a promotion", unit, v.how(), role))
			continue
		}
		fault := s.faults(unit, &v)
		if fault == nil {
			fault = s.permitted(ctx, l, unit)
		}
		faults = append(faults, fault)
	}
	if err := errors.Join(faults...); err != nil {
		return sdk.Health{Detail: strings.ReplaceAll(err.Error(), "\n", "; ")}, nil
	}
	if role == sdk.RolePrimary {
		return sdk.Health{Fit: true, Detail: s.String() + " active"}, nil
	}
	return sdk.Health{Fit: true, Detail: s.String() + " can be started"}, nil
}

// serving tells whether a unit of the primary does what it is for.
func (s *systemd) serving(unit string, v *view) sdk.Health {
	_, has := s.allowed(unit)
	switch {
	case v.Active == "failed" || v.Active == "inactive" && v.Job.ID == 0:
		return sdk.Health{Detail: fmt.Sprintf("%s is %s; see journalctl -u %s", unit, v.how(), unit), Certain: true}
	case v.empty():
		return sdk.Health{Detail: fmt.Sprintf("%s has no process any more (RemainAfterExit=yes)", unit), Certain: true}
	case !v.active():
		return sdk.Health{Detail: fmt.Sprintf("%s is %s", unit, v.how())}
	case v.Freezer != "" && v.Freezer != "running" && v.Freezer != "thawing":
		return sdk.Health{Detail: fmt.Sprintf("%s is %s: systemctl thaw %s", unit, v.Freezer, unit)}
	case !has:
		return sdk.Health{Detail: fmt.Sprintf("%s runs without leave: somebody has removed %s", unit, s.allowPath(unit))}
	}
	return sdk.Health{Fit: true}
}

// permitted is an error unless deputy may manage a unit that does not run. It
// asks systemd for something that needs the same permission and does nothing:
// to let processes go on that there are not.
func (s *systemd) permitted(ctx context.Context, l *link, unit string) error {
	l.mu.Lock()
	asked := l.permits[unit]
	l.mu.Unlock()
	if asked {
		return nil
	}
	if err := l.kill(ctx, unit, int32(unix.SIGCONT)); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.permits[unit] = true
	return nil
}

// Watch tells whenever systemd tells of a change of the units, and when the
// connection is lost.
func (s *systemd) Watch(ctx context.Context, changed func()) error {
	_, before := s.bus.listen()
	for {
		news, now := s.bus.listen()
		if now != before {
			before = now
			changed()
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
