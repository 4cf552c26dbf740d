package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/proto"
)

// bare serves the part without the SDK, as a plugin in another language would.
func bare() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	if rule() != "no-sdk-outlives-its-host" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
	}
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: proto.CookieKey, MagicCookieValue: proto.CookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{proto.Version: {proto.ServiceName: adapter{}}},
		GRPCServer:       goplugin.DefaultGRPCServer,
		Logger:           hclog.NewNullLogger(),
	})
	if rule() == "no-sdk-never-ends" {
		time.Sleep(time.Minute)
	}
}

type adapter struct {
	goplugin.NetRPCUnsupportedPlugin
}

func (adapter) GRPCServer(_ *goplugin.GRPCBroker, g *grpc.Server) error {
	proto.RegisterPluginServiceServer(g, &bareServer{})
	return nil
}

func (adapter) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.ErrUnsupported
}

// A bareServer keeps the contract by itself, but for the rule that it breaks.
type bareServer struct {
	proto.UnimplementedPluginServiceServer
	mu      sync.Mutex
	part    *part
	highest uint64
	running *bareAct
}

type bareAct struct {
	id     string
	end    context.CancelCauseFunc
	over   chan struct{}
	result *proto.Result
}

func (s *bareServer) Describe(context.Context, *proto.DescribeRequest) (*proto.DescribeResponse, error) {
	capabilities := []string{"promote", "demote"}
	if rule() == "no-sdk-fences-itself" {
		capabilities = append(capabilities, "fence")
	}
	return &proto.DescribeResponse{
		Name: "bare", Capabilities: capabilities, Schema: `{"required": ["file"]}`, Heartbeats: true,
	}, nil
}

func (s *bareServer) Configure(_ context.Context, r *proto.ConfigureRequest) (*proto.ConfigureResponse, error) {
	var settings map[string]any
	if err := json.Unmarshal([]byte(r.Config), &settings); err != nil {
		return nil, err
	}
	file, _ := settings["file"].(string)
	if mistakes := mistakesIn(settings, file); len(mistakes) > 0 {
		return &proto.ConfigureResponse{Mistakes: mistakes}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.highest = max(s.highest, r.Term)
	if !r.ValidateOnly {
		s.part = &part{file: file, rule: rule(), asked: map[string]bool{}}
	}
	return &proto.ConfigureResponse{}, nil
}

func mistakesIn(settings map[string]any, file string) (all []*proto.Mistake) {
	if rule() == "no-sdk-takes-anything" {
		return nil
	}
	for key := range settings {
		if key != "file" {
			all = append(all, &proto.Mistake{Key: key, Message: "there is no such setting"})
		}
	}
	if file == "" && (len(all) == 0 || rule() != "no-sdk-tells-one-mistake") {
		all = append(all, &proto.Mistake{Key: "file", Message: "is missing"})
	}
	return all
}

func (s *bareServer) Transition(r *proto.TransitionRequest, stream proto.PluginService_TransitionServer) error {
	ctx, cancel := context.WithTimeout(stream.Context(), time.Duration(r.TimeoutNs))
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	a := &bareAct{id: r.Id, end: end, over: make(chan struct{})}
	for s.enter(ctx, r, a) {
		time.Sleep(time.Millisecond)
	}
	if a.result == nil {
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.act(ctx, r, a)
		}()
		beat := time.NewTicker(time.Duration(r.HeartbeatNs))
		defer beat.Stop()
		for running := true; running; {
			select {
			case <-done:
				running = false
			case <-beat.C:
				if rule() != "no-sdk-no-heartbeats" {
					_ = stream.Send(&proto.TransitionResponse{Event: &proto.TransitionResponse_Heartbeat{}})
				}
			}
		}
	}
	return stream.Send(&proto.TransitionResponse{Event: &proto.TransitionResponse_Result{Result: a.result}})
}

// enter reports whether a has to wait; else it may run, or has its result.
func (s *bareServer) enter(ctx context.Context, r *proto.TransitionRequest, a *bareAct) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.part == nil {
		switch rule() {
		case "no-sdk-ends-without-settings":
			os.Exit(3)
		case "no-sdk-needs-no-settings":
			a.result = &proto.Result{Outcome: proto.Outcome_OUTCOME_DONE}
		default:
			a.result = &proto.Result{Outcome: proto.Outcome_OUTCOME_FAILED_UNKNOWN, Detail: "no settings yet"}
		}
		return false
	}
	stale := r.Term < s.highest && r.Action != proto.Action_ACTION_DEMOTE && rule() != "no-sdk-stale"
	s.highest = max(s.highest, r.Term)
	switch b := s.running; {
	case stale:
		a.result = &proto.Result{Outcome: proto.Outcome_OUTCOME_STALE_TERM}
	case b != nil && b.id == r.Id && rule() == "no-sdk-twice-at-once":
		a.result = &proto.Result{Outcome: proto.Outcome_OUTCOME_FAILED_UNKNOWN, Detail: "both at once"}
	case ctx.Err() != nil:
		a.result = &proto.Result{Outcome: proto.Outcome_OUTCOME_FAILED_UNCHANGED, Detail: ctx.Err().Error()}
	case b != nil:
		if r.Action == proto.Action_ACTION_DEMOTE && b.id != r.Id {
			b.end(errors.New("superseded"))
		}
		return true
	default:
		s.running = a
	}
	return false
}

func (s *bareServer) act(ctx context.Context, r *proto.TransitionRequest, a *bareAct) {
	t := &sdk.Transition{ID: r.Id, Term: sdk.Term(r.Term), Mode: sdk.Planned, LeaseUntil: sdk.Instant(r.LeaseUntilNs)}
	do := s.part.Demote
	if r.Action == proto.Action_ACTION_FENCE {
		do = func(context.Context, *sdk.Transition) error {
			if r.Primary.Node != "victim" && r.Primary.Node != r.Node {
				return errors.New("no power over it")
			}
			return nil
		}
	}
	if r.Action == proto.Action_ACTION_PROMOTE {
		do = s.part.Promote
		if rule() == "no-sdk-no-heartbeats" {
			_ = pause(ctx, 300*time.Millisecond)
		}
	}
	result := &proto.Result{Outcome: proto.Outcome_OUTCOME_DONE}
	switch err := do(ctx, t); {
	case errors.Is(err, sdk.ErrAlready):
		result.Outcome = proto.Outcome_OUTCOME_ALREADY
	case err != nil:
		result = &proto.Result{Outcome: proto.Outcome_OUTCOME_FAILED_UNKNOWN, Detail: err.Error()}
	}
	a.result = result
	s.mu.Lock()
	s.running = nil
	s.mu.Unlock()
}
