package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/supervisortest"
)

// A lab is a store and processes on it, for one story.
type lab struct {
	*testing.T
	store *store
	hosts map[string]*host
	base  time.Time
}

// story plays in a bubble of virtual time.
func story(t *testing.T, play func(l *lab)) {
	t.Helper()
	supervisortest.Bubble(t, func(t *testing.T) {
		l := &lab{T: t, store: newStore(), hosts: make(map[string]*host), base: time.Now()}
		t.Cleanup(l.store.stop)
		play(l)
	})
}

// A player is one process with its seat in the election of db.
type player struct {
	*process
	e      supervisor.Elector
	states <-chan supervisor.State
}

// join starts a process on a host, with a seat.
func (l *lab) join(name string, ttl time.Duration) *player {
	l.Helper()
	h := l.hosts[name]
	if h == nil {
		h = l.host(name)
	}
	p := &player{process: h.start(l.T, l.Output())}
	ctx, cancel := context.WithCancelCause(context.Background())
	p.e = p.Elector("db", ttl)
	p.states = observe(ctx, p.e)
	l.Cleanup(func() {
		h.cut(false)
		h.faults(faults{})
		h.gate.lift()
		p.stop()
		cancel(errStopped)
		for range p.states {
		}
		for _, line := range h.lines {
			line.wg.Wait()
		}
	})
	return p
}

// host is one that has not started anything yet.
func (l *lab) host(name string) *host {
	h := newHost(l.store, name, 1, uint64(len(l.hosts)))
	h.clock.base = l.base // so that instants can be compared
	l.hosts[name] = h
	return h
}

func (l *lab) primary(p *player) supervisor.Lease {
	l.Helper()
	return take(l.T, p.e, until(l, p.states, "vacant", isVacant))
}

func (l *lab) sees(p *player, what string, want func(supervisor.State) bool) supervisor.State {
	l.Helper()
	return until(l, p.states, what, want)
}

func (l *lab) delete(s span) {
	if _, err := l.store.txn(txn{Then: []op{remove(s)}}); err != nil {
		l.Error(err)
	}
}

func isHeld(st supervisor.State) bool { return st.Primary != nil }

// neverBefore waits for the vacancy, and fails when it comes while the lease
// may be acted under.
func (l *lab) neverBefore(p *player, holder supervisor.Lease, until sdk.Instant) supervisor.State {
	l.Helper()
	st := l.sees(p, "vacant", isVacant)
	if now := p.host.clock.Now(); now < until {
		l.Errorf("vacant %v before the end of the lease of term %d: %+v", until.Sub(now), holder.Term(), st)
	}
	return st
}

func TestAPulseDeletedByHandIsWaitedFor(t *testing.T) {
	for _, watched := range []bool{true, false} {
		t.Run(fmt.Sprintf("watched=%v", watched), func(t *testing.T) {
			story(t, func(l *lab) {
				a := l.join("a", 3*second)
				lease := l.primary(a)
				var b *player
				if watched {
					b = l.join("b", 3*second)
					l.sees(b, "held", isHeld)
				}
				time.Sleep(5 * second)
				a.host.cut(true) // it cannot learn
				end := lease.Until()
				l.delete(a.keys.pulses())
				if !watched {
					b = l.join("b", time.Second) // its own TTL says nothing of that lease's
				}
				l.neverBefore(b, lease, end)
				if took := b.host.clock.Now().Sub(end); took > second {
					l.Errorf("vacant only %v after the end of the lease", took)
				}
			})
		})
	}
}

func TestAPrimaryDeletedByHandIsWaitedFor(t *testing.T) {
	story(t, func(l *lab) {
		a, b := l.join("a", 3*second), l.join("b", second)
		lease := l.primary(a)
		l.sees(b, "held", isHeld)
		time.Sleep(5 * second)
		a.host.cut(true)
		end := lease.Until()
		l.delete(one(a.keys.primary("db")))
		next := take(l.T, b.e, l.neverBefore(b, lease, end))
		if next.Term() != 2 || next.Follows().Resigned {
			l.Errorf("term %d follows %+v", next.Term(), next.Follows())
		}
	})
}

