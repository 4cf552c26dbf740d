package supervisor

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A Setup is what a Member is made of.
type Setup struct {
	Service   Service
	Node      Node
	Elector   Elector
	Plugins   []Plugin // one for each of Service.Parts, in their order
	Clock     Clock
	Memory    Memory
	Escalator Escalator // nil: there is no force outside of this process
	Log       *slog.Logger
}

// A Member is this node's seat in the election of one service. One goroutine,
// the one that calls Run, owns its role; all others see snapshots.
type Member struct {
	node      Node
	elector   Elector
	clock     Clock
	memory    Memory
	escalator Escalator
	log       *slog.Logger
	timing    Timing

	wake chan struct{}  // something below has changed; only the role's goroutine receives
	acts sync.WaitGroup // acts that run, those of the past included

	mu       sync.Mutex
	service  Service
	parts    []*part
	changed  chan struct{} // closed at the next change of a snapshot
	role     sdk.Role
	since    time.Time
	cause    error
	phase    *phase
	lease    Lease // nil when none is held
	state    State
	seen     bool // state has been yielded at least once
	absent   []Absence
	doing    string
	verdict  string
	held     sdk.Instant // hold-off: sits out until then
	ballot   sdk.Term    // the vacancy that positions are wanted for
	ends     bool        // told to end: others need not wait for its data
	stepDown *ending     // an order to leave the role
	clear    bool        // an order to leave blocked or failed
	last     TermRecord  // the last tenure heard of
	change   Change      // the tenure here, for the history

	forfeited sdk.Instant // when the lease was first seen to be somebody else's; by Leash
	away      error       // why this node leads nothing for now; nil when it may

	transitions int // how many there were
	tally       tally

	// owned by the role's goroutine
	scribe      *scribe
	unfollowing func()      // ends what follow began; nil when nothing was
	reservation string      // ID of the last one seen
	asked       sdk.Instant // when it was first seen
	said        string      // ID and state of the last answer given
	unfenced    *unfenced   // nil when there was nobody to fence, or it was done
}

// A part is one plugin of the service with what is known about it.
type part struct {
	Name     string
	defined  atomic.Pointer[defined] // replaced by Reload
	promoted bool                    // may act as primary
	demoted  bool                    // by the process before, as far as its note goes: promoted is a doubt
	altered  bool                    // promoted or demoted with other settings than it has now
	running  int                     // acts that have not ended, those given up included
	hurry    chan struct{}           // has one when the next check must not wait
	health   health
	tally    partTally
	renewing renewing
	followed sdk.Term // the primary it was told of; by follow's goroutine, while there is one
}

// A defined is a part as defined at one time.
type defined struct {
	Part
	plugin Plugin
}

func newPart(p Part, plugin Plugin) *part {
	n := &part{Name: p.Name, hurry: make(chan struct{}, 1)}
	n.defined.Store(&defined{p, plugin})
	return n
}

// def returns the part as it is defined now.
func (p *part) def() *defined { return p.defined.Load() }

// An ending is why a role is left.
type ending struct {
	reason sdk.Reason
	cause  error
}

// A stateFn is one role, for as long as the call lasts. It returns the role
// that follows, or nil when the member has ended.
type stateFn func(context.Context) stateFn

// NewMember returns a member that does nothing before Run.
func NewMember(s Setup) (*Member, error) {
	if len(s.Plugins) != len(s.Service.Parts) {
		return nil, fmt.Errorf("set up %s: %d plugins for %d parts", s.Service.Name, len(s.Plugins), len(s.Service.Parts))
	}
	m := &Member{
		node: s.Node, elector: s.Elector, clock: s.Clock, memory: s.Memory,
		escalator: s.Escalator,
		log:       s.Log.With("service", s.Service.Name, "node", s.Node.Name),
		timing:    NewTiming(s.Service.TTL),
		wake:      make(chan struct{}, 1),
		changed:   make(chan struct{}),
		service:   s.Service,
		role:      sdk.RoleUnknown,
		since:     time.Now(),
		cause:     errors.New("not started"),
		phase:     newPhase(sdk.RoleUnknown),
		state:     State{Service: s.Service.Name},
		tally:     newTally(),
	}
	for i, p := range s.Service.Parts {
		m.parts = append(m.parts, newPart(p, s.Plugins[i]))
	}
	return m, nil
}

