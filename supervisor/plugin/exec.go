package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// maxChecks is how many checks of one plugin may run at once, those included
// that cannot be killed.
const maxChecks = 16

// Exec is the kind of plugin that runs programs, a fresh process for each
// call. Its settings promote, demote, check, follow and fence each hold a
// program's absolute path and its arguments; no shell is involved. A plugin
// that promotes must also demote. user names another user to run them as, for
// which the supervisor must be root; forced_bound, a duration, is how long a
// forced demotion takes at most.
//
// An act gets DEPUTY_SERVICE, _NODE, _ACTION, _TERM, _REASON, _MODE (planned or
// forced), _TIMEOUT_MS, _LEASE_UNTIL_MS (CLOCK_BOOTTIME), _PREVIOUS_NODE,
// _PRIMARY_NODE, _PRIMARY_ADDRESS, _ATTEMPT and _STATE_DIR, all set, those with
// nothing to tell empty or zero; of the supervisor's own environment only PATH,
// LANG, HOME, TMPDIR and TZ; and its [sdk.Transition] as JSON on standard input.
// On descriptor 3 it may write progress, a line each, as text or as
// {"progress": PERCENT, "msg": TEXT}. Descriptor 4 is a lifeline and of no other
// use: by it the kernel kills the act's process group when the supervisor dies
// or executes another version of itself.
//
// An act's exit code tells its outcome: 0 done, 10 already so, 20 refused
// (nothing changed, do not ask again), 75 nothing changed, ask again, 40 a newer
// term was seen; anything else is Unknown. At its deadline it gets SIGTERM and a
// second later SIGKILL, in forced mode SIGKILL at once, and with it all that it
// has started; its outcome is Unknown then, whatever its exit code. An act that
// ends well may leave processes running; they have to redirect their outputs,
// because nobody reads those of the act any more and writing to them fails. What
// any other act leaves running is killed.
//
// A check gets DEPUTY_SERVICE, _NODE, _ACTION (check), _ROLE, _TERM, _TIMEOUT_MS
// and _STATE_DIR, and answers as Nagios plugins do: 0 is fit, 1 fit with a
// warning, 2 is not, 3 (UNKNOWN) neither unless unknown = "warning" says that it
// is a warning too, anything else is no answer; the first line of its output, up
// to a bar, is shown. All of its answer, perfdata included, up to 8 KiB, is
// logged when its exit code is another than before. When it ends or its time is
// over, its process group is killed.
//
// What either writes to its outputs is logged; a line beginning with <N>, N
// from 0 to 7, tells its priority (sd-daemon(3)).
//
// Only the program itself is verified, not its arguments: name the script, not
// a shell with the script as its argument.
type Exec struct {
	host     Host
	part     supervisor.Part
	settings settings
	log      *slog.Logger

	*runs // also of the definitions before
}

// runs are the programs of a part of which something may be left.
type runs struct {
	mu  sync.Mutex
	all map[*run]struct{}

	code  int // of the last check that has answered
	asked bool
}

func newExec(h Host, p supervisor.Part) (*Exec, error) {
	s, err := parse(p.Config)
	if err != nil {
		return nil, err
	}
	return &Exec{host: h, part: p, settings: s, log: h.Log.With("plugin", p.Name), runs: &runs{all: map[*run]struct{}{}}}, nil
}

// Describe returns what the settings say.
func (x *Exec) Describe() supervisor.Description {
	d := supervisor.Description{Name: "exec", ForcedBound: x.settings.forcedBound}
	for _, c := range capabilities {
		if x.settings.argv[c] != nil {
			d.Capabilities = append(d.Capabilities, c)
		}
	}
	return d
}

// Verify reports every program that could not be run, and a user that programs
// could not be run as.
func (x *Exec) Verify(ctx context.Context) error {
	return onDisk(ctx, "look at the programs of "+x.part.Name, func() error {
		var all []error
		for _, c := range capabilities {
			if argv := x.settings.argv[c]; argv != nil {
				if err := trusted(argv[0], x.host.UID); err != nil {
					all = append(all, &sdk.KeyError{Key: string(c), Err: err})
				}
			}
		}
		if name := x.settings.user; name != "" {
			if _, _, err := become(name); err != nil {
				all = append(all, &sdk.KeyError{Key: asUser, Err: err})
			}
		}
		return errors.Join(all...)
	})
}