func TestAPrimaryDeletedByHandIsLostAtOnce(t *testing.T) {
	story(t, func(l *lab) {
		a, b := l.join("a", 3*second), l.join("b", 3*second)
		lease := l.primary(a)
		l.sees(b, "held", isHeld)
		began := time.Now()
		l.delete(one(a.keys.primary("db")))
		<-lease.Lost()
		if took := time.Since(began); took > second*6/10 {
			l.Errorf("lost %v after the record was deleted", took)
		}
		if lease.Until() != 0 || !errors.Is(lease.Cause(), errRoleLost) {
			l.Errorf("until %d, cause %v", lease.Until(), lease.Cause())
		}
		// Nobody follows before the demotion is proven, for the pulse goes on.
		time.Sleep(10 * second)
		if st := l.sees(b, "without a primary", func(st supervisor.State) bool { return st.Primary == nil }); st.Vacant {
			l.Error("vacant though the one who held it has not proven to be demoted")
		}
		if err := lease.Resign(l.Context()); err != nil {
			l.Error(err)
		}
		if st := l.sees(b, "vacant", isVacant); st.Unclean {
			l.Error("unclean after the demotion was proven")
		}
	})
}

func TestALateTakeIsMine(t *testing.T) {
	story(t, func(l *lab) {
		a, b := l.join("a", 3*second), l.join("b", 3*second)
		st := l.sees(a, "vacant", isVacant)
		a.host.faults(faults{late: 1})
		if _, err := a.e.Take(l.Context(), st); !errors.Is(err, supervisor.ErrUnreachable) {
			l.Fatalf("take without an answer: %v, want ErrUnreachable", err)
		}
		a.host.faults(faults{})
		st = l.sees(a, "mine", func(st supervisor.State) bool { return st.Mine })
		if st.Vacant {
			l.Error("mine, and vacant as well")
		}
		lease := take(l.T, a.e, st)
		if lease.Term() != 1 {
			l.Errorf("term %d, want the one that was written", lease.Term())
		}
		time.Sleep(10 * second)
		if st := l.sees(b, "held", isHeld); st.Vacant || lease.Cause() != nil {
			l.Errorf("vacant=%v cause=%v", st.Vacant, lease.Cause())
		}
	})
}

func TestADuplicateOfATakeDoesNotComeBack(t *testing.T) {
	story(t, func(l *lab) {
		a, b := l.join("a", 3*second), l.join("b", 3*second)
		a.host.faults(faults{duplicate: 1})
		lease := l.primary(a)
		if err := lease.Announce(l.Context(), sdk.RolePrimary); err != nil {
			l.Error(err)
		}
		if err := lease.Resign(l.Context()); err != nil {
			l.Error(err)
		}
		next := l.primary(b)
		time.Sleep(20 * second) // by then every duplicate has arrived
		if next.Cause() != nil {
			l.Errorf("lost by a duplicate: %v", next.Cause())
		}
		if st := l.sees(b, "held", isHeld); st.Primary.Node != "b" || st.Term.Term != 2 || st.Term.Resigned {
			l.Errorf("%+v, term %+v", st.Primary, st.Term)
		}
	})
}

// A holder that comes back just before it is followed renews its pulse, so the
// take is refused, and only because it compares that pulse.
func TestAHolderThatIsBackIsNotOverrun(t *testing.T) {
	for _, compares := range []bool{true, false} {
		t.Run(fmt.Sprintf("compares=%v", compares), func(t *testing.T) {
			story(t, func(l *lab) {
				a, b := l.join("a", 3*second), l.join("b", 3*second)
				lease := l.primary(a)
				l.sees(b, "held", isHeld)
				a.host.cut(true)
				st := l.sees(b, "vacant", isVacant)
				if !compares {
					for _, line := range b.host.lines {
						line.tamper = func(t txn) txn {
							t.If = slices.DeleteFunc(slices.Clone(t.If), func(c cond) bool {
								return c.key == b.keys.pulse(lease.Tenure().Pulse)
							})
							return t
						}
					}
				}
				// What it had under way arrives, and the watch of the other has
				// not told yet.
				b.host.faults(faults{stallFeed: 1})
				a.host.cut(false)
				for lease.Until() < a.host.clock.Now() {
					time.Sleep(time.Millisecond)
				}
				_, err := b.e.Take(l.Context(), st)
				if overrun := err == nil; overrun == compares {
					l.Errorf("take: %v", err)
				}
				if compares && !errors.Is(err, supervisor.ErrRefused) {
					l.Errorf("take: %v, want ErrRefused", err)
				}
			})
		})
	}
}

