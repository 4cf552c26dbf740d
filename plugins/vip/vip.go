package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/plugins/kernelguard"
	"github.com/deputy-ha/deputy/sdk"
)

// A vip is addresses with one set of settings. What counts is what the kernel
// has, which outlives this process; a vip only remembers what saves looking.
type vip struct {
	settings
	log     *slog.Logger
	guard   *kernelguard.Guard // closed while it is not to be used
	kernel  kernel
	speaker speaker

	mu         sync.Mutex  // one change of the host at a time
	promoting  bool        // an act is about to add the addresses
	held       bool        // they are here by an act of this vip
	renewed    sdk.Instant // the lease holds until then, as far as is known
	lasts      sdk.Instant // the kernel removes the addresses then; zero: never
	announcing *background // after a promotion
	sweeping   *background // after a demotion
	deaf       atomic.Bool // that connections cannot be ended has been said
}

func newVIP(_ context.Context, s settings, h sdk.Host) (*vip, error) {
	guard, err := kernelguard.ForAddresses(h.Service, h.Part, s.addrs())
	if err != nil {
		return nil, err
	}
	return &vip{settings: s, log: h.Log, guard: guard}, nil
}

// Promote adds the addresses and announces them. The order is such that a
// freeze at any point leaves nothing that is heard after the lease: the guard
// is opened before there is an address to guard, and proven to close in time.
func (v *vip) Promote(ctx context.Context, t *sdk.Transition) error {
	if left := t.LeaseUntil.Sub(sdk.Now()); left <= 0 {
		return sdk.Refuse(errors.New("the lease does not hold any more"))
	}
	ifi, err := v.ready()
	if err != nil {
		return sdk.Unchanged(err)
	}
	v.mu.Lock()
	already, err := v.adopt(ifi, t.LeaseUntil)
	v.promoting = true
	v.mu.Unlock()
	defer func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.promoting = false
	}()
	switch {
	case err != nil:
		return err
	case already:
		return fmt.Errorf("has %s on %s: %w", v, ifi.Name, sdk.ErrAlready)
	}
	v.endBackground()
	if err := v.conflicts(ctx, ifi, t); err != nil {
		return sdk.Unchanged(err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return sdk.Unchanged(err)
	}
	if err := v.add(ifi, max(t.LeaseUntil, v.renewed)); err != nil {
		if _, undo := v.leave(ctx, sdk.Forced, 0); undo != nil {
			return errors.Join(err, undo)
		}
		return sdk.Unchanged(err)
	}
	v.announcing = announce(v.Announce, func() { v.sayLater(ifi) })
	sdk.Note(ctx, "%s on %s", v, ifi.Name)
	return nil
}

// adopt reports whether all is in place already, and keeps it so. Foreign
// addresses are an error: nothing is done about them.
func (v *vip) adopt(ifi *net.Interface, until sdk.Instant) (bool, error) {
	here, state, err := v.look()
	if err != nil {
		return false, sdk.Unchanged(err)
	}
	if err := v.foreign(here, state); err != nil {
		return false, sdk.Refuse(err)
	}
	if !v.inPlace(ifi, here) {
		return false, nil
	}
	if v.Guard != state.Installed {
		return false, nil
	}
	if v.Guard {
		if !state.Current || state.Left == 0 {
			return false, nil
		}
		if err := v.guard.Renew(until); err != nil {
			return false, nil // it is opened anew
		}
	}
	v.held, v.renewed = true, until
	return true, v.last(ifi, until, true)
}

// conflicts looks for other hosts with the addresses, unless the previous
// primary has left the role by itself, or was this node.
func (v *vip) conflicts(ctx context.Context, ifi *net.Interface, t *sdk.Transition) error {
	if t.Reason != sdk.ReasonFailover || t.Previous.Node == t.Node || v.Probe.Count == 0 || !announces(ifi) {
		return nil
	}
	for {
		err := probe(ctx, v.Probe, ifi, v.addrs())
		var c *conflict
		switch {
		case !errors.As(err, &c):
			return err
		case v.Probe.OnConflict == "force":
			v.log.Warn("another host has the address; taken all the same", "cause", c.Error())
			return nil
		case v.Probe.OnConflict == "fail":
			return fmt.Errorf("%w: fence that host, or set probe.on_conflict", c)
		}
		sdk.Progress(ctx, -1, "waiting: %v", c)
		select {
		case <-time.After(v.Probe.Interval):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", c, context.Cause(ctx))
		}
	}
}

