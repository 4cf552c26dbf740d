package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/plugins/kernelguard"
	"github.com/deputy-ha/deputy/sdk"
)

// A guard is ports with one set of settings. What counts is what the kernel
// has, which outlives this process.
type guard struct {
	settings
	log     *slog.Logger
	kernel  *kernelguard.Guard
	cutter  *kernelguard.Cutter
	cutting sync.WaitGroup

	mu      sync.Mutex // one change at a time
	held    bool       // opened by an act of this guard
	renewed sdk.Instant
	keeping *keeping
}

func newGuard(_ context.Context, s settings, h sdk.Host) (*guard, error) {
	k, err := kernelguard.ForPorts(h.Service, h.Part, s.guarded())
	if err != nil {
		return nil, err
	}
	g := &guard{settings: s, log: h.Log, kernel: k, cutter: kernelguard.NewCutter(h.Log, s.KillConnections)}
	// A process of before may have closed it, and kept it so. An error is for
	// Check to tell.
	if state, err := k.State(); err == nil && state.Current && state.Left == 0 {
		g.keep()
	}
	return g, nil
}

// Promote opens the ports until the lease ends.
func (g *guard) Promote(ctx context.Context, t *sdk.Transition) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	until := max(t.LeaseUntil, g.renewed)
	if until <= sdk.Now() {
		return sdk.Refuse(errors.New("the lease does not hold any more"))
	}
	g.cutting.Wait()
	if g.held || g.keeping == nil { // else it is known to be closed
		state, err := g.kernel.State()
		if err != nil {
			return sdk.Unchanged(err)
		}
		if state.Current && state.Left > 0 && g.kernel.Renew(until) == nil {
			g.held, g.renewed = true, until
			return fmt.Errorf("%s is open: %w", g, sdk.ErrAlready)
		}
	}
	if err := g.kernel.Arm(until); err != nil {
		return err
	}
	g.held, g.renewed = true, until
	if state, err := g.kernel.State(); err != nil {
		return err
	} else if state.Left == 0 {
		return errors.New("opened, but the kernel has it closed")
	}
	sdk.Note(ctx, "%s is open", g)
	return nil
}

// partingTime is for how long resets may leave that end connections.
const partingTime = 200 * time.Millisecond

// Demote closes the ports. Connections of before are ended after it: to find them
// takes longer than all else, and whoever takes over need not wait for that.
func (g *guard) Demote(ctx context.Context, t *sdk.Transition) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	already, parting := false, time.Duration(0)
	if g.held { // within the lease, however long that took
		parting = min(partingTime, g.renewed.Sub(sdk.Now()))
	} else {
		before, err := g.kernel.State()
		already = err == nil && before.Current && before.Left == 0
	}
	g.held, g.renewed = false, 0
	if err := errors.Join(g.kernel.Disarm(parting), g.kernel.Install()); err != nil {
		return err
	}
	g.keep()
	state, err := g.kernel.State()
	if !already {
		g.cut()
	}
	switch {
	case err != nil:
		return err
	case !state.Current || state.Left > 0:
		return errors.New("closed, but the kernel has it open")
	case already:
		return fmt.Errorf("%s is closed: %w", g, sdk.ErrAlready)
	}
	sdk.Note(ctx, "%s is closed", g)
	return nil
}

// cut ends the connections that the closed guard would not let through. What
// opens the ports again waits for it.
func (g *guard) cut() {
	g.cutting.Go(func() {
		ctx, cancel := context.WithTimeoutCause(context.Background(), cutTime, errors.New("no time is left for it"))
		defer cancel()
		g.cutter.End(ctx, g.cutter.OfPorts(ctx, g.guarded()))
	})
}

// cutTime bounds how long it may take to find and end connections.
const cutTime = time.Second

// Renew keeps the ports open until an instant.
func (g *guard) Renew(_ context.Context, until sdk.Instant) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.kernel.Renew(until)
	switch {
	case err == nil:
		g.held = true
	case !g.held:
		return nil // nothing is open
	case errors.Is(err, kernelguard.ErrExpired):
		g.held = false
		return err
	case errors.Is(err, kernelguard.ErrGone):
		// The ports are open for all, and the lease holds.
		if armed := g.kernel.Arm(until); armed != nil {
			return fmt.Errorf("%w: %w", err, armed)
		}
		g.log.Warn("guard installed again", "cause", err)
		err = nil
	}
	if err == nil {
		g.renewed = until
	}
	return err
}

// Check looks whether the guard could be opened, and whether it is open just
// when it should be.
func (g *guard) Check(_ context.Context, role sdk.Role) (sdk.Health, error) {
	state, err := g.kernel.State()
	switch {
	case err != nil:
		return sdk.Health{Detail: err.Error()}, nil
	case !state.Installed:
		return sdk.Health{Detail: "the guard is gone: somebody has removed its nftables tables (nft flush ruleset? a firewall that reloads?)"}, nil
	case role == sdk.RolePrimary && state.Left == 0:
		return sdk.Health{Detail: "the guard has closed: the lease was not renewed"}, nil
	case role == sdk.RolePrimary && !state.Current:
		return sdk.Health{Detail: "the guard that is installed is of other settings, and guards other ports or lets others through: the promotion after a reload or a restart of deputy installs the one of these"}, nil
	case role == sdk.RolePrimary:
		return sdk.Health{Fit: true, Detail: fmt.Sprintf("%s is open", g)}, nil
	case state.Left > 0:
		return sdk.Health{Detail: fmt.Sprintf("%s is open although this node is %s", g, role)}, nil
	case !state.Current:
		return sdk.Health{Detail: "the guard that is installed is of other settings, and guards other ports or lets others through: the demotion after a reload or a restart of deputy installs the one of these"}, nil
	}
	return sdk.Health{Fit: true, Detail: fmt.Sprintf("%s is closed", g)}, nil
}

// Close ends what goes on by itself. The guard stays as it is.
func (g *guard) Close() error {
	g.mu.Lock()
	k := g.keeping
	g.keeping = nil
	g.mu.Unlock()
	k.end()
	g.cutting.Wait()
	return g.kernel.Close()
}

// String lists the ports.
func (g *guard) String() string {
	var all []string
	for _, p := range g.Ports {
		name := map[byte]string{unix.IPPROTO_TCP: "tcp/", unix.IPPROTO_UDP: "udp/"}[p.Protocol] + strconv.Itoa(int(p.First))
		if p.Last != p.First {
			name += "-" + strconv.Itoa(int(p.Last))
		}
		all = append(all, name)
	}
	return strings.Join(all, ", ")
}
