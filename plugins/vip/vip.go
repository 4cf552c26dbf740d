package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/plugins/kernelguard"
	"github.com/deputy-ha/deputy/sdk"
)

// A vip is addresses with one set of settings. What counts is what the kernel
// has, which outlives this process; a vip only remembers what saves looking.
//
// The kernel may take seconds to answer about addresses, whoever keeps its lock
// of all network devices busy: thousands of containers, say. The guard has
// nothing to do with that lock. So whatever has to be in time is done to the
// guard, at once, and nothing that waits for addresses holds it up.
type vip struct {
	settings
	log     *slog.Logger
	guard   *kernelguard.Guard // not to be used if settings.Guard is false
	cutter  *kernelguard.Cutter
	kernel  kernel
	speaker *speaker
	host    chan struct{} // held by who changes the host's addresses
	stop    context.CancelCauseFunc
	tending sync.WaitGroup // of those who hear what others do
	work    sync.WaitGroup // of what goes on after a call

	mu         sync.Mutex    // never held for long
	news       chan struct{} // closed when there is something to look at
	link       link          // the interface as it was last looked at; its index is 0 if it does not exist
	was        int           // its index when it last existed
	mends      []sdk.Instant // when something was put right lately
	mender     string        // who had made that necessary, as far as is known
	rival      *conflict     // another host that claims an address now
	promoting  bool          // an act is about to add the addresses
	tenures    int           // begun, so that no demotion of before takes down what came after
	held       bool          // they may be here by an act of this vip
	left       bool          // this vip has taken them down, and not promoted since
	renewed    sdk.Instant   // the lease holds until then, as far as is known
	lasts      sdk.Instant   // the kernel removes the addresses then; zero: never
	announcing *background   // after a promotion
	contending *background   // with the rival
	sweeping   *background   // after a demotion
}

// newVIP returns the addresses of this host's kernel.
func newVIP(_ context.Context, s settings, h sdk.Host) (*vip, error) {
	return newVIPOf(&rtnetlink{}, s, h)
}

func newVIPOf(k kernel, s settings, h sdk.Host) (*vip, error) {
	guard, err := kernelguard.ForAddresses(h.Service, h.Part, s.addrs())
	if err != nil {
		return nil, err
	}
	v := &vip{
		settings: s, log: h.Log, guard: guard, cutter: kernelguard.NewCutter(h.Log, s.KillConnections), kernel: k,
		host: make(chan struct{}, 1), news: make(chan struct{}),
	}
	v.speaker = newSpeaker(s.addrs(), v.contend)
	ctx, stop := context.WithCancelCause(context.Background())
	v.stop = stop
	v.tend(ctx)
	return v, nil
}

// Promote adds the addresses and announces them. The order is such that a
// freeze at any point leaves nothing that is heard after the lease: the guard
// is opened before there is an address to guard, and proven to close in time.
func (v *vip) Promote(ctx context.Context, t *sdk.Transition) error {
	if left := t.LeaseUntil.Sub(sdk.Now()); left <= 0 {
		return sdk.Refuse(errors.New("the lease does not hold any more"))
	}
	v.mu.Lock()
	left := v.left
	v.promoting, v.left = true, false
	v.tenures++
	v.mu.Unlock()
	defer func() {
		v.mu.Lock()
		v.promoting = false
		v.mu.Unlock()
	}()
	var guard opened
	if !left { // else it is closed, which takes the kernel long to tell
		guard = v.opened(t.LeaseUntil)
	}
	if err := v.enter(ctx); err != nil {
		return sdk.Unchanged(err)
	}
	defer v.exit()
	l, err := v.ready()
	if err != nil {
		return sdk.Unchanged(err)
	}
	seen, err := v.lookBeside(guard.State, guard.err)
	if left && err == nil && len(seen.here) > 0 { // put there by somebody else
		guard = v.opened(t.LeaseUntil)
		seen, err = v.lookBeside(guard.State, guard.err)
	}
	if err != nil {
		return sdk.Unchanged(err)
	}
	already, err := v.adopt(l, seen, guard.open, t.LeaseUntil)
	switch {
	case err != nil:
		return err
	case already:
		return fmt.Errorf("has %s on %s: %w", v, l.name, sdk.ErrAlready)
	}
	v.endBackground()
	var rival *conflict
	if v.probes(l, t) {
		rival, err = v.conflicts(ctx, l)
		if err == nil {
			seen, err = v.look() // it took a while
		}
		if err != nil {
			return sdk.Unchanged(err)
		}
	}
	if err := context.Cause(ctx); err != nil {
		return sdk.Unchanged(err)
	}
	if err := v.add(l, seen, t.LeaseUntil); err != nil {
		silent := v.silence(0)
		if _, undo := v.leave(ctx, 0); undo != nil || silent != nil {
			return errors.Join(err, silent, undo)
		}
		return sdk.Unchanged(err)
	}
	v.announceOn()
	if rival != nil {
		v.contend(rival)
	}
	sdk.Note(ctx, "%s on %s", v, l.name)
	return nil
}

