package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// A view is what systemd says of a unit.
type view struct {
	at time.Time // it was read

	// How it is.
	Active, Sub string
	Job         struct {
		ID   uint32
		Path dbus.ObjectPath
	}
	Result     string // of its last run
	Invocation []byte // of its run, which a restart changes
	Group      string // its control group; empty when there is none
	Slice      string
	Freezer    string
	Met        bool // its conditions were, when it was last started
	Conditions []condition

	// How it is defined.
	Load        string
	LoadError   struct{ Name, Message string }
	Kind        string // Type=
	KillMode    string
	SendSIGKILL bool
	Remains     bool // RemainAfterExit=
	NoStart     bool // RefuseManualStart=
	NoStop      bool // RefuseManualStop=
	Old         bool // systemd has not read its files since they were changed
	FileState   string
	TriggeredBy []string
	WantedBy    []string
	RequiredBy  []string
}

// A condition of a unit, see org.freedesktop.systemd1(5).
type condition struct {
	Name      string
	Trigger   bool
	Negate    bool
	Parameter string
	State     int32 // negative: not met
}

// A property is one that is read into something.
type property struct {
	name string
	into any
}

// read are the properties that are read into it.
func (v *view) read() []property {
	return []property{
		{"ActiveState", &v.Active},
		{"SubState", &v.Sub},
		{"Job", &v.Job},
		{"InvocationID", &v.Invocation},
		{"ConditionResult", &v.Met},
		{"Conditions", &v.Conditions},
		{"FreezerState", &v.Freezer},
		{"Result", &v.Result},
		{"ControlGroup", &v.Group},
		{"Slice", &v.Slice},

		{"LoadState", &v.Load},
		{"LoadError", &v.LoadError},
		{"RefuseManualStart", &v.NoStart},
		{"RefuseManualStop", &v.NoStop},
		{"NeedDaemonReload", &v.Old},
		{"UnitFileState", &v.FileState},
		{"TriggeredBy", &v.TriggeredBy},
		{"WantedBy", &v.WantedBy},
		{"RequiredBy", &v.RequiredBy},
		{"Type", &v.Kind},
		{"KillMode", &v.KillMode},
		{"SendSIGKILL", &v.SendSIGKILL},
		{"RemainAfterExit", &v.Remains},
	}
}

