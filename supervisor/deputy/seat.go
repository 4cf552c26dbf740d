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
	"github.com/deputy-ha/deputy/supervisor/plugin"
	"github.com/deputy-ha/deputy/supervisor/rundir"
	"github.com/deputy-ha/deputy/supervisor/systemd"
)

// A seat is one service of the engine: its plugins, its member, its runtime
// directory and its control socket.
type seat struct {
	name   string
	ttl    time.Duration
	e      *engine
	log    *slog.Logger
	dir    *rundir.Dir
	member *supervisor.Member
	server *control.Server
	ended  atomic.Bool

	opening chan struct{} // closed when the first try to open the plugins is over
	fault   error         // then: why it came to nothing
	giveUp  context.CancelCauseFunc
	opened  []atomic.Bool // which plugins are open
	left    *leftover     // until the member sees to it; nil is nothing
	past    *leftover     // what left was at first

	degraded atomic.Bool  // plugins do not open for a reason that may pass
	kept     atomic.Int64 // the end of the lease that the member has kept for the next process
	over     atomic.Bool  // released

	mu      sync.Mutex // of what a reload changes; held while one goes on
	service supervisor.Service
	plugins []plugin.Plugin
	running bool // the member is
}

// seat takes the runtime directory of a service, which admits one supervisor
// per node, and prepares its member. The plugins are being opened when it
// returns; release ends that.
func (e *engine) seat(s supervisor.Service) (_ *seat, err error) {
	s = withTargets(s)
	log := e.log.With("service", s.Name)
	plugins, wrong := e.a.plugins(e.node, s, e.clock, log)
	dir, err := afterCleanup(e.a.dir(s.Name))
	switch {
	case wrong != nil && err != nil:
		return nil, wrong
	case err != nil:
		return nil, fmt.Errorf("run %s: %w", s.Name, err)
	}
	t := &seat{name: s.Name, ttl: s.TTL, e: e, log: log, dir: dir, opening: make(chan struct{}), service: s, plugins: plugins}
	t.left = t.leftover()
	t.past = t.left
	if wrong != nil {
		e.watch(t)
		t.rescue()
		return nil, wrong
	}
	memory := systemd.Guarded{Memory: dir, Herald: e.pid1.herald}
	t.member, err = supervisor.NewMember(supervisor.Setup{
		Service: s, Node: e.here, Elector: e.records.Elector(s.Name, s.TTL), Plugins: machine(plugins),
		Clock: e.clock, Memory: memory, Escalator: e.escalator(s.Name), Log: e.plain,
	})
	if err != nil {
		dir.Close()
		return nil, err
	}
	t.server = &control.Server{
		Socket: filepath.Join(e.a.dir(s.Name), control.SocketName), Member: t.member, Cluster: e.records,
		Reload: t.reload, Process: e.process, Figures: e.figures, Level: e.level, Log: log,
	}
	e.watch(t)
	t.begin()
	return t, nil
}

// begin starts to open the plugins, and to guard what an earlier process left.
// release ends both.
func (t *seat) begin() {
	t.opened = make([]atomic.Bool, len(t.plugins))
	if t.left != nil {
		guarding, stop := context.WithCancelCause(context.Background())
		t.left.stop = stop
		go t.guard(guarding, t.left)
	}
	ctx, giveUp := context.WithCancelCause(context.Background())
	t.giveUp = giveUp
	go func() {
		defer close(t.opening)
		t.fault = openAll(ctx, t.service, t.plugins, t.opened, t.came)
	}()
}

// rescue takes down what an earlier process left of a service whose definition
// is wrong by now, as far as there are plugins. The engine waits for it.
func (t *seat) rescue() {
	if t.left == nil {
		t.dir.Close()
		return
	}
	t.only(t.plugins)
	t.begin()
	t.e.leaving.Go(t.release)
}