// add brings the addresses here until an instant, and proves it.
func (v *vip) add(ifi *net.Interface, until sdk.Instant) error {
	here, state, err := v.look()
	if err != nil {
		return err
	}
	if announces(ifi) && v.Announce.Count > 0 {
		if err := v.speaker.open(ifi, v.addrs()); err != nil {
			return err
		}
	}
	for _, e := range here { // before the guard of what they were is gone
		if !v.wants(ifi, e) {
			if err := v.kernel.remove(e); err != nil {
				return err
			}
		}
	}
	if v.Guard {
		err = v.guard.Arm(until)
	} else if state.Installed {
		err = v.guard.Remove()
	}
	if err != nil {
		return err
	}
	v.held, v.renewed, v.lasts = true, until, 0
	if err := v.last(ifi, until, true); err != nil {
		return err
	}
	v.say(ifi)
	here, err = v.kernel.list(v.addrs())
	switch {
	case err != nil:
		return err
	case !v.inPlace(ifi, here):
		return fmt.Errorf("%s on %s: added, but the kernel has %v", v, ifi.Name, here)
	case sdk.Now() >= until:
		return errors.New("the lease ended meanwhile")
	}
	return nil
}

// lifetimeFrom is how much of a lease there must be for the kernel to remove
// the addresses by itself, some time after it. Lifetimes are whole seconds.
const lifetimeFrom = 2 * time.Second

// last lets the kernel keep the addresses for longer than until, but not for
// ever, where the lease is long enough. It only tidies up: the guard is what
// ends in time.
func (v *vip) last(ifi *net.Interface, until sdk.Instant, all bool) error {
	now := sdk.Now()
	valid := forever
	switch left := until.Sub(now); {
	case v.lasts == 0 && left < lifetimeFrom:
		if !all {
			return nil
		}
	case !all && v.lasts > until.Add(100*time.Millisecond): // the kernel is up to 20 ms early
		return nil
	default:
		valid = uint32((left+time.Second-1)/time.Second) + 1
	}
	for _, p := range v.places() {
		e := entry{addr: p.Addr(), peer: p.Addr(), bits: p.Bits(), index: ifi.Index, valid: valid, origin: origin}
		// Nothing about routes changes by the address, and nobody waits for the
		// end of duplicate address detection.
		e.flags = unix.IFA_F_NOPREFIXROUTE
		if p.Addr().Is6() {
			e.flags |= unix.IFA_F_NODAD
		} else {
			e.label = v.Label
		}
		if !v.Deprecated {
			e.preferred = valid
		}
		if err := v.kernel.put(e); err != nil {
			return err
		}
	}
	v.lasts = 0
	if valid != forever {
		v.lasts = now.Add(time.Duration(valid) * time.Second)
	}
	return nil
}

// say announces the addresses, unless the lease is about to end: an
// announcement of one who has lost it would take the traffic from who has it.
func (v *vip) say(ifi *net.Interface) {
	if v.Announce.Count == 0 || !announces(ifi) {
		return
	}
	for _, a := range v.addrs() {
		if err := v.speaker.say(ifi, a); err != nil {
			v.log.Warn("not announced", "address", a.String(), "cause", err)
		}
	}
}

// sayLater is say for announcements that are not part of a change.
func (v *vip) sayLater(ifi *net.Interface) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.held && v.renewed.Sub(sdk.Now()) > 0 {
		v.say(ifi)
	}
}

// partingTime is for how long resets may leave that end connections.
const partingTime = 200 * time.Millisecond