// find returns the object of a unit, and has the bus tell of its changes from
// then on.
func (l *link) find(ctx context.Context, unit string) (dbus.ObjectPath, error) {
	l.mu.Lock()
	at, known := l.paths[unit]
	l.mu.Unlock()
	if known {
		return at, nil
	}
	if err := l.pid1().CallWithContext(ctx, pid1+".LoadUnit", 0, unit).Store(&at); err != nil {
		return "", fmt.Errorf("look at %s: %w", unit, l.told(ctx, unit, err))
	}
	if err := l.match(ctx, at, properties, "PropertiesChanged"); err != nil {
		return "", fmt.Errorf("watch %s: %w", unit, l.told(ctx, unit, err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paths[unit] = at
	return at, nil
}

// look returns how a unit is: as it was read before, where systemd would have
// told of a change.
func (l *link) look(ctx context.Context, unit string) (view, error) {
	l.mu.Lock()
	v, known := l.views[l.paths[unit]]
	l.mu.Unlock()
	if known && time.Since(v.at) < viewAge {
		return v, nil
	}
	return l.see(ctx, unit)
}

// see returns how a unit is at this moment. All is read with one call: systemd
// has not loaded a unit that does not run, and would read its files again for
// each.
func (l *link) see(ctx context.Context, unit string) (view, error) {
	at, err := l.find(ctx, unit)
	if err != nil {
		return view{}, err
	}
	l.mu.Lock()
	changes := l.changes
	l.mu.Unlock()
	v := view{at: time.Now()}
	var values map[string]dbus.Variant
	if err := l.conn.Object(pid1Name, at).CallWithContext(ctx, properties+".GetAll", 0, "").Store(&values); err != nil {
		return view{}, fmt.Errorf("look at %s: %w", unit, l.told(ctx, unit, err))
	}
	for _, p := range v.read() {
		value, told := values[p.name]
		if !told {
			return view{}, fmt.Errorf("look at %s: systemd does not tell %s", unit, p.name)
		}
		if err := dbus.Store([]any{value.Value()}, p.into); err != nil {
			return view{}, fmt.Errorf("look at %s: %s: %w", unit, p.name, err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if changes == l.changes {
		l.views[at] = v
	}
	return v, nil
}

// active reports whether the unit runs as it should.
func (v *view) active() bool { return v.Active == "active" || v.Active == "reloading" }

// off reports whether the unit does not run, and nothing is about to start it.
func (v *view) off() bool {
	return (v.Active == "inactive" || v.Active == "failed") && v.Job.ID == 0
}

// empty reports whether a unit that counts as active has no process any more.
func (v *view) empty() bool { return v.Sub == "exited" && v.Kind != "oneshot" }

// how says in what state it is.
func (v *view) how() string {
	how := fmt.Sprintf("%s (%s)", v.Active, v.Sub)
	if v.Result != "" && v.Result != "success" {
		how += ": " + v.Result
	}
	return how
}

// unmet names the conditions that kept the unit from starting, and where they
// come from as far as that is known.
func (v *view) unmet(own string) string {
	var all []string
	for _, c := range v.Conditions {
		if c.State < 0 {
			text := c.Name + "=" + c.Parameter
			if c.Negate {
				text = c.Name + "=!" + c.Parameter
			}
			if c.Name == "ConditionPathExists" && path.Base(c.Parameter) == path.Base(own) && c.Parameter != own {
				text += " of deputy's own drop-in, which is for another run directory or service: run `deputy enable` again"
			}
			all = append(all, text)
		}
	}
	if all == nil {
		return "a condition"
	}
	return strings.Join(all, ", ")
}

// guarded reports whether the unit needs the leave that a file gives.
func (v *view) guarded(file string) bool {
	return slices.ContainsFunc(v.Conditions, func(c condition) bool {
		return c.Name == "ConditionPathExists" && !c.Trigger && !c.Negate && c.Parameter == file
	})
}

// faults tells why a unit cannot be managed: because it cannot be stopped for
// sure, or something else may start it. Nil when it can.
func (s *systemd) faults(unit string, v *view) error {
	var wrong []error
	complain := func(format string, args ...any) {
		wrong = append(wrong, fmt.Errorf(unit+" "+format, args...))
	}
	edit := "systemctl edit " + unit
	switch v.Load {
	case "loaded":
	case "not-found":
		complain("is not installed on this node: systemd finds no such unit")
		return errors.Join(wrong...)
	case "masked":
		complain("is masked: systemctl unmask %s", unit)
		return errors.Join(wrong...)
	default:
		complain("cannot be loaded (%s): %s", v.Load, v.LoadError.Message)
		return errors.Join(wrong...)
	}
	if v.NoStart || v.NoStop {
		complain("refuses to be started or stopped by hand (RefuseManualStart=, RefuseManualStop=): %s", edit)
	}
	if v.KillMode == "none" || v.KillMode == "process" {
		complain("has KillMode=%s, which leaves processes running when it stops: set KillMode=mixed or control-group (%s)", v.KillMode, edit)
	}
	if !v.SendSIGKILL {
		complain("has SendSIGKILL=no, so that it may never end: set SendSIGKILL=yes (%s)", edit)
	}
	if v.Kind == "oneshot" && !v.Remains {
		complain("is Type=oneshot and over once it has run: set RemainAfterExit=yes (%s), or have it done by the plugin exec", edit)
	}
	if s.Guard {
		switch file := s.allowPath(unit); {
		case v.guarded(file):
		case v.Old:
			complain("was changed since systemd read it: systemctl daemon-reload")
		default:
			complain("can be started by others on a standby: `deputy enable %s` writes the drop-in that prevents it (ConditionPathExists=%s)", s.service, file)
		}
		return errors.Join(wrong...)
	}
	cure := "; or let `deputy enable` guard it with guard = true"
	if v.FileState == "enabled" || v.FileState == "enabled-runtime" {
		complain("is enabled, so that the boot starts it on a standby, too: systemctl disable %s%s", unit, cure)
	}
	for _, by := range []struct {
		what  string
		units []string
	}{{"is started by", v.TriggeredBy}, {"is wanted by", v.WantedBy}, {"is required by", v.RequiredBy}} {
		if len(by.units) > 0 {
			complain("%s %s, on a standby, too: end that%s", by.what, strings.Join(by.units, ", "), cure)
		}
	}
	return errors.Join(wrong...)
}
