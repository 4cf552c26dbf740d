package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
	"github.com/deputy-ha/deputy/sdk"
)

// A slow kernel answers about addresses only while it is told to. The guard is
// not concerned.
type slow struct {
	kernel
	mu sync.RWMutex // held for writing while it does not answer
}

func (s *slow) pass() {
	s.mu.RLock()
	s.mu.RUnlock() //nolint:staticcheck // only to have waited
}

func (s *slow) list(addrs []netip.Addr) ([]entry, error) {
	s.pass()
	return s.kernel.list(addrs)
}

func (s *slow) put(e entry) error {
	s.pass()
	return s.kernel.put(e)
}

func (s *slow) remove(e entry) error {
	s.pass()
	return s.kernel.remove(e)
}

func (s *slow) link(name string) (link, error) {
	s.pass()
	return s.kernel.link(name)
}

// newSlow is a promoted vip of this process, on a device of its own.
func newSlow(t *testing.T, guard bool) (*vip, *slow) {
	t.Helper()
	l := netlab.New(t)
	home := l.Home()
	l.Plug(home, "slow0", "192.0.2.11/24", "2001:db8::11/64")
	s := settings{
		Addresses: []place{{netip.MustParsePrefix("192.0.2.30/32")}, {netip.MustParsePrefix("2001:db8::30/128")}},
		Interface: "slow0", Guard: guard, MonitorLink: true, KillConnections: true, Deprecated: true,
	}
	k := &slow{kernel: &rtnetlink{}}
	v, err := newVIPOf(k, s, sdk.Host{Service: "slow", Part: "vip", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(v.Close(), v.guard.Remove(), v.guard.Close()); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "a carrier", func() bool {
		_, err := v.ready()
		return err == nil
	})
	if err := v.Promote(t.Context(), act(sdk.Promote, sdk.Planned)); err != nil {
		t.Fatalf("promote: %v", err)
	}
	return v, k
}

func act(a sdk.Action, m sdk.Mode) *sdk.Transition {
	return &sdk.Transition{Action: a, Mode: m, Reason: sdk.ReasonElection, LeaseUntil: sdk.Now().Add(time.Minute)}
}

// has tells whether the host has the addresses, whatever the vip is told.
func (s *slow) has(t *testing.T, v *vip) bool {
	t.Helper()
	here, err := s.kernel.list(v.addrs())
	if err != nil {
		t.Fatal(err)
	}
	return len(here) > 0
}

// Renewals reach the guard while the kernel does not answer about addresses,
// as when it makes and removes many network devices.
func TestRenewWithASlowKernel(t *testing.T) {
	v, k := newSlow(t, true)
	k.mu.Lock()
	for range 10 {
		began := time.Now()
		if err := v.Renew(t.Context(), sdk.Now().Add(time.Second)); err != nil {
			t.Errorf("renew: %v", err)
		}
		if took := time.Since(began); took > 20*patience {
			t.Errorf("a renewal took %s", took)
		}
		s, err := v.guard.State()
		if err != nil || s.Left < time.Second/2 {
			t.Errorf("after a renewal the guard is open for %s, %v", s.Left, err)
		}
	}
	k.mu.Unlock()
	if err := v.Demote(t.Context(), act(sdk.Demote, sdk.Planned)); err != nil {
		t.Errorf("demote: %v", err)
	}
	if k.has(t, v) {
		t.Error("the addresses are still here")
	}
}

// A forced demotion is over once the addresses are silent; they go as soon as
// the kernel lets them, and not when they are back by then.
func TestForcedDemotionWithASlowKernel(t *testing.T) {
	v, k := newSlow(t, true)
	k.mu.Lock()
	for range 3 { // asked again
		began := time.Now()
		if err := v.Demote(t.Context(), act(sdk.Demote, sdk.Forced)); err != nil {
			t.Errorf("forced demotion: %v", err)
		}
		if took := time.Since(began); took > 10*forcedBound {
			t.Errorf("a forced demotion took %s", took)
		}
		if s, err := v.guard.State(); err != nil || !s.Installed || s.Left > 0 {
			t.Errorf("after a forced demotion the guard is %+v, %v", s, err)
		}
	}
	if !k.has(t, v) {
		t.Fatal("the addresses are gone: the kernel was not slow")
	}
	k.mu.Unlock()
	eventually(t, "removed", func() bool { return !k.has(t, v) })

	// What is left to remove does not take down what comes after it.
	if err := v.Promote(t.Context(), act(sdk.Promote, sdk.Planned)); err != nil {
		t.Fatalf("promote: %v", err)
	}
	k.mu.Lock()
	if err := v.Demote(t.Context(), act(sdk.Demote, sdk.Forced)); err != nil {
		t.Errorf("forced demotion: %v", err)
	}
	over := make(chan error, 1)
	go func() { over <- v.Promote(t.Context(), act(sdk.Promote, sdk.Planned)) }()
	time.Sleep(20 * time.Millisecond)
	k.mu.Unlock()
	if err := <-over; err != nil {
		t.Errorf("promote after a demotion that took long: %v", err)
	}
	v.work.Wait()
	if s, err := v.guard.State(); err != nil || s.Left == 0 || !k.has(t, v) {
		t.Errorf("after the promotion the guard is %+v, %v, and the addresses are here: %t", s, err, k.has(t, v))
	}
	if err := v.Renew(t.Context(), sdk.Now().Add(time.Minute)); err != nil {
		t.Errorf("renew: %v", err)
	}
	if err := v.Demote(t.Context(), act(sdk.Demote, sdk.Planned)); err != nil {
		t.Errorf("demote: %v", err)
	}
}

// A forced demotion for which no time is left is begun all the same.
func TestForcedDemotionWithoutTime(t *testing.T) {
	v, k := newSlow(t, true)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errSlow)
	if err := v.Demote(ctx, act(sdk.Demote, sdk.Forced)); err != nil && !errors.Is(err, errSlow) {
		t.Errorf("forced demotion: %v", err)
	}
	if s, err := v.guard.State(); err != nil || s.Left > 0 {
		t.Errorf("the guard is %+v, %v", s, err)
	}
	eventually(t, "removed", func() bool { return !k.has(t, v) })
}