// Demote silences the addresses, and removes them. When it is planned, clients
// are answered until their connections are known, which takes longest.
func (v *vip) Demote(ctx context.Context, t *sdk.Transition) error {
	v.endBackground()
	if t.Mode == sdk.Forced {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, forcedBound/2, errors.New("no time is left for it"))
		defer cancel()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	parting := time.Duration(0)
	if v.held {
		parting = min(partingTime, v.renewed.Sub(sdk.Now()))
	}
	did, err := v.leave(ctx, t.Mode, parting)
	switch {
	case err != nil:
		return err
	case did == "":
		return fmt.Errorf("%s is not here: %w", v, sdk.ErrAlready)
	}
	sdk.Note(ctx, "%s", did)
	return nil
}

// leave silences and removes the addresses, and tells what it has removed, if
// anything.
func (v *vip) leave(ctx context.Context, mode sdk.Mode, parting time.Duration) (did string, _ error) {
	var silence error
	silent := !v.Guard
	if v.held && !silent && mode == sdk.Forced {
		silence, silent = v.guard.Disarm(parting), true
	}
	here, state, err := v.look()
	if err == nil {
		err = v.foreign(here, state)
	}
	if err != nil {
		if v.held && !silent {
			silence = v.guard.Disarm(parting)
		}
		return "", errors.Join(err, silence)
	}
	v.held, v.renewed, v.lasts = false, 0, 0
	cut := v.connections(ctx, here)
	if !silent {
		silence = v.guard.Disarm(parting)
	}
	v.cut(ctx, cut)
	var gone []string
	for _, e := range here {
		if err := v.kernel.remove(e); err != nil {
			return "", errors.Join(err, silence)
		}
		gone = append(gone, e.String())
	}
	if len(here) > 0 {
		left, err := v.kernel.list(addrsOf(here))
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("deleted, but the kernel still has %v", left)
		}
		if err != nil {
			return "", errors.Join(err, silence)
		}
		v.sweep(here)
	}
	switch {
	case v.Guard && !state.Current && silence == nil:
		silence = v.guard.Install() // in place of one of other settings
	case !v.Guard && state.Installed:
		silence = v.guard.Remove()
	}
	if silence != nil { // but the addresses are not here
		v.log.Warn("guard not closed", "cause", silence)
	}
	return strings.Join(gone, ", "), nil
}

// connections finds those of addresses that are about to leave.
func (v *vip) connections(ctx context.Context, here []entry) kernelguard.Connections {
	if !v.KillConnections || len(here) == 0 {
		return kernelguard.Connections{}
	}
	c, err := kernelguard.OfAddresses(ctx, addrsOf(here))
	if err != nil {
		v.log.Warn("connections not ended: clients notice when they next send", "cause", err)
	}
	return c
}

// cut ends connections.
func (v *vip) cut(ctx context.Context, c kernelguard.Connections) {
	n, err := c.End(ctx)
	switch {
	case errors.Is(err, kernelguard.ErrNoDestroy) && v.deaf.Swap(true): // it was said
	case err != nil:
		v.log.Warn("connections not ended: clients notice when they next send", "ended", n, "cause", err)
	case n > 0:
		v.log.Info("connections ended", "count", n)
	}
}

// sweepDelay lets the demotion be answered first: to look at all sockets keeps
// a processor busy.
const sweepDelay = 100 * time.Millisecond

// sweep ends, after the demotion, the connections that began during it.
func (v *vip) sweep(here []entry) {
	v.sweeping = begin(func(ctx context.Context) {
		if v.KillConnections && sleep(ctx, sweepDelay) {
			v.cut(ctx, v.connections(ctx, here))
		}
	})
}

// endBackground ends what acts of before have begun.
func (v *vip) endBackground() {
	v.mu.Lock()
	all := []*background{v.announcing, v.sweeping}
	v.announcing, v.sweeping = nil, nil
	v.mu.Unlock()
	for _, b := range all {
		b.end()
	}
}

func addrsOf(here []entry) []netip.Addr {
	var addrs []netip.Addr
	for _, e := range here {
		if !slices.Contains(addrs, e.addr) {
			addrs = append(addrs, e.addr)
		}
	}
	return addrs
}

