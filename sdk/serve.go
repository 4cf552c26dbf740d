package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	wire "github.com/deputy-ha/deputy/sdk/proto"
)

// NewServer returns what Main serves, for a host in the same process: it is what
// the fake supervisor of sdk/sdktest calls, so that a unit test and a supervisor
// meet the same rules. A plugin's main needs Main, and not this.
//
// The log becomes Host.Log, and now the clock of Host.Now. When ctx ends, so does
// the context of everything that New's function has made, as by the end of a
// process; nothing is closed then. Its methods may be called at the same time.
func NewServer(ctx context.Context, p Plugin, log *slog.Logger, now func() Instant) wire.PluginServiceServer {
	return serverOf(ctx, p, log, now)
}

func serverOf(ctx context.Context, p Plugin, log *slog.Logger, now func() Instant) *server {
	return &server{life: ctx, plugin: p, log: log, now: now}
}

// A server serves a plugin over the wire.
type server struct {
	wire.UnimplementedPluginServiceServer
	life   context.Context // of the process
	plugin Plugin
	log    *slog.Logger
	now    func() Instant

	configuring sync.Mutex // one Configure at a time

	mu      sync.Mutex
	current *part                  // nil before the first Configure
	given   *wire.ConfigureRequest // what made it
	highest Term                   // ever seen
	asked   []*act                 // that run or wait
	running *act                   // nil when none is
	drained bool
}

// A part is what the author's function has made of one set of settings.
type part struct {
	methods any
	end     context.CancelCauseFunc
	watched context.Context // ends before the rest of it does
	unwatch context.CancelCauseFunc
	calls   sync.WaitGroup // that it is in
}

// An act is one transition while it runs.
type act struct {
	id      string
	action  Action
	attempt int
	end     context.CancelCauseFunc
	over    chan struct{}
	result  Result // once over
}

// same reports whether both are one act, asked twice.
func (a *act) same(b *act) bool {
	return a.id != "" && a.id == b.id && a.action == b.action && a.attempt == b.attempt
}

func (s *server) Describe(context.Context, *wire.DescribeRequest) (*wire.DescribeResponse, error) {
	p := s.plugin
	r := &wire.DescribeResponse{
		Name: p.name, Version: p.versionOrBuild(), SdkVersion: sdkVersion(),
		Schema: p.settings.schema(), Doc: p.doc, ForcedBoundNs: int64(p.forcedBound), Heartbeats: true,
	}
	for _, c := range p.capabilities {
		r.Capabilities = append(r.Capabilities, string(c))
	}
	return r, nil
}

func (s *server) Configure(ctx context.Context, r *wire.ConfigureRequest) (*wire.ConfigureResponse, error) {
	s.configuring.Lock()
	defer s.configuring.Unlock()
	if !r.ValidateOnly {
		if s.see(Term(r.Term)); s.inForce(r) {
			return &wire.ConfigureResponse{}, nil
		}
	}
	var config reflect.Value
	err := s.guard("settings", func() (err error) {
		config, err = s.plugin.settings.decode(r.Config)
		return err
	})
	if err != nil || r.ValidateOnly {
		return &wire.ConfigureResponse{Mistakes: mistakes(err)}, nil
	}
	living, end := context.WithCancelCause(s.life)
	p := &part{end: end}
	p.watched, p.unwatch = context.WithCancelCause(living)
	err = s.guard("configure", func() (err error) {
		p.methods, err = s.plugin.make(living, config, Host{
			Service: r.Service, Node: r.Node, Part: r.Part, StateDir: r.StateDir, Log: s.log, now: s.now,
		})
		return err
	})
	if err != nil {
		end(err)
		return &wire.ConfigureResponse{Mistakes: mistakes(err)}, nil
	}
	old, err := s.replace(ctx, r, p)
	if err != nil {
		s.retire(ctx, p, err)
		code := codes.Unknown
		if ctx.Err() != nil {
			code = codes.DeadlineExceeded
		}
		return nil, status.Error(code, "configure: "+err.Error())
	}
	s.retire(ctx, old, errors.New("other settings are in force"))
	return &wire.ConfigureResponse{}, nil
}

