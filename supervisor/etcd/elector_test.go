package etcd

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/supervisortest"
)

const second = time.Second

// pair starts two processes on two hosts, with a service each.
func pair(t *testing.T, ttl time.Duration) (s *store, a, b *process, ea, eb supervisor.Elector, sa, sb <-chan supervisor.State) {
	t.Helper()
	s = newStore()
	a = newHost(s, "a", 1, 1).start(t, t.Output())
	b = newHost(s, "b", 1, 11).start(t, t.Output())
	ctx, cancel := context.WithCancel(t.Context())
	ea, eb = a.Elector("db", ttl), b.Elector("db", ttl)
	sa, sb = observe(ctx, ea), observe(ctx, eb)
	t.Cleanup(func() {
		a.host.cut(false)
		b.host.cut(false)
		a.host.gate.lift()
		b.host.gate.lift()
		a.stop()
		b.stop()
		cancel()
		for range sa {
		}
		for range sb {
		}
		s.stop()
	})
	return s, a, b, ea, eb, sa, sb
}

func take(t *testing.T, e supervisor.Elector, st supervisor.State) supervisor.Lease {
	t.Helper()
	l, err := e.Take(t.Context(), st)
	if err != nil {
		t.Fatalf("take: %v", err)
	}
	return l
}

func TestTheFirstTermIsTakenAndResigned(t *testing.T) {
	supervisortest.Bubble(t, func(t *testing.T) {
		_, a, _, ea, eb, sa, sb := pair(t, 3*second)
		st := until(t, sa, "vacant", isVacant)
		if st.Unclean || st.Term.Term != 0 {
			t.Errorf("a service that never had a primary: %+v", st)
		}
		l := take(t, ea, st)
		if l.Term() != 1 {
			t.Errorf("term %d, want 1", l.Term())
		}
		other := until(t, sb, "with a primary", func(st supervisor.State) bool { return st.Primary != nil })
		if other.Vacant || other.Primary.Node != "a" || other.Primary.Term != 1 || other.Primary.State != sdk.RolePromoting {
			t.Errorf("as seen by the other: %+v", other.Primary)
		}
		if err := l.Announce(t.Context(), sdk.RolePrimary); err != nil {
			t.Error(err)
		}
		until(t, sb, "announced", func(st supervisor.State) bool {
			return st.Primary != nil && st.Primary.State == sdk.RolePrimary
		})
		time.Sleep(10 * second)
		if left := l.Until().Sub(a.clock.Now()); left < 2*second {
			t.Errorf("after 10 s the lease has %v left", left)
		}
		if err := l.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		if l.Until() != 0 {
			t.Error("a resigned lease still holds")
		}
		st = until(t, sb, "vacant", isVacant)
		if st.Unclean || !st.Term.Resigned || st.Term.Term != 1 {
			t.Errorf("after resigning: %+v", st)
		}
		next := take(t, eb, st)
		if next.Term() != 2 || next.Follows().Node != "a" || !next.Follows().Resigned {
			t.Errorf("term %d follows %+v", next.Term(), next.Follows())
		}
	})
}

// Whoever waits for the role waits for no more than the transaction that gives
// it up.
func TestAResignationReadsNothingFirst(t *testing.T) {
	supervisortest.Bubble(t, func(t *testing.T) {
		_, a, _, ea, _, sa, sb := pair(t, 3*second)
		l := take(t, ea, until(t, sa, "vacant", isVacant))
		if err := l.Announce(t.Context(), sdk.RolePrimary); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * second)
		var writes, reads atomic.Int64
		for _, line := range a.host.lines {
			line.setSwallow(func(t txn) bool {
				switch key := a.keys.primary("db"); {
				case slices.ContainsFunc(t.Then, func(o op) bool { return o.kind == opDelete && o.span.has(key) }):
					writes.Add(1)
				case slices.ContainsFunc(t.Then, func(o op) bool { return o.kind == opGet && o.span.has(key) }):
					reads.Add(1)
				}
				return false
			})
		}
		if err := l.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r, w := reads.Load(), writes.Load(); r != 0 || w != 1 {
			t.Errorf("got %d reads of the role and %d transactions that give it up, want 0 and 1", r, w)
		}
		until(t, sb, "vacant", isVacant)
	})
}

