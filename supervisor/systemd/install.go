package systemd

import (
	"context"
	"fmt"
)

// Enable has units start at boot, and Disable has them not; PID 1 is to read its
// files again afterwards. They report whether anything has changed.
func (b *Bus) Enable(ctx context.Context, units ...string) (changed bool, err error) {
	l, err := b.open(ctx)
	if err != nil {
		return false, fmt.Errorf("enable %v: %w", units, err)
	}
	var install bool
	var changes []symlink
	call := l.call(ctx, busPath, rootInterface+".EnableUnitFiles", units, false, false)
	if err = call.Err; err == nil {
		err = call.Store(&install, &changes)
	}
	if err != nil {
		return false, fmt.Errorf("enable %v: %w", units, err)
	}
	return len(changes) > 0, nil
}

// A symlink is one symbolic link that was made or removed.
type symlink struct{ Kind, File, Target string }

// Disable is the inverse of Enable.
func (b *Bus) Disable(ctx context.Context, units ...string) (changed bool, err error) {
	l, err := b.open(ctx)
	if err != nil {
		return false, fmt.Errorf("disable %v: %w", units, err)
	}
	var changes []symlink
	call := l.call(ctx, busPath, rootInterface+".DisableUnitFiles", units, false)
	if err = call.Err; err == nil {
		err = call.Store(&changes)
	}
	if err != nil {
		return false, fmt.Errorf("disable %v: %w", units, err)
	}
	return len(changes) > 0, nil
}

// Reload has PID 1 read its files again.
func (b *Bus) Reload(ctx context.Context) error {
	l, err := b.open(ctx)
	if err == nil {
		err = l.callWithin(ctx, reloadTime, busPath, rootInterface+".Reload").Err
	}
	if err != nil {
		return fmt.Errorf("have systemd read its files again: %w", err)
	}
	return nil
}

// UnitFile is whether a unit is started at boot: enabled, disabled, static, …
// An empty one says that there is no such file.
func (b *Bus) UnitFile(ctx context.Context, unit string) (string, error) {
	l, err := b.open(ctx)
	if err != nil {
		return "", fmt.Errorf("look whether %s is enabled: %w", unit, err)
	}
	var state string
	call := l.call(ctx, busPath, rootInterface+".GetUnitFileState", unit)
	if call.Err != nil {
		return "", nil //nolint:nilerr // the answer for one that is not there differs by version
	}
	if err := call.Store(&state); err != nil {
		return "", fmt.Errorf("look whether %s is enabled: %w", unit, err)
	}
	return state, nil
}