// Run takes part in the election until ctx ends. With ErrRestart as the cause
// a primary keeps its role for the next process to adopt; with any other cause
// it hands over first. Run returns nil only when the service is demoted on
// this node, or its role kept on purpose; while a demotion fails it does not
// return.
func (m *Member) Run(ctx context.Context) error {
	var helpers sync.WaitGroup
	watching, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer m.acts.Wait()
	defer helpers.Wait()
	defer stop(errors.New("the member has ended"))

	helpers.Go(func() { m.observe(watching) })
	helpers.Go(func() { m.publish(watching) })
	for _, p := range m.parts {
		helpers.Go(func() { m.check(watching, p) })
		helpers.Go(func() { m.watch(watching, p) })
	}
	end := context.AfterFunc(ctx, func() { m.update(func() { m.ends = true }); m.ring() })
	defer end()

	for f := m.start(ctx); f != nil; {
		f = f(ctx)
	}
	return nil
}

// become changes the role. It is the only writer of it.
func (m *Member) become(next sdk.Role, t sdk.Term, cause error) {
	m.mu.Lock()
	from := m.role
	if !from.CanBecome(next) {
		m.mu.Unlock()
		panic(fmt.Sprintf("service %s: role %s cannot become %s", m.service.Name, from, next))
	}
	m.tally.move(from, next, m.change.Reason)
	m.role, m.since, m.cause, m.doing = next, time.Now(), cause, ""
	m.phase.next(next, func(p *phase) {
		m.phase = p
		for _, part := range m.parts {
			part.health = health{position: part.health.position} // until it tells another
		}
	})
	m.tell()
	m.mu.Unlock()
	args := []any{"from", string(from), "role", string(next)}
	if t != 0 {
		args = append(args, "term", uint64(t))
	}
	m.log.Info("role changed", append(args, "cause", cause)...)
}

// tell wakes everybody who waits for a snapshot to change. The caller holds mu.
func (m *Member) tell() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// ring wakes the role's goroutine.
func (m *Member) ring() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// update changes what is guarded by mu, and wakes all who look at it.
func (m *Member) update(f func()) {
	m.mu.Lock()
	f()
	m.tell()
	m.mu.Unlock()
	m.ring()
}

// await returns at the next change, at the given instant (if any), when lost
// is closed (if any) or when ctx ends.
func (m *Member) await(ctx context.Context, at sdk.Instant, lost <-chan struct{}) {
	var due <-chan struct{}
	if at != 0 {
		timer := m.clock.Timer(at)
		defer timer.Stop()
		due = timer.C()
	}
	select {
	case <-m.wake:
	case <-due:
	case <-lost:
	case <-ctx.Done():
	}
}

// pause waits for d, or until ctx ends or lost is closed.
func (m *Member) pause(ctx context.Context, d time.Duration, lost <-chan struct{}) {
	timer := m.clock.Timer(m.clock.Now().Add(d))
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-lost:
	case <-ctx.Done():
	}
}

// observe keeps the newest State.
func (m *Member) observe(ctx context.Context) {
	for s := range m.elector.Observe(ctx) {
		m.update(func() {
			switch was := m.state.Unreachable; {
			case was == "" && s.Unreachable != "":
				m.log.Warn("etcd cannot be reached", "cause", s.Unreachable)
			case was != "" && s.Unreachable == "":
				m.log.Info("etcd can be reached again")
			}
			m.absent = absent(m.absent, m.state, s, m.node.Name, time.Now())
			m.state, m.seen = s, true
			m.tally.see(s, m.clock.Now())
			if s.Vacant && m.ballot != s.Term.Term+1 {
				m.ballot = s.Term.Term + 1
				m.phase.poke()
			}
		})
	}
}

// election returns the newest State, and whether there is one.
func (m *Member) election() (State, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state, m.seen
}

// definition returns the service as defined now.
func (m *Member) definition() Service {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.service
}

// remember saves what the next process needs if this one dies.
func (m *Member) remember(role sdk.Role, lease Lease, cause error) error {
	note := Note{Role: role, Last: m.noted()}
	if cause != nil {
		note.Cause = cause.Error()
	}
	if lease != nil {
		t := lease.Tenure()
		note.Tenure = &t
	}
	m.mu.Lock()
	for _, p := range m.parts {
		if p.promoted && !p.demoted {
			note.Promoted = append(note.Promoted, p.Name)
		}
	}
	m.mu.Unlock()
	return m.memory.Save(note)
}

// note is remember where a failure changes nothing: the memory then says more
// than is true, and the next process demotes what needs no demotion.
func (m *Member) note(role sdk.Role, lease Lease, cause error) {
	if err := m.remember(role, lease, cause); err != nil {
		m.log.Warn("run directory not written", "cause", err)
	}
}

// Status returns a snapshot.
func (m *Member) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status()
}

