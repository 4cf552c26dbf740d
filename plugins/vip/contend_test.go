package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
	"github.com/deputy-ha/deputy/sdk"
)

// Another host that takes the address while the role is held is named, and
// contradicted until it gives up: peers find their way back.
func TestRivals(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{vip4 + "/24", vip6 + "/64"} {
		host := strings.Split(addr, "/")[0]
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			l := netlab.New(t)
			a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
			peer := l.Host(peer4+"/24", peer6+"/64")
			rival := l.Host("192.0.2.13/24", "2001:db8::13/64")
			a.demote(sdk.OutcomeAlready)
			a.promote(sdk.OutcomeDone)
			peer.Run("ip", "neigh", "replace", host, "lladdr", a.MAC.String(), "nud", "reachable", "dev", "eth0")
			rival.Run("ip", "addr", "add", addr, "dev", "eth0", "nodad")
			steal := func() { // as a host that comes up, or a stale primary, does
				rival.Must(func() error {
					k, s := &rtnetlink{}, newSpeaker([]netip.Addr{netip.MustParseAddr(host)}, func(*conflict) {})
					defer s.close()
					defer k.close()
					l, err := k.link("eth0")
					if err != nil {
						return err
					}
					return s.say(l, s.addrs[0])
				})
			}
			eventually(t, "the rival named", func() bool {
				h, err := a.hosted.Check(t.Context(), sdk.RolePrimary, a.term)
				if err == nil && strings.Contains(h.Detail, rival.MAC.String()) {
					if !h.Fit {
						t.Errorf("a rival makes the primary unfit: %+v", h)
					}
					return true
				}
				steal()
				return false
			})
			peer.Run("ip", "neigh", "replace", host, "lladdr", rival.MAC.String(), "nud", "reachable", "dev", "eth0")
			eventually(t, "the peer told better", func() bool { return strings.HasPrefix(peer.Neighbour(host), a.MAC.String()) })
			rival.Run("ip", "addr", "del", addr, "dev", "eth0")
			eventually(t, "the rival forgotten", func() bool {
				h, err := a.hosted.Check(t.Context(), sdk.RolePrimary, a.term)
				return err == nil && !strings.Contains(h.Detail, rival.MAC.String())
			})
			a.says(t, "another host claims the address", "claims the address no more")
			a.check(sdk.RolePrimary, true, "")
		})
	}
}

// An IPv6 address that somebody has added anew, and whose duplicate detection
// has failed, is here and does not answer. It is made to.
func TestDuplicateDetectionFailed(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
	peer := l.Host(peer4+"/24", peer6+"/64")
	echoes(a.Host)
	a.demote(sdk.OutcomeAlready)
	a.promote(sdk.OutcomeDone)
	other := l.Host("192.0.2.13/24", vip6+"/64")
	a.signal(syscall.SIGSTOP) // or it would be quicker
	eventually(t, "stopped", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", a.hosted.PIDs()[0]))
		if err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(threads, func(path string) bool {
			stat, err := os.ReadFile(path)
			return err == nil && !strings.Contains(string(stat), ") T ")
		})
	})
	a.Run("ip", "addr", "del", vip6+"/128", "dev", "eth0")
	a.Run("ip", "addr", "add", vip6+"/128", "dev", "eth0")
	eventually(t, "detected", func() bool { return strings.Contains(a.Run("ip", "addr", "show", "to", vip6), "dadfailed") })
	other.Run("ip", "addr", "del", vip6+"/64", "dev", "eth0")
	a.signal(syscall.SIGCONT)
	eventually(t, "usable", func() bool {
		out := a.Run("ip", "addr", "show", "to", vip6)
		return strings.Contains(out, "nodad") && !strings.Contains(out, "dadfailed") && !strings.Contains(out, "tentative")
	})
	if !reaches(peer, at6, 5*time.Second) {
		t.Errorf("%s does not answer", vip6)
	}
	a.check(sdk.RolePrimary, true, "")
}
