package systemd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// Targets are the role targets of a service as the last part of it: the units
// that belong to the role of a primary start when all else is primary, and are
// proven down before anything else is demoted.
//
// A unit belongs to a role when the target pulls it in (Wants, Requires,
// BindsTo, Upholds), or when it stops with the target or with the gate (PartOf,
// BindsTo, Requires there); so does what a timer, path or socket among them
// triggers. The gate itself is not started or stopped by this: it has to
// outlive all parts.
type Targets struct {
	bus     *Bus
	service string
	log     *slog.Logger

	turn chan struct{} // has a token while somebody asks for a start that has to fit the role

	mu     sync.Mutex
	runs   map[int]context.CancelCauseFunc // acts, for Kill
	next   int
	idle   chan struct{} // closed while no act runs
	denied error         // why the target may not be started
	many   error         // why not all that belongs to the role could be stopped, as seen with alone
	alone  bool          // nothing belongs to the target, as seen when nothing had to be fast
	serves bool          // promoted, and not demoted since
	moved  time.Time     // since when that is so, or is not
	begun  bool          // the target was asked for since then
	said   string        // what was logged last, to say it once
}

var (
	_ supervisor.Plugin  = (*Targets)(nil)
	_ supervisor.Watcher = (*Targets)(nil)
)

// NewTargets returns the role targets of a service.
func NewTargets(bus *Bus, service string, log *slog.Logger) *Targets {
	t := &Targets{bus: bus, service: service, log: log, turn: make(chan struct{}, 1), runs: map[int]context.CancelCauseFunc{}, idle: make(chan struct{})}
	close(t.idle)
	return t
}

// Describe tells what the targets can.
func (t *Targets) Describe() supervisor.Description {
	return supervisor.Description{
		Name:         "targets",
		Capabilities: []sdk.Capability{sdk.CanPromote, sdk.CanDemote, sdk.CanCheck, sdk.CanWatch},
	}
}

// errKilled is why an act ends that Kill ends.
var errKilled = errors.New("killed")

// Do starts the units of the role, or stops them and proves it.
func (t *Targets) Do(ctx context.Context, a sdk.Transition, progress func(string)) sdk.Result {
	ctx, end := t.begin(ctx, a.Timeout)
	defer end()
	if progress == nil {
		progress = func(string) {}
	}
	var detail string
	var err error
	switch {
	case a.Action == sdk.Promote:
		detail, err = t.promote(ctx, a, progress)
	case a.Action == sdk.Demote:
		detail, err = t.demote(ctx, a, progress)
	default:
		return sdk.Result{Outcome: sdk.OutcomeUnchanged, Refused: true, Detail: fmt.Sprintf("cannot %s", a.Action)}
	}
	switch {
	case errors.Is(err, sdk.ErrAlready):
		return sdk.Result{Outcome: sdk.OutcomeAlready, Detail: detail}
	case errors.Is(err, errMany) && a.Action == sdk.Promote:
		return sdk.Result{Outcome: sdk.OutcomeUnchanged, Refused: true, Detail: err.Error()}
	case err != nil:
		return sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: err.Error()}
	}
	return sdk.Result{Outcome: sdk.OutcomeDone, Detail: detail}
}

// begin bounds an act by its timeout, and lets Kill end it.
func (t *Targets) begin(ctx context.Context, timeout time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := func() {}
	if timeout > 0 {
		bounded, release := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not within %s", timeout.Round(time.Millisecond)))
		ctx, stop = bounded, release
	}
	t.mu.Lock()
	if len(t.runs) == 0 {
		t.idle = make(chan struct{})
	}
	t.next++
	me := t.next
	t.runs[me] = cancel
	t.mu.Unlock()
	return ctx, func() {
		stop()
		cancel(nil)
		t.mu.Lock()
		defer t.mu.Unlock()
		if delete(t.runs, me); len(t.runs) == 0 {
			close(t.idle)
		}
	}
}

