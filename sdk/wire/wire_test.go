package wire_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/proto"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// A stranger is a plugin of another make: it sends what it likes.
type stranger struct {
	proto.UnimplementedPluginServiceServer
	describe *proto.DescribeResponse
	wrong    []*proto.Mistake
	events   []*proto.TransitionResponse
	err      error // of any call
}

func (s *stranger) Describe(context.Context, *proto.DescribeRequest) (*proto.DescribeResponse, error) {
	return s.describe, s.err
}

func (s *stranger) Configure(_ context.Context, r *proto.ConfigureRequest) (*proto.ConfigureResponse, error) {
	if r.Config != "{}" || r.Term != 5 {
		return nil, status.Errorf(codes.InvalidArgument, "got %s of term %d", r.Config, r.Term)
	}
	return &proto.ConfigureResponse{Mistakes: s.wrong}, s.err
}

func (s *stranger) Transition(_ *proto.TransitionRequest, stream proto.PluginService_TransitionServer) error {
	for _, e := range s.events {
		if err := stream.Send(e); err != nil {
			return err
		}
	}
	return s.err
}

func (s *stranger) Check(context.Context, *proto.CheckRequest) (*proto.CheckResponse, error) {
	return &proto.CheckResponse{Fit: true}, s.err
}

func (s *stranger) Rank(context.Context, *proto.RankRequest) (*proto.RankResponse, error) {
	return &proto.RankResponse{Orders: map[string]proto.Order{"a": proto.Order_ORDER_AHEAD, "b": 99}}, s.err
}

func dial(t *testing.T, s *stranger) *wire.Client {
	t.Helper()
	listener, server := bufconn.Listen(1<<16), grpc.NewServer()
	proto.RegisterPluginServiceServer(server, s)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	conn, err := grpc.NewClient("passthrough:///plugin",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		serving.Wait()
	})
	return wire.New(conn)
}

func result(o proto.Outcome) *proto.TransitionResponse {
	return &proto.TransitionResponse{Event: &proto.TransitionResponse_Result{Result: &proto.Result{
		Outcome: o, Detail: "seen", Refused: true, RetryAfterNs: 7,
	}}}
}

// What cannot be read is unknown, and an act without a result is an error.
func TestResults(t *testing.T) {
	heartbeat := &proto.TransitionResponse{Event: &proto.TransitionResponse_Heartbeat{}}
	later := &proto.TransitionResponse{} // of a version to come
	progress := func(percent float64, text string) *proto.TransitionResponse {
		return &proto.TransitionResponse{Event: &proto.TransitionResponse_Progress{Progress: &proto.Progress{Percent: percent, Message: text}}}
	}
	for _, test := range []struct {
		events []*proto.TransitionResponse
		err    error
		want   sdk.Result
		heard  string
		wrong  string // part of the error
	}{
		{[]*proto.TransitionResponse{result(proto.Outcome_OUTCOME_DONE)}, nil, sdk.Result{Outcome: sdk.OutcomeDone, Detail: "seen"}, "", ""},
		{[]*proto.TransitionResponse{result(proto.Outcome_OUTCOME_ALREADY)}, nil, sdk.Result{Outcome: sdk.OutcomeAlready, Detail: "seen"}, "", ""},
		{[]*proto.TransitionResponse{result(proto.Outcome_OUTCOME_STALE_TERM)}, nil, sdk.Result{Outcome: sdk.OutcomeStaleTerm, Detail: "seen"}, "", ""},
		{[]*proto.TransitionResponse{result(proto.Outcome_OUTCOME_FAILED_UNKNOWN)}, nil, sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "seen"}, "", ""},
		{[]*proto.TransitionResponse{result(proto.Outcome_OUTCOME_FAILED_UNCHANGED)}, nil, sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: "seen", Refused: true, RetryAfter: 7}, "", ""},
		{[]*proto.TransitionResponse{result(proto.Outcome_OUTCOME_UNSPECIFIED)}, nil, sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "seen"}, "", ""},
		{[]*proto.TransitionResponse{result(99)}, nil, sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "seen"}, "", ""},
		{[]*proto.TransitionResponse{{Event: &proto.TransitionResponse_Result{}}}, nil, sdk.Result{Outcome: sdk.OutcomeUnknown}, "", ""},
		{[]*proto.TransitionResponse{heartbeat, later, progress(30, "x"), progress(-1, "y"), result(proto.Outcome_OUTCOME_DONE)}, nil, sdk.Result{Outcome: sdk.OutcomeDone, Detail: "seen"}, "||30% x|y|", ""},
		{[]*proto.TransitionResponse{heartbeat}, nil, sdk.Result{}, "|", "ended without a result"},
		{nil, status.Error(codes.Unavailable, "gone"), sdk.Result{}, "", "gone"},
	} {
		c := dial(t, &stranger{events: test.events, err: test.err})
		heard := ""
		got, err := c.Do(t.Context(), sdk.Transition{Action: sdk.Promote}, time.Second, func(p string) { heard += p + "|" })
		if got != test.want || heard != test.heard || (err != nil) != (test.wrong != "") || err != nil && !strings.Contains(err.Error(), test.wrong) {
			t.Errorf("%v: got %+v, %v, heard %q; want %+v, %q, %q", test.events, got, err, heard, test.want, test.wrong, test.heard)
		}
	}
}

