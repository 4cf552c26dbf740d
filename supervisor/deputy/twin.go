package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// errTwin ends a supervisor: two machines of one name take each other for
// themselves.
var errTwin = errors.New("another machine takes part under this node's name")

// leftOver is how long a candidacy may be left over from a machine that has
// just died.
const leftOver = 15 * time.Second

// alone looks whether another machine takes part in any service under this
// node's name, and returns errTwin when one does. It returns the seats of
// which that could not be read in time: the start must not wait.
func (e *engine) alone(ctx context.Context, seats []*seat) ([]*seat, error) {
	within := time.Second
	names := make([]string, len(seats))
	for i, s := range seats {
		names[i] = s.name
		within = min(within, supervisor.NewTiming(s.ttl).Renew)
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	unknown, faults := make([]*seat, len(seats)), make([]error, len(seats))
	each(names, func(i int, _ string) {
		known, err := e.twin(ctx, names[i])
		if faults[i] = err; !known {
			unknown[i] = seats[i]
		}
	})
	unknown = slices.DeleteFunc(unknown, func(s *seat) bool { return s == nil })
	return unknown, errors.Join(faults...)
}

// lateAlone is alone for a start without etcd: it asks for one seat after the
// other until there is an answer for each.
func (e *engine) lateAlone(ctx context.Context, seats []*seat) error {
	for _, s := range seats {
		for known := false; !known; {
			asked, cancel := context.WithTimeout(ctx, askTime)
			var err error
			known, err = e.twin(asked, s.name)
			cancel()
			switch {
			case err != nil:
				return err
			case ctx.Err() != nil:
				return nil
			}
		}
	}
	return nil
}

// twin reports whether it is known that another machine takes part under this
// node's name; errTwin when it does.
func (e *engine) twin(ctx context.Context, service string) (known bool, err error) {
	s, err := e.records.State(ctx, service)
	if err != nil && !errors.Is(err, supervisor.ErrNoService) {
		return false, nil
	}
	if c := s.Candidate(e.here.Name); c != nil && c.Machine != e.here.Machine {
		return true, mark(fmt.Errorf("run %s: %w: machine %s at %s is %q as well: give each its own node in %s; if that one was replaced by this, start again in %s",
			service, errTwin, c.Machine, c.Address, c.Name, e.a.paths.config, leftOver), errConfig)
	}
	return true, nil
}
