package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/wire"
	"github.com/deputy-ha/deputy/supervisor"
)

// Process is the kind of plugin that is a program of its own, deputy-plugin-NAME
// in one of the host's directories: one process for each part of each service,
// from Open to Close. One that dies or freezes is started again, with a delay
// that grows, and configured anew; calls wait for it as long as they have time.
type Process struct {
	host    Host
	name    string // the part's
	path    string
	log     *slog.Logger
	sockets *sockets

	opening     sync.Mutex // one Open or Close at a time
	configuring sync.Mutex // one Configure at a time

	mu      sync.Mutex
	part    supervisor.Part  // as last configured
	config  map[string]any   // its settings then, with the secrets in them
	says    wire.Description // as Open learned it
	took    time.Duration    // by Open
	term    sdk.Term         // the highest of an act
	open    bool
	now     *life               // takes calls; nil while none does
	lives   map[*life]struct{}  // of which something may be left
	changed chan struct{}       // closed, and replaced, when the above or below changes
	why     error               // there is no life now
	due     time.Time           // of the next start; zero while one is under way
	failed  int                 // starts that came to nothing
	ends    supervisor.Restarts // but for those

	hurry chan struct{} // has one when a start must not wait
	stop  context.CancelCauseFunc
	kept  chan struct{} // closed when keep has returned
}

func newProcess(h Host, p supervisor.Part, path string) *Process {
	var dir string
	if h.RunDir != "" {
		dir = filepath.Join(h.RunDir, "plugins", p.Name)
		if whole, err := filepath.Abs(dir); err == nil { // a plugin is in another directory
			dir = whole
		}
	}
	return &Process{
		host: h, name: p.Name, part: p, path: path, log: h.Log.With("plugin", p.Name), sockets: &sockets{dir: dir},
		lives: map[*life]struct{}{}, changed: make(chan struct{}), why: ErrClosed,
		hurry: make(chan struct{}, 1),
	}
}

// Describe returns what the process said when it was opened, or looked at by
// Verify.
func (p *Process) Describe() supervisor.Description {
	p.mu.Lock()
	defer p.mu.Unlock()
	return supervisor.Description{
		Name: p.says.Name, Version: p.says.Version, Capabilities: p.says.Capabilities, ForcedBound: p.says.ForcedBound,
	}
}

// PID is the number of the process, or zero while there is none.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == nil {
		return 0
	}
	return p.now.run.number()
}

// Open starts the process, asks what it is and gives it its settings. From
// then on it is kept running until Close.
func (p *Process) Open(ctx context.Context) error {
	err := p.openOnce(ctx)
	if err != nil {
		return fmt.Errorf("open %s: %w", p.name, err)
	}
	return nil
}

func (p *Process) openOnce(ctx context.Context) error {
	p.opening.Lock()
	defer p.opening.Unlock()
	if p.isOpen() {
		return errors.New("it is open already")
	}
	if err := p.sockets.clear(ctx); err != nil {
		return err
	}
	began := time.Now()
	l, says, err := p.begin(ctx, true)
	if err != nil {
		return errors.Join(err, p.clear(context.WithoutCancel(ctx)))
	}
	keeping, stop := context.WithCancelCause(context.Background())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.says, p.took, p.open, p.stop, p.kept = says, time.Since(began), true, stop, make(chan struct{})
	p.show(l, nil, time.Time{})
	go p.keep(keeping, l) // which Close waits for
	return nil
}

func (p *Process) isOpen() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

