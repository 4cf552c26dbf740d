// Package wire calls a plugin over a connection, as a host does.
//
// What it guarantees: what the plugin answers arrives as package sdk has it;
// what cannot be read counts as OutcomeUnknown. A call that the plugin does not
// serve is errors.ErrUnsupported. What it does not: any bound but that of the
// context. A plugin that is frozen is the host's to notice.
package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/proto"
)

// ErrUnavailable is a call that the plugin did not get, or whose answer was
// lost with the connection.
var ErrUnavailable = errors.New("no connection")

// A Client calls one plugin. Its methods may be called at the same time.
type Client struct{ c proto.PluginServiceClient }

// New returns a client on a connection.
func New(conn grpc.ClientConnInterface) *Client {
	return &Client{proto.NewPluginServiceClient(conn)}
}

// A Description is what a plugin says it is.
type Description struct {
	Name         string           `json:"name"`
	Version      string           `json:"version,omitempty"`
	SDK          string           `json:"sdk,omitempty"`
	Capabilities []sdk.Capability `json:"capabilities"`
	ForcedBound  time.Duration    `json:"forced_bound_ns,omitempty"` // zero when it does not say
	Heartbeats   bool             `json:"heartbeats"`
	Schema       json.RawMessage  `json:"schema,omitempty"` // of the settings
	Doc          string           `json:"doc,omitempty"`    // Markdown
}

// Describe asks what the plugin is.
func (c *Client) Describe(ctx context.Context) (Description, error) {
	r, err := c.c.Describe(ctx, &proto.DescribeRequest{})
	if err != nil {
		return Description{}, plain(err)
	}
	d := Description{
		Name: r.Name, Version: r.Version, SDK: r.SdkVersion, ForcedBound: time.Duration(r.ForcedBoundNs),
		Heartbeats: r.Heartbeats, Doc: r.Doc,
	}
	for _, have := range r.Capabilities {
		d.Capabilities = append(d.Capabilities, sdk.Capability(have))
	}
	if r.Schema != "" {
		if !json.Valid([]byte(r.Schema)) {
			return d, errors.New("its schema is not JSON")
		}
		d.Schema = json.RawMessage(r.Schema)
	}
	return d, nil
}

// A Setup is what a plugin is configured with.
type Setup struct {
	Service, Node, Part string
	StateDir            string
	Config              map[string]any
	Term                sdk.Term // the highest seen
}

// Mistakes are what a plugin finds wrong with its settings, an sdk.KeyError each
// where it is one setting's.
type Mistakes []error

func (m Mistakes) Error() string { return errors.Join(m...).Error() }

// Unwrap returns the mistakes.
func (m Mistakes) Unwrap() []error { return m }

// Configure puts settings in force. With Mistakes in them those of before stay.
func (c *Client) Configure(ctx context.Context, s Setup) error { return c.configure(ctx, s, false) }

// Validate only judges settings, as Configure does.
func (c *Client) Validate(ctx context.Context, s Setup) error { return c.configure(ctx, s, true) }

func (c *Client) configure(ctx context.Context, s Setup, validate bool) error {
	if s.Config == nil {
		s.Config = map[string]any{}
	}
	config, err := json.Marshal(s.Config)
	if err != nil {
		return fmt.Errorf("encode settings: %w", err)
	}
	r, err := c.c.Configure(ctx, &proto.ConfigureRequest{
		Service: s.Service, Node: s.Node, Part: s.Part, StateDir: s.StateDir,
		Config: string(config), Term: uint64(s.Term), ValidateOnly: validate,
	})
	if err != nil {
		return plain(err)
	}
	var wrong Mistakes
	for _, m := range r.Mistakes {
		err := errors.New(m.Message)
		if m.Key != "" {
			err = &sdk.KeyError{Key: m.Key, Err: err}
		}
		wrong = append(wrong, err)
	}
	if len(wrong) == 0 {
		return nil
	}
	return wrong
}

// Do has one act done, and returns its result. Each sign of life is told to
// heard, with what the plugin says of its progress, if anything. The plugin is
// asked for a heartbeat each given time. An error is an act whose result never
// came.
func (c *Client) Do(ctx context.Context, t sdk.Transition, heartbeat time.Duration, heard func(progress string)) (sdk.Result, error) {
	stream, err := c.c.Transition(ctx, request(t, heartbeat))
	if err != nil {
		return sdk.Result{}, plain(err)
	}
	for {
		r, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return sdk.Result{}, errors.New("ended without a result")
		case err != nil:
			return sdk.Result{}, plain(err)
		}
		switch e := r.Event.(type) {
		case *proto.TransitionResponse_Result:
			return result(e.Result), nil
		case *proto.TransitionResponse_Progress:
			text := e.Progress.Message
			if e.Progress.Percent >= 0 {
				text = fmt.Sprintf("%.0f%% %s", e.Progress.Percent, text)
			}
			heard(text)
		default:
			heard("")
		}
	}
}