// Without a guard only their removal is a demotion.
func TestForcedDemotionWithoutAGuard(t *testing.T) {
	v, k := newSlow(t, false)
	k.mu.Lock()
	if err := v.Demote(t.Context(), act(sdk.Demote, sdk.Forced)); err == nil {
		t.Error("a demotion without a guard is done although the addresses are here")
	}
	k.mu.Unlock()
	eventually(t, "demoted", func() bool { // it is asked again
		err := v.Demote(t.Context(), act(sdk.Demote, sdk.Forced))
		if err != nil && !errors.Is(err, sdk.ErrAlready) && !errors.Is(err, errSlow) {
			t.Fatalf("demote: %v", err)
		}
		return !errors.Is(err, errSlow)
	})
	if k.has(t, v) {
		t.Error("the addresses are still here")
	}
}

// A lease that ends while the kernel does not answer: the guard has closed, and
// that is told at once.
func TestExpireWithASlowKernel(t *testing.T) {
	v, k := newSlow(t, true)
	if err := v.Renew(t.Context(), sdk.Now().Add(100*time.Millisecond)); err != nil {
		t.Fatalf("renew: %v", err)
	}
	k.mu.Lock()
	time.Sleep(120 * time.Millisecond)
	began := time.Now()
	if err := v.Renew(t.Context(), sdk.Now().Add(time.Minute)); !errors.Is(err, sdk.ErrExpired) {
		t.Errorf("renew what has expired: got %v, want %v", err, sdk.ErrExpired)
	}
	if took := time.Since(began); took > 20*patience {
		t.Errorf("it took %s to tell", took)
	}
	k.mu.Unlock()
	eventually(t, "removed", func() bool { return !k.has(t, v) })
	if s, err := v.guard.State(); err != nil || s.Left > 0 {
		t.Errorf("the guard is %+v, %v", s, err)
	}
}
