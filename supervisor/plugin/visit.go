package plugin

import (
	"context"
	"errors"
)

// Verify asks the process what it is and has it judge its settings. Where it is
// not open, a process is started for that, apart from all others, takes the
// settings, which changes nothing in the world, and is ended.
func (p *Process) Verify(ctx context.Context) error {
	if p.isOpen() {
		return p.call(ctx, "verify", func(l *life) error {
			if _, err := l.describe(ctx); err != nil {
				return err
			}
			return l.wire.Validate(ctx, p.setup())
		})
	}
	return p.visit(ctx, func(l *life) error {
		says, err := l.describe(ctx)
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.says = says
		p.mu.Unlock()
		config, err := p.host.Settings(says.Schema, p.defined().Config)
		if err != nil {
			return err
		}
		return l.told(ctx, "configure", l.wire.Configure(ctx, p.setupOf(config)))
	})
}

// visit starts a process for one look at it. Its socket lies apart, because the
// run directory may be that of a supervisor that runs.
func (p *Process) visit(ctx context.Context, look func(*life) error) error {
	h := p.host
	h.RunDir = ""
	apart := newProcess(h, p.part, p.path)
	l, err := apart.start(ctx)
	if err == nil {
		err = look(l)
		l.end(h.stall())
	}
	return errors.Join(err, apart.clear(ctx))
}
