package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/rundir"
	"github.com/deputy-ha/deputy/supervisor/systemd"
)

// enableTime bounds what a service may take to begin taking part. To end it has
// all the time that its demotion takes.
const enableTime = 2 * time.Minute

func (a *app) enableCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "enable SERVICE",
		Short: "Check a service, prepare what it needs of systemd, and have it run here, also after a boot",
		Long: "Check the definition of a service, prepare what it needs of systemd, and run it here\n" +
			"from now on: `systemctl enable --now deputy@SERVICE`.\n\n" +
			"What it needs is written below /etc/systemd/system and /etc/polkit-1/rules.d, and\n" +
			"each file is told: another user, if the definition has one; for the units of a plugin\n" +
			"systemd a condition, so that they run where this node is primary and nowhere else;\n" +
			"and the permission to start and stop exactly these units. `deputy disable` removes all\n" +
			"of it. Run it again when the definition has other units by now.",
		Args: one("SERVICE"),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := interruptible(c.Context())
			defer stop()
			return a.enable(ctx, args[0])
		},
	}
}

func (a *app) disableCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "disable SERVICE",
		Short: "Hand over a service, and have it not run here any more",
		Long: "Hand over what this node leads of a service, and have it not run here any more:\n" +
			"`systemctl disable --now deputy@SERVICE`. Then what `deputy enable` has written is\n" +
			"removed.",
		Args: one("SERVICE"),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := interruptible(c.Context())
			defer stop()
			return a.disable(ctx, args[0])
		},
	}
}

// mayInstall returns nil for who may change what systemd runs here.
func mayInstall() error {
	switch {
	case os.Geteuid() != 0:
		return fmt.Errorf("%w: only root may change what systemd runs: try sudo", fs.ErrPermission)
	case !systemd.Booted():
		return errors.New("this machine does not run systemd: see `deputy run`")
	}
	return nil
}

func (a *app) enable(ctx context.Context, service string) error {
	if err := mayInstall(); err != nil {
		return fmt.Errorf("enable %s: %w", service, err)
	}
	s, err := a.sound(service)
	if err != nil {
		return err
	}
	p := preparation{root: "/", service: service}
	units := managed(s)
	if err := a.tellOfUnits(ctx, units); err != nil {
		return fmt.Errorf("enable %s: %w", service, err)
	}
	members, err := systemd.NewTargets(a.bus, service, slog.New(slog.DiscardHandler)).Members(ctx)
	if err != nil {
		return fmt.Errorf("enable %s: %w", service, err)
	}
	unit := systemd.Supervisor(service)
	before, err := a.bus.Unit(ctx, unit)
	if err != nil {
		return fmt.Errorf("enable %s: %w", service, err)
	}
	did, err := p.write(p.pieces(s, units, members))
	for _, line := range did {
		fmt.Fprintln(a.stdout, line)
	}
	if err != nil {
		return err
	}
	changed, err := a.bus.Enable(ctx, "deputy.target", unit)
	if err != nil {
		return err
	}
	if changed || len(did) > 0 {
		if err := a.bus.Reload(ctx); err != nil {
			return err
		}
	}
	if changed {
		fmt.Fprintf(a.stdout, "enabled %s\n", unit)
	}
	if before.Up() {
		fmt.Fprintf(a.stdout, "%s runs already\n", unit)
		if slices.ContainsFunc(did, func(line string) bool { return strings.Contains(line, unit) }) {
			fmt.Fprintf(a.stdout, "its new user counts from its next start: systemctl restart %s keeps its role\n", unit)
		}
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, enableTime, fmt.Errorf("not within %s", enableTime))
	defer cancel()
	if err := a.bus.Start(ctx, unit); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "started %s: see `deputy status %s`\n", unit, service)
	return nil
}

// sound returns a service whose definition can run here. The error is errConfig.
func (a *app) sound(service string) (supervisor.Service, error) {
	node, err := a.settings()
	if err != nil {
		return supervisor.Service{}, err
	}
	found, err := a.chosen([]string{service})
	if err != nil {
		return supervisor.Service{}, err
	}
	s := found[0]
	if _, err := a.plugins(node, s, nil, slog.New(slog.DiscardHandler)); err != nil {
		return s, err
	}
	if s.User != "" {
		if err := exists(s.User); err != nil {
			return s, mark(fmt.Errorf("%s: %w", s.File, err), errConfig)
		}
	}
	return s, nil
}

// tellOfUnits says what becomes of units that something else starts as well.
// The error is errConfig.
func (a *app) tellOfUnits(ctx context.Context, units []string) error {
	for _, name := range units {
		u, err := a.bus.Unit(ctx, name)
		if err != nil {
			return err
		}
		switch u.Load {
		case "loaded":
		case "not-found":
			return mark(fmt.Errorf("there is no unit %s: install what brings it, then systemctl daemon-reload", name), errConfig)
		default:
			return mark(fmt.Errorf("unit %s is %s: see systemctl status %s", name, u.Load, name), errConfig)
		}
		state, err := a.bus.UnitFile(ctx, name)
		if err != nil {
			return err
		}
		if state == "enabled" || state == "enabled-runtime" {
			fmt.Fprintf(a.stdout, "%s is enabled by itself: from now on it starts nowhere but where this node is primary\n", name)
		}
		if u.Up() {
			fmt.Fprintf(a.stdout, "%s is active: it is stopped unless this node is primary\n", name)
		}
	}
	return nil
}

func (a *app) disable(ctx context.Context, service string) error {
	if err := mayInstall(); err != nil {
		return fmt.Errorf("disable %s: %w", service, err)
	}
	unit := systemd.Supervisor(service)
	changed, err := a.bus.Disable(ctx, unit)
	if err != nil {
		return err
	}
	if changed {
		fmt.Fprintf(a.stdout, "disabled %s\n", unit)
	}
	u, err := a.bus.Unit(ctx, unit)
	if err != nil {
		return err
	}
	if !u.Stays() {
		if err := a.bus.Stop(ctx, unit); err != nil {
			return err
		}
	}
	// For systemd one is stopped, too, that was killed and could not be demoted
	// behind. What guards its units stays until then.
	if err := a.demoted(service); err != nil {
		return fmt.Errorf("disable %s: %w", service, err)
	}
	if !u.Stays() {
		fmt.Fprintf(a.stdout, "stopped %s: it is demoted here\n", unit)
	}
	did, err := preparation{root: "/", service: service}.unmake()
	for _, line := range did {
		fmt.Fprintln(a.stdout, line)
	}
	if err != nil {
		return err
	}
	if changed || len(did) > 0 {
		return a.bus.Reload(ctx)
	}
	return nil
}

// demoted returns nil once the last process of a service has noted that nothing
// is primary here.
func (a *app) demoted(service string) error {
	note, err := rundir.Sight(a.dir(service)).Note()
	if err == nil && (note.Tenure != nil || len(note.Promoted) > 0) {
		err = fmt.Errorf("its process has ended as %s, and what it promoted is not proven demoted (%s)", note.Role, strings.Join(note.Promoted, ", "))
	}
	if err != nil {
		unit := systemd.Supervisor(service)
		return fmt.Errorf("%w: put right what journalctl -u %s tells, systemctl start %s, and try again", err, unit, unit)
	}
	return nil
}

// enabled reports whether a service runs here after a boot.
func enabled(service string) bool {
	_, err := os.Lstat(filepath.Join("/", unitDir, "deputy.target.wants", systemd.Supervisor(service)))
	return err == nil
}