// An opened is a guard that a promotion finds.
type opened struct {
	kernelguard.State
	open bool  // by a process of before, and kept open
	err  error // it could not be looked at
}

// opened looks at the guard. What a process of before has opened is kept open,
// if it lives.
func (v *vip) opened(until sdk.Instant) opened {
	state, err := v.guard.State()
	open := v.Guard && err == nil && state.Current && state.Left > 0 && v.guard.Renew(until) == nil
	return opened{state, open, err}
}

// probes tells whether to look for other hosts with the addresses: unless the
// previous primary has left the role by itself, or was this node.
func (v *vip) probes(l link, t *sdk.Transition) bool {
	return t.Reason == sdk.ReasonFailover && t.Previous.Node != t.Node && v.Probe.Count > 0 && l.announces()
}

// conflicts looks for other hosts with the addresses, and returns one from
// which an address is to be taken.
func (v *vip) conflicts(ctx context.Context, l link) (*conflict, error) {
	var last *conflict // for which this waits
	for {
		err := probe(ctx, v.Probe, l, v.addrs())
		var c *conflict
		switch {
		case !errors.As(err, &c) && err != nil && last != nil:
			return nil, fmt.Errorf("%w; then: %w", last, err)
		case !errors.As(err, &c):
			return nil, err
		case v.Probe.OnConflict == "force":
			v.log.Warn("another host has the address; taken all the same", "cause", c.Error())
			return c, nil
		case v.Probe.OnConflict == "fail":
			return nil, fmt.Errorf("%w: fence that host, or set probe.on_conflict", c)
		}
		last = c
		sdk.Progress(ctx, -1, "waiting: %v", c)
		if !sleep(ctx, v.Probe.Interval) {
			return nil, fmt.Errorf("%w: %w", c, context.Cause(ctx))
		}
	}
}

// partingTime is for how long resets may leave that end connections.
const partingTime = 200 * time.Millisecond

// Demote silences the addresses, and removes them. When it is planned, clients
// are answered until their connections are known, which takes longest. When it
// is forced, it is done once they are silent: should the kernel take too long
// to remove them, that goes on afterwards.
func (v *vip) Demote(ctx context.Context, t *sdk.Transition) error {
	v.mu.Lock()
	tenure := v.tenures
	held, parting := v.held, sdk.Instant(0)
	if held {
		parting = min(sdk.Now().Add(partingTime), v.renewed)
	}
	v.mu.Unlock()
	remove := func(ctx context.Context) (string, error) { return v.leave(ctx, parting) }
	if t.Mode != sdk.Forced {
		v.endBackground()
		did, err := v.alone(ctx, tenure, remove)
		return v.told(ctx, did, err)
	}
	// A guard that is installed guards nothing that is the host's own.
	state, err := v.guard.State()
	silent := v.Guard && err == nil && state.Installed && v.silence(parting) == nil
	v.endBackground()
	ctx, cancel := context.WithTimeoutCause(ctx, forcedBound/2, errSlow)
	defer cancel()
	if held { // as long as resets may leave
		some, cancel := context.WithTimeoutCause(ctx, forcedBound/4, errSlow)
		v.cutter.End(some, v.cutter.OfAddresses(some, v.addrs()))
		cancel()
	}
	did, err := v.alone(ctx, tenure, remove)
	if silent && errors.Is(err, errSlow) {
		v.log.Warn("addresses are silent, and not removed yet", "cause", err)
		sdk.Note(ctx, "%s is silent, and about to be removed", v)
		return nil
	}
	return v.told(ctx, did, err)
}

// errSlow is a kernel that keeps one waiting.
var errSlow = errors.New("the kernel takes long to answer about addresses")

// errLate is a promotion that has begun since.
var errLate = errors.New("a promotion has begun meanwhile")

// told returns what a demotion comes to.
func (v *vip) told(ctx context.Context, did string, err error) error {
	switch {
	case err != nil:
		return err
	case did == "":
		return fmt.Errorf("%s is not here: %w", v, sdk.ErrAlready)
	}
	sdk.Note(ctx, "%s", did)
	return nil
}

// Renew keeps the guard open and the addresses here until an instant.
func (v *vip) Renew(ctx context.Context, until sdk.Instant) error {
	v.mu.Lock()
	held, tenure := v.held, v.tenures
	if v.promoting && !held { // it is about to be opened, until then
		v.renewed = until
		v.mu.Unlock()
		return nil
	}
	v.mu.Unlock()
	if !held && v.Guard {
		// A promotion may be about to begin. What is closed is not tried to be
		// renewed: the kernel takes long to refuse that.
		if state, err := v.guard.State(); err == nil && state.Installed && state.Left == 0 {
			return v.expired(ctx, held, tenure, fmt.Errorf("%w: the guard is closed", sdk.ErrExpired))
		}
	}
	switch err := v.extend(until); {
	case err == nil:
	case errors.Is(err, sdk.ErrExpired):
		return v.expired(ctx, held, tenure, err)
	case errors.Is(err, kernelguard.ErrGone) && held:
		if again := v.reinstall(until); again != nil {
			return v.expired(ctx, held, tenure, errors.Join(err, again))
		}
		v.reguarded("", err)
	case errors.Is(err, kernelguard.ErrGone):
		return nil // nothing is here
	default:
		return err
	}
	v.mu.Lock()
	if v.held {
		v.renewed = until
	}
	v.mu.Unlock()
	return v.keep(ctx, until)
}

