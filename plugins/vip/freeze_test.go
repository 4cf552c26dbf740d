package main

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
	"github.com/deputy-ha/deputy/sdk"
)

// late is how long after the end of a lease a packet may be let through. The
// guard closes some milliseconds early, so that it is the tick of a kernel with
// HZ=250, and what lies between reading the clock and sending.
const late = 5 * time.Millisecond

// A long run of the tests of this package repeats them often.
func long() time.Duration {
	d, _ := time.ParseDuration(os.Getenv("DEPUTY_LONG"))
	return d
}

// A plugin that is stopped: the address is silent from the end of the lease
// on, in every way in which it could be heard, and does not come back when the
// plugin goes on.
func TestFrozenPluginIsSilentInTime(t *testing.T) {
	for _, c := range []struct {
		ttl   time.Duration
		times int
	}{{time.Second, 3}, {3 * time.Second, 1}} {
		if long() > 0 {
			c.times = 20
		}
		t.Run(c.ttl.String(), func(t *testing.T) {
			t.Parallel()
			l := netlab.New(t)
			a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
			peer := l.Host(peer4+"/24", peer6+"/64")
			echoes(a.Host)
			// Nobody has to ask where the others are, so that only the guard decides.
			for _, addr := range []string{vip4, vip6} {
				peer.Knows(addr, a.MAC)
			}
			a.Knows(peer4, peer.MAC)
			a.Knows(peer6, peer.MAC)
			a.demote(sdk.OutcomeAlready)
			margins := map[string][]time.Duration{}
			for range c.times {
				a.freeze(peer, c.ttl, margins)
				a.term++
			}
			for kind, m := range margins {
				slices.Sort(m)
				t.Logf("%-24s last heard before the end of the lease by: least %s, median %s, of %d", kind, m[0], m[len(m)/2], len(m))
			}
		})
	}
}

func (n *node) freeze(peer *netlab.Host, ttl time.Duration, margins map[string][]time.Duration) {
	n.t.Helper()
	p := n.transition(sdk.Promote)
	p.LeaseUntil = sdk.Now().Add(ttl * 95 / 100)
	if r := n.do(p); r.Outcome != sdk.OutcomeDone {
		n.t.Fatalf("promote: got %+v", r)
	}
	time.Sleep(ttl / 6)
	until := sdk.Now().Add(ttl * 95 / 100)
	if err := n.hosted.Renew(n.t.Context(), until); err != nil {
		n.t.Fatalf("renew: %v", err)
	}
	n.signal(syscall.SIGSTOP)
	all := []*netlab.Exchange{
		peer.Ask(at4, 2*time.Millisecond),
		peer.Ask(at6, 2*time.Millisecond),
		n.Tell(vip4+":8", peer, peer4+":8", 2*time.Millisecond),
		n.Tell("["+vip6+"]:8", peer, "["+peer6+"]:8", 2*time.Millisecond),
		peer.AskNeighbour(netip.MustParseAddr(vip4), netip.MustParsePrefix("192.0.2.0/24"), 2*time.Millisecond),
		peer.AskNeighbour(netip.MustParseAddr(vip6), netip.MustParsePrefix("2001:db8::/64"), 2*time.Millisecond),
	}
	time.Sleep(until.Sub(sdk.Now()) + 200*time.Millisecond)
	n.signal(syscall.SIGCONT)
	time.Sleep(100 * time.Millisecond)
	err := n.renew(ttl)
	if !errors.Is(err, sdk.ErrExpired) {
		n.t.Errorf("renew after the freeze: got %v, want %v", err, sdk.ErrExpired)
	}
	n.eventuallyGone()
	time.Sleep(50 * time.Millisecond)
	for _, x := range all {
		asked := x.End()
		last := netlab.Last(asked)
		if last == 0 {
			n.t.Errorf("%s: nothing was ever heard of %d questions", x.Kind, len(asked))
			continue
		}
		if after := last.Sub(until); after > late {
			n.t.Errorf("%s: heard %s after the end of the lease", x.Kind, after)
		}
		if len(asked) < int(ttl/(20*time.Millisecond)) {
			n.t.Logf("%s: only %d questions: the machine is busy", x.Kind, len(asked))
		}
		margins[x.Kind] = append(margins[x.Kind], until.Sub(last))
	}
	n.demote(sdk.OutcomeAlready)
}

// Not a packet is lost while the lease is renewed, at a ttl of 1 s for as long
// as DEPUTY_LONG says.
func TestNothingIsLostWhileRenewing(t *testing.T) {
	for _, ttl := range []time.Duration{time.Second, 3 * time.Second} {
		t.Run(ttl.String(), func(t *testing.T) {
			t.Parallel()
			d := 10 * time.Second
			if long() > 0 {
				d = long()
			}
			l := netlab.New(t)
			a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
			peer := l.Host(peer4+"/24", peer6+"/64")
			echoes(a.Host)
			a.demote(sdk.OutcomeAlready)
			a.promote(sdk.OutcomeDone)
			eventually(t, "an answer", func() bool { return reaches(peer, at4, time.Second) && reaches(peer, at6, time.Second) })
			x4, x6 := peer.Ask(at4, 2*time.Millisecond), peer.Ask(at6, 2*time.Millisecond)
			tick := time.NewTicker(ttl / 6)
			defer tick.Stop()
			renewals, late := 0, 0
			last := sdk.Now()
			for end := time.Now().Add(d); time.Now().Before(end); renewals++ {
				s := sdk.Now()
				if s.Sub(last) > ttl/2 {
					late++ // this machine stood still
				}
				last = s
				if err := a.hosted.Renew(t.Context(), s.Add(ttl*95/100)); err != nil {
					t.Fatalf("renewal %d: %v", renewals, err)
				}
				<-tick.C
			}
			for kind, asked := range map[string][]netlab.Question{"IPv4": x4.End(), "IPv6": x6.End()} {
				lost := 0
				for _, q := range asked {
					if q.Answered == 0 {
						lost++
					}
				}
				t.Logf("ttl %s, %s: %s, %d renewals (%d late), %d packets sent, %d lost", ttl, kind, d, renewals, late, len(asked), lost)
				if lost > 0 {
					t.Errorf("%s: %d of %d packets lost", kind, lost, len(asked))
				}
			}
			a.check(sdk.RolePrimary, true, "")
		})
	}
}
