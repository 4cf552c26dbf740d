package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/config"
	"github.com/deputy-ha/deputy/supervisor/control"
	"github.com/deputy-ha/deputy/supervisor/rundir"
)

// A seat is one service of the engine: its member, its runtime directory and
// its control socket.
type seat struct {
	name   string
	ttl    time.Duration
	e      *engine
	log    *slog.Logger
	dir    *rundir.Dir
	member *supervisor.Member
	server *control.Server
	ended  atomic.Bool

	reloading sync.Mutex
}

// seat takes the runtime directory of a service, which admits one supervisor
// per node, and prepares its member.
func (e *engine) seat(s supervisor.Service) (_ *seat, err error) {
	log := e.log.With("service", s.Name)
	plugins, err := e.a.fitPlugins(e.node, s, e.clock, log)
	if err != nil {
		return nil, err
	}
	dir, err := rundir.Open(e.a.dir(s.Name))
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", s.Name, err)
	}
	member, err := supervisor.NewMember(supervisor.Setup{
		Service: s, Node: e.here, Elector: e.records.Elector(s.Name, s.TTL), Plugins: plugins,
		Clock: e.clock, Memory: dir, StateDir: filepath.Join(e.a.paths.state, s.Name), Log: e.plain,
	})
	if err != nil {
		dir.Close()
		return nil, err
	}
	t := &seat{name: s.Name, ttl: s.TTL, e: e, log: log, dir: dir, member: member}
	t.server = &control.Server{
		Socket: filepath.Join(e.a.dir(s.Name), control.SocketName), Member: member, Cluster: e.records,
		Reload: t.reload, Level: e.level, Log: log,
	}
	return t, nil
}

func (t *seat) release() { t.dir.Close() }

// run takes part in the election until ctx ends. The control socket outlives
// it, so that a demotion can be watched to its end.
func (t *seat) run(ctx context.Context) error {
	defer t.ended.Store(true)
	serving, hangUp := context.WithCancelCause(context.WithoutCancel(ctx))
	var beside sync.WaitGroup
	defer beside.Wait()
	defer hangUp(errEnded)
	beside.Go(func() {
		// Without it the role is as safe; only operators are blind.
		if err := t.server.Serve(serving); err != nil {
			t.log.Error("control socket not served", "cause", err)
		}
	})
	return t.member.Run(ctx)
}

var errEnded = errors.New("the service has ended here")

// reload puts the definition as it is now in force.
func (t *seat) reload(context.Context) error {
	t.reloading.Lock()
	defer t.reloading.Unlock()
	s, err := config.LoadService(filepath.Join(t.e.a.paths.services, t.name+".toml"), nil)
	if err != nil {
		return mark(err, control.ErrDefinition)
	}
	plugins, err := t.e.a.fitPlugins(t.e.node, s, t.e.clock, t.log)
	if err != nil {
		return mark(err, control.ErrDefinition)
	}
	if err := t.member.Reload(s, plugins); err != nil {
		return mark(err, control.ErrDefinition)
	}
	t.log.Info("definition read again", "hash", s.Hash)
	return nil
}