// release ends what is left of the seat. Its member has ended, or never ran:
// then what an earlier process left is taken down first.
func (t *seat) release() {
	if t.left == nil {
		t.giveUp(errEnded)
	}
	<-t.opening
	t.giveUp(errEnded)
	t.close()
	t.over.Store(true)
	t.dir.Close()
}

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
	defer t.close()
	if err := t.open(ctx); err != nil {
		t.log.Error("service does not run here", "cause", err)
		return err
	}
	defer t.keepUnits(ctx)()
	defer t.keepRole()
	return t.member.Run(ctx)
}

// close ends the plugins. What they promoted stays as the member left it; what
// no member has seen to is taken down.
func (t *seat) close() {
	t.abandon()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running = false
	closeAll(t.plugins, t.log)
}

// The delays between one try to open the plugins and the next double from the
// first to the last.
const (
	firstRetry = 200 * time.Millisecond
	lastRetry  = 10 * time.Second
)

// open returns once all plugins are open. One that cannot be opened for a
// reason that passes is tried again; with errConfig, or when ctx ends, there is
// no more to hope for. Meanwhile what an earlier process left primary is
// guarded.
func (t *seat) open(ctx context.Context) error {
	end := context.AfterFunc(ctx, func() { t.giveUp(context.Cause(ctx)) })
	defer end()
	<-t.opening
	err := t.fault
	for retry := firstRetry; err != nil; retry = min(2*retry, lastRetry) {
		if errors.Is(err, errConfig) {
			return err
		}
		t.log.Error("plugins not open, so the service does not run here yet", "cause", err, "again", retry)
		t.degraded.Store(true)
		t.member.Awaits(err)
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return fmt.Errorf("stop %s: %w: %w", t.name, errLeft, err)
		}
		err = openAll(ctx, t.service, t.plugins, t.opened, t.came)
	}
	t.degraded.Store(false)
	t.handOver()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keep(t.service)
	t.running = true
	return nil
}

// keep keeps the definition by which parts are promoted from now on.
func (t *seat) keep(s supervisor.Service) {
	if err := t.dir.SaveDefinition(s); err != nil {
		t.log.Error("definition not kept: should this process crash, what it promoted is demoted only if the definition is still there and right", "cause", err)
	}
}

var errLeft = errors.New("what an earlier process left may be primary")

var errEnded = errors.New("the service has ended here")

// reload puts the definition as it is now in force. Where the program's file is
// another one by now, that then takes over.
func (t *seat) reload(ctx context.Context) (control.Reloaded, error) {
	next, err := t.e.replacement(ctx)
	if err != nil {
		return control.Reloaded{}, mark(err, control.ErrDefinition)
	}
	hash, err := t.reloadDefinition(ctx)
	if err != nil {
		return control.Reloaded{}, err
	}
	if next != "" {
		err = t.e.giveWay(ctx, next)
	}
	return control.Reloaded{Hash: hash, Replaced: next != ""}, err
}

// reloadDefinition is reload without another program. It returns the hash of the
// definition.
func (t *seat) reloadDefinition(ctx context.Context) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.reloadNow(ctx); err != nil {
		return "", mark(err, control.ErrDefinition)
	}
	t.log.Info("definition read again", "hash", t.service.Hash)
	return t.service.Hash, nil
}

func (t *seat) reloadNow(ctx context.Context) error {
	s, err := config.LoadService(filepath.Join(t.e.a.paths.services, t.name+".toml"), nil)
	switch {
	case err != nil:
		return err
	case !t.running:
		// Not waited for: whoever asked by a signal may next ask to stop.
		return fmt.Errorf("reload %s: its plugins are still being opened by the definition that it was started with (%s): reload when it runs, or restart its process if the new definition is what they need",
			t.name, t.member.Status().Cause)
	}
	if hasTargets(t.service) {
		s = addTargets(s)
	}
	if err := t.member.Reloadable(s); err != nil {
		return err
	}
	plugins, changed, err := configureAll(ctx, t.service, s, t.plugins)
	if err != nil {
		return err
	}
	t.keep(s)
	if err := t.member.Reload(s, machine(plugins), changed); err != nil {
		return err
	}
	t.service, t.plugins = s, plugins
	return nil
}