// Kill ends acts. The jobs that they asked for go on in PID 1: a stop is what
// whoever kills a promotion wants next, and it replaces a start.
func (t *Targets) Kill(ctx context.Context) error {
	t.mu.Lock()
	for _, cancel := range t.runs {
		cancel(errKilled)
	}
	idle := t.idle
	t.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kill targets: %w", context.Cause(ctx))
	}
}

// Renew is not for targets: the gate looks at the lease by itself.
func (t *Targets) Renew(context.Context, sdk.Instant) error {
	return fmt.Errorf("renew: %w", errors.ErrUnsupported)
}

// Rank is not for targets.
func (t *Targets) Rank(context.Context, string, map[string]string) (map[string]sdk.Order, error) {
	return nil, fmt.Errorf("rank: %w", errors.ErrUnsupported)
}

// look finds out whether there will be anything to wait for, and whether all of
// it can be stopped. What changes after that is not waited for, and started all
// the same.
func (t *Targets) look(ctx context.Context) {
	target, gate, err := t.both(ctx, Primary(t.service), Gate(t.service))
	if err != nil {
		return // then it is found out when it counts
	}
	_, many := t.members(ctx, target, gate)
	if !errors.Is(many, errMany) {
		many = nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.alone = target.Stays() && len(t.wanted(target)) == 0
	t.many = many
}

// promote starts the units of a primary, and waits for them where there are any.
func (t *Targets) promote(ctx context.Context, a sdk.Transition, progress func(string)) (string, error) {
	var alone bool
	err := t.inTurn(ctx, func() error { // what was asked for in another role is asked for no more
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.many != nil {
			return t.many
		}
		alone = t.alone
		t.alone, t.serves, t.moved, t.begun = false, true, time.Now(), false
		return nil
	})
	if err != nil {
		return "", err
	}
	if alone {
		// Clients are served without it, so nobody waits: Check has it started.
		// Whoever adopts the role finds nothing else to be done either.
		return "no unit belongs to it", sdk.ErrAlready
	}
	target, gate, err := t.both(ctx, Primary(t.service), Gate(t.service))
	if err != nil {
		return "", err
	}
	wanted := t.wanted(target)
	switch {
	case target.Up() && gate.Up():
		t.hasBegun()
		return "active", sdk.ErrAlready
	case len(wanted) == 0:
		return "no unit belongs to it", sdk.ErrAlready
	case a.Reason == sdk.ReasonStart:
		// The role of the process before is adopted only where it is held up. And
		// a gate starts after its supervisor has, which this would wait for.
		return "", fmt.Errorf("%s is %s, and %s is %s", target.Name, target.Active, gate.Name, gate.Active)
	}
	t.hasBegun()
	t.clear(ctx, progress)
	progress("starts " + strings.Join(wanted, ", "))
	for _, name := range wanted {
		// One that failed too often before would not be started again. Where
		// this is not permitted it is as before.
		_ = t.bus.order(ctx, "ResetFailedUnit", name)
	}
	err = t.bus.Start(ctx, target.Name)
	if err == nil {
		target, err = t.bus.Unit(ctx, target.Name)
	}
	if err == nil && !target.Up() {
		err = fmt.Errorf("start %s: it is %s", target.Name, target.Active)
	}
	failed := t.failed(ctx, append(wanted, gate.Name))
	if err != nil {
		if failed != "" {
			err = fmt.Errorf("%w: failed: %s", err, failed)
		}
		return "", t.cure(err)
	}
	if failed != "" { // wanted, not required
		t.log.Warn("units of a primary did not start", "cause", failed)
		return "active, but failed: " + failed, nil
	}
	return "", nil
}

// hasBegun keeps that the target was asked for.
func (t *Targets) hasBegun() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begun = true
}

// inTurn does something while nobody else asks for a start.
func (t *Targets) inTurn(ctx context.Context, f func() error) error {
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
		return f()
	case <-ctx.Done():
		return fmt.Errorf("wait for an answer of systemd: %w", context.Cause(ctx))
	}
}