// begin starts a process and configures it. The first one is asked what it is,
// and the secrets in its settings are read; those after it get the same.
func (p *Process) begin(ctx context.Context, first bool) (_ *life, says wire.Description, err error) {
	l, err := p.start(ctx)
	if err != nil {
		return nil, says, err
	}
	if err := keepState(ctx, p.host.stateDir(p.name), ""); err != nil {
		p.log.Warn("state directory not usable", "cause", err)
	}
	defer func() {
		if err != nil {
			l.kill(err)
			l.await(deathTime)
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, fmt.Errorf("no answer within %s", startTime))
	defer cancel()
	if first {
		if says, err = l.describe(ctx); err != nil {
			return nil, says, err
		}
		config, err := p.host.Settings(says.Schema, p.defined().Config)
		if err != nil {
			return nil, says, err
		}
		p.mu.Lock()
		p.config = config
		p.mu.Unlock()
	}
	if err := l.wire.Configure(ctx, p.setup()); err != nil {
		return nil, says, l.told(ctx, "configure", err)
	}
	return l, says, nil
}

// start starts a process, and counts it among the lives until it is over.
func (p *Process) start(ctx context.Context) (*life, error) {
	dir, err := p.sockets.add()
	if err != nil {
		return nil, err
	}
	says := &transcript{log: p.log, level: slog.LevelInfo, records: true}
	env := environ(setting{"SERVICE", p.host.Service}, setting{"NODE", p.host.Node}, setting{"STATE_DIR", p.host.stateDir(p.name)})
	l := newLife(program{kind: serving, argv: []string{p.path}, env: env, says: says}, p.host.UID, dir)
	p.mu.Lock()
	p.lives[l] = struct{}{}
	p.mu.Unlock()
	err = l.start(ctx, func() {
		p.sockets.remove(dir)
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.lives, l)
	})
	if err != nil {
		return l, err
	}
	if err := p.sockets.record(dir, l.run.number()); err != nil {
		l.kill(err)
		return l, l.explain(err)
	}
	return l, nil
}

func (p *Process) heartbeats() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.says.Heartbeats
}

func (p *Process) defined() supervisor.Part {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.part
}

// setup returns what the process is configured with.
func (p *Process) setup() wire.Setup {
	p.mu.Lock()
	config := p.config
	p.mu.Unlock()
	return p.setupOf(config)
}

// setupOf returns what it is configured with that has those settings.
func (p *Process) setupOf(config map[string]any) wire.Setup {
	p.mu.Lock()
	defer p.mu.Unlock()
	return wire.Setup{
		Service: p.host.Service, Node: p.host.Node, Part: p.name, StateDir: p.host.stateDir(p.name), Config: config, Term: p.term,
	}
}

// settings returns those of another definition of the part.
func (p *Process) settings(part supervisor.Part) (map[string]any, error) {
	p.mu.Lock()
	schema := p.says.Schema
	p.mu.Unlock()
	return p.host.Settings(schema, part.Config)
}

// describe asks what the process is.
func (l *life) describe(ctx context.Context) (wire.Description, error) {
	says, err := l.wire.Describe(ctx)
	switch can := func(c sdk.Capability) bool { return slices.Contains(says.Capabilities, c) }; {
	case err != nil:
		return says, l.told(ctx, "describe", err)
	case len(says.Capabilities) == 0:
		return says, fmt.Errorf("%w: it can do nothing", ErrContract)
	case can(sdk.CanPromote) && !can(sdk.CanDemote):
		return says, fmt.Errorf("%w: it can promote but not demote: what is promoted must be able to leave the role", ErrContract)
	}
	return says, nil
}

// show makes a change known to all who wait for one. The caller holds mu.
func (p *Process) show(now *life, why error, due time.Time) {
	p.now, p.why, p.due = now, why, due
	if now != nil {
		now.shown = true
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// Close ends the process, and returns when all of it is gone or ctx ends.
func (p *Process) Close(ctx context.Context) error {
	p.opening.Lock()
	defer p.opening.Unlock()
	if !p.isOpen() {
		return nil
	}
	p.stop(ErrClosed)
	select {
	case <-p.kept:
	case <-ctx.Done():
		p.killAll(causeOf(ctx))
		<-p.kept // soon: what it waits for has a bound
	}
	p.mu.Lock()
	p.open = false
	p.show(nil, ErrClosed, time.Time{})
	p.mu.Unlock()
	if err := p.clear(ctx); err != nil {
		return fmt.Errorf("close %s: %w", p.name, err)
	}
	return nil
}

// clear kills what is left, and returns when it is gone, or cannot be killed,
// or ctx ends.
func (p *Process) clear(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, deathTime, errors.New("could not be killed"))
	defer cancel()
	var left []string
	for _, l := range p.killAll(ErrClosed) {
		select {
		case <-l.over:
		case <-ctx.Done():
			left = append(left, l.run.String())
		}
	}
	if left != nil {
		return fmt.Errorf("%w: %s", context.Cause(ctx), strings.Join(left, "; "))
	}
	return nil
}

// killAll kills every process, and returns those of which something is left.
func (p *Process) killAll(why error) []*life {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*life
	for l := range p.lives {
		l.kill(why)
		all = append(all, l)
	}
	return all
}
