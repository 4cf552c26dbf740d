package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A phase is the time during which the same checks count: as long as this node
// is primary, or as long as it is standby or candidate.
type phase struct {
	on    On // OnPrimary, OnStandby, or nothing in between
	done  chan struct{}
	pokes chan struct{} // closed to have all checks run now
}

func newPhase(r sdk.Role) *phase {
	p := &phase{done: make(chan struct{}), pokes: make(chan struct{})}
	switch r {
	case sdk.RolePrimary:
		p.on = OnPrimary
	case sdk.RoleStandby, sdk.RoleCandidate:
		p.on = OnStandby
	}
	return p
}

// next ends the phase and begins another, unless r belongs to this one.
func (p *phase) next(r sdk.Role, begin func(*phase)) {
	n := newPhase(r)
	if n.on == p.on {
		return
	}
	close(p.done)
	begin(n)
}

// poke has every check of the phase run at once.
func (p *phase) poke() {
	close(p.pokes)
	p.pokes = make(chan struct{})
}

// A health is what a part's checks came to in this phase.
type health struct {
	answered bool
	fit      bool
	passed   int  // in a row
	failed   int  // in a row
	ever     bool // one has passed in this phase
	detail   string
	position string
	ballot   sdk.Term // the vacancy that the position was asked for
	at       time.Time
}

// counts reports whether the part's checks count in the phase.
func (p *part) counts(on On) bool {
	when := p.def().Check.On
	if when == "" {
		when = OnBoth
		if p.def().Check.Severity != Eligibility && p.def().plugin.Describe().Can(sdk.CanPromote) {
			when = OnPrimary
		}
	}
	return on != "" && (when == OnBoth || when == on)
}

// costs reports whether a check that fails makes this node unfit in the phase.
// Otherwise it is a warning.
func (p *part) costs(on On) bool {
	switch p.def().Check.Severity {
	case Warning:
		return false
	case Eligibility:
		return on == OnStandby
	}
	return true
}

// check asks a part for its health, for as long as ctx lasts.
func (m *Member) check(ctx context.Context, p *part) {
	var began, due time.Time // of the phase, and the next check that nobody hurries
	var during *phase
	hurried := false
	for ctx.Err() == nil {
		m.mu.Lock()
		ph, pokes, policy, plugin := m.phase, m.phase.pokes, p.def().Check, p.def().plugin
		role, term, ballot := m.role, m.state.Term.Term, m.ballot
		can, ranks := plugin.Describe().Can(sdk.CanCheck), plugin.Describe().Can(sdk.CanRank)
		m.mu.Unlock()
		if ph != during {
			during, began = ph, time.Now()
		}
		// A part that ranks is asked in every standby phase: its position is wanted.
		if !can || !p.counts(ph.on) && (!ranks || ph.on != OnStandby) {
			select {
			case <-ph.done:
			case <-pokes:
			case <-ctx.Done():
			}
			continue
		}

		asked, cancel := context.WithTimeoutCause(ctx, policy.Timeout, fmt.Errorf("no answer within %s", policy.Timeout))
		sent := time.Now()
		h, err := plugin.Check(asked, role, term)
		took := time.Since(sent)
		if err != nil && asked.Err() != nil {
			err = context.Cause(asked)
		}
		cancel()
		if err != nil {
			h = sdk.Health{Detail: err.Error()}
		}
		early := hurried && time.Now().Before(due)
		grace := ph.on == OnPrimary && time.Since(began) < policy.StartGrace
		var before, after health
		m.update(func() {
			p.tally.check(h, err, took)
			if m.phase == ph {
				before = p.health
				p.health.count(h, policy, grace, early)
				p.health.ballot = ballot
				after = p.health
			}
		})
		if next := time.Now().Add(policy.spread(policy.Pause(after.turning()))); !early || next.Before(due) {
			due = next
		}
		if p.counts(ph.on) && !p.costs(ph.on) && before.unfit() != after.unfit() {
			m.warn(p, after)
		}

		hurried = false
		select {
		case <-ph.done:
		case <-pokes:
		case <-ctx.Done():
		case <-p.hurry:
			hurried = true
		case <-time.After(time.Until(due)):
		}
	}
}