// Settle stops the gate and has the units of a standby started, as long as still
// says that this node is one. It waits for neither.
func (t *Targets) Settle(ctx context.Context, still func() bool) error {
	during := func(f func() error) error {
		return t.inTurn(ctx, func() error {
			if !still() {
				return nil
			}
			return f()
		})
	}
	stopped := during(func() error { return t.StopGate(ctx) })
	for {
		err := during(func() error {
			u, err := t.bus.Unit(ctx, Standby(t.service))
			if err != nil || u.Up() {
				return err
			}
			return t.bus.Try(ctx, u.Name)
		})
		if !errors.Is(err, ErrTaken) || errors.Is(err, ErrGoingDown) || ctx.Err() != nil {
			t.look(ctx)
			return errors.Join(stopped, err)
		}
		select {
		case <-time.After(takenTime):
		case <-ctx.Done():
		}
	}
}

// StartGate has the gate started, and does not wait for it.
func (t *Targets) StartGate(ctx context.Context) error { return t.bus.Queue(ctx, Gate(t.service)) }

// StopGate has the gate stopped where it is active, and does not wait for it.
func (t *Targets) StopGate(ctx context.Context) error {
	u, err := t.bus.Unit(ctx, Gate(t.service))
	if err != nil || u.Stays() {
		return err
	}
	return t.bus.QueueStop(ctx, u.Name)
}

// demote takes down the units of a primary and proves it.
func (t *Targets) demote(ctx context.Context, a sdk.Transition, progress func(string)) (string, error) {
	var kill time.Duration
	switch {
	case a.Mode != sdk.Forced:
	case a.LeaseUntil == 0: // nothing protects what still runs
		kill = time.Millisecond
	default:
		kill = max(a.Timeout/2, time.Millisecond)
	}
	err := t.inTurn(ctx, func() error { // no check starts anything any more
		t.mu.Lock()
		defer t.mu.Unlock()
		t.serves, t.moved = false, time.Now()
		return nil
	})
	if err != nil {
		return "", err
	}
	active, err := t.takeDown(ctx, Primary(t.service), Gate(t.service), kill, progress)
	switch {
	case err != nil:
		return "", t.cure(err)
	case active == 0:
		return "", sdk.ErrAlready
	}
	return "", nil
}

// clear takes down what belongs to a standby, so that it does not run beside
// what belongs to a primary. What does not stop is told and holds nobody up for
// long: it is in nobody's way but its own role's.
func (t *Targets) clear(ctx context.Context, progress func(string)) {
	ctx, cancel := context.WithTimeoutCause(ctx, clearTime, fmt.Errorf("not within %s", clearTime))
	defer cancel()
	if _, err := t.takeDown(ctx, Standby(t.service), "", 0, progress); err != nil {
		t.log.Warn("units of a standby not stopped", "cause", t.cure(err))
	}
}

const clearTime = 10 * time.Second

// Watch tells when gate or targets have changed.
func (t *Targets) Watch(ctx context.Context, changed func()) error {
	t.bus.Watch(ctx, changed, Gate(t.service), Primary(t.service), Standby(t.service))
	return nil
}

// Check tells a primary whether its units are still held up. A target that
// nobody waited for is started; one that no unit belongs to costs nobody the role.
// A standby's is started again where it was stopped, as a start of the primary's
// by hand does.
func (t *Targets) Check(ctx context.Context, role sdk.Role, _ sdk.Term) (sdk.Health, error) {
	if t.moving() {
		return sdk.Health{Fit: true}, nil
	}
	if role != sdk.RolePrimary {
		return t.checkStandby(ctx), nil
	}
	target, gate, err := t.both(ctx, Primary(t.service), Gate(t.service))
	if err != nil {
		return t.unseen(ctx, err), nil
	}
	for _, u := range []Unit{gate, target} {
		if u.Job != "stop" && (u.Up() || u.Job != "") {
			continue
		}
		t.mu.Lock()
		begun := t.begun
		t.mu.Unlock()
		if !begun || len(t.wanted(target)) == 0 {
			return t.start(ctx), nil
		}
		state := u.Active
		if u.Job == "stop" {
			state = "being stopped"
		}
		return sdk.Health{Detail: u.Name + " is " + state, Certain: true}, nil
	}
	t.isNews("active")
	return sdk.Health{Fit: true}, nil
}

