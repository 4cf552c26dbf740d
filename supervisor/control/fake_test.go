package control

import (
	"context"
	"iter"
	"log/slog"
	"slices"
	"sync"

	"github.com/deputy-ha/deputy/supervisor"
)

// A fakeMember has the status it is given.
type fakeMember struct {
	mu      sync.Mutex
	status  supervisor.Status
	changed chan struct{} // closed at a change
	cleared int
	err     error // what Clear returns
}

func newFakeMember(s supervisor.Status) *fakeMember {
	return &fakeMember{status: s, changed: make(chan struct{})}
}

func (m *fakeMember) set(s supervisor.Status) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status = s
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *fakeMember) now() (supervisor.Status, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status, m.changed
}

func (m *fakeMember) Status() supervisor.Status {
	s, _ := m.now()
	return s
}

func (m *fakeMember) Watch(ctx context.Context) iter.Seq[supervisor.Status] {
	return func(yield func(supervisor.Status) bool) {
		for {
			s, changed := m.now()
			if !yield(s) {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (m *fakeMember) Figures() supervisor.Figures {
	s, _ := m.now()
	return supervisor.Figures{Service: s.Service, Node: s.Node, Role: s.Role}
}

func (m *fakeMember) Clear() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cleared++
	return m.err
}

// A fakeCluster notes the orders it gets, and answers all with its error.
type fakeCluster struct {
	mu     sync.Mutex
	orders []any
	state  supervisor.State
	err    error
}

func (c *fakeCluster) note(order any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.orders = append(c.orders, order)
	return c.err
}

func (c *fakeCluster) noted() []any {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.orders)
}

func (c *fakeCluster) Services(context.Context) ([]string, error) {
	return []string{c.state.Service}, c.err
}

func (c *fakeCluster) State(context.Context, string) (supervisor.State, error) {
	return c.state, c.err
}

func (c *fakeCluster) Watch(ctx context.Context, _ string) iter.Seq[supervisor.State] {
	return func(yield func(supervisor.State) bool) {
		if yield(c.state) {
			<-ctx.Done()
		}
	}
}

func (c *fakeCluster) History(context.Context, string) ([]supervisor.Change, error) {
	return []supervisor.Change{{Term: 1, Node: "db1"}, {Term: 2, Node: "db2"}}, c.err
}

type cancelled struct{ service, id string }

func (c *fakeCluster) Request(_ context.Context, _ string, r supervisor.Reservation) error {
	return c.note(r)
}

func (c *fakeCluster) Cancel(_ context.Context, s, id string) error { return c.note(cancelled{s, id}) }

func (c *fakeCluster) Pause(_ context.Context, _ string, p supervisor.Pause) error { return c.note(p) }

func (c *fakeCluster) Resume(_ context.Context, service string) error {
	return c.note("resume " + service)
}
func (c *fakeCluster) Drain(_ context.Context, d supervisor.Drain) error { return c.note(d) }
func (c *fakeCluster) Undrain(_ context.Context, node string) error      { return c.note("undrain " + node) }

func (c *fakeCluster) Ban(_ context.Context, _ string, b supervisor.Ban) error { return c.note(b) }

func (c *fakeCluster) Unban(_ context.Context, service, node string) error {
	return c.note("unban " + node + " " + service)
}

func (c *fakeCluster) Remove(_ context.Context, service string) error {
	return c.note("remove " + service)
}

func newServer(socket string) (*Server, *fakeMember, *fakeCluster) {
	m := newFakeMember(supervisor.Status{Service: "orders", Node: "db1", Role: "primary", Term: 7})
	c := &fakeCluster{state: supervisor.State{Service: "orders", Primary: &supervisor.Primary{Node: "db1", Term: 7}}}
	return &Server{
		Socket: socket, Member: m, Cluster: c, Level: new(Level), Log: slog.New(slog.DiscardHandler),
		Reload: func(context.Context) (Reloaded, error) {
			return Reloaded{Hash: "abc", Replaced: true}, c.note("reload")
		},
		Process: Process{ID: "one", PID: 42, Version: "1.2"},
	}, m, c
}