// watch has a part checked as soon as its plugin says that its health may have
// changed, for as long as ctx lasts. A unit that has failed is known to systemd
// within a millisecond; asking each second would be what takes longest.
func (m *Member) watch(ctx context.Context, p *part) {
	for ctx.Err() == nil {
		m.mu.Lock()
		ph, pokes := m.phase, m.phase.pokes
		m.mu.Unlock()
		plugin := p.def().plugin
		if w, ok := plugin.(Watcher); ok && plugin.Describe().Can(sdk.CanWatch) {
			err := w.Watch(ctx, func() {
				select {
				case p.hurry <- struct{}{}:
				default: // the next check has not begun yet
				}
			})
			m.log.Debug("plugin not watched any more", "plugin", p.Name, "cause", err)
		}
		select { // until there may be another plugin
		case <-ph.done:
		case <-pokes:
		case <-ctx.Done():
		}
	}
}

// unfit reports whether the answers say that the part is not fit.
func (h *health) unfit() bool { return h.answered && !h.fit }

// turning reports whether the last answers are on the way to another verdict
// than the one that holds.
func (h *health) turning() bool {
	if h.failed > 0 {
		return h.fit || !h.answered
	}
	return h.passed > 0 && !h.fit
}

// warn tells the log of a check that makes nobody unfit, when it turns.
func (m *Member) warn(p *part, h health) {
	if h.unfit() {
		m.log.Warn("a check fails, which costs no role", "plugin", p.Name, "cause", h.detail)
		return
	}
	m.log.Info("a check passes again", "plugin", p.Name, "cause", h.detail)
}

// count takes one answer in. The first answer of a phase decides at once;
// later ones need fall failures or rise successes in a row, unless the plugin is
// certain. One that comes early may turn the row, and is not another one in it:
// a unit that restarts tells of each step, within milliseconds.
func (h *health) count(a sdk.Health, policy CheckPolicy, grace, early bool) {
	h.detail, h.at = a.Detail, time.Now()
	if a.Position != "" {
		h.position = a.Position
	}
	if early && !a.Certain && h.passed+h.failed > 0 && a.Fit == (h.passed > 0) {
		return
	}
	if a.Fit {
		h.passed, h.failed, h.ever = h.passed+1, 0, true
		if !h.answered || h.passed >= policy.Rise {
			h.answered, h.fit = true, true
		}
		return
	}
	if grace && !h.ever && !a.Certain {
		return
	}
	h.passed, h.failed = 0, h.failed+1
	if h.failed >= policy.Fall || a.Certain {
		h.answered, h.fit = true, false
	}
}

// fitness reports whether every check that counts in this phase says that this
// node is fit, and what they say. The caller holds mu.
func (m *Member) fitness() (bool, string) {
	fit := true
	var said []string
	for _, p := range m.parts {
		if err := p.renewing.err; err != nil {
			fit = false
			said = append(said, fmt.Sprintf("%s: %v", p.Name, err))
		}
		if !p.def().plugin.Describe().Can(sdk.CanCheck) || !p.counts(m.phase.on) || !p.costs(m.phase.on) {
			continue
		}
		switch {
		case !p.health.answered && m.phase.on == OnStandby:
			fit = false
			said = append(said, p.Name+": not checked yet")
		case p.health.unfit():
			fit = false
			said = append(said, p.Name+": "+p.health.detail)
		}
	}
	return fit, strings.Join(said, "; ")
}

// warns reports whether the part's check fails in this phase, and that costs
// nothing. The caller holds mu.
func (m *Member) warns(p *part) bool {
	return p.health.unfit() && p.counts(m.phase.on) && !p.costs(m.phase.on)
}

// warnings are what checks say that fail and cost nothing. The caller holds mu.
func (m *Member) warnings() (said []string) {
	for _, p := range m.parts {
		if m.warns(p) {
			said = append(said, "warning: "+p.Name+": "+p.health.detail)
		}
	}
	return said
}

// unfit returns why this node is not fit for its role, or nil.
func (m *Member) unfit() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if fit, said := m.fitness(); !fit {
		return errors.New(said)
	}
	return nil
}

// positions returns what the parts that rank said about themselves, and
// whether all of it is from after the role became vacant. The caller holds mu.
func (m *Member) positions() (map[string]string, sdk.Term) {
	var at map[string]string
	ballot := m.ballot
	for _, p := range m.parts {
		if !p.def().plugin.Describe().Can(sdk.CanRank) {
			continue
		}
		if at == nil {
			at = map[string]string{}
		}
		at[p.Name] = p.health.position
		ballot = min(ballot, p.health.ballot)
	}
	if at == nil {
		return nil, 0
	}
	return at, ballot
}