func TestWhatSleptRenewsNothingUntilAFreshPulse(t *testing.T) {
	story(t, func(l *lab) {
		a := l.join("a", 3*second)
		lease := l.primary(a)
		time.Sleep(5*second + 100*time.Millisecond)
		// It falls asleep while a pulse is under way, so that one's answer
		// waits for it.
		a.host.faults(faults{delay: 400 * time.Millisecond})
		<-lease.Renewed()
		time.Sleep(510 * time.Millisecond)
		a.host.gate.shut()
		if len(lease.Renewed()) > 0 {
			<-lease.Renewed()
		}
		time.Sleep(1500 * time.Millisecond)
		a.host.faults(faults{})
		a.host.gate.lift()
		woke := a.host.clock.Now()
		<-lease.Renewed()
		if sent := lease.Until().Add(-3 * second * 95 / 100); sent < woke {
			l.Errorf("renewed by a pulse that was sent %v before waking", woke.Sub(sent))
		}
	})
}

func TestAHungWatchDelaysNobody(t *testing.T) {
	story(t, func(l *lab) {
		a, b := l.join("a", 3*second), l.join("b", 3*second)
		lease := l.primary(a)
		l.sees(b, "held", isHeld)
		time.Sleep(2 * second)
		b.host.faults(faults{stallFeed: 1})
		time.Sleep(7 * second)
		end := lease.Until()
		a.host.cut(true)
		l.neverBefore(b, lease, end)
		// Reading once in T/6 is all that is left to it.
		if late := b.host.clock.Now().Sub(end); late > 3*second/20+3*second/6+second/10 {
			l.Errorf("vacant %v after the end of the lease", late)
		}
	})
}

func TestAWatchThatDoesNotBeginIsLeft(t *testing.T) {
	story(t, func(l *lab) {
		a := l.join("a", 3*second)
		lease := l.primary(a)
		h := newHost(l.store, "b", 1, 9)
		h.clock.base = l.base
		h.lines[0].setFaults(faults{stallFeed: 1})
		l.hosts["b"] = h
		b := l.join("b", 3*second)
		l.sees(b, "held", isHeld)
		time.Sleep(beginTimeout + second)
		began := time.Now()
		if err := lease.Announce(l.Context(), sdk.RolePrimary); err != nil {
			l.Error(err)
		}
		l.sees(b, "primary", func(st supervisor.State) bool { return isHeld(st) && st.Primary.State == sdk.RolePrimary })
		if took := time.Since(began); took > 50*time.Millisecond {
			l.Errorf("seen after %v: the watch hangs still", took)
		}
	})
}

func TestAnEtcdOfThePastIsNotTrusted(t *testing.T) {
	story(t, func(l *lab) {
		a, b := l.join("a", 3*second), l.join("b", 3*second)
		old := l.store.backup()
		lease := l.primary(a)
		l.sees(b, "held", isHeld)
		time.Sleep(5 * second)
		end := lease.Until()
		a.host.cut(true) // it goes on, knowing nothing
		l.store.restore(old)
		st := l.sees(b, "frozen", func(st supervisor.State) bool { return st.Frozen != "" })
		if !strings.Contains(st.Frozen, "restored from a backup") {
			l.Errorf("frozen: %s", st.Frozen)
		}
		if _, err := b.e.Take(l.Context(), st); !errors.Is(err, supervisor.ErrRefused) {
			l.Errorf("take while frozen: %v, want ErrRefused", err)
		}
		if next := take(l.T, b.e, l.neverBefore(b, lease, end)); next.Term() != 2 {
			l.Errorf("term %d, want one above the highest seen", next.Term())
		}
	})
}

// Nothing is written to the disk while a role moves, and everything once it has,
// or when nobody observes any more.
func TestWhatWasSeenIsKeptOnceTheRoleHasMoved(t *testing.T) {
	story(t, func(l *lab) {
		a, b := l.join("a", 3*second), l.join("b", 3*second)
		kept := func(want sdk.Term, when string) {
			l.Helper()
			synctest.Wait()
			if seen, _ := b.host.witness.LoadSeen("db"); seen.Term != want {
				l.Errorf("%s: term %d is kept, want %d", when, seen.Term, want)
			}
		}
		lease := l.primary(a)
		l.sees(b, "held", isHeld)
		time.Sleep(2 * settling)
		kept(1, "some time after the role was taken")
		if err := lease.Resign(l.Context()); err != nil {
			l.Fatal(err)
		}
		lease = l.primary(a)
		l.sees(b, "of term 2", func(st supervisor.State) bool { return st.Term.Term == 2 })
		kept(1, "when the role has just moved")
		time.Sleep(2 * settling)
		kept(2, "some time after that")
		if err := lease.Resign(l.Context()); err != nil {
			l.Fatal(err)
		}
		l.primary(a)
		for st := range b.e.Observe(l.Context()) {
			if st.Term.Term == 3 {
				kept(2, "when the role has just moved again")
				break
			}
		}
		kept(3, "when nobody observes any more")
	})
}