// Renew keeps the guard open and the addresses here until an instant.
func (v *vip) Renew(ctx context.Context, until sdk.Instant) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.promoting && !v.held {
		v.renewed = until
		return nil
	}
	if v.Guard {
		switch err := v.guard.Renew(until); {
		case errors.Is(err, kernelguard.ErrExpired):
			return v.expired(ctx, err)
		case errors.Is(err, kernelguard.ErrGone) && v.held:
			// What it guards is exposed, and the lease holds.
			if armed := v.guard.Arm(until); armed != nil {
				return v.expired(ctx, errors.Join(err, armed))
			}
			v.log.Warn("guard installed again", "cause", err)
		case errors.Is(err, kernelguard.ErrGone):
			return nil // nothing is here
		case err != nil:
			return err
		}
	} else if sdk.Now() >= until {
		return v.expired(ctx, sdk.ErrExpired)
	}
	if !v.held {
		return nil // what is here was promoted with other settings
	}
	v.renewed = until
	ifi, err := net.InterfaceByName(v.Interface)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", v.Interface, err)
	}
	here, err := v.kernel.list(v.addrs())
	if err != nil {
		return err
	}
	lost := !v.inPlace(ifi, here)
	if err := v.last(ifi, until, lost); err != nil {
		return err
	}
	if lost {
		v.log.Warn("address was gone; added again", "cause", "somebody has removed it, or the interface was down; systemd-networkd needs KeepConfiguration=yes")
		v.say(ifi)
	}
	return nil
}

// expired takes down what is here without a lease.
func (v *vip) expired(ctx context.Context, cause error) error {
	v.announcing.quit() // who demotes or closes waits for it
	did, err := v.leave(ctx, sdk.Forced, 0)
	if err != nil {
		return fmt.Errorf("%w: %w: %w", sdk.ErrExpired, cause, err)
	}
	if did == "" {
		return nil
	}
	return fmt.Errorf("%w: %w: deleted %s", sdk.ErrExpired, cause, did)
}

// Close ends what goes on by itself. The addresses stay as they are.
func (v *vip) Close() error {
	v.endBackground()
	v.speaker.close()
	return errors.Join(v.kernel.close(), v.guard.Close())
}

// String lists the addresses.
func (v *vip) String() string {
	var all []string
	for _, p := range v.places() {
		all = append(all, p.String())
	}
	return strings.Join(all, ", ")
}

// look returns the addresses of ours that the host has, those of settings of
// before included, and the guard.
func (v *vip) look() ([]entry, kernelguard.State, error) {
	state, err := v.guard.State()
	if err != nil {
		if v.Guard {
			return nil, state, err
		}
		state = kernelguard.State{}
	}
	here, err := v.kernel.list(slices.Concat(v.addrs(), state.Addresses))
	return here, state, err
}

// foreign is an error if the host has an address that this plugin has not
// added: to take it down, or to guard it, might cut the host off.
func (v *vip) foreign(here []entry, state kernelguard.State) error {
	var wrong []error
	for _, e := range here {
		if !e.marked() && !slices.Contains(state.Addresses, e.addr) {
			wrong = append(wrong, fmt.Errorf("%s was not added by deputy: it is the host's own, or a leftover: remove it from the system's network configuration, and with: ip address del %s", e, strings.Replace(e.String(), " on ", " dev ", 1)))
		}
	}
	return errors.Join(wrong...)
}

// wants tells whether an address of the host is just as it should be on a
// primary.
func (v *vip) wants(ifi *net.Interface, e entry) bool {
	return e.index == ifi.Index && slices.Contains(v.places(), e.prefix())
}

// inPlace tells whether the addresses are here, and no others of ours.
func (v *vip) inPlace(ifi *net.Interface, here []entry) bool {
	for _, e := range here {
		if !v.wants(ifi, e) || !e.usable() {
			return false
		}
	}
	return len(here) == len(v.places())
}
