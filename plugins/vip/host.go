package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/plugins/kernelguard"
	"github.com/deputy-ha/deputy/sdk"
)

// What is done to the host's addresses, by who alone changes them.

// A seen is what the host has of ours: the addresses, those of settings of before
// included, and the guard.
type seen struct {
	here  []entry
	guard kernelguard.State
}

// look looks at the host.
func (v *vip) look() (seen, error) {
	return v.lookBeside(v.guard.State())
}

// lookBeside looks at the rest of the host.
func (v *vip) lookBeside(guard kernelguard.State, err error) (s seen, _ error) {
	if err != nil && v.Guard {
		return s, err
	} else if err == nil {
		s.guard = guard
	}
	s.here, err = v.kernel.list(slices.Concat(v.addrs(), s.guard.Addresses))
	return s, err
}

// foreign is an error if the host has an address that this plugin has not
// added: to take it down, or to guard it, might cut the host off.
func (s seen) foreign() error {
	var wrong []error
	for _, e := range s.here {
		if !e.marked() && !slices.Contains(s.guard.Addresses, e.addr) {
			wrong = append(wrong, fmt.Errorf("%s was not added by deputy: it is the host's own, or a leftover: remove it from the system's network configuration, and with: ip address del %s", e, strings.Replace(e.String(), " on ", " dev ", 1)))
		}
	}
	return errors.Join(wrong...)
}

// wants tells whether an address of the host is just as it should be on a
// primary.
func (v *vip) wants(l link, e entry) bool {
	return e.index == l.index && slices.Contains(v.places(), e.prefix())
}

// sound tells whether an address is as this plugin adds it, and answers.
func (v *vip) sound(l link, e entry) bool {
	flags := v.flags(e.addr)
	return v.wants(l, e) && e.usable() && e.flags&flags == flags && (e.flags&unix.IFA_F_DEPRECATED != 0) == v.Deprecated
}

// stuck tells whether an address has to be removed to become sound: one that the
// kernel does not answer for, and one of IPv4 with other flags, which Linux keeps
// when it replaces it.
func (v *vip) stuck(e entry) bool {
	flags := v.flags(e.addr)
	return !e.usable() || e.addr.Is4() && e.flags&flags != flags
}

// flags are those of an address that this plugin adds: nothing about routes
// changes by it, and nobody waits for the end of duplicate address detection.
func (v *vip) flags(a netip.Addr) uint32 {
	if a.Is6() {
		return unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_NODAD
	}
	return unix.IFA_F_NOPREFIXROUTE
}

// inPlace tells whether the addresses are here, and no others of ours.
func (v *vip) inPlace(l link, here []entry) bool {
	for _, e := range here {
		if !v.wants(l, e) || !e.usable() {
			return false
		}
	}
	return len(here) == len(v.places())
}

// unsound are those of the places whose address is not here, or not as this
// plugin adds it.
func (v *vip) unsound(l link, here []entry) []netip.Prefix {
	return slices.DeleteFunc(v.places(), func(p netip.Prefix) bool {
		return slices.ContainsFunc(here, func(e entry) bool { return e.prefix() == p && v.sound(l, e) })
	})
}

// adopt reports whether all is in place already, and keeps it so; the guard,
// if there is to be one, is open. Foreign addresses are an error: nothing is
// done about them.
func (v *vip) adopt(l link, now seen, open bool, until sdk.Instant) (already bool, err error) {
	if err := now.foreign(); err != nil {
		return false, sdk.Refuse(err)
	}
	if !v.inPlace(l, now.here) || v.Guard != open || v.Guard != now.guard.Installed {
		return false, nil
	}
	v.mu.Lock()
	taken := !v.held
	v.held, v.renewed = true, max(until, v.renewed)
	v.mu.Unlock()
	if taken {
		v.announceOn() // a process of before has begun it
	}
	return true, v.last(l, until, true)
}

// add brings the addresses here for as long as the lease holds, and proves it.
func (v *vip) add(l link, now seen, until sdk.Instant) (err error) {
	if l.announces() && v.Announce.Count > 0 {
		if err := v.speaker.open(l); err != nil {
			return err
		}
	}
	for _, e := range now.here { // before the guard of what they were is gone
		if !v.wants(l, e) || v.stuck(e) {
			if err := v.kernel.remove(e); err != nil {
				return err
			}
		}
	}
	if !v.Guard && now.guard.Installed {
		if err := v.guard.Remove(); err != nil {
			return err
		}
	}
	if until, err = v.open(until); err != nil {
		return err
	}
	if err := v.last(l, until, true); err != nil {
		return err
	}
	v.say(l)
	here, err := v.kernel.list(v.addrs())
	v.mu.Lock()
	until = v.renewed // it may have gone on meanwhile
	v.mu.Unlock()
	switch {
	case err != nil:
		return err
	case !v.inPlace(l, here):
		return fmt.Errorf("%s on %s: added, but the kernel has %v", v, l.name, here)
	case sdk.Now() >= until:
		return errors.New("the lease ended meanwhile")
	}
	return nil
}