func TestAnotherClusterIsNotTrusted(t *testing.T) {
	story(t, func(l *lab) {
		a := l.join("a", 3*second)
		lease := l.primary(a)
		if err := lease.Resign(l.Context()); err != nil {
			l.Error(err)
		}
		l.sees(a, "vacant", isVacant)
		a.stop()
		l.store.mu.Lock()
		l.store.cluster++
		l.store.mu.Unlock()
		began := time.Now()
		b := l.join("a", 3*second) // the next process on that host
		st := l.sees(b, "frozen", func(st supervisor.State) bool { return st.Frozen != "" })
		if !strings.Contains(st.Frozen, "another cluster") {
			l.Errorf("frozen: %s", st.Frozen)
		}
		l.sees(b, "vacant", isVacant)
		if waited := time.Since(began); waited < 3*second || waited > 4*second {
			l.Errorf("waited %v, want the TTL", waited)
		}
	})
}

func TestALeaseWonTooLateIsGivenBack(t *testing.T) {
	story(t, func(l *lab) {
		a, b := l.join("a", 3*second), l.join("b", 3*second)
		st := l.sees(a, "vacant", isVacant)
		for _, line := range a.host.lines {
			line.setSwallow(func(t txn) bool {
				return t.Then[0].kind == opPut && strings.Contains(t.Then[0].span.key, "/pulses/")
			})
		}
		time.Sleep(2 * second)
		_, err := a.e.Take(l.Context(), st)
		if !errors.Is(err, supervisor.ErrRefused) {
			l.Errorf("take with an old pulse: %v, want ErrRefused", err)
		}
		if st := l.sees(b, "vacant again", func(st supervisor.State) bool { return st.Vacant && st.Term.Term == 1 }); st.Unclean {
			l.Error("given back uncleanly")
		}
	})
}

// What is given back without an answer may be given back any time later, so it
// is not taken up again though it is still there.
func TestALeaseThatIsBeingGivenBackIsNotTakenUpAgain(t *testing.T) {
	story(t, func(l *lab) {
		a := l.join("a", 3*second)
		st := l.sees(a, "vacant", isVacant)
		primary := newKeys("/test").primary("db")
		var giving atomic.Bool
		for _, line := range a.host.lines {
			line.setSwallow(func(t txn) bool {
				if o := t.Then[0]; o.kind == opDelete && o.span.key == primary {
					giving.Store(true)
					return true
				}
				return !giving.Load() && t.Then[0].kind == opPut && strings.Contains(t.Then[0].span.key, "/pulses/")
			})
		}
		time.Sleep(2 * second)
		if _, err := a.e.Take(l.Context(), st); !errors.Is(err, supervisor.ErrUnreachable) || !giving.Load() {
			l.Fatalf("take with an old pulse, given back without an answer: %v, want ErrUnreachable", err)
		}
		for _, line := range a.host.lines {
			line.setSwallow(nil)
		}
		st = l.sees(a, "mine", func(st supervisor.State) bool { return st.Mine })
		if _, err := a.e.Take(l.Context(), st); !errors.Is(err, supervisor.ErrRefused) {
			l.Errorf("take of what is being given back: %v, want ErrRefused", err)
		}
		// Nor is it left to itself: the pulse lives, and keeps all others off.
		b := l.join("b", 3*second)
		if st := l.sees(b, "vacant again", isVacant); st.Unclean || st.Term.Term != 1 {
			l.Errorf("given back: %+v", st)
		}
	})
}

func TestAnotherTTLIsAnotherPulse(t *testing.T) {
	story(t, func(l *lab) {
		a := l.join("a", 3*second)
		lease := l.primary(a)
		again := a.Elector("db", second)
		time.Sleep(2 * second)
		if left := lease.Until().Sub(a.host.clock.Now()); left < second {
			l.Errorf("the lease that is held has only %v left", left)
		}
		if err := lease.Resign(l.Context()); err != nil {
			l.Error(err)
		}
		next := take(l.T, again, l.sees(a, "vacant", isVacant))
		if left := next.Until().Sub(a.host.clock.Now()); left > second {
			l.Errorf("the next lease has %v left, want less than its TTL", left)
		}
		time.Sleep(2 * second)
		r, _ := l.store.txn(txn{Then: []op{get(a.keys.pulses())}})
		if n := len(r.Results[0]); n != 1 {
			l.Errorf("%d pulses are left, want the one of the new TTL", n)
		}
	})
}