// Renew extends what expires by itself. sdk.ErrExpired when it has expired.
func (c *Client) Renew(ctx context.Context, until sdk.Instant) error {
	_, err := c.c.Renew(ctx, &proto.RenewRequest{LeaseUntilNs: int64(until)})
	if status.Code(err) == codes.FailedPrecondition {
		return fmt.Errorf("%w: %w", sdk.ErrExpired, plain(err))
	}
	return plain(err)
}

// Check asks once whether this node is fit for the role.
func (c *Client) Check(ctx context.Context, role sdk.Role, t sdk.Term) (sdk.Health, error) {
	r, err := c.c.Check(ctx, &proto.CheckRequest{Role: string(role), Term: uint64(t)})
	if err != nil {
		return sdk.Health{}, plain(err)
	}
	return sdk.Health{Fit: r.Fit, Detail: r.Detail, Position: r.Position, Certain: r.Certain}, nil
}

// Watch calls changed whenever the plugin says that Check may have another
// answer now. It returns when the plugin does, or ctx ends.
func (c *Client) Watch(ctx context.Context, changed func()) error {
	stream, err := c.c.Watch(ctx, &proto.WatchRequest{})
	if err != nil {
		return plain(err)
	}
	for {
		switch _, err := stream.Recv(); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return plain(err)
		}
		changed()
	}
}

// Rank compares positions.
func (c *Client) Rank(ctx context.Context, mine string, others map[string]string) (map[string]sdk.Order, error) {
	r, err := c.c.Rank(ctx, &proto.RankRequest{Mine: mine, Others: others})
	if err != nil {
		return nil, plain(err)
	}
	orders := make(map[string]sdk.Order, len(r.Orders))
	for node, o := range r.Orders {
		switch o {
		case proto.Order_ORDER_AHEAD:
			orders[node] = sdk.Ahead
		case proto.Order_ORDER_EQUAL:
			orders[node] = sdk.Equal
		case proto.Order_ORDER_BEHIND:
			orders[node] = sdk.Behind
		default:
			orders[node] = sdk.Incomparable
		}
	}
	return orders, nil
}

// Drain has the plugin end what runs, within a time.
func (c *Client) Drain(ctx context.Context, within time.Duration) error {
	_, err := c.c.Drain(ctx, &proto.DrainRequest{TimeoutNs: int64(within)})
	return plain(err)
}

func request(t sdk.Transition, heartbeat time.Duration) *proto.TransitionRequest {
	r := &proto.TransitionRequest{
		Id: t.ID, Service: t.Service, Node: t.Node, Term: uint64(t.Term), Reason: string(t.Reason), Cause: t.Cause,
		Attempt: uint32(t.Attempt), TimeoutNs: int64(t.Timeout), LeaseUntilNs: int64(t.LeaseUntil), StateDir: t.StateDir,
		Previous: peer(t.Previous), Primary: peer(t.Primary), HeartbeatNs: int64(heartbeat),
		Mode: proto.Mode_MODE_PLANNED,
	}
	switch t.Action {
	case sdk.Promote:
		r.Action = proto.Action_ACTION_PROMOTE
	case sdk.Demote:
		r.Action = proto.Action_ACTION_DEMOTE
	case sdk.Follow:
		r.Action = proto.Action_ACTION_FOLLOW
	case sdk.Fence:
		r.Action = proto.Action_ACTION_FENCE
	}
	if t.Mode == sdk.Forced {
		r.Mode = proto.Mode_MODE_FORCED
	}
	for _, m := range t.Members {
		r.Members = append(r.Members, peer(m))
	}
	return r
}

func peer(p sdk.Peer) *proto.Peer { return &proto.Peer{Node: p.Node, Address: p.Address} }

func result(r *proto.Result) sdk.Result {
	s := sdk.Result{Detail: r.Detail, Outcome: sdk.OutcomeUnknown}
	switch r.Outcome {
	case proto.Outcome_OUTCOME_DONE:
		s.Outcome = sdk.OutcomeDone
	case proto.Outcome_OUTCOME_ALREADY:
		s.Outcome = sdk.OutcomeAlready
	case proto.Outcome_OUTCOME_FAILED_UNCHANGED:
		s.Outcome, s.Refused, s.RetryAfter = sdk.OutcomeUnchanged, r.Refused, time.Duration(r.RetryAfterNs)
	case proto.Outcome_OUTCOME_STALE_TERM:
		s.Outcome = sdk.OutcomeStaleTerm
	}
	return s
}

// plain makes an error of a call one for people.
func plain(err error) error {
	s, ok := status.FromError(err)
	switch {
	case err == nil:
		return nil
	case !ok:
		return err
	case s.Code() == codes.Unimplemented:
		return fmt.Errorf("%s: %w", s.Message(), errors.ErrUnsupported)
	case s.Code() == codes.Unavailable:
		return fmt.Errorf("%s: %w", s.Message(), ErrUnavailable)
	case s.Code() == codes.Canceled:
		return fmt.Errorf("%s: %w", s.Message(), context.Canceled)
	case s.Code() == codes.DeadlineExceeded:
		return fmt.Errorf("%s: %w", s.Message(), context.DeadlineExceeded)
	}
	return errors.New(s.Message())
}