// extend keeps the guard open. It opens none that is closed, so that it may
// come at any time.
func (v *vip) extend(until sdk.Instant) error {
	switch {
	case v.Guard:
		return v.guard.Renew(until)
	case sdk.Now() >= until:
		return sdk.ErrExpired
	}
	return nil
}

// reinstall puts the guard back that somebody has removed. While the lease
// holds it is open, since what it guards serves; else it is closed, and nothing
// that is still here is heard any more.
func (v *vip) reinstall(until sdk.Instant) error {
	v.mu.Lock() // or a demotion could come between
	defer v.mu.Unlock()
	switch {
	case v.held:
		return v.guard.Arm(max(until, v.renewed))
	case v.promoting: // it sees to it
		return nil
	}
	return v.guard.Install()
}

// patience is how long Renew waits for what is not urgent.
const patience = 50 * time.Millisecond

// keep sees to it that the addresses stay here. Where the kernel takes long,
// it goes on by itself, and what comes of it is logged.
func (v *vip) keep(ctx context.Context, until sdk.Instant) error {
	select {
	case v.host <- struct{}{}:
	default:
		return nil // an act, or a renewal of before, is at it
	}
	did := make(chan error, 1)
	v.work.Go(func() {
		defer v.exit()
		did <- v.mend(until, "")
	})
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case err := <-did:
		return err
	case <-late.C:
	case <-ctx.Done():
	}
	return nil
}

// expired takes down what is here without a lease, unless a promotion has begun
// since that tenure: what that brings up has its own.
func (v *vip) expired(ctx context.Context, held bool, tenure int, cause error) error {
	v.mu.Lock()
	late := tenure != v.tenures
	if !late {
		v.announcing.quit() // who demotes or closes waits for them
		v.contending.quit()
	}
	v.mu.Unlock()
	if late {
		return nil
	}
	var silence error
	if held {
		silence = v.silence(0)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errSlow)
	defer cancel()
	did, err := v.alone(ctx, tenure, func(ctx context.Context) (string, error) { return v.leave(ctx, 0) })
	v.mu.Lock()
	late = tenure != v.tenures
	v.mu.Unlock()
	switch {
	case late, errors.Is(err, errLate):
		return nil
	case err != nil:
		return fmt.Errorf("%w: not removed yet: %w", cause, errors.Join(err, silence))
	case did == "" && !held: // nothing was here
		return silence
	}
	return fmt.Errorf("%w: deleted %s", errors.Join(cause, silence), did)
}

// Close ends what goes on by itself. The addresses stay as they are.
func (v *vip) Close() error {
	v.stop(errors.New("other settings are in force"))
	v.speaker.close() // nothing begins by what others say any more
	v.tending.Wait()
	v.work.Wait()
	v.endBackground()
	return errors.Join(v.kernel.close(), v.guard.Close())
}

// enter waits until nobody else changes the host's addresses.
func (v *vip) enter(ctx context.Context) error {
	select {
	case v.host <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the kernel: %w", context.Cause(ctx))
	}
}

func (v *vip) exit() { <-v.host }

// alone runs f while nobody else changes the host's addresses, and returns
// when ctx ends at the latest; f then goes on, or comes later, unless a
// promotion begins before it can: errLate, if that can still be told.
func (v *vip) alone(ctx context.Context, tenure int, f func(context.Context) (string, error)) (string, error) {
	type result struct {
		did string
		err error
	}
	done := make(chan result, 1)
	own := context.WithoutCancel(ctx)
	v.work.Go(func() {
		v.host <- struct{}{} // who has it returns when the kernel does
		defer v.exit()
		v.mu.Lock()
		late := tenure != v.tenures
		v.mu.Unlock()
		if late {
			done <- result{err: errLate}
			return
		}
		did, err := f(own)
		done <- result{did, err}
	})
	select {
	case r := <-done:
		return r.did, r.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// endBackground ends what acts of before have begun.
func (v *vip) endBackground() {
	v.mu.Lock()
	all := []*background{v.announcing, v.contending, v.sweeping}
	v.announcing, v.contending, v.sweeping = nil, nil, nil
	v.mu.Unlock()
	for _, b := range all {
		b.end()
	}
}

// String lists the addresses.
func (v *vip) String() string {
	var all []string
	for _, p := range v.places() {
		all = append(all, p.String())
	}
	return strings.Join(all, ", ")
}
