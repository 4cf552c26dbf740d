package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	wire "github.com/deputy-ha/deputy/sdk/proto"
)

// A server serves a plugin over the wire.
type server struct {
	wire.UnimplementedPluginServiceServer
	plugin Plugin
	log    *slog.Logger

	configuring sync.Mutex // one Configure at a time

	mu      sync.Mutex
	current *part                  // nil before the first Configure
	given   *wire.ConfigureRequest // what made it
	highest Term                   // ever seen
	running *act                   // nil when none is
	drained bool
}

// A part is what the author's function has made of one set of settings.
type part struct {
	methods any
	end     context.CancelCauseFunc
}

// An act is one transition while it runs.
type act struct {
	id      string
	attempt int
	end     context.CancelCauseFunc
	over    chan struct{}
	result  Result // once over
}

func (s *server) Describe(context.Context, *wire.DescribeRequest) (*wire.DescribeResponse, error) {
	p := s.plugin
	r := &wire.DescribeResponse{
		Name: p.name, Version: p.version, SdkVersion: fmt.Sprint(wire.Version),
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
	if s.see(Term(r.Term)); !r.ValidateOnly && s.inForce(r) {
		return &wire.ConfigureResponse{}, nil
	}
	config, err := s.plugin.settings.decode(r.Config)
	if err != nil || r.ValidateOnly {
		return &wire.ConfigureResponse{Mistakes: mistakes(err)}, nil
	}
	living, end := context.WithCancelCause(context.WithoutCancel(ctx))
	h := Host{
		Service: r.Service, Node: r.Node, Part: r.Part, StateDir: r.StateDir, Log: s.log,
	}
	var made any
	err = s.guard("configure", func() (err error) {
		made, err = s.plugin.make(living, config, h)
		return err
	})
	if err != nil {
		end(err)
		return &wire.ConfigureResponse{Mistakes: mistakes(err)}, nil
	}
	old, err := s.replace(ctx, r, &part{made, end})
	if err != nil {
		s.retire(&part{made, end})
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	s.retire(old)
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
		if running == nil {
			old, s.current, s.given = s.current, p, r
			s.mu.Unlock()
			return old, nil
		}
		s.mu.Unlock()
		select {
		case <-running.over:
		case <-ctx.Done():
			return nil, fmt.Errorf("configure: an act still runs: %w", context.Cause(ctx))
		}
	}
}

// retire ends a part that is not called any more.
func (s *server) retire(p *part) {
	if p == nil {
		return
	}
	p.end(errors.New("other settings are in force"))
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

// methods returns what is to be called.
func (s *server) methods() (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		return nil, status.Error(codes.Unavailable, "not configured yet")
	}
	return s.current.methods, nil
}

func (s *server) Transition(r *wire.TransitionRequest, stream wire.PluginService_TransitionServer) error {
	t := transitionOf(r)
	do, err := s.method(t.Action)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(stream.Context(), t.Timeout, fmt.Errorf("not done within %s", t.Timeout))
	defer cancel()
	said := make(chan *wire.Progress, 16)
	rep := &report{progress: func(percent float64, message string) {
		select {
		case said <- &wire.Progress{Percent: percent, Message: message}:
		default: // nobody needs all of it
		}
	}}
	ended := make(chan Result, 1)
	go func() { // waited for below, whatever becomes of the stream
		ended <- s.act(context.WithValue(ctx, reportKey{}, rep), t, rep, do)
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
		do = func(m any, ctx context.Context, t *Transition) error { return m.(Fencer).Fence(ctx, t.Primary, t) }
	}
	if do == nil || !s.plugin.can(Capability(a)) {
		return nil, status.Errorf(codes.Unimplemented, "%s cannot %s", s.plugin.name, a)
	}
	return do, nil
}

// act runs one transition, once nothing else runs.
func (s *server) act(ctx context.Context, t *Transition, rep *report, do func(any, context.Context, *Transition) error) Result {
	if seen := s.see(t.Term); t.Action != Demote && t.Term < seen {
		return staleTerm(t.Term, seen)
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	a := &act{id: t.ID, attempt: t.Attempt, end: end, over: make(chan struct{})}
	methods, other, refused := s.enter(ctx, t, a)
	switch {
	case other != nil:
		return other.result
	case refused != nil:
		return Result{Outcome: OutcomeUnchanged, Detail: refused.Error()}
	}
	err := s.guard(string(t.Action), func() error { return do(methods, ctx, t) })
	rep.mu.Lock()
	noted := rep.noted
	rep.mu.Unlock()
	a.result = resultOf(err, noted)
	s.mu.Lock()
	s.running = nil
	s.mu.Unlock()
	close(a.over)
	return a.result
}

// enter makes a the act that runs, and returns what it calls. Whatever else
// runs is waited for if a demotes, and told to end at once. The same act asked
// twice at once runs once: enter then returns the other, when it is over.
func (s *server) enter(ctx context.Context, t *Transition, a *act) (methods any, same *act, refused error) {
	for {
		s.mu.Lock()
		running := s.running
		if running == nil {
			defer s.mu.Unlock()
			switch {
			case s.drained:
				return nil, nil, ErrDrained
			case s.current == nil:
				return nil, nil, errors.New("not configured yet")
			case t.Action != Demote && t.Term < s.highest: // while it waited
				return nil, nil, fmt.Errorf("term %d: term %d was seen", t.Term, s.highest)
			}
			s.running = a
			return s.current.methods, nil, nil
		}
		s.mu.Unlock()
		again := running.id != "" && running.id == a.id && running.attempt == a.attempt
		switch {
		case again:
		case t.Action == Demote:
			running.end(ErrSuperseded)
		default:
			return nil, nil, errors.New("another act still runs")
		}
		select {
		case <-running.over:
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("another act still runs: %w", context.Cause(ctx))
		}
		if again {
			return nil, running, nil
		}
	}
}

func (s *server) Renew(ctx context.Context, r *wire.RenewRequest) (*wire.RenewResponse, error) {
	m, err := s.methods()
	if err != nil {
		return nil, err
	}
	renewer, ok := m.(Renewer)
	if !ok {
		return nil, status.Errorf(codes.Unimplemented, "%s cannot renew", s.plugin.name)
	}
	err = s.guard("renew", func() error { return renewer.Renew(ctx, Instant(r.LeaseUntilNs)) })
	if errors.Is(err, ErrExpired) {
		err = status.Error(codes.FailedPrecondition, err.Error())
	}
	return &wire.RenewResponse{}, err
}

func (s *server) Check(ctx context.Context, r *wire.CheckRequest) (*wire.CheckResponse, error) {
	m, err := s.methods()
	if err != nil {
		return nil, err
	}
	checker, ok := m.(Checker)
	if !ok {
		return nil, status.Errorf(codes.Unimplemented, "%s cannot check", s.plugin.name)
	}
	s.see(Term(r.Term))
	var h Health
	err = s.guard("check", func() (err error) {
		h, err = checker.Check(ctx, Role(r.Role))
		return err
	})
	return &wire.CheckResponse{Fit: h.Fit, Detail: h.Detail, Position: h.Position}, err
}

func (s *server) Rank(ctx context.Context, r *wire.RankRequest) (*wire.RankResponse, error) {
	m, err := s.methods()
	if err != nil {
		return nil, err
	}
	ranker, ok := m.(Ranker)
	if !ok {
		return nil, status.Errorf(codes.Unimplemented, "%s cannot rank", s.plugin.name)
	}
	var orders map[string]Order
	err = s.guard("rank", func() (err error) {
		orders, err = ranker.Rank(ctx, r.Mine, r.Others)
		return err
	})
	return &wire.RankResponse{Orders: wireOrders(orders)}, err
}

// Drain ends what runs and lets nothing more begin.
func (s *server) Drain(ctx context.Context, r *wire.DrainRequest) (*wire.DrainResponse, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(r.TimeoutNs), errors.New("an act still runs"))
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
	s.retire(current)
	return nil
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
