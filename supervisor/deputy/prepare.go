package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/systemd"
)

// The users that a supervisor runs as.
const (
	ownUser  = "deputy" // where the definition says nothing; its units are made for it
	rootUser = "root"
)

// A preparation is what `deputy enable` writes for one service, and `deputy
// disable` removes.
type preparation struct {
	root    string // "/", but in tests
	service string
}

// A piece is one file of a preparation.
type piece struct{ path, text string }

const (
	unitDir = "etc/systemd/system"
	ruleDir = "etc/polkit-1/rules.d"
)

// mark is how files that were written for a service begin.
func (p preparation) mark(comment string) string {
	return fmt.Sprintf("%s Written by `deputy enable %s`; `deputy disable %s` removes it.\n", comment, p.service, p.service)
}

// pieces are the files that a service needs. Units are those that its parts
// start and stop, members those that belong to its role target by now.
func (p preparation) pieces(s supervisor.Service, units, members []string) []piece {
	var all []piece
	if text := asUser(s.User); text != "" {
		for _, unit := range []string{systemd.Supervisor(p.service), systemd.Gate(p.service)} {
			all = append(all, piece{filepath.Join(unitDir, unit+".d", "50-deputy.conf"), p.mark("#") + text})
		}
	}
	for _, unit := range units {
		all = append(all, piece{
			filepath.Join(unitDir, unit+".d", "50-deputy-"+p.service+".conf"),
			p.mark("#") +
				"# This unit runs where this node is primary and nowhere else, whoever starts it,\n" +
				"# and no longer than the lease is held, whatever else hangs.\n" +
				"[Unit]\nConditionPathExists=/run/deputy/" + p.service + "/allow-" + unit + "\n" +
				"BindsTo=" + systemd.Gate(p.service) + "\n",
		})
	}
	if rule := p.rule(s.User, units, members); rule != "" {
		all = append(all, piece{filepath.Join(ruleDir, "50-deputy-"+p.service+".rules"), rule})
	}
	return all
}

// asUser is what makes another user of that of the units.
func asUser(name string) string {
	switch name {
	case "", ownUser:
		return ""
	case rootUser:
		// What root's hooks do is not known, so of the confinement only what no
		// administration needs stays.
		return `[Service]
User=root
Group=root
AmbientCapabilities=
CapabilityBoundingSet=~
NoNewPrivileges=no
ProtectSystem=no
ProtectHome=no
PrivateTmp=no
PrivateDevices=no
ProtectKernelTunables=no
ProtectKernelModules=no
ProtectControlGroups=no
ProtectProc=default
RestrictAddressFamilies=
RestrictNamespaces=no
RestrictSUIDSGID=no
MemoryDenyWriteExecute=no
RemoveIPC=no
SystemCallFilter=
`
	}
	return "[Service]\nUser=" + name + "\nGroup=\nSupplementaryGroups=" + ownUser + "\n"
}

// rule permits a user what the service needs of systemd; empty where nothing is
// missing. Whoever is root needs none, and the user deputy has a rule for the
// units of roles.
func (p preparation) rule(name string, units, members []string) string {
	if name == rootUser {
		return ""
	}
	var own []string
	if name == "" {
		name = ownUser
	}
	if name != ownUser {
		own = []string{systemd.Gate(p.service), systemd.Primary(p.service), systemd.Standby(p.service), systemd.Escalate(p.service)}
	}
	members = slices.DeleteFunc(slices.Clone(members), func(m string) bool { return slices.Contains(units, m) })
	if len(own)+len(units)+len(members) == 0 {
		return ""
	}
	list := func(names []string) string {
		slices.Sort(names)
		text, _ := json.Marshal(slices.Compact(append([]string{}, names...))) // strings are always encoded; this is JavaScript, too
		return strings.ReplaceAll(string(text), ",", ", ")
	}
	return p.mark("//") + `polkit.addRule(function(action, subject) {
    var may = {
        start: ` + list(append(slices.Clone(own), units...)) + `,
        stop: ` + list(slices.Concat(own, units, members)) + `
    };
    may["kill"] = may["reset-failed"] = may.stop;
    if (action.id == "org.freedesktop.systemd1.manage-units" && subject.user == ` + quote(name) + ` &&
        (may[action.lookup("verb")] || []).indexOf(action.lookup("unit")) >= 0) {
        return polkit.Result.YES;
    }
    return polkit.Result.NOT_HANDLED;
});
`
}

