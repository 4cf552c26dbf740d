package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/plugin"
	"github.com/deputy-ha/deputy/supervisor/systemd"
)

// What the role targets of systemd are called as a part. No definition can
// say that use, and none may have a part of that name.
const (
	targetsUse  = "systemd:targets"
	targetsPart = "targets"
)

// withTargets adds the role targets as the last part of a service whose
// supervisor is a unit of systemd: promoted after all others, demoted before. In
// the unit of the gate this is the clean-up behind that supervisor.
func withTargets(s supervisor.Service) supervisor.Service {
	unit := systemd.OwnUnit()
	if unit != systemd.Supervisor(s.Name) && unit != systemd.Gate(s.Name) || !systemd.Reachable() {
		return s
	}
	return addTargets(s)
}

func addTargets(s supervisor.Service) supervisor.Service {
	s.Parts = append(slices.Clone(s.Parts), supervisor.Part{
		Use: targetsUse, Name: targetsPart,
		// As long as units may take to start and to stop by systemd's defaults.
		Promote: supervisor.ActPolicy{Timeout: 2 * time.Minute},
		Demote:  supervisor.ActPolicy{Timeout: 90 * time.Second},
		Check: supervisor.CheckPolicy{
			Interval: time.Second, Timeout: time.Second, Fall: 2, Rise: 1, On: supervisor.OnBoth, StartGrace: 5 * time.Second,
		},
	})
	return s
}

func hasTargets(s supervisor.Service) bool {
	return slices.ContainsFunc(s.Parts, func(p supervisor.Part) bool { return p.Use == targetsUse })
}

// A targetsPlugin is the role targets as a plugin: nothing runs of them, and
// there are no settings.
type targetsPlugin struct{ *systemd.Targets }

var _ plugin.Plugin = targetsPlugin{}

func (targetsPlugin) Open(context.Context) error                      { return nil }
func (targetsPlugin) Validate(context.Context, supervisor.Part) error { return nil }
func (targetsPlugin) Verify(context.Context) error                    { return nil }
func (targetsPlugin) Close(context.Context) error                     { return nil }

func (t targetsPlugin) Configure(context.Context, supervisor.Part) (plugin.Plugin, bool, error) {
	return t, false, nil
}

// keepUnits has the gate live as long as the role, and the target of a standby
// active where this node is one, a moment later. Nothing waits for either. The
// returned func ends that, and tells the gate to stop unless the role is kept.
// Once told has ended the service is told to end, and nothing is started any more.
func (t *seat) keepUnits(told context.Context) func() {
	if !hasTargets(t.service) {
		return func() {}
	}
	k := unitKeeper{targets: t.targets(), role: func() sdk.Role { return t.member.Status().Role }, log: t.log}
	// To start a unit costs tens of milliseconds of processor time for its sandbox,
	// which a role that moves has better use for. The gate has nothing to do before
	// s + 0.75 T, but however long that is, it should be there soon.
	after := min(supervisor.NewTiming(t.service.TTL).Renew, 500*time.Millisecond)
	ctx, end := context.WithCancelCause(context.Background())
	var keeper sync.WaitGroup
	keeper.Go(func() {
		var last sdk.Role
		for s := range t.member.Watch(ctx) {
			if s.Role == last {
				continue
			}
			select {
			case <-time.After(after):
			case <-ctx.Done():
			}
			if last = k.role(); told.Err() == nil && ctx.Err() == nil {
				k.follow(last)
			}
		}
	})
	return func() {
		end(errEnded)
		keeper.Wait()
		if note, err := t.dir.Load(); err == nil && !note.Keep {
			k.leave()
		}
	}
}

// targets are the role targets among the plugins.
func (t *seat) targets() *systemd.Targets {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.plugins {
		if targets, ok := p.(targetsPlugin); ok {
			return targets.Targets
		}
	}
	return nil
}

// A unitKeeper starts and stops the units that come and go with a role.
type unitKeeper struct {
	targets *systemd.Targets
	role    func() sdk.Role // of now
	log     *slog.Logger
	said    string
}

// unitTime bounds what is asked of PID 1 here.
const unitTime = 2 * time.Second

// follow asks for what a role needs.
func (k *unitKeeper) follow(role sdk.Role) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), unitTime, fmt.Errorf("not within %s", unitTime))
	defer cancel()
	switch role {
	case sdk.RolePromoting, sdk.RolePrimary:
		k.tell(k.targets.StartGate(ctx))
	case sdk.RoleStandby, sdk.RoleCandidate:
		// Everything is demoted, so nothing needs the gate.
		k.tell(k.targets.Settle(ctx, func() bool {
			now := k.role()
			return now == sdk.RoleStandby || now == sdk.RoleCandidate
		}))
	}
}

// leave asks for what the end of the service needs.
func (k *unitKeeper) leave() {
	ctx, cancel := context.WithTimeoutCause(context.Background(), unitTime, fmt.Errorf("not within %s", unitTime))
	defer cancel()
	k.tell(k.targets.StopGate(ctx))
}

// tell says what went wrong, once.
func (k *unitKeeper) tell(err error) {
	if err == nil || errors.Is(err, systemd.ErrGoingDown) || err.Error() == k.said {
		return
	}
	k.said = err.Error()
	if errors.Is(err, systemd.ErrDenied) {
		err = fmt.Errorf("%w: is polkitd installed?", err)
	}
	k.log.Warn("units that go with the role do not follow it, so nothing may demote behind this supervisor", "cause", err)
}
