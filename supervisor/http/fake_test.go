package http

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// A fakeNode has the services it is given.
type fakeNode struct {
	status func(ctx context.Context, service string) (supervisor.Status, sdk.Instant, error)
	names  []string
	// figures are those of a service; without it there are none but its name.
	figures func(ctx context.Context, service string) (supervisor.Figures, error)
	// together are those of all that share its process; without it nothing answers
	// for more than itself.
	together func(service string) ([]supervisor.Figures, error)

	mu    sync.Mutex
	asked []string
}

func (n *fakeNode) Services() []string { return n.names }

func (n *fakeNode) Status(ctx context.Context, service string) (supervisor.Status, sdk.Instant, error) {
	n.mu.Lock()
	n.asked = append(n.asked, service)
	n.mu.Unlock()
	if !slices.Contains(n.names, service) {
		return supervisor.Status{}, 0, fmt.Errorf("%w %q", supervisor.ErrNoService, service)
	}
	return n.status(ctx, service)
}

func (n *fakeNode) Report(ctx context.Context, service string) (supervisor.Report, error) {
	s, _, err := n.Status(ctx, service)
	if err != nil {
		return supervisor.Report{}, err
	}
	return supervisor.NewReport(s.State, &s), nil
}

func (n *fakeNode) History(context.Context, string) ([]supervisor.Change, error) { return nil, nil }

func (n *fakeNode) Figures(ctx context.Context, service string) (supervisor.Figures, error) {
	if n.figures == nil {
		return supervisor.Figures{Service: service}, nil
	}
	return n.figures(ctx, service)
}

func (n *fakeNode) AllFigures(_ context.Context, service string) ([]supervisor.Figures, error) {
	if n.together == nil {
		return nil, errors.New("an older supervisor")
	}
	return n.together(service)
}

// questionsAsked is how often supervisors were asked.
func (n *fakeNode) questionsAsked() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.asked)
}

const (
	start = sdk.Instant(1e12)       // when tests begin
	lease = sdk.Instant(1e12 + 2e9) // and the deadline of leases in them
)

// member is the status of a node in a role.
func member(role sdk.Role, fit bool) supervisor.Status {
	s := supervisor.Status{
		Service: "orders", Node: "db1", Role: role, Term: 7, Fit: fit, Verdict: "waits",
		Parts: []supervisor.PartStatus{{Name: "mysql", Checked: true, Fit: fit, Detail: "no answer"}},
		State: supervisor.State{Service: "orders"},
	}
	if supervisor.Holds(role) || role == sdk.RoleDemoting {
		s.LeaseUntil = lease
	}
	return s
}

// always answers each question with a status, at once.
func always(s supervisor.Status) *fakeNode {
	return &fakeNode{names: []string{"orders"}, status: func(context.Context, string) (supervisor.Status, sdk.Instant, error) {
		return s, start, nil
	}}
}