func TestPresence(t *testing.T) {
	story(t, func(l *lab) {
		a, b := l.join("a", 3*second), l.join("b", 3*second)
		here := func(st supervisor.State) bool { return st.Candidate("a") != nil }
		for i := range 3 {
			if err := a.e.Publish(l.Context(), supervisor.Candidate{Node: a.cfg.Node, Priority: i}); err != nil {
				l.Fatal(err)
			}
		}
		l.sees(b, "with the last that was published", func(st supervisor.State) bool {
			return here(st) && st.Candidate("a").Priority == 2
		})
		// etcd takes the lease away, as it may.
		l.store.mu.Lock()
		ids := slices.Collect(func(yield func(int64) bool) {
			for id := range l.store.leases {
				if !yield(id) {
					return
				}
			}
		})
		l.store.mu.Unlock()
		for _, id := range ids {
			l.store.revoke(id)
		}
		l.sees(b, "without it", func(st supervisor.State) bool { return !here(st) })
		l.sees(b, "with it again", here)
		a.stop()
		l.sees(b, "without it, as the process has ended", func(st supervisor.State) bool { return !here(st) })
		r, _ := l.store.txn(txn{Then: []op{get(a.keys.pulses())}})
		for _, rec := range r.Results[0] {
			if p, _ := decode[pulseRecord](rec); p.Node == "a" {
				l.Errorf("the pulse is left behind: %s", rec.Value)
			}
		}
	})
}

func TestAnEndedProcessKeepsTheTenureForTheNext(t *testing.T) {
	story(t, func(l *lab) {
		a, b := l.join("a", 3*second), l.join("b", 3*second)
		lease := l.primary(a)
		tenure := lease.Tenure()
		lease.Abandon()
		if lease.Until() != 0 {
			l.Error("an abandoned lease holds")
		}
		a.stop()
		next := l.join("a", 3*second)
		adopted, err := next.e.Adopt(l.Context(), tenure)
		if err != nil {
			l.Fatal(err)
		}
		if adopted.Term() != lease.Term() || adopted.Tenure().Pulse == tenure.Pulse {
			l.Errorf("adopted %+v of %+v", adopted.Tenure(), tenure)
		}
		time.Sleep(20 * second)
		if adopted.Cause() != nil {
			l.Errorf("lost: %v", adopted.Cause())
		}
		if st := l.sees(b, "held", isHeld); st.Vacant {
			l.Error("vacant")
		}
		if _, err := next.e.Adopt(l.Context(), tenure); !errors.Is(err, supervisor.ErrRefused) {
			l.Errorf("adopted twice: %v", err)
		}
	})
}

func TestALateAdoptionIsTakenUp(t *testing.T) {
	story(t, func(l *lab) {
		a := l.join("a", 3*second)
		lease := l.primary(a)
		tenure := lease.Tenure()
		lease.Abandon()
		a.stop()
		next := l.join("a", 3*second)
		time.Sleep(10 * time.Millisecond)
		next.host.faults(faults{loseReply: 1})
		if _, err := next.e.Adopt(l.Context(), tenure); err == nil || errors.Is(err, supervisor.ErrRefused) {
			l.Errorf("adopt without an answer: %v", err)
		}
		next.host.faults(faults{})
		adopted, err := next.e.Adopt(l.Context(), tenure)
		if err != nil {
			l.Fatal(err)
		}
		if adopted.Term() != tenure.Term {
			l.Errorf("term %d, want %d", adopted.Term(), tenure.Term)
		}
	})
}

func TestATakeThatNobodyTakesUpIsGivenUp(t *testing.T) {
	story(t, func(l *lab) {
		a, b := l.join("a", 3*second), l.join("b", 3*second)
		e := a.Elector("other", 3*second)
		var seen supervisor.State
		for seen = range e.Observe(l.Context()) {
			if seen.Vacant {
				break
			}
		}
		// The member leaves while its take is under way, and that arrives.
		a.host.faults(faults{late: 1})
		if _, err := e.Take(l.Context(), seen); err == nil {
			l.Fatal("taken without an answer")
		}
		a.host.faults(faults{})
		for st := range b.Elector("other", 3*second).Observe(l.Context()) {
			if isHeld(st) {
				break
			}
		}
		began := time.Now()
		for st := range b.Elector("other", 3*second).Observe(l.Context()) {
			if isVacant(st) {
				break
			}
		}
		if took := time.Since(began); took > 10*second {
			l.Errorf("vacant only after %v", took)
		}
	})
}

