package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/godbus/dbus/v5"
)

// A Unit is what PID 1 says about a unit.
type Unit struct {
	Name      string
	Load      string // loaded, not-found, masked, …
	Active    string // active, inactive, failed, activating, deactivating, …
	Sub       string
	Job       string // type of the job that it has: start, stop, restart, …; empty when it has none
	Wants     []string
	Requires  []string
	BindsTo   []string
	Upholds   []string
	Triggers  []string // of a timer, path or socket
	PartOfIt  []string // ConsistsOf: they stop with it
	BoundToIt []string // BoundBy: the same, also when it ends by itself
	NeedingIt []string // RequiredBy: they stop with it
}

// Down reports whether nothing of the unit is active, as far as its state tells.
func (u Unit) Down() bool { return u.Active == "inactive" || u.Active == "failed" }

// Stays reports whether the unit is down and nothing is about to start it.
func (u Unit) Stays() bool { return u.Down() && (u.Job == "" || u.Job == "stop") }

// Up reports whether the unit is active.
func (u Unit) Up() bool { return u.Active == "active" || u.Active == "reloading" }

// Unit asks for a unit, which is loaded for that where it is not. One that does
// not exist is inactive, its Load not-found.
func (b *Bus) Unit(ctx context.Context, name string) (Unit, error) {
	for range 20 {
		u, torn, err := b.unit(ctx, name)
		if err != nil || !torn {
			return u, err
		}
	}
	return Unit{Name: name}, fmt.Errorf("look at %s: its jobs end all the time, or are not shown", name)
}

// unit is Unit unless it is torn: the state of before its job has ended would
// pass for one that no job is about to change.
func (b *Bus) unit(ctx context.Context, name string) (u Unit, torn bool, err error) {
	u.Name = name
	l, err := b.open(ctx)
	if err != nil {
		return u, false, fmt.Errorf("look at %s: %w", name, err)
	}
	var all map[string]dbus.Variant
	call := l.call(ctx, pathOf(name), propertiesInterface+".GetAll", unitInterface)
	if err = call.Err; err == nil {
		err = call.Store(&all)
	}
	if err != nil {
		return u, false, fmt.Errorf("look at %s: %w", name, err)
	}
	for property, into := range map[string]any{
		"LoadState": &u.Load, "ActiveState": &u.Active, "SubState": &u.Sub,
		"Wants": &u.Wants, "Requires": &u.Requires, "BindsTo": &u.BindsTo, "Upholds": &u.Upholds,
		"Triggers": &u.Triggers, "ConsistsOf": &u.PartOfIt, "BoundBy": &u.BoundToIt, "RequiredBy": &u.NeedingIt,
	} {
		v, ok := all[property]
		if !ok {
			continue // of a later version
		}
		if err := dbus.Store([]any{v.Value()}, into); err != nil {
			return u, false, fmt.Errorf("look at %s: property %s: %w", name, property, err)
		}
	}
	u.Job, torn, err = l.jobType(ctx, all["Job"])
	if err != nil {
		return u, false, fmt.Errorf("look at the job of %s: %w", name, err)
	}
	return u, torn, nil
}

// pathOf is where a unit is on the bus: bytes that are no letter or digit are
// written as _ and two hex digits, so is a digit at the beginning.
func pathOf(name string) dbus.ObjectPath {
	var b strings.Builder
	for i, c := range []byte(name) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if letter || i > 0 && '0' <= c && c <= '9' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return busPath + "/unit/" + dbus.ObjectPath(b.String())
}

// jobType is the type of the job that a unit's property names; empty when it
// names none, or one that has ended by now.
func (l *line) jobType(ctx context.Context, property dbus.Variant) (kind string, ended bool, err error) {
	var id uint32
	var at dbus.ObjectPath
	if fields, ok := property.Value().([]any); !ok || dbus.Store(fields, &id, &at) != nil || id == 0 {
		return "", false, nil
	}
	is, err := l.property(ctx, at, busName+".Job", "JobType")
	if answer := (dbus.Error{}); errors.As(err, &answer) && !errors.Is(err, ErrNoBus) {
		return "", true, nil
	}
	kind, _ = is.(string)
	return kind, false, err
}

// Processes returns how many processes the control group of a unit has.
func (b *Bus) Processes(ctx context.Context, name string) (int, error) {
	l, err := b.open(ctx)
	if err != nil {
		return 0, fmt.Errorf("count processes of %s: %w", name, err)
	}
	var all [][]any
	call := l.call(ctx, busPath, rootInterface+".GetUnitProcesses", name)
	if err = call.Err; err == nil {
		err = call.Store(&all)
	}
	if err != nil {
		return 0, fmt.Errorf("count processes of %s: %w", name, err)
	}
	return len(all), nil
}

// Booted reports whether PID 1 of this machine is systemd, sd_booted(3).
func Booted() bool {
	i, err := os.Lstat("/run/systemd/system")
	return err == nil && i.IsDir()
}

// OwnUnit is the unit that this process belongs to, such as
// deputy@orders-db.service; empty where it belongs to none, or to a scope.
func OwnUnit() string {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil || !Booted() {
		return ""
	}
	return unitOf(string(text))
}

// unitOf finds the service in the text of a cgroup file, cgroups(7).
func unitOf(text string) string {
	if name := path.Base(groupOf(text)); strings.HasSuffix(name, ".service") {
		return name
	}
	return ""
}

// groupOf finds the control group that systemd gave to the process: that of the
// unified hierarchy or, on a machine without one, of systemd's own.
func groupOf(text string) string {
	group := "/"
	for line := range strings.Lines(text) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		hierarchy, at, _ := strings.Cut(rest, ":")
		if at != "/" && (hierarchy == "" || hierarchy == "name=systemd" && group == "/") {
			group = at
		}
	}
	return group
}

// Reachable reports whether this process may reach PID 1 at all: there is a
// system bus, or this is root.
func Reachable() bool {
	if os.Geteuid() == 0 {
		return true
	}
	_, err := os.Stat("/run/dbus/system_bus_socket")
	return err == nil
}
