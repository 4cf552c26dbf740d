package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// errTwin ends a supervisor: two machines of one name take each other for
// themselves.
var errTwin = errors.New("another machine takes part under this node's name")

// leftOver is how long a candidacy may be left over from a machine that has
// just died.
const leftOver = 15 * time.Second

// alone looks whether another machine takes part in the service under this
// node's name, and returns errTwin when one does. What cannot be read in time
// is not known: the start must not wait, so lateAlone looks for it afterwards.
func (t *seat) alone(ctx context.Context, within time.Duration) (known bool, err error) {
	asked, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	s, err := t.e.records.State(asked, t.name)
	if err != nil && !errors.Is(err, supervisor.ErrNoService) {
		return false, nil
	}
	if c := s.Candidate(t.e.here.Name); c != nil && c.Machine != t.e.here.Machine {
		return true, mark(fmt.Errorf("run %s: %w: machine %s at %s is %q as well: give each its own node in %s; if that one was replaced by this, start again in %s",
			t.name, errTwin, c.Machine, c.Address, c.Name, t.e.a.paths.config, leftOver), errConfig)
	}
	return true, nil
}

// lateAlone is alone for a start without etcd: it asks until there is an answer.
func (t *seat) lateAlone(ctx context.Context) error {
	for ctx.Err() == nil {
		if known, err := t.alone(ctx, askTime); known {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}