func TestATakeThatFailedCanBeTriedAgainAtOnce(t *testing.T) {
	story(t, func(l *lab) {
		a, b := l.join("a", 3*second), l.join("b", 3*second)
		l.primary(a)
		l.sees(b, "held", isHeld)
		a.host.cut(true)
		st := l.sees(b, "vacant", isVacant)
		for _, line := range b.host.lines {
			line.setSwallow(func(t txn) bool { return len(t.If) > 2 })
		}
		if _, err := b.e.Take(l.Context(), st); !errors.Is(err, supervisor.ErrUnreachable) {
			l.Errorf("take: %v, want ErrUnreachable", err)
		}
		for _, line := range b.host.lines {
			line.setSwallow(nil)
		}
		began := time.Now()
		l.primary(b)
		if took := time.Since(began); took > second/4 {
			l.Errorf("taken %v after it failed", took)
		}
	})
}

func TestAnEtcdThatIsFull(t *testing.T) {
	story(t, func(l *lab) {
		a := l.join("a", 3*second)
		lease := l.primary(a)
		full := func(full bool) {
			for _, line := range a.host.lines {
				line.setFull(full)
			}
		}
		full(true)
		st := l.sees(a, "in trouble", func(st supervisor.State) bool { return st.Unreachable != "" })
		for _, want := range []string{"a-", "space exceeded", "compact it"} {
			if !strings.Contains(st.Unreachable, want) {
				l.Errorf("told %q, which does not name %q", st.Unreachable, want)
			}
		}
		<-lease.Lost()
		if !strings.Contains(lease.Cause().Error(), "space exceeded") {
			l.Errorf("lost by %v", lease.Cause())
		}
		time.Sleep(20 * second) // reads succeed all the while
		full(false)
		l.sees(a, "well", func(st supervisor.State) bool { return st.Unreachable == "" })
		synctest.Wait() // the lease has heard of what the state tells
		if lease.Until() < a.host.clock.Now() {
			l.Error("not renewed")
		}
	})
}

// reserve has b accept that the role of a goes to it, and returns once a knows.
func (l *lab) reserve(a, b *player, id string) {
	res := supervisor.Reservation{ID: id, To: b.host.name, From: a.host.name, Reason: sdk.ReasonSwitchover, For: 10 * second, State: supervisor.Asked}
	if err := b.e.Request(l.Context(), res); err != nil {
		l.Fatal(err)
	}
	res.State = supervisor.Accepted
	if err := b.e.Answer(l.Context(), res); err != nil {
		l.Error(err)
	}
	l.sees(a, "accepted", func(st supervisor.State) bool {
		return st.Reservation.Binds() && st.Reservation.State == supervisor.Accepted
	})
}

func TestAReservationHandsOver(t *testing.T) {
	story(t, func(l *lab) {
		a, b := l.join("a", 3*second), l.join("b", 3*second)
		lease := l.primary(a)
		l.reserve(a, b, "1")
		if err := a.e.Request(l.Context(), supervisor.Reservation{ID: "2", To: "a", State: supervisor.Asked}); !errors.Is(err, supervisor.ErrBusy) {
			l.Errorf("a second request: %v, want ErrBusy", err)
		}
		if err := lease.Resign(l.Context()); err != nil {
			l.Error(err)
		}
		// One write, and b has it: nobody finds it vacant.
		st := l.sees(b, "its own", func(st supervisor.State) bool { return st.Mine })
		if st.Reservation == nil || st.Reservation.ID != "1" {
			l.Errorf("given for %+v, want the reservation", st.Reservation)
		}
		if got := st.Term; got.Term != 2 || got.Node != "b" || !got.Moved {
			l.Errorf("term %+v, want 2, of b, moved", got)
		}
		got, err := b.e.Take(l.Context(), st)
		if err != nil {
			l.Fatal(err)
		}
		if f := got.Follows(); got.Term() != 2 || f.Term != 1 || f.Node != "a" || !f.Resigned {
			l.Errorf("term %d follows %+v, want 2 after a resigned 1", got.Term(), f)
		}
		if got.Until() <= b.host.clock.Now() {
			l.Error("the lease has run out")
		}
		if st := l.sees(b, "held", func(st supervisor.State) bool { return !st.Mine }); st.Reservation != nil {
			l.Errorf("the reservation is left behind: %+v", st.Reservation)
		}
	})
}

