package main

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
	"github.com/deputy-ha/deputy/sdk"
)

// failover is a promotion after the primary was lost.
func (n *node) failover() sdk.Transition {
	t := n.transition(sdk.Promote)
	t.Reason, t.Previous = sdk.ReasonFailover, sdk.Peer{Node: "b"}
	return t
}

func onConflict(policy string) func(map[string]any) {
	return func(c map[string]any) { c["probe"] = map[string]any{"on_conflict": policy} }
}

// Another host with the address is found before a failover, and what becomes
// of it is the operator's choice.
func TestDuplicates(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{vip4 + "/24", vip6 + "/64"} {
		t.Run(addr[:len(addr)-3], func(t *testing.T) {
			l := netlab.New(t)
			a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both())
			peer := l.Host(peer4+"/24", peer6+"/64")
			other := l.Host("192.0.2.13/24", addr)
			echoes(a.Host)
			a.demote(sdk.OutcomeAlready)

			r := a.do(a.failover())
			if r.Outcome != sdk.OutcomeUnchanged || !strings.Contains(r.Detail, "in use by the host with hardware address "+other.MAC.String()) {
				t.Errorf("fail: got %+v, want it unchanged, with the other's hardware address", r)
			}
			a.owns(false)

			// Whoever was primary before has left the role by itself, or was this
			// node: nobody is asked, and no time lost.
			for _, change := range []func(*sdk.Transition){
				func(t *sdk.Transition) { t.Reason = sdk.ReasonElection },
				func(t *sdk.Transition) { t.Reason = sdk.ReasonSwitchover },
				func(t *sdk.Transition) { t.Reason = sdk.ReasonPreempt },
				func(t *sdk.Transition) { t.Previous.Node = t.Node },
			} {
				p := a.failover()
				change(&p)
				if r := a.do(p); r.Outcome != sdk.OutcomeDone {
					t.Errorf("after %s from %s: got %+v", p.Reason, p.Previous.Node, r)
				}
				a.demote(sdk.OutcomeDone)
			}

			a.configure(both(onConflict("force")))
			if r := a.do(a.failover()); r.Outcome != sdk.OutcomeDone {
				t.Errorf("force: got %+v", r)
			}
			host, _, _ := strings.Cut(addr, "/")
			if got := peer.Neighbour(host); got != "" && !strings.HasPrefix(got, a.MAC.String()) {
				t.Errorf("force: the peer has %s at %s, not at %s", host, got, a.MAC)
			}
			a.demote(sdk.OutcomeDone)

			a.configure(both(onConflict("wait")))
			p := a.failover()
			p.Timeout = time.Second
			if r := a.do(p); r.Outcome != sdk.OutcomeUnchanged || !strings.Contains(r.Detail, "in use") {
				t.Errorf("wait, in vain: got %+v", r)
			}
			waited := make(chan sdk.Result, 1)
			said := make(chan string, 100)
			p = a.failover()
			go func() {
				waited <- a.hosted.Do(t.Context(), p, time.Second, func(progress string) {
					if progress != "" {
						select {
						case said <- progress:
						default:
						}
					}
				})
			}()
			if s := <-said; !strings.Contains(s, "waiting: ") {
				t.Errorf("wait: said %q", s)
			}
			other.Run("ip", "addr", "del", addr, "dev", "eth0")
			if r := <-waited; r.Outcome != sdk.OutcomeDone {
				t.Errorf("wait: got %+v", r)
			}
			a.owns(true)
		})
	}
}

// A wait that ends in the middle of a probe tells for whom it was.
func TestWaitThatEndsDuringAProbe(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both(func(c map[string]any) {
		c["probe"] = map[string]any{"on_conflict": "wait", "interval": "1s"} // 3 s for each, if nobody answers
	}))
	other := l.Host("192.0.2.13/24", vip4+"/32")
	a.demote(sdk.OutcomeAlready)
	p := a.failover()
	p.Timeout = 2 * time.Second
	waits := sync.OnceFunc(func() { other.Run("ip", "link", "set", "eth0", "down") })
	r := a.hosted.Do(t.Context(), p, time.Second, func(progress string) {
		if strings.Contains(progress, "waiting: ") {
			waits()
		}
	})
	if r.Outcome != sdk.OutcomeUnchanged || !strings.Contains(r.Detail, "in use by the host with hardware address "+other.MAC.String()) || !strings.Contains(r.Detail, "then: probe ") {
		t.Errorf("got %+v, want the host that it waited for, and what it did then", r)
	}
}

// A renewal reaches a promotion that still probes, and counts for it.
func TestRenewDuringProbe(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	a := newNode(t, l.Host("192.0.2.11/24", "2001:db8::11/64"), "a", both(func(c map[string]any) {
		c["probe"] = map[string]any{"interval": "100ms"} // 300 ms in all
	}))
	a.demote(sdk.OutcomeAlready)
	p := a.failover()
	p.LeaseUntil = sdk.Now().Add(250 * time.Millisecond) // less than the probes take
	over := make(chan sdk.Result, 1)
	go func() { over <- a.hosted.Do(t.Context(), p, time.Second, func(string) {}) }()
	time.Sleep(100 * time.Millisecond)
	if err := a.renew(time.Minute); err != nil {
		t.Errorf("renew during the probes: %v", err)
	}
	if r := <-over; r.Outcome != sdk.OutcomeDone {
		t.Errorf("promote: got %+v", r)
	}
	a.check(sdk.RolePrimary, true, "")

	// Without one the lease is over when the probes are.
	a.demote(sdk.OutcomeDone)
	p = a.failover()
	p.LeaseUntil = sdk.Now().Add(250 * time.Millisecond)
	if r := a.do(p); r.Outcome != sdk.OutcomeUnchanged {
		t.Errorf("promote whose lease ended during the probes: got %+v", r)
	}
	a.owns(false)

	// A demotion does not wait for the probes.
	p = a.failover()
	go func() { over <- a.hosted.Do(t.Context(), p, time.Second, func(string) {}) }()
	time.Sleep(50 * time.Millisecond)
	began := time.Now()
	a.demote(sdk.OutcomeAlready)
	if took := time.Since(began); took > 200*time.Millisecond {
		t.Errorf("a demotion during the probes took %s", took)
	}
	if r := <-over; r.Outcome.OK() {
		t.Errorf("promote that a demotion interrupts: got %+v", r)
	}
	a.owns(false)
}
