package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/boottime"
	"github.com/deputy-ha/deputy/supervisor/config"
	"github.com/deputy-ha/deputy/supervisor/control"
	"github.com/deputy-ha/deputy/supervisor/etcd"
	"github.com/deputy-ha/deputy/supervisor/rundir"
)

// An engine is the process of `deputy run`: one connection to the records, and
// a seat in the election of each of its services.
type engine struct {
	a       *app
	all     bool // of all definitions, not of named ones
	node    config.Node
	here    supervisor.Node
	level   *control.Level
	plain   *slog.Logger // for members, who add their node and service themselves
	log     *slog.Logger
	clock   *boottime.Clock
	records *etcd.Client

	seats   []*seat
	leaving sync.WaitGroup // seats that do not run here, and are being released

	pid1    pid1
	mu      sync.Mutex
	watched []*seat     // all that there are, from the moment they are
	counted atomic.Bool // there will be no more

	process control.Process
	program string                  // the path of this program
	stop    context.CancelCauseFunc // ends run; set before it runs
	told    atomic.Bool             // to stop
	probing sync.Mutex
	next    atomic.Pointer[string] // the program that takes over; nil when none does
}

// engine prepares what run runs. Nothing is started, and what is wrong with
// one of all services is left to the log.
func (a *app) engine(names []string, log *slog.Logger, level *control.Level) (*engine, error) {
	node, err := a.settings()
	if err != nil {
		return nil, err
	}
	here, err := a.here(node)
	if err != nil {
		return nil, err
	}
	e := &engine{a: a, all: len(names) == 0, node: node, here: here, level: level, plain: log, log: log.With("node", node.Name)}
	if e.program, err = os.Executable(); err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	e.process = control.Process{ID: rand.Text(), PID: os.Getpid(), Version: here.Version}
	if e.clock, err = boottime.New(); err != nil {
		return nil, err
	}
	e.meetPID1()
	services, err := a.chosen(names)
	e.rescue(names, services)
	if err == nil && len(services) == 0 {
		err = mark(fmt.Errorf("no services: %s has no definitions", a.paths.services), errConfig)
	}
	if err != nil && (len(names) > 0 || len(services) == 0) {
		e.abort()
		return nil, err
	}
	if err != nil {
		e.log.Error("definitions are wrong, and their services do not run here", "cause", err)
	}
	cfg, err := records(node)
	if err != nil {
		e.abort()
		return nil, err
	}
	cfg.Clock, cfg.Node, cfg.Log, cfg.Witness = e.clock, here, e.log, rundir.Witness(a.paths.state)
	if e.records, err = etcd.Open(cfg); err != nil {
		e.abort()
		return nil, mark(err, errConfig)
	}
	if err := e.take(services); err != nil {
		e.release()
		return nil, err
	}
	return e, nil
}

// rescue takes down what an earlier process left of services whose definitions
// are gone, or not right any more: of those that are named, or of all. The engine
// waits for it.
func (e *engine) rescue(names []string, services []supervisor.Service) {
	if e.all {
		names = nil
		entries, _ := os.ReadDir(e.a.paths.run) // where there is none nothing was left
		for _, entry := range entries {
			names = append(names, entry.Name())
		}
	}
	for _, name := range names {
		defined := slices.ContainsFunc(services, func(s supervisor.Service) bool { return s.Name == name })
		if defined || !rundir.Defined(e.a.dir(name)) {
			continue
		}
		log := e.log.With("service", name)
		dir, err := rundir.Open(e.a.dir(name))
		if errors.Is(err, rundir.ErrHeld) { // and not left
			continue
		} else if err != nil {
			log.Error("what an earlier process left is not demoted", "cause", err)
			continue
		}
		t := &seat{name: name, ttl: config.DefaultTTL, e: e, log: log, dir: dir, opening: make(chan struct{}), service: supervisor.Service{Name: name}}
		t.left = t.leftover()
		t.past = t.left
		e.watch(t)
		t.rescue()
	}
}

// abort ends an engine that has no records yet.
func (e *engine) abort() {
	e.count()
	e.leaving.Wait()
	e.pid1.hush()
	e.clock.Close()
}

// take takes a seat in each service's election. Plugins that take long to open
// hold nobody up: what comes of them is told when the service runs.
func (e *engine) take(services []supervisor.Service) error {
	var wrong []error
	var seats []*seat
	for i, s := range services {
		seat, err := e.seat(s)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		seats = append(seats, seat)
		pace(i)
	}
	e.count()
	late := time.NewTimer(takeTime)
	defer late.Stop()
	for _, s := range seats {
		select {
		case <-s.opening:
		case <-late.C:
			late.Reset(0) // for the others, too
		}
		if isClosed(s.opening) && errors.Is(s.fault, errConfig) {
			wrong = append(wrong, s.fault)
			e.leaving.Go(s.release) // the others do not wait for it
			continue
		}
		e.seats = append(e.seats, s)
	}
	err := errors.Join(wrong...)
	if err != nil && e.all && len(e.seats) > 0 {
		e.log.Error("services do not run here", "cause", err)
		return nil
	}
	return err
}

