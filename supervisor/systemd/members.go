package systemd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Supervisor is the unit of a service's supervisor.
func Supervisor(service string) string { return "deputy@" + service + ".service" }

// Gate is the unit that lives as long as a service's lease does on this node.
func Gate(service string) string { return "deputy-lease@" + service + ".service" }

// Primary is the target of what runs where a service is primary.
func Primary(service string) string { return "deputy-primary@" + service + ".target" }

// Standby is the target of what runs where a service is standby.
func Standby(service string) string { return "deputy-standby@" + service + ".target" }

// Escalate is the unit that forces this node down for a service.
func Escalate(service string) string { return "deputy-escalate@" + service + ".service" }

// own reports whether a unit is deputy's, not somebody's that belongs to a role.
func (t *Targets) own(name string) bool {
	return slices.Contains([]string{
		Supervisor(t.service), Gate(t.service), Primary(t.service), Standby(t.service), Escalate(t.service),
	}, name)
}

// wanted are the units that a target pulls in.
func (t *Targets) wanted(target Unit) []string {
	all := slices.Concat(target.Requires, target.BindsTo, target.Wants, target.Upholds)
	all = slices.DeleteFunc(all, t.own)
	slices.Sort(all)
	return slices.Compact(all)
}

// maxMembers bounds how many units a role has, should they depend on each other
// without end.
const maxMembers = 256

// errMany is why what belongs to a role cannot be listed, and so not be stopped.
var errMany = errors.New("too many units")

// members are the units that belong to a target or a gate, with what stops along
// with them and what they trigger. The target itself is not among them.
func (t *Targets) members(ctx context.Context, target, gate Unit) ([]string, error) {
	found := slices.Concat(t.wanted(target), along(target), along(gate))
	var members []string
	for len(found) > 0 {
		name := found[0]
		found = found[1:]
		if t.own(name) || slices.Contains(members, name) {
			continue
		}
		if len(members) == maxMembers {
			return nil, fmt.Errorf("list what belongs to %s: %w: more than %d with what stops along with them", target.Name, errMany, maxMembers)
		}
		members = append(members, name)
		u, err := t.bus.Unit(ctx, name)
		if err != nil {
			return nil, err
		}
		found = append(found, along(u)...)
		found = append(found, u.Triggers...)
	}
	return members, nil
}

// Members are the units that belong to the role of a primary, as far as PID 1
// has loaded them.
func (t *Targets) Members(ctx context.Context) ([]string, error) {
	target, gate, err := t.both(ctx, Primary(t.service), Gate(t.service))
	if err != nil {
		return nil, err
	}
	return t.members(ctx, target, gate)
}

// both looks at a target and a gate, at the same time; no name is no gate.
func (t *Targets) both(ctx context.Context, targetName, gateName string) (target, gate Unit, err error) {
	var other error
	var looking sync.WaitGroup
	if gateName != "" {
		looking.Go(func() { gate, other = t.bus.Unit(ctx, gateName) })
	}
	target, err = t.bus.Unit(ctx, targetName)
	looking.Wait()
	return target, gate, errors.Join(err, other)
}

// along are the units that stop along with a unit.
func along(u Unit) []string { return slices.Concat(u.PartOfIt, u.BoundToIt, u.NeedingIt) }

// takeDown stops a target with all that belongs to it, and returns how many
// units were active, once each is seen to be down, without a process left. Kill
// is when those that are not are killed; zero is never. Nobody waits for a target
// that no unit belongs to.
func (t *Targets) takeDown(ctx context.Context, name, gate string, kill time.Duration, progress func(string)) (active int, err error) {
	target, held, err := t.both(ctx, name, gate)
	if err != nil {
		return 0, err
	}
	members, err := t.members(ctx, target, held)
	if err != nil {
		return 0, err
	}
	if len(members) == 0 && gate != "" {
		return 0, nil // it ends with the gate, or when that of a standby starts
	}
	if !target.Stays() {
		active++
		// It takes along what is part of it, which its members cannot know better.
		if err := t.bus.QueueStop(ctx, name); err != nil {
			return active, err
		}
	}
	if len(members) == 0 {
		return active, nil
	}
	w := &wake{t: t, asked: map[string]error{}, down: map[string]time.Time{}}
	if kill > 0 {
		w.kill = time.Now().Add(kill)
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 10*time.Millisecond) {
		left, err := w.round(ctx, append(members, name))
		if wait == time.Millisecond {
			active += len(left)
		}
		switch {
		case err != nil && ctx.Err() == nil:
			return active, err
		case err == nil && len(left) == 0:
			return active, nil
		case len(left) > 0:
			progress("waits for " + strings.Join(left, ", "))
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return active, w.late(ctx, left)
		}
	}
}

