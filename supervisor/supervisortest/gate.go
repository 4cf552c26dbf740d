package supervisortest

import (
	"context"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// Plugin returns a part as this process sees it: it stands still while the
// process is frozen, and what runs of it is killed with the process.
func (n *Node) Plugin(p *Plugin) supervisor.Plugin {
	return part{n, p}
}

type part struct {
	node   *Node
	plugin *Plugin
}

func (p part) Describe() supervisor.Description { return p.plugin.Describe() }

func (p part) Do(ctx context.Context, t sdk.Transition, progress func(string)) sdk.Result {
	if !p.node.wait() {
		return sdk.Result{Outcome: sdk.OutcomeDone}
	}
	ctx, cancel := p.node.running(ctx)
	defer cancel()
	r := p.plugin.do(ctx, t, progress, p.node.died)
	if !p.node.wait() {
		return sdk.Result{Outcome: sdk.OutcomeDone}
	}
	return r
}

func (p part) Check(ctx context.Context, role sdk.Role, t sdk.Term) (sdk.Health, error) {
	if !p.node.wait() {
		return sdk.Health{Fit: true}, nil
	}
	return p.plugin.Check(ctx, role, t)
}

func (p part) Watch(ctx context.Context, changed func()) error { return p.plugin.Watch(ctx, changed) }

func (p part) Renew(ctx context.Context, until sdk.Instant) error {
	if !p.node.wait() {
		return nil
	}
	return p.plugin.Renew(ctx, until)
}

func (p part) Rank(ctx context.Context, mine string, others map[string]string) (map[string]sdk.Order, error) {
	if !p.node.wait() {
		return nil, nil
	}
	return p.plugin.Rank(ctx, mine, others)
}

func (p part) Kill(ctx context.Context) error {
	if !p.node.wait() {
		return nil
	}
	return p.plugin.Kill(ctx)
}

// running returns a context whose end reaches a part only while the process
// runs: a frozen one can tell nobody.
func (n *Node) running(ctx context.Context) (context.Context, func()) {
	inner, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(over)
		if n.wait() {
			cancel(context.Cause(ctx))
		}
	})
	return inner, func() {
		if !stop() {
			<-over
		}
		cancel(nil)
	}
}

// memory is the machine's memory as this process sees it.
type memory struct{ node *Node }

func (m memory) Load() (supervisor.Note, error) {
	if !m.node.wait() {
		return supervisor.Note{}, nil
	}
	return m.node.machine.memory.Load()
}

func (m memory) Save(n supervisor.Note) error {
	if !m.node.wait() {
		return nil
	}
	return m.node.machine.memory.Save(n)
}

func (m memory) SaveUntil(i sdk.Instant) error {
	if !m.node.wait() {
		return nil
	}
	return m.node.machine.memory.SaveUntil(i)
}