// takeTime is how long the start waits for what is wrong with plugins. A role
// of the process before has to be taken over soon.
const takeTime = 500 * time.Millisecond

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (e *engine) release() {
	var running sync.WaitGroup
	for _, s := range e.seats {
		running.Go(s.release)
	}
	running.Wait()
	e.leaving.Wait()
	e.records.Close()
	e.pid1.hush()
	e.clock.Close()
}

// run takes part until ctx ends, and returns when every service is demoted
// here or its role is kept on purpose. The records are kept until then.
func (e *engine) run(ctx context.Context) error {
	defer e.release()
	e.log.Info("started", "services", len(e.seats), "version", e.here.Version, "etcd", e.node.Etcd.Endpoints)
	if !e.pid1.watched {
		e.log.Warn("second line missing: nothing here demotes behind a frozen or dead supervisor")
	}
	keeping, end := context.WithCancelCause(context.WithoutCancel(ctx))
	var keeper sync.WaitGroup
	defer keeper.Wait()
	defer end(errEnded)
	var kept error
	keeper.Go(func() { kept = e.records.Run(keeping) })
	for _, t := range e.seats {
		keeper.Go(func() { e.tellPID1(keeping, t) })
	}
	delaying, done := context.WithCancelCause(keeping)
	defer done(errEnded)
	keeper.Go(func() { e.inhibit(delaying) })

	unknown, err := e.alone(ctx, e.seats)
	if err != nil {
		return err
	}
	ctx, abort := context.WithCancelCause(ctx)
	defer abort(errEnded)
	var late error
	keeper.Go(func() {
		if late = e.lateAlone(ctx, unknown); late != nil {
			abort(late)
		}
	})
	keeper.Go(func() { e.notify(ctx, keeping) })
	faults := e.members(ctx)
	abort(errEnded)
	end(errEnded)
	keeper.Wait()
	return errors.Join(late, faults, kept)
}

// figures yields those of all services that run here.
func (e *engine) figures(yield func(supervisor.Figures) bool) {
	for _, s := range e.seats {
		if !yield(s.member.Figures()) {
			return
		}
	}
}

// members runs all members until ctx ends, and returns when all have ended.
func (e *engine) members(ctx context.Context) error {
	stops, faults := make([]context.CancelCauseFunc, len(e.seats)), make([]error, len(e.seats))
	var members sync.WaitGroup
	for i, s := range e.seats {
		own, stop := context.WithCancelCause(context.WithoutCancel(ctx))
		stops[i] = stop
		members.Go(func() { faults[i] = s.run(own) })
		pace(i)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		members.Wait()
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		if e.next.Load() == nil {
			e.pid1.herald.Stopping()
		}
	}
	for i, stop := range stops {
		stop(context.Cause(ctx))
		pace(i)
	}
	<-ended
	return errors.Join(faults...)
}

// pace spreads out what many services would do all at once: so many programs
// started in one moment take the time that renewals need. None waits for
// another, so one that hangs holds up nothing.
func pace(i int) {
	if batch := 4 * runtime.GOMAXPROCS(0); i%batch == batch-1 {
		time.Sleep(paceTime)
	}
}

// paceTime is between two batches.
const paceTime = 20 * time.Millisecond

// reload reads the definitions of all seats again, at the same time: a plugin
// that is slow to take its settings holds up no other service.
func (e *engine) reload(ctx context.Context) error {
	faults := make([]error, len(e.seats))
	var running sync.WaitGroup
	for i, s := range e.seats {
		running.Go(func() { _, faults[i] = s.reloadDefinition(ctx) })
	}
	running.Wait()
	if e.all {
		e.tellOfNew()
	}
	return errors.Join(faults...)
}

// tellOfNew names the definitions that have come since the start.
func (e *engine) tellOfNew() {
	for _, name := range e.a.defined() {
		if !slices.ContainsFunc(e.seats, func(s *seat) bool { return s.name == name }) {
			e.log.Warn("definition is new: it runs here after a restart, which keeps the roles of the others", "service", name)
		}
	}
}

// tellWhatIsLeft says what a stop is waiting for.
func (e *engine) tellWhatIsLeft() {
	for _, s := range e.seats {
		if st := s.member.Status(); !s.ended.Load() {
			e.log.Warn("still stopping: only a proven demotion ends it", "service", s.name, "role", string(st.Role), "doing", st.Doing, "cause", st.Cause)
		}
	}
}