// Do runs one act. Asked while something of another is left, it does nothing,
// and its outcome is Unchanged: one act at a time is the contract, and two at
// once would prove nothing about either.
func (x *Exec) Do(ctx context.Context, t sdk.Transition, progress func(string)) sdk.Result {
	argv := x.settings.argv[sdk.Capability(t.Action)]
	if argv == nil {
		return sdk.Result{Outcome: sdk.OutcomeUnchanged, Refused: true, Detail: fmt.Sprintf("has no program to %s", t.Action)}
	}
	if victim := t.Primary.Node; t.Action == sdk.Fence && (victim == "" || victim == t.Node) {
		return sdk.Result{Outcome: sdk.OutcomeUnchanged, Refused: true, Detail: fmt.Sprintf("not started: %q is not another node", victim)}
	}
	timeout, err := bound(ctx, t.Timeout)
	if err != nil {
		return sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: "not started: " + err.Error()}
	}
	t.StateDir = x.host.stateDir(x.part.Name)
	in, err := json.Marshal(t)
	if err != nil {
		return sdk.Result{Outcome: sdk.OutcomeUnchanged, Refused: true, Detail: "not started: " + err.Error()}
	}
	says := &transcript{
		log:      x.log.With("action", string(t.Action), "term", uint64(t.Term), "attempt", t.Attempt),
		level:    slog.LevelInfo,
		progress: progress,
	}
	defer says.mute()
	p := program{argv: argv, user: x.settings.user, env: actEnviron(t, timeout), kind: acting, in: append(in, '\n'), says: says}
	e, cause := x.run(ctx, p, timeout, t.Mode == sdk.Forced)
	return result(t.Action, e, cause, says)
}

// Check asks once. Without a deadline it takes the part's own timeout.
func (x *Exec) Check(ctx context.Context, role sdk.Role, term sdk.Term) (sdk.Health, error) {
	argv := x.settings.argv[sdk.CanCheck]
	if argv == nil {
		return sdk.Health{}, fmt.Errorf("check: %w", errors.ErrUnsupported)
	}
	timeout := x.part.Check.Timeout
	if timeout <= 0 {
		timeout = 10 * time.Second
	}
	timeout, err := bound(ctx, timeout)
	if err != nil {
		return sdk.Health{}, fmt.Errorf("not started: %w", err)
	}
	says := &transcript{log: x.log.With("action", "check"), level: slog.LevelDebug}
	p := program{argv: argv, user: x.settings.user, env: checkEnviron(x.host, x.part.Name, role, term, timeout), says: says}
	e, cause := x.run(ctx, p, timeout, true)
	h, a, err := health(e, cause, says, x.settings.lenient)
	if err == nil {
		x.answered(ctx, h, e.state.ExitCode(), a)
	}
	return h, err
}

// answered logs an answer whose exit code is news. The lines of every one are in
// the log at its lowest level.
func (x *Exec) answered(ctx context.Context, h sdk.Health, code int, a answer) {
	x.mu.Lock()
	news := !x.asked || code != x.code
	x.asked, x.code = true, code
	x.mu.Unlock()
	if !news {
		return
	}
	level := slog.LevelInfo
	if code != nagiosOK {
		level = slog.LevelWarn
	}
	x.log.Log(ctx, level, "check answers otherwise", append([]any{"code", code, "fit", h.Fit, "text", h.Detail}, a.attrs()...)...)
}

// Renew is not for programs.
func (x *Exec) Renew(context.Context, sdk.Instant) error {
	return fmt.Errorf("renew: %w", errors.ErrUnsupported)
}

// Rank is not for programs.
func (x *Exec) Rank(context.Context, string, map[string]string) (map[string]sdk.Order, error) {
	return nil, fmt.Errorf("rank: %w", errors.ErrUnsupported)
}