// inForce reports whether r would change nothing.
func (s *server) inForce(r *wire.ConfigureRequest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.given
	return g != nil && g.Service == r.Service && g.Node == r.Node && g.Part == r.Part && g.StateDir == r.StateDir && g.Config == r.Config
}

// replace puts a part in force once no act runs.
func (s *server) replace(ctx context.Context, r *wire.ConfigureRequest, p *part) (old *part, err error) {
	for {
		s.mu.Lock()
		running := s.running
		switch {
		case s.drained:
			s.mu.Unlock()
			return nil, ErrDrained
		case running == nil:
			old, s.current, s.given = s.current, p, r
			s.mu.Unlock()
			return old, nil
		}
		s.mu.Unlock()
		select {
		case <-running.over:
		case <-ctx.Done():
			return nil, fmt.Errorf("another act still runs: %w", context.Cause(ctx))
		}
	}
}

// retire ends a part that is not called any more: once the last call of it is
// over, or the time to wait for that.
func (s *server) retire(ctx context.Context, p *part, cause error) {
	if p == nil {
		return
	}
	p.unwatch(cause)
	left := make(chan struct{})
	go func() { // ends with the last call
		p.calls.Wait()
		close(left)
	}()
	select {
	case <-left:
	case <-ctx.Done():
	}
	p.end(cause)
	if c, ok := p.methods.(io.Closer); ok {
		if err := s.guard("close", c.Close); err != nil {
			s.log.Warn("settings of before not closed", "cause", err)
		}
	}
}

// mistakes tells an error about settings, key by key.
func mistakes(err error) []*wire.Mistake {
	var all []*wire.Mistake
	for _, one := range apart(err) {
		if key := (*KeyError)(nil); errors.As(one, &key) {
			all = append(all, &wire.Mistake{Key: key.Key, Message: key.Err.Error()})
		} else {
			all = append(all, &wire.Mistake{Message: one.Error()})
		}
	}
	return all
}

// see remembers a term, and returns the highest ever seen.
func (s *server) see(t Term) Term {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.highest = max(s.highest, t)
	return s.highest
}

// call makes one call of what is in force that is no act.
func call[M any](s *server, c Capability, f func(M) error) error {
	return callOf(s, c, func(_ *part, m M) error { return f(m) })
}

// callOf is call for who has to know the part.
func callOf[M any](s *server, c Capability, f func(*part, M) error) error {
	s.mu.Lock()
	p := s.current
	if p == nil {
		s.mu.Unlock()
		return status.Error(codes.Unknown, "not configured yet")
	}
	p.calls.Add(1)
	s.mu.Unlock()
	defer p.calls.Done()
	m, ok := p.methods.(M)
	if !ok {
		return status.Errorf(codes.Unimplemented, "%s cannot %s", s.plugin.name, c)
	}
	err := s.guard(string(c), func() error { return f(p, m) })
	switch {
	case err == nil:
		return nil
	case c == CanRenew && errors.Is(err, ErrExpired):
		return status.Error(codes.FailedPrecondition, err.Error()) // this alone is told so
	}
	return status.Error(codes.Unknown, err.Error()) // whatever it means where the author has it from
}

func (s *server) Transition(r *wire.TransitionRequest, stream wire.PluginService_TransitionServer) error {
	t := transitionOf(r)
	do, err := s.method(t.Action)
	if err != nil {
		return err
	}
	ctx, cancel := bound(stream.Context(), t.Timeout, fmt.Errorf("not done within %s", t.Timeout))
	defer cancel()
	said := make(chan *wire.Progress, 16)
	rep := &report{progress: func(percent float64, message string) {
		select {
		case said <- &wire.Progress{Percent: percent, Message: message}:
		default: // nobody needs all of it
		}
	}}
	// Before the first sign of life, so that who asks for a demotion after that
	// knows that it comes second.
	ctx, a := s.ask(context.WithValue(ctx, reportKey{}, rep), t)
	ended := make(chan Result, 1)
	go func() { // waited for below, whatever becomes of the stream
		ended <- s.act(ctx, a, t, rep, do)
	}()
	every := time.Duration(r.HeartbeatNs)
	if every <= 0 {
		every = time.Second
	}
	beat := time.NewTicker(every)
	defer beat.Stop()
	for {
		select {
		case result := <-ended:
			for len(said) > 0 {
				_ = stream.Send(&wire.TransitionResponse{Event: &wire.TransitionResponse_Progress{Progress: <-said}})
			}
			return stream.Send(&wire.TransitionResponse{Event: &wire.TransitionResponse_Result{Result: result.wire()}})
		case p := <-said:
			_ = stream.Send(&wire.TransitionResponse{Event: &wire.TransitionResponse_Progress{Progress: p}}) // a lost stream ends ctx
		case <-beat.C:
			_ = stream.Send(&wire.TransitionResponse{Event: &wire.TransitionResponse_Heartbeat{}})
		}
	}
}

