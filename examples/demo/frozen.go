package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// frozen measures what becomes of an address when what holds it stops: the
// supervisor, the plugin, or both.
func frozen(ttl, heartbeat, election time.Duration) func(*bench, context.Context) error {
	return func(b *bench, ctx context.Context) error {
		o := b.options
		o.alone, o.ttl, o.heartbeat, o.election = true, ttl, heartbeat, election
		return b.lab(ctx, o, func(l *lab) error {
			for _, do := range []func() error{
				func() error { return b.freezeSupervisor(ctx, l, "supervisor", (*node).deputyPID) },
				func() error { return b.freezeSupervisor(ctx, l, "both", (*node).deputyPID, (*node).vipPID) },
				func() error { return b.freezePlugin(ctx, l) },
			} {
				if err := do(); err != nil {
					return err
				}
				if len(l.rec.overlaps(0)) > 0 {
					break // nothing is worth measuring any more
				}
			}
			b.safety(l, 3*b.times)
			return nil
		})
	}
}

// aLittle is how long is waited for what should not come.
const aLittle = 200 * time.Millisecond

// freezeSupervisor stops the supervisor, and with it all that could take the
// address away but the kernel. The address must be silent before another node
// may be primary, and stay so when what was frozen goes on.
func (b *bench) freezeSupervisor(ctx context.Context, l *lab, name string, find ...func(*node) (int, error)) error {
	var last, outages []time.Duration
	late, unsure, back := 0, 0, 0
	err := b.each(ctx, l, l.ttl/3, func(ctx context.Context, i int) (err error) {
		before := l.records.now().primary
		n := l.node(before.Node)
		began := now()
		ice, err := n.freeze(ctx, find...)
		defer func() { err = errors.Join(err, ice.thaw()) }()
		if err != nil {
			return err
		}
		until, err := n.leaseEnd() // s + 0.95 T
		if err != nil {
			return err
		}
		if err := l.await(ctx, "another node answers", func() bool { return l.served(before.Term + 1) }); err != nil {
			return err
		}
		outage, seen := l.rec.outage(began), l.rec.lastDirect(n.name)
		last, outages = append(last, seen.told-until), append(outages, outage)
		verdict := ""
		switch taken := until + l.grace(); {
		case seen.asked > taken:
			late++
			verdict = ", LATE"
		case seen.told > taken:
			unsure++
			verdict = ", and asked before"
		}
		fmt.Fprintf(b.out, "  %s %2d: last answer %s after s + 0.95 T%s; nobody answered for %s\n", name, i+1, ms(seen.told-until), verdict, ms(outage))

		if err := rest(ctx, rand.N(l.ttl/3)); err != nil {
			return err
		}
		if err := ice.thaw(); err != nil {
			return err
		}
		if err := l.await(ctx, n.name+", thawed, has demoted", func() bool { return l.settled(before.Term+1) && !n.hasAddress() }); err != nil {
			return err
		}
		if err := rest(ctx, aLittle); err != nil {
			return err
		}
		if again := l.rec.lastDirect(n.name); again.asked > seen.asked || n.hasAddress() {
			back++
			fmt.Fprintf(b.out, "  %s %2d: the address CAME BACK on %s\n", name, i+1, n.name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.durations(name+": last answer after s+0.95T", last, 0, 0)
	f := &b.figures[len(b.figures)-1]
	f.bound, f.ok = fmt.Sprintf("s+T, <= %s", ms(l.grace())), late == 0
	if unsure > 0 {
		b.add(name+": seen late, asked before", len(last), strconv.Itoa(unsure), "", "", true)
	}
	b.add(name+": answers again, thawed", len(last), strconv.Itoa(back), "", "0", back == 0)
	b.durations(name+": nobody answered", outages, 0, 0)
	return nil
}

// freezePlugin stops the plugin alone. The supervisor lives, and renews a lease
// of which the plugin does not hear.
func (b *bench) freezePlugin(ctx context.Context, l *lab) error {
	var killed, outages []time.Duration
	kept := 0
	err := b.each(ctx, l, l.ttl/3, func(ctx context.Context, i int) (err error) {
		before := l.records.now().primary
		n := l.node(before.Node)
		began := now()
		ice, err := n.freeze(ctx, (*node).vipPID)
		defer func() { err = errors.Join(err, ice.thaw()) }()
		if err != nil {
			return err
		}
		after := "not killed"
		// Longer than the lease: by then the role is renewed or lost.
		for now() < began+l.ttl+time.Second {
			if err := rest(ctx, glance); err != nil {
				return err
			}
			if after == "not killed" && ice.isGone() {
				killed = append(killed, now()-began)
				after = "killed after " + ms(now()-began)
			}
		}
		if err := ice.thaw(); err != nil {
			return err
		}
		if err := l.await(ctx, "all is well again", func() bool { return l.settled(before.Term) }); err != nil {
			return err
		}
		outage := l.rec.outage(began)
		outages = append(outages, outage)
		if l.records.now().primary.Term == before.Term {
			kept++
			fmt.Fprintf(b.out, "  plugin %2d: %s, role kept; nobody answered for %s\n", i+1, after, ms(outage))
			return nil
		}
		fmt.Fprintf(b.out, "  plugin %2d: %s, role MOVED; nobody answered for %s\n%s", i+1, after, ms(outage), l.logs())
		return nil
	})
	if err != nil {
		return err
	}
	if len(killed) > 0 {
		b.durations("plugin: killed by its supervisor", killed, 0, 0)
	}
	b.add("plugin: role kept", len(outages), strconv.Itoa(kept), "", "", true)
	b.durations("plugin: nobody answered", outages, 0, 0)
	return nil
}

// grace is from the end of a lease, s + 0.95 T, until another node may be
// primary, s + T.
func (l *lab) grace() time.Duration { return l.ttl / 20 }

// Ice is processes that are stopped.
type ice []*os.Process

// freeze stops processes of the node and returns when none of their threads
// runs any more. What it has stopped is also returned with an error.
func (n *node) freeze(ctx context.Context, find ...func(*node) (int, error)) (ice, error) {
	var all ice
	for _, f := range find {
		pid, err := f(n)
		if err != nil {
			return nil, err
		}
		p, err := os.FindProcess(pid) // holds it by a pidfd, so that its number is never another's
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	for _, p := range all {
		if err := p.Signal(unix.SIGSTOP); err != nil {
			return all, fmt.Errorf("freeze process %d: %w", p.Pid, err)
		}
	}
	for _, p := range all {
		for !isStopped(p.Pid) {
			if ctx.Err() != nil {
				return all, fmt.Errorf("freeze process %d: %w", p.Pid, context.Cause(ctx))
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
	return all, nil
}

// thaw lets them go on, the last one first. Those that have ended stay so.
func (i ice) thaw() error {
	for _, p := range slices.Backward(i) {
		if err := p.Signal(unix.SIGCONT); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("thaw process %d: %w", p.Pid, err)
		}
	}
	return nil
}

// isGone reports whether all have ended.
func (i ice) isGone() bool {
	return !slices.ContainsFunc(i, func(p *os.Process) bool { return !errors.Is(p.Signal(unix.Signal(0)), os.ErrProcessDone) })
}

// leaseEnd reads until when the node's deputy holds the role: what it writes
// into the run directory after each renewal, before it passes it on. It is an
// instant on CLOCK_BOOTTIME in nanoseconds, little endian.
func (n *node) leaseEnd() (instant, error) {
	file := filepath.Join(n.dir, "run", n.lab.service(), "until")
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	if len(data) != 8 {
		return 0, fmt.Errorf("read %s: %d bytes, want 8", file, len(data))
	}
	end := instant(binary.LittleEndian.Uint64(data))
	if end == 0 {
		return 0, fmt.Errorf("read %s: no lease is held", file)
	}
	return end, nil
}
