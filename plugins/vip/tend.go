package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/plugins/kernelguard"
	"github.com/deputy-ha/deputy/sdk"
)

// What others do to what is ours: it is heard of, told, and put right while
// the lease holds.

// tend hears of it until ctx ends.
func (v *vip) tend(ctx context.Context) {
	hear := func(f func() error) {
		v.tending.Go(func() {
			for said := false; ; said = true {
				err := f()
				if ctx.Err() == nil && !said {
					v.log.Warn("what others change is noticed late, by renewals and checks alone", "cause", err)
				}
				if !sleep(ctx, time.Second) {
					return
				}
			}
		})
	}
	hear(func() error { return v.kernel.hear(ctx, func(c change) { v.noticed(ctx, c) }) })
	if v.Guard {
		hear(func() error { return v.guard.Watch(ctx, v.reguard) })
	}
}

// Watch tells of changes of the interface and of the addresses, and when
// something was put right or could not be. What was before it began is news,
// too.
func (v *vip) Watch(ctx context.Context, changed func()) error {
	for {
		v.mu.Lock()
		news := v.news
		v.mu.Unlock()
		changed()
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tell has everybody who watches look.
func (v *vip) tell() {
	v.mu.Lock()
	defer v.mu.Unlock()
	close(v.news)
	v.news = make(chan struct{})
}

// noticed does what a change calls for.
func (v *vip) noticed(ctx context.Context, c change) {
	v.mu.Lock()
	l, held := v.link, v.held
	v.mu.Unlock()
	switch {
	case c.lost:
		v.relink(ctx, 0)
		v.tell()
		v.heal(ctx, "")
	case c.link != nil:
		if l.index == 0 || l.index == c.link.index || c.link.name == v.Interface {
			v.relink(ctx, c.event)
		}
	case !slices.Contains(v.addrs(), c.entry.addr), c.gone && !held:
	case held && !c.gone && v.sound(l, *c.entry): // as this process has put it
	default:
		v.tell()
		v.heal(ctx, whose(c.by))
	}
}

// relink looks at the interface. What went with it is brought back once it is
// up, and peers are told anew where the addresses are: a switch has to learn it
// again, and a bond that uses another port says so by its event.
func (v *vip) relink(ctx context.Context, event uint32) {
	l, err := v.kernel.link(v.Interface)
	v.mu.Lock()
	before := v.link
	v.link = l
	if err == nil {
		v.was = l.index
	}
	v.mu.Unlock()
	same := l.index == before.index && l.name == before.name && l.up() == before.up() && l.mac.String() == before.mac.String() && l.part == before.part
	if same && event != unix.IFLA_EVENT_NOTIFY_PEERS && event != unix.IFLA_EVENT_BONDING_FAILOVER {
		return
	}
	if !same {
		v.tell()
	}
	if err == nil && l.index != before.index {
		for _, c := range v.cautions(l) {
			v.log.Warn("a setting of this host is not good for the address", "interface", l.name, "cause", c)
		}
	}
	if err == nil && l.up() {
		v.heal(ctx, "")
		v.speakUp()
	}
}

// The bounds of repairs: so many at once, and others only with a renewal. Then
// it is time that people, or another node, see to it. One "ip address flush"
// tries ten times.
const (
	mendsAtOnce  = 20
	mendingFrame = 10 * time.Second
)

// mended notes that something was put right, and returns how often that was
// so lately.
func (v *vip) mended(by string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mends = append(v.recent(), sdk.Now())
	if by != "" {
		v.mender = by
	}
	return len(v.mends)
}

// recent is when something was put right lately. The caller holds mu.
func (v *vip) recent() []sdk.Instant {
	since := sdk.Now().Add(-mendingFrame)
	v.mends = slices.DeleteFunc(v.mends, func(at sdk.Instant) bool { return at < since })
	return v.mends
}

// restless is an error if what is put right does not stay so.
func (v *vip) restless() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := len(v.recent())
	if n <= mendsAtOnce {
		return nil
	}
	by := "somebody"
	if v.mender != "" {
		by = v.mender
	}
	return fmt.Errorf("%s removes what is here again and again: put back %d times within %s", by, n, mendingFrame)
}

// heal puts right at once what somebody has changed, while the lease holds.
func (v *vip) heal(ctx context.Context, by string) {
	v.mu.Lock()
	until, often := v.renewed, len(v.recent()) > mendsAtOnce
	v.mu.Unlock()
	if often || !v.holds() || v.enter(ctx) != nil {
		return // what is too often for us the next renewal tries
	}
	defer v.exit()
	if err := v.mend(until, by); err != nil {
		v.log.Warn("address not brought back yet", "by", by, "cause", err)
		v.tell()
	}
}

// reguard puts back at once the guard that somebody has removed: open for as
// long as the lease holds, or closed.
func (v *vip) reguard(by string) {
	v.mu.Lock()
	often, opens := len(v.recent()) > mendsAtOnce, v.promoting && !v.held
	v.mu.Unlock()
	if opens || often && v.holds() { // a promotion, or the next renewal, sees to it
		return
	}
	state, err := v.guard.State()
	if err == nil && state.Installed {
		return
	}
	if err == nil {
		err = v.reinstall(0)
	}
	if err != nil && !errors.Is(err, sdk.ErrExpired) { // then it is closed
		v.log.Warn("guard is gone, and not back yet", "by", by, "cause", err)
		v.tell()
		return
	}
	v.reguarded(by, kernelguard.ErrGone)
}

// reguarded tells that a guard is back.
func (v *vip) reguarded(by string, cause error) {
	v.mended(by)
	v.log.Warn("guard installed again", "by", by, "cause", cause)
	v.tell()
}