// open opens the guard until the lease ends, as known by the act or by a
// renewal that came during it.
func (v *vip) open(until sdk.Instant) (sdk.Instant, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	until = max(until, v.renewed)
	if v.Guard {
		if err := v.guard.Arm(until); err != nil {
			return until, err
		}
	} else if sdk.Now() >= until {
		return until, errors.New("the lease ended meanwhile")
	}
	v.held, v.renewed, v.lasts = true, until, 0
	return until, nil
}

// lifetimeFrom is how much of a lease there must be for the kernel to remove
// the addresses by itself, some time after it. Lifetimes are whole seconds.
const lifetimeFrom = 2 * time.Second

// last lets the kernel keep the addresses for longer than until, but not for
// ever, where the lease is long enough. It only tidies up: the guard is what
// ends in time.
func (v *vip) last(l link, until sdk.Instant, all bool) error {
	v.mu.Lock()
	lasts := v.lasts
	v.mu.Unlock()
	now := sdk.Now()
	valid := forever
	switch left := until.Sub(now); {
	case lasts == 0 && left < lifetimeFrom:
		if !all {
			return nil
		}
	case !all && lasts > until.Add(100*time.Millisecond): // the kernel is up to 20 ms early
		return nil
	default:
		valid = uint32((max(left, 0)+time.Second-1)/time.Second) + 1
	}
	for _, p := range v.places() {
		e := entry{addr: p.Addr(), peer: p.Addr(), bits: p.Bits(), index: l.index, flags: v.flags(p.Addr()), valid: valid, origin: origin}
		if p.Addr().Is4() {
			e.label = v.Label
		}
		if !v.Deprecated {
			e.preferred = valid
		}
		if err := v.kernel.put(e); err != nil {
			return err
		}
	}
	lasts = 0
	if valid != forever {
		lasts = now.Add(time.Duration(valid) * time.Second)
	}
	v.mu.Lock()
	v.lasts = lasts
	v.mu.Unlock()
	return nil
}

// mend lets the addresses last, and brings back those that somebody has
// removed or changed, by whom that was, as far as is known.
func (v *vip) mend(until sdk.Instant, by string) error {
	l, err := v.kernel.link(v.Interface)
	if err != nil {
		return v.renamed(err)
	}
	here, err := v.kernel.list(v.addrs())
	if err != nil {
		return err
	}
	v.mu.Lock()
	found := v.held // what this process has promoted, it need not look for
	v.mu.Unlock()
	if !found {
		if found, err = v.found(l, here); err != nil {
			return err
		}
	}
	v.mu.Lock()
	taken := found && !v.held && !v.promoting
	if taken {
		v.held, v.renewed = true, until
	}
	over := !v.held || v.renewed <= sdk.Now()
	v.mu.Unlock()
	if over {
		return nil // it took long, and what comes next sees to it
	}
	if taken {
		v.announceOn()
	}
	wrong := v.unsound(l, here)
	if len(wrong) == 0 {
		return v.last(l, until, false)
	}
	if l.flags&unix.IFF_UP == 0 {
		return nil // IPv6 addresses would come without their routes; its coming up is heard of
	}
	for _, e := range here {
		if v.wants(l, e) && v.stuck(e) {
			if err := v.kernel.remove(e); err != nil {
				return err
			}
		}
	}
	v.mended(by) // or tried to
	if err := v.last(l, until, true); err != nil {
		return err
	}
	if here, err = v.kernel.list(v.addrs()); err != nil {
		return err
	}
	if still := v.unsound(l, here); len(still) > 0 {
		return fmt.Errorf("%v on %s: added, but the kernel has %v", still, l.name, here)
	}
	v.log.Warn("address was gone or changed; put back", "address", fmt.Sprint(wrong), "by", by,
		"cause", "another program manages the interface, or it was down; systemd-networkd needs KeepConfiguration=yes")
	v.say(l)
	v.tell()
	return nil
}