// method returns what an action calls.
func (s *server) method(a Action) (func(methods any, ctx context.Context, t *Transition) error, error) {
	var do func(any, context.Context, *Transition) error
	switch a {
	case Promote:
		do = func(m any, ctx context.Context, t *Transition) error { return m.(Promoter).Promote(ctx, t) }
	case Demote:
		do = func(m any, ctx context.Context, t *Transition) error { return m.(Demoter).Demote(ctx, t) }
	case Follow:
		do = func(m any, ctx context.Context, t *Transition) error { return m.(Follower).Follow(ctx, t) }
	case Fence:
		do = fence
	}
	if do == nil || !s.plugin.can(Capability(a)) {
		return nil, status.Errorf(codes.Unimplemented, "%s cannot %s", s.plugin.name, a)
	}
	return do, nil
}

// fence has any node fenced but the one that it runs on.
func fence(m any, ctx context.Context, t *Transition) error {
	switch t.Primary.Node {
	case "":
		return Refuse(errors.New("fence: it is not said whom"))
	case t.Node:
		return Refuse(fmt.Errorf("fence %s: that is this node", t.Node))
	}
	return m.(Fencer).Fence(ctx, t.Primary, t)
}

// ask takes note of a transition that is asked for; act has to follow.
func (s *server) ask(ctx context.Context, t *Transition) (context.Context, *act) {
	ctx, end := context.WithCancelCause(ctx)
	a := &act{id: t.ID, action: t.Action, attempt: t.Attempt, end: end, over: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.highest = max(s.highest, t.Term)
	if t.Action == Demote && ctx.Err() == nil { // else it may be late, and what is asked is newer
		// Nothing that was asked before may run once it is over.
		for _, other := range s.asked {
			if !other.same(a) {
				other.end(ErrSuperseded)
			}
		}
	}
	s.asked = append(s.asked, a)
	return ctx, a
}

// act runs one transition, once nothing else runs.
func (s *server) act(ctx context.Context, a *act, t *Transition, rep *report, do func(any, context.Context, *Transition) error) Result {
	defer a.end(nil)
	p, other := s.enter(ctx, t, a)
	if p != nil {
		err := s.guard(string(t.Action), func() error { return do(p.methods, ctx, t) })
		other = resultOf(err, rep.note())
	}
	s.leave(a, other)
	return other
}

// enter makes a the act that runs, once nothing else does, and returns what it
// calls. Without a part it returns the result: that of the very same act, which
// runs already, or why a does not begin.
func (s *server) enter(ctx context.Context, t *Transition, a *act) (*part, Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	waited := false
	for {
		running := s.running
		switch {
		case t.Action != Demote && t.Term < s.highest:
			return nil, staleTerm(t.Term, s.highest)
		case ctx.Err() != nil:
			return nil, notBegun(t, context.Cause(ctx), running, waited)
		case s.drained:
			return nil, notBegun(t, ErrDrained, running, waited)
		case s.current == nil:
			return nil, notBegun(t, errors.New("not configured yet"), running, waited)
		case running == nil:
			s.running = a
			return s.current, Result{}
		}
		s.mu.Unlock()
		select {
		case <-running.over:
		case <-ctx.Done():
		}
		s.mu.Lock()
		waited = true
		if s.running != running && running.same(a) {
			return nil, running.result
		}
	}
}

// notBegun is the result of an act that has changed nothing itself. What runs,
// or has run while it waited, may have.
func notBegun(t *Transition, why error, running *act, waited bool) Result {
	r := Result{Outcome: OutcomeUnchanged}
	if running != nil {
		why = fmt.Errorf("another %s still runs: %w", running.action, why)
	}
	if running != nil || waited {
		r.Outcome = OutcomeUnknown
	}
	r.Detail = fmt.Sprintf("%s: not begun: %s", t.Action, why)
	return r
}

// leave ends an act that has entered, or has not.
func (s *server) leave(a *act, r Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = slices.DeleteFunc(s.asked, func(other *act) bool { return other == a })
	if s.running == a {
		s.running = nil
		a.result = r
		close(a.over)
	}
}

func (s *server) Renew(ctx context.Context, r *wire.RenewRequest) (*wire.RenewResponse, error) {
	err := call(s, CanRenew, func(m Renewer) error { return m.Renew(ctx, Instant(r.LeaseUntilNs)) })
	return &wire.RenewResponse{}, err
}

func (s *server) Check(ctx context.Context, r *wire.CheckRequest) (*wire.CheckResponse, error) {
	s.see(Term(r.Term))
	var h Health
	err := call(s, CanCheck, func(m Checker) (err error) {
		h, err = m.Check(ctx, Role(r.Role))
		return err
	})
	return &wire.CheckResponse{Fit: h.Fit, Detail: h.Detail, Position: h.Position, Certain: h.Certain}, err
}

// Watch tells of changes until the stream ends, or the settings of the part do.
func (s *server) Watch(_ *wire.WatchRequest, stream wire.PluginService_WatchServer) error {
	ctx, end := context.WithCancelCause(stream.Context())
	defer end(nil)
	changes := make(chan struct{}, 1)
	watched := make(chan error, 1)
	go func() { // waited for below: it ends with ctx
		watched <- callOf(s, CanWatch, func(p *part, m Watcher) error {
			stop := context.AfterFunc(p.watched, func() { end(context.Cause(p.watched)) })
			defer stop()
			return m.Watch(ctx, func() {
				select {
				case changes <- struct{}{}:
				default: // one that was not told yet tells of this one, too
				}
			})
		})
	}()
	for {
		select {
		case <-changes:
			if err := stream.Send(&wire.WatchResponse{}); err != nil {
				end(err)
			}
		case err := <-watched:
			return err
		}
	}
}

func (s *server) Rank(ctx context.Context, r *wire.RankRequest) (*wire.RankResponse, error) {
	var orders map[string]Order
	err := call(s, CanRank, func(m Ranker) (err error) {
		orders, err = m.Rank(ctx, r.Mine, r.Others)
		return err
	})
	return &wire.RankResponse{Orders: wireOrders(orders)}, err
}

// Drain ends what runs and lets nothing more begin.
func (s *server) Drain(ctx context.Context, r *wire.DrainRequest) (*wire.DrainResponse, error) {
	ctx, cancel := bound(ctx, time.Duration(r.TimeoutNs), errors.New("an act still runs"))
	defer cancel()
	if err := s.drain(ctx); err != nil {
		return nil, status.Error(codes.DeadlineExceeded, err.Error())
	}
	return &wire.DrainResponse{}, nil
}

func (s *server) drain(ctx context.Context) error {
	s.mu.Lock()
	s.drained = true
	running, current := s.running, s.current
	s.mu.Unlock()
	if running != nil {
		running.end(ErrDrained)
		select {
		case <-running.over:
		case <-ctx.Done():
			return fmt.Errorf("drain: %w", context.Cause(ctx))
		}
	}
	s.mu.Lock()
	s.current, s.given = nil, nil
	s.mu.Unlock()
	s.retire(ctx, current, ErrDrained)
	return nil
}

// bound ends ctx after d. Zero is not said: the caller has a bound of its own.
func bound(ctx context.Context, d time.Duration, cause error) (context.Context, context.CancelFunc) {
	if d == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, d, cause)
}

// guard makes a panic of the author's code the failure of the call it happened
// in.
func (s *server) guard(what string, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			s.log.Error("plugin panics", "in", what, "cause", fmt.Sprint(r), "stack", strings.TrimSpace(string(debug.Stack())))
			err = fmt.Errorf("panic in %s: %v", what, r)
		}
	}()
	return f()
}