func TestErrorsOfCalls(t *testing.T) {
	for code, want := range map[codes.Code]error{
		codes.Unimplemented:    errors.ErrUnsupported,
		codes.Canceled:         context.Canceled,
		codes.DeadlineExceeded: context.DeadlineExceeded,
		codes.Unknown:          nil,
	} {
		c := dial(t, &stranger{err: status.Error(code, "the words")})
		_, err := c.Check(t.Context(), sdk.RolePrimary, 1)
		if err == nil || !strings.HasPrefix(err.Error(), "the words") || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", code, err, want)
		}
		if _, err := c.Rank(t.Context(), "", nil); err == nil {
			t.Errorf("%s: rank has an answer", code)
		}
	}
	if err := dial(t, &stranger{}).Renew(t.Context(), 1); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("what it does not serve: %v", err)
	}
	orders, err := dial(t, &stranger{}).Rank(t.Context(), "", nil)
	if err != nil || fmt.Sprint(orders) != "map[a:ahead b:unknown]" {
		t.Errorf("ranked as %v, %v", orders, err)
	}
}

func TestMistakes(t *testing.T) {
	c := dial(t, &stranger{wrong: []*proto.Mistake{{Key: "a.b", Message: "is odd"}, {Message: "and all of it"}}})
	for _, judge := range []func(context.Context, wire.Setup) error{c.Configure, c.Validate} {
		err := judge(t.Context(), wire.Setup{Term: 5})
		var wrong wire.Mistakes
		var key *sdk.KeyError
		if !errors.As(err, &wrong) || len(wrong) != 2 || !errors.As(err, &key) || key.Key != "a.b" || err.Error() != "a.b: is odd\nand all of it" {
			t.Errorf("got %v", err)
		}
	}
	// That the plugin cannot be asked is no mistake in its settings.
	err := c.Configure(t.Context(), wire.Setup{})
	if wrong := wire.Mistakes(nil); err == nil || errors.As(err, &wrong) {
		t.Errorf("got %v", err)
	}
	err = c.Configure(t.Context(), wire.Setup{Config: map[string]any{"f": func() {}}})
	if err == nil || !strings.Contains(err.Error(), "encode settings") {
		t.Errorf("got %v", err)
	}
}

func TestDescriptions(t *testing.T) {
	c := dial(t, &stranger{describe: &proto.DescribeResponse{Name: "n", Capabilities: []string{"check", "dance"}, ForcedBoundNs: 5}})
	d, err := c.Describe(t.Context())
	if err != nil || d.Name != "n" || len(d.Capabilities) != 2 || d.ForcedBound != 5 || d.Heartbeats || d.Schema != nil {
		t.Errorf("got %+v, %v", d, err)
	}
	c = dial(t, &stranger{describe: &proto.DescribeResponse{Schema: "{"}})
	if _, err := c.Describe(t.Context()); err == nil {
		t.Error("a schema that is not JSON is taken")
	}
}