func (m *Member) status() Status {
	s := Status{
		Service: m.service.Name, Description: m.service.Description, Node: m.node.Name, Role: m.role,
		Term: m.state.Term.Term, Since: m.since, Cause: m.cause.Error(),
		Verdict: m.verdict, TTL: m.service.TTL, Doing: m.doing, State: m.state, Absent: m.absent,
	}
	s.Fit, _ = m.fitness()
	if m.lease != nil {
		s.Term = m.lease.Term()
		s.LeaseUntil = m.lease.Until()
		s.LeaseLeft = max(0, s.LeaseUntil.Sub(m.clock.Now()))
	}
	for _, p := range m.parts {
		s.Parts = append(s.Parts, PartStatus{
			Name: p.Name, Use: p.def().Use, Promoted: p.promoted,
			Checked: p.health.answered, Fit: !p.health.unfit(), Warning: m.warns(p),
			Detail: p.health.detail, At: p.health.at,
		})
	}
	return s
}

// Watch yields a snapshot at once and after each change, until ctx ends or the
// loop is left. Snapshots may be left out, never the last one.
func (m *Member) Watch(ctx context.Context) iter.Seq[Status] {
	return func(yield func(Status) bool) {
		for {
			m.mu.Lock()
			s, changed := m.status(), m.changed
			m.mu.Unlock()
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

// StepDown has a primary hand over. ErrNotHere when it is not one.
func (m *Member) StepDown(reason sdk.Reason, cause string) error {
	m.mu.Lock()
	defer m.ring()
	defer m.mu.Unlock()
	if m.role != sdk.RolePrimary && m.role != sdk.RolePromoting {
		return fmt.Errorf("step down %s: role is %s: %w", m.service.Name, m.role, ErrNotHere)
	}
	m.stepDown = &ending{reason, errors.New(cause)}
	return nil
}

// Withdraw has the member leave its role, as for a drain, and lead nothing until
// it is called again with nil.
func (m *Member) Withdraw(why error) {
	m.update(func() { m.away = why })
}

// TakesPart reports whether the member has seen to what the process before left,
// and has heard from the records, or that they cannot be reached.
func (m *Member) TakesPart() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen && m.role != sdk.RoleUnknown
}

// Clear tells a blocked or failed member that an operator has put things
// right: it demotes once more, and believes only what it then sees. It also
// ends a hold-off. ErrNotHere when there is nothing to clear.
func (m *Member) Clear() error {
	m.mu.Lock()
	defer m.ring()
	defer m.mu.Unlock()
	switch {
	case m.role == sdk.RoleBlocked || m.role == sdk.RoleFailed:
		m.clear = true
	case m.held > m.clock.Now():
		m.held = 0
	default:
		return fmt.Errorf("clear %s: role is %s: %w", m.service.Name, m.role, ErrNotHere)
	}
	m.tell()
	return nil
}

// Reloadable returns nil if a new definition can be put in force without a
// change of role, else the way to put it in force.
func (m *Member) Reloadable(s Service) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reloadable(s)
}

func (m *Member) reloadable(s Service) error {
	if s.TTL != m.service.TTL {
		return fmt.Errorf("reload %s: ttl changes from %s to %s: restart the service's process, its role is kept", s.Name, m.service.TTL, s.TTL)
	}
	if !slices.EqualFunc(s.Parts, m.service.Parts, func(a, b Part) bool { return a.Name == b.Name && a.Use == b.Use }) {
		return fmt.Errorf("reload %s: its plugins are not the ones in force: restart the service's process, its role is handed over where it is primary", s.Name)
	}
	return nil
}

// Reload puts a new definition in force, with the plugins that have its
// settings, without a change of role. Altered tells of each part whether its
// settings are others than before: it is promoted again under the same term where
// it is promoted, else demoted again. A definition that is not Reloadable is
// refused.
func (m *Member) Reload(s Service, plugins []Plugin, altered []bool) error {
	m.mu.Lock()
	defer m.ring()
	defer m.mu.Unlock()
	if err := m.reloadable(s); err != nil {
		return err
	}
	if len(plugins) != len(m.parts) || len(altered) != len(m.parts) {
		return fmt.Errorf("reload %s: %d plugins for %d parts", s.Name, len(plugins), len(m.parts))
	}
	for i, p := range m.parts {
		p.altered = p.altered || altered[i]
		p.defined.Store(&defined{s.Parts[i], plugins[i]})
	}
	m.service = s
	m.phase.poke()
	m.tell()
	return nil
}

// Awaits tells what the member waits for before it can Run.
func (m *Member) Awaits(cause error) {
	m.update(func() { m.cause = cause })
}