// A target that has accepted and then does not take up what it was given keeps
// nobody else off for longer than a ttl.
func TestAReservationWhoseTargetDoesNotTakeItUp(t *testing.T) {
	story(t, func(l *lab) {
		a, b := l.join("a", 3*second), l.join("b", 3*second)
		lease := l.primary(a)
		l.reserve(a, b, "1")
		if err := lease.Resign(l.Context()); err != nil {
			l.Error(err)
		}
		mine := l.sees(b, "its own", func(st supervisor.State) bool { return st.Mine })
		go func() {
			for range b.states { // it looks on, and does nothing
			}
		}()
		began := time.Now()
		st := l.sees(a, "vacant", isVacant)
		if st.Term.Term != 2 || !st.Term.Resigned {
			l.Errorf("term %+v, want 2, resigned", st.Term)
		}
		if took := time.Since(began); took < 2*second || took > 4*second {
			l.Errorf("given up after %v, want about a ttl", took)
		}
		if _, err := b.e.Take(l.Context(), mine); !errors.Is(err, supervisor.ErrRefused) {
			l.Errorf("take of what was given up: %v, want ErrRefused", err)
		}
		if got := take(l.T, a.e, st).Term(); got != 3 {
			l.Errorf("term %d, want 3", got)
		}
	})
}

func TestAReservationForOneWhoCannotHaveIt(t *testing.T) {
	key := newKeys("/test")
	for name, spoil := range map[string]func(l *lab, b *player){
		"pulse gone": func(l *lab, b *player) {
			l.delete(one(b.Client.pulse(3 * second).key))
		},
		"higher term seen": func(l *lab, b *player) {
			r, _ := l.store.txn(txn{Then: []op{get(one(key.reserved("db")))}})
			rec, _ := decode[reservationRecord](r.first(0))
			rec.Target.Highest = 7
			_, _ = l.store.txn(txn{Then: []op{put(key.reserved("db"), encode(rec))}})
		},
		"cancelled": func(l *lab, b *player) {
			l.delete(one(key.reserved("db")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(l *lab) {
				a, b := l.join("a", 3*second), l.join("b", 3*second)
				lease := l.primary(a)
				l.reserve(a, b, "1")
				spoil(l, b)
				if err := lease.Resign(l.Context()); err != nil {
					l.Error(err)
				}
				if st := l.sees(a, "vacant", isVacant); !st.Term.Resigned || st.Term.Term != 1 {
					l.Errorf("term %+v, want 1, resigned", st.Term)
				}
			})
		})
	}
}

func TestAReservationWhoseTargetNeverComes(t *testing.T) {
	story(t, func(l *lab) {
		a := l.join("a", 3*second)
		lease := l.primary(a)
		if err := a.e.Request(l.Context(), supervisor.Reservation{ID: "1", To: "b", From: "a", Reason: sdk.ReasonSwitchover, For: 10 * second, State: supervisor.Asked}); err != nil {
			l.Fatal(err)
		}
		l.sees(a, "asked", func(st supervisor.State) bool { return st.Reservation.Binds() })
		if err := lease.Resign(l.Context()); err != nil {
			l.Error(err)
		}
		st := l.sees(a, "vacant", isVacant)
		if _, err := a.e.Take(l.Context(), st); !errors.Is(err, supervisor.ErrRefused) {
			l.Errorf("take of what is reserved: %v, want ErrRefused", err)
		}
		// It ends by itself, ten seconds after it was first seen.
		began := time.Now()
		l.sees(a, "free again", func(st supervisor.State) bool { return st.Reservation == nil })
		if took := time.Since(began); took > 10*second {
			l.Errorf("bound for %v more", took)
		}
		if l.primary(a).Term() != 2 {
			l.Error("want term 2")
		}
		time.Sleep(second)
		if r, _ := l.store.txn(txn{Then: []op{get(one(a.keys.reserved("db")))}}); r.first(0).exists() {
			l.Error("the reservation is left behind")
		}
	})
}

func TestTheHistoryIsBounded(t *testing.T) {
	story(t, func(l *lab) {
		a := l.join("a", 3*second)
		for term := range sdk.Term(120) {
			c := supervisor.Change{Term: term + 1, Node: "a"}
			if err := a.e.Record(l.Context(), c); err != nil {
				l.Fatal(err)
			}
			c.Ended = time.Now()
			if err := a.e.Record(l.Context(), c); err != nil {
				l.Fatal(err)
			}
			c.Ended = time.Time{} // late
			if err := a.e.Record(l.Context(), c); err != nil {
				l.Fatal(err)
			}
		}
		r, _ := l.store.txn(txn{Then: []op{get(a.keys.history("db"))}})
		if n := len(r.Results[0]); n != kept {
			l.Errorf("%d changes are kept, want %d", n, kept)
		}
		for _, rec := range r.Results[0] {
			if c, err := decode[supervisor.Change](rec); err != nil || c.Term <= 20 || c.Ended.IsZero() {
				l.Errorf("kept %+v, %v", c, err)
			}
		}
	})
}