func TestACutOffPrimaryIsFollowedAfterItsTTL(t *testing.T) {
	supervisortest.Bubble(t, func(t *testing.T) {
		_, a, b, ea, eb, sa, sb := pair(t, 3*second)
		l := take(t, ea, until(t, sa, "vacant", isVacant))
		until(t, sb, "with a primary", func(st supervisor.State) bool { return st.Primary != nil })
		time.Sleep(5 * second)
		a.host.cut(true)
		cut := time.Now()
		end := l.Until()
		<-l.Lost()
		if lost := a.clock.Now(); lost < end.Add(-3*second*20/100) || lost > end.Add(-3*second*20/100+time.Millisecond) {
			t.Errorf("lost %v before Until, want 0.2 T", end.Sub(lost))
		}
		if !errors.Is(l.Cause(), errSilent) {
			t.Errorf("cause %v", l.Cause())
		}
		st := until(t, sb, "vacant", isVacant)
		if !st.Unclean {
			t.Error("a lost primary left an unclean vacancy, not told")
		}
		if now := a.clock.Now(); now < end {
			t.Errorf("vacant %v before the end of the lease", end.Sub(now))
		}
		next := take(t, eb, st)
		if took := time.Since(cut); took > 3*second+20*time.Millisecond {
			t.Errorf("taken %v after the cut", took)
		}
		if next.Term() != 2 || next.Follows().Resigned {
			t.Errorf("term %d follows %+v", next.Term(), next.Follows())
		}
		a.host.cut(false)
		time.Sleep(2 * second)
		if l.Until() != 0 {
			t.Error("the old lease holds")
		}
		if err := l.Resign(t.Context()); err != nil {
			t.Errorf("resign what is not ours any more: %v", err)
		}
		if next.Until() < b.clock.Now() {
			t.Error("the new lease does not hold")
		}
	})
}

// Whoever takes the role of a lost primary, and has no answer yet, does not call
// that one alive meanwhile: people are told what a State says.
func TestALostPrimaryStaysLostWhileItsRoleIsTaken(t *testing.T) {
	supervisortest.Bubble(t, func(t *testing.T) {
		_, a, b, ea, eb, sa, sb := pair(t, 3*second)
		take(t, ea, until(t, sa, "vacant", isVacant))
		until(t, sb, "with a primary", func(st supervisor.State) bool { return st.Primary != nil })
		a.host.cut(true)
		lost := until(t, sb, "vacant", isVacant)
		primary := b.keys.primary("db")
		for _, line := range b.host.lines {
			line.setSwallow(func(t txn) bool {
				return slices.ContainsFunc(t.Then, func(o op) bool { return o.kind == opPut && o.span.has(primary) })
			})
		}
		taken := make(chan error, 1)
		go func() {
			_, err := eb.Take(t.Context(), lost)
			taken <- err
		}()
		time.Sleep(second / 2)
		if err := b.Pause(t.Context(), "db", supervisor.Pause{Reason: "so that there is a newer State"}); err != nil {
			t.Fatal(err)
		}
		st := until(t, sb, "paused", func(st supervisor.State) bool { return st.Pause != nil })
		if !st.Vacant || !st.Unclean || st.Primary == nil || st.VacantAt != lost.VacantAt {
			t.Errorf("while the role is taken: %+v, want it as before: %+v", st, lost)
		}
		if err := <-taken; !errors.Is(err, supervisor.ErrUnreachable) {
			t.Errorf("take: %v", err)
		}
		for _, line := range b.host.lines {
			line.setSwallow(nil)
		}
		for {
			_, err := eb.Take(t.Context(), until(t, sb, "vacant", isVacant))
			if err == nil {
				break
			}
			if !errors.Is(err, supervisor.ErrRefused) {
				t.Fatalf("take once there are answers again: %v", err)
			}
		}
	})
}