// renamed adds to an error about the interface how it is called now.
func (v *vip) renamed(err error) error {
	v.mu.Lock()
	was := v.was
	v.mu.Unlock()
	if was == 0 {
		return err
	}
	if ifi, now := net.InterfaceByIndex(was); now == nil && ifi.Name != v.Interface {
		return fmt.Errorf("%w: it is called %s now: put that into the settings, or give it the name back: ip link property add dev %s altname %s", err, ifi.Name, ifi.Name, v.Interface)
	}
	return err
}

// found reports whether a process before this one has promoted with these
// settings, and the guard has been open ever since.
func (v *vip) found(l link, here []entry) (bool, error) {
	if !v.inPlace(l, here) {
		return false, nil
	}
	if !v.Guard {
		return true, nil
	}
	state, err := v.guard.State()
	return state.Current && state.Left > 0, err
}

// silence closes the guard at once, so that nothing of the addresses is heard
// but resets, until the parting.
func (v *vip) silence(parting sdk.Instant) error {
	v.mu.Lock()
	v.held, v.renewed = false, 0
	v.mu.Unlock()
	if !v.Guard {
		return nil
	}
	return v.guard.Disarm(parting.Sub(sdk.Now()))
}

// leave silences and removes the addresses, and tells what it has removed, if
// anything.
func (v *vip) leave(ctx context.Context, parting sdk.Instant) (did string, _ error) {
	now, err := v.look()
	if err == nil {
		err = now.foreign()
	}
	if err != nil {
		return "", err
	}
	had := addrsOf(now.here)
	var names []string
	for _, e := range now.here { // before it hurries: the kernel is asked for their interfaces
		names = append(names, e.String())
	}
	cut := v.cutter.OfAddresses(ctx, had)
	silence := v.silence(parting)
	v.cutter.End(ctx, cut)
	for _, e := range now.here {
		if err := v.kernel.remove(e); err != nil {
			return "", errors.Join(err, silence)
		}
	}
	if len(now.here) > 0 {
		left, err := v.kernel.list(had)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("deleted, but the kernel still has %v", left)
		}
		if err != nil {
			return "", errors.Join(err, silence)
		}
		v.sweep(had)
	}
	switch {
	case v.Guard && !now.guard.Current && silence == nil:
		silence = v.guard.Install() // in place of one of other settings
	case !v.Guard && now.guard.Installed:
		silence = v.guard.Remove()
	}
	if silence != nil { // but the addresses are not here
		v.log.Warn("guard not closed", "cause", silence)
	}
	v.mu.Lock()
	v.left = silence == nil && !v.promoting
	v.mu.Unlock()
	return strings.Join(names, ", "), nil
}

// sweepDelay lets the demotion be answered first: to look at all sockets keeps
// a processor busy.
const sweepDelay = 100 * time.Millisecond

// sweep ends, after the demotion, the connections that began during it.
func (v *vip) sweep(addrs []netip.Addr) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sweeping = begin(func(ctx context.Context) {
		if v.KillConnections && sleep(ctx, sweepDelay) {
			v.cutter.End(ctx, v.cutter.OfAddresses(ctx, addrs))
		}
	})
}

func addrsOf(here []entry) []netip.Addr {
	var addrs []netip.Addr
	for _, e := range here {
		addrs = append(addrs, e.addr)
	}
	return addrs
}

// say announces the addresses.
func (v *vip) say(l link) {
	if v.Announce.Count == 0 || !l.announces() {
		return
	}
	for _, a := range v.addrs() {
		if err := v.speaker.say(l, a); err != nil {
			v.log.Warn("not announced", "address", a.String(), "cause", err)
		}
	}
}

// sayLater is say for an announcement that is not part of a change: not of one
// who has lost the lease, which would take the traffic from who has it. The
// interface may have another hardware address by now.
func (v *vip) sayLater() {
	if l, err := v.kernel.link(v.Interface); err == nil && v.holds() {
		v.say(l)
	}
}

// holds reports whether the addresses are here by a lease that has not ended.
func (v *vip) holds() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.held && v.renewed > sdk.Now()
}

// speakUp announces now, and then as after a promotion.
func (v *vip) speakUp() {
	if v.holds() {
		v.sayLater()
		v.announceOn()
	}
}

// announceOn begins the announcements that follow the first one, in place of
// those that are under way.
func (v *vip) announceOn() {
	v.mu.Lock()
	if !v.held {
		v.mu.Unlock()
		return
	}
	before := v.announcing
	v.announcing = announce(v.Announce, v.sayLater)
	v.mu.Unlock()
	before.end()
}