func quote(s string) string {
	text, _ := json.Marshal(s) // a string is always encoded
	return string(text)
}

// write writes the files, and removes those of before that are not among them.
// It returns what it did. A file of somebody else is left alone, which is an
// error; nothing is written then.
func (p preparation) write(pieces []piece) (did []string, err error) {
	var foreign []error
	for _, f := range pieces {
		if text, err := os.ReadFile(p.at(f.path)); err == nil && string(text) != f.text && !p.ours(string(text)) {
			foreign = append(foreign, fmt.Errorf("%s is not of deputy, or was changed: move it away, or merge into it:\n%s", p.at(f.path), indent(f.text)))
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			foreign = append(foreign, err)
		}
	}
	if err := errors.Join(foreign...); err != nil {
		return nil, fmt.Errorf("prepare %s: %w", p.service, err)
	}
	for _, path := range p.written() {
		if !slices.ContainsFunc(pieces, func(f piece) bool { return f.path == path }) {
			if err := p.remove(path); err != nil {
				return did, err
			}
			did = append(did, "removed "+p.at(path))
		}
	}
	for _, f := range pieces {
		if text, err := os.ReadFile(p.at(f.path)); err == nil && string(text) == f.text {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(p.at(f.path)), 0o755); err != nil {
			return did, fmt.Errorf("prepare %s: %w", p.service, err)
		}
		next := p.at(f.path) + ".new" // which neither systemd nor polkit reads
		err := os.WriteFile(next, []byte(f.text), 0o644)
		if err == nil {
			err = os.Rename(next, p.at(f.path))
		}
		if err != nil {
			os.Remove(next)
			return did, fmt.Errorf("prepare %s: %w", p.service, err)
		}
		did = append(did, "wrote "+p.at(f.path))
	}
	return did, nil
}

// unmake removes every file that was written, and returns what it did.
func (p preparation) unmake() (did []string, err error) {
	for _, path := range p.written() {
		if err := p.remove(path); err != nil {
			return did, err
		}
		did = append(did, "removed "+p.at(path))
	}
	return did, nil
}

// written are the files that were written for the service.
func (p preparation) written() []string {
	var all []string
	for _, pattern := range []string{
		filepath.Join(unitDir, systemd.Supervisor(p.service)+".d", "50-deputy.conf"),
		filepath.Join(unitDir, systemd.Gate(p.service)+".d", "50-deputy.conf"),
		filepath.Join(unitDir, "*.d", "50-deputy-"+p.service+".conf"),
		filepath.Join(ruleDir, "50-deputy-"+p.service+".rules"),
	} {
		found, _ := filepath.Glob(p.at(pattern)) // the pattern is well formed
		for _, file := range found {
			if text, err := os.ReadFile(file); err == nil && p.ours(string(text)) {
				all = append(all, strings.TrimPrefix(strings.TrimPrefix(file, p.root), "/"))
			}
		}
	}
	return all
}

// ours reports whether a file begins as those of this service do.
func (p preparation) ours(text string) bool {
	return strings.HasPrefix(text, p.mark("#")) || strings.HasPrefix(text, p.mark("//"))
}

// remove removes a file, and its directory where nothing else is in it.
func (p preparation) remove(path string) error {
	if err := os.Remove(p.at(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove what was prepared for %s: %w", p.service, err)
	}
	if dir := filepath.Dir(path); dir != ruleDir {
		_ = os.Remove(p.at(dir)) // fails where there is something of others
	}
	return nil
}

func (p preparation) at(path string) string { return filepath.Join(p.root, path) }

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  ")
}

// managed are the units that the parts of a service start and stop.
func managed(s supervisor.Service) []string {
	var all []string
	for _, part := range s.Parts {
		if part.Use != "systemd" {
			continue
		}
		names, _ := part.Config["units"].([]any)
		for _, name := range names {
			if unit, ok := name.(string); ok && !slices.Contains(all, unit) {
				all = append(all, unit)
			}
		}
	}
	return all
}

// exists returns nil if a supervisor can run as that user.
func exists(name string) error {
	if _, err := user.Lookup(name); err != nil {
		return fmt.Errorf("user = %q: %w", name, err)
	}
	return nil
}