// A wake watches units go down.
type wake struct {
	t     *Targets
	kill  time.Time            // from here on they are killed; zero is never
	asked map[string]error     // which were asked to stop, and what came of it
	down  map[string]time.Time // since when those are down that have a process left
	left  []string
}

// leftTime is how long processes of a unit that is down may take to follow it.
// They are those that systemd was told to spare (KillMode=process).
const leftTime = 500 * time.Millisecond

// round looks at each unit once, stops those that nobody stops, and returns
// those that are not down yet.
func (w *wake) round(ctx context.Context, names []string) (left []string, err error) {
	for _, name := range names {
		u, err := w.t.bus.Unit(ctx, name)
		if err != nil {
			return w.left, err
		}
		if u.Stays() {
			n, err := w.remains(ctx, u)
			if err != nil {
				return w.left, err
			}
			if n > 0 {
				left = append(left, fmt.Sprintf("%s (%s, and %d processes left)", name, u.Active, n))
			}
			continue
		}
		left = append(left, fmt.Sprintf("%s (%s)", name, u.Active))
		if _, done := w.asked[name]; !done && u.Active != "deactivating" && u.Job != "stop" {
			err := w.t.bus.QueueStop(ctx, name)
			if errors.Is(err, ErrNoBus) {
				return w.left, err
			}
			w.asked[name] = err
		}
		if !w.kill.IsZero() && time.Now().After(w.kill) {
			w.end(ctx, name)
		}
	}
	w.left = left
	return left, nil
}

// remains counts the processes of a unit that is down, and ends those that stay.
func (w *wake) remains(ctx context.Context, u Unit) (int, error) {
	if strings.HasSuffix(u.Name, ".target") || strings.HasSuffix(u.Name, ".timer") || strings.HasSuffix(u.Name, ".path") {
		return 0, nil
	}
	n, err := w.t.bus.Processes(ctx, u.Name)
	if n == 0 || err != nil {
		if errors.Is(err, ErrNoUnit) {
			err = nil // not loaded any more
		}
		return 0, err
	}
	since, seen := w.down[u.Name]
	switch {
	case !seen:
		w.down[u.Name] = time.Now()
	case time.Since(since) >= leftTime, !w.kill.IsZero() && time.Now().After(w.kill):
		w.end(ctx, u.Name)
	}
	return n, nil
}

// end kills what runs of a unit.
func (w *wake) end(ctx context.Context, name string) {
	if err := w.t.bus.Kill(ctx, name, int32(unix.SIGKILL)); err != nil && w.asked[name] == nil {
		w.asked[name] = err
	}
}

// late tells what is not down, and why if that is known.
func (w *wake) late(ctx context.Context, left []string) error {
	if len(left) == 0 {
		left = w.left
	}
	err := fmt.Errorf("stop %s: %w", strings.Join(left, ", "), context.Cause(ctx))
	for name, refused := range w.asked {
		if refused != nil && slices.ContainsFunc(left, func(s string) bool { return strings.HasPrefix(s, name+" ") }) {
			err = fmt.Errorf("%w: %w", err, refused)
		}
	}
	return err
}

// failed names those of some units that have failed.
func (t *Targets) failed(ctx context.Context, names []string) string {
	var failed []string
	for _, name := range names {
		u, err := t.bus.Unit(ctx, name)
		switch {
		case err != nil:
		case u.Load == "not-found", u.Load == "masked", u.Load == "bad-setting":
			failed = append(failed, fmt.Sprintf("%s (%s)", name, u.Load))
		case u.Active == "failed":
			failed = append(failed, name)
		}
	}
	return strings.Join(failed, ", ")
}