func TestVictims(t *testing.T) {
	story(t, func(l *lab) {
		a, b := l.join("a", 3*second), l.join("b", 3*second)
		l.primary(a)
		l.sees(b, "held", isHeld)
		a.host.cut(true)
		second := l.primary(b)
		if err := second.Announce(l.Context(), sdk.RolePromoting); err != nil {
			l.Error(err)
		}
		st := l.sees(b, "promoting", func(st supervisor.State) bool { return isHeld(st) && st.Primary.Node == "b" })
		if v := st.Term.Victims; len(v) != 1 || v[0].Node != "a" {
			l.Errorf("victims %+v, want a", v)
		}
		if err := second.Resign(l.Context()); err != nil {
			l.Error(err)
		}
		third := l.primary(b)
		if v := third.Follows().Lost(); len(v) != 1 || v[0].Node != "a" {
			l.Errorf("after a tenure that never became primary, the victims are %+v, want a", v)
		}
		if err := third.Announce(l.Context(), sdk.RolePrimary); err != nil {
			l.Error(err)
		}
		st = l.sees(b, "primary", func(st supervisor.State) bool { return isHeld(st) && st.Primary.State == sdk.RolePrimary })
		if v := st.Term.Lost(); len(st.Term.Victims) > 0 || len(v) != 1 || v[0].Node != "b" {
			l.Errorf("victims %+v after there is a primary again", st.Term.Victims)
		}
	})
}

// Who is lost before it was primary leaves whom it had to fence to the next.
func TestVictimsAddUp(t *testing.T) {
	story(t, func(l *lab) {
		a, b, c := l.join("a", 3*second), l.join("b", 3*second), l.join("c", 3*second)
		l.primary(a)
		l.sees(b, "held", isHeld)
		a.host.cut(true)
		l.primary(b)
		l.sees(c, "held by b", func(st supervisor.State) bool { return isHeld(st) && st.Primary.Node == "b" })
		b.host.cut(true)
		var lost []string
		for _, v := range l.primary(c).Follows().Lost() {
			lost = append(lost, v.Node)
		}
		if !slices.Equal(lost, []string{"a", "b"}) {
			l.Errorf("c has to fence %q, want a and b", lost)
		}
	})
}

func TestAThousandServicesHangOnOnePulse(t *testing.T) {
	const services = 1000
	story(t, func(l *lab) {
		a := l.join("a", 3*second)
		l.join("b", 3*second)
		ctx, cancel := context.WithCancelCause(context.Background())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel(errStopped)
		leases := make([]supervisor.Lease, services)
		began := time.Now()
		var all sync.WaitGroup
		all.Add(services)
		for i := range services {
			e := a.Elector(fmt.Sprintf("s%04d", i), 3*second)
			wg.Go(func() {
				for st := range e.Observe(ctx) {
					if leases[i] == nil && isVacant(st) {
						if lease, err := e.Take(ctx, st); err == nil {
							leases[i] = lease
							all.Done()
						}
					}
				}
			})
		}
		all.Wait()
		l.Logf("%d roles taken within %v", services, time.Since(began))
		before := l.store.backup().rev
		time.Sleep(60 * second)
		if writes := l.store.backup().rev - before; writes > 60*2*2+20 { // two processes
			l.Errorf("%d writes a minute, want two a second and process", writes)
		}
		for i, lease := range leases {
			if lease.Cause() != nil {
				l.Fatalf("lease %d: %v", i, lease.Cause())
			}
		}
		// One that is taken away is noticed by the watch, though each pulse reads
		// but some, and in the end without a watch.
		began = time.Now()
		l.delete(one(a.keys.primary("s0500")))
		<-leases[500].Lost()
		if took := time.Since(began); took > 10*time.Millisecond {
			l.Errorf("noticed only after %v", took)
		}
		a.host.faults(faults{stallFeed: 1})
		l.delete(one(a.keys.primary("s0600")))
		<-leases[600].Lost()
		if took := time.Since(began); took > 6*second {
			l.Errorf("noticed only after %v without a watch", took)
		}
	})
}