// Kill ends every act and every check.
func (x *Exec) Kill(ctx context.Context) error {
	x.mu.Lock()
	var doomed []*run
	for r := range x.all {
		r.destroy()
		doomed = append(doomed, r)
	}
	x.mu.Unlock()
	var left []string
	for _, r := range doomed {
		select {
		case <-r.gone:
			continue
		default:
		}
		select {
		case <-r.gone:
		case <-ctx.Done():
			left = append(left, r.String())
		}
	}
	if left != nil {
		return fmt.Errorf("kill %s: not gone: %s: %w", x.part.Name, strings.Join(left, "; "), context.Cause(ctx))
	}
	return nil
}

// run runs a program to its end, or until it is cut short at its timeout or
// when ctx ends. It returns soon after that even if nothing can end the
// program. The cause is why it was cut short.
func (x *Exec) run(ctx context.Context, p program, timeout time.Duration, hard bool) (ending, error) {
	deadline := x.host.Clock.Timer(x.host.Clock.Now().Add(timeout))
	defer deadline.Stop()
	r, err := x.begin(ctx, p)
	if err != nil {
		return ending{err: err}, nil
	}
	var cause error
	select {
	case <-r.gone:
		return r.ended, ErrKilled // if it was cut short, then by Kill
	case <-r.kill:
		cause = ErrKilled
	case <-deadline.C():
		cause = fmt.Errorf("not done within %s", timeout.Round(time.Millisecond))
	case <-ctx.Done():
		cause = causeOf(ctx)
	}
	patience := deathTime
	if hard {
		r.destroy()
	} else {
		r.finish()
		patience += graceTime
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-r.gone:
		return r.ended, cause
	case <-late.C:
		r.destroy() // should it not have started yet, it never shall
		return ending{cut: true}, fmt.Errorf("%w: could not be killed: %s", cause, r)
	}
}

// begin starts a run, unless too much runs already, or ctx has ended: whoever
// gave an act up may have looked already for what is to be killed.
func (x *Exec) begin(ctx context.Context, p program) (*run, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if ctx.Err() != nil {
		return nil, causeOf(ctx)
	}
	checks := 0
	for other := range x.all {
		switch {
		case p.kind == acting && other.kind == acting:
			// Also one that is killed and does not end: it could still come
			// after whatever this one sees.
			return nil, fmt.Errorf("%w: %s", ErrActing, other)
		case other.kind == checking:
			checks++
		}
	}
	if p.kind == checking && checks >= maxChecks {
		return nil, fmt.Errorf("%d checks still run", checks)
	}
	r := newRun(p, x.host.UID)
	x.all[r] = struct{}{}
	go func() { // which Kill waits for
		r.ended = r.live()
		x.mu.Lock()
		delete(x.all, r)
		x.mu.Unlock()
		close(r.gone)
	}()
	return r, nil
}

// bound returns what is left of a timeout under ctx, or why nothing is.
func bound(ctx context.Context, timeout time.Duration) (time.Duration, error) {
	if at, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(at))
	}
	switch {
	case ctx.Err() != nil:
		return 0, causeOf(ctx)
	case timeout <= 0:
		return 0, errors.New("no time is left for it")
	}
	return timeout, nil
}

// Open starts nothing: programs run when they are called.
func (x *Exec) Open(ctx context.Context) error {
	x.keepState(ctx)
	return nil
}

// keepState makes sure of the state directory of the user that programs run as.
func (x *Exec) keepState(ctx context.Context) {
	if err := keepState(ctx, x.host.stateDir(x.part.Name), x.settings.user); err != nil {
		x.log.Warn("state directory not usable", "cause", err)
	}
}

// Validate judges another definition of the part.
func (x *Exec) Validate(_ context.Context, p supervisor.Part) error {
	_, err := parse(p.Config)
	return err
}

// Configure returns a plugin with the definition. What runs by that of before is
// killed by its Kill, too.
func (x *Exec) Configure(ctx context.Context, p supervisor.Part) (next Plugin, changed bool, err error) {
	n, err := newExec(x.host, p)
	if err != nil {
		return nil, false, err
	}
	n.runs = x.runs
	n.keepState(ctx)
	return n, !reflect.DeepEqual(x.part.Config, p.Config), nil
}

// Close ends whatever still runs.
func (x *Exec) Close(ctx context.Context) error { return x.Kill(ctx) }