// calm is how long after an act nothing is looked at or started that nobody waits
// for: a role that moves has better use for the processors.
const calm = 300 * time.Millisecond

// moving reports whether the role has just moved here, or away, and no unit is
// known to belong to it.
func (t *Targets) moving() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.begun && time.Since(t.moved) < calm
}

// checkStandby is Check for a standby.
func (t *Targets) checkStandby(ctx context.Context) sdk.Health {
	if t.tooMany() != nil {
		t.look(ctx) // somebody may have put it right
	}
	if many := t.tooMany(); many != nil {
		return sdk.Health{Detail: many.Error()}
	}
	standby, err := t.bus.Unit(ctx, Standby(t.service))
	if err != nil || standby.Up() || standby.Job != "" {
		return sdk.Health{Fit: true}
	}
	// It goes down with its supervisor, too.
	own, err := t.bus.Unit(ctx, Supervisor(t.service))
	if err != nil || !own.Up() || own.Job != "" {
		return sdk.Health{Fit: true}
	}
	err = t.inTurn(ctx, func() error {
		t.mu.Lock()
		serves := t.serves
		t.mu.Unlock()
		if serves { // it is none any more
			return nil
		}
		return t.bus.Try(ctx, standby.Name)
	})
	if err != nil && !errors.Is(err, ErrTaken) && t.isNews("not started: "+err.Error()) {
		t.log.Warn("target of a standby not started again", "plugin", "targets", "cause", t.cure(err))
	}
	return sdk.Health{Fit: true}
}

// tooMany is why not all that belongs to the role could be stopped; nil for it can.
func (t *Targets) tooMany() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.many
}

// unseen is the health when PID 1 does not answer: what is not known of units is
// no reason to stop them.
func (t *Targets) unseen(ctx context.Context, err error) sdk.Health {
	if !errors.Is(ctx.Err(), context.Canceled) { // nobody wants to know any more
		if t.isNews("not looked at: " + err.Error()) {
			t.log.Warn("role target not looked at", "plugin", "targets", "cause", err)
		}
	}
	return sdk.Health{Fit: true, Detail: err.Error()}
}

// start starts the target, and with it the gate, and does not wait for it. It
// does not ask again where that is denied.
func (t *Targets) start(ctx context.Context) sdk.Health {
	t.mu.Lock()
	denied := t.denied
	t.mu.Unlock()
	if denied != nil {
		return sdk.Health{Fit: true, Detail: denied.Error()}
	}
	err := t.inTurn(ctx, func() error {
		t.mu.Lock()
		serves := t.serves
		t.mu.Unlock()
		if !serves {
			return nil
		}
		err := t.bus.Try(ctx, Primary(t.service))
		if err == nil {
			t.hasBegun()
		}
		return err
	})
	switch err = t.cure(err); {
	case err == nil:
		return sdk.Health{Fit: true}
	case errors.Is(err, ErrTaken): // by the next check it is not
		return sdk.Health{Fit: true, Detail: err.Error()}
	}
	if errors.Is(err, ErrDenied) {
		t.mu.Lock()
		t.denied = err
		t.mu.Unlock()
	}
	if t.isNews("not started: " + err.Error()) {
		t.log.Error("role target not started, so no gate demotes behind this supervisor", "plugin", "targets", "cause", err)
	}
	return sdk.Health{Fit: true, Detail: err.Error()}
}

// cure tells what to do about an error that has a cure.
func (t *Targets) cure(err error) error {
	if errors.Is(err, ErrDenied) {
		return fmt.Errorf("%w: is polkitd installed? Then `deputy enable %s` permits what this service needs", err, t.service)
	}
	return err
}

// isNews reports whether what a check came to is other than last time.
func (t *Targets) isNews(said string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.said
	t.said = said
	return said != before
}
