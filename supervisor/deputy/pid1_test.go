package main

import (
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/systemd"
)

func TestStatusLine(t *testing.T) {
	at := time.Date(2030, 1, 2, 12, 3, 10, 0, time.Local)
	led := supervisor.State{Primary: &supervisor.Primary{Node: "n2", Term: 7}}
	for _, c := range []struct {
		s    supervisor.Status
		want string
	}{
		{
			supervisor.Status{Role: sdk.RolePrimary, Since: at, Term: 7, TTL: 3 * time.Second},
			"primary since 12:03:10, term 7, lease of 3s",
		},
		{
			supervisor.Status{Role: sdk.RolePrimary, Since: at, Term: 7, TTL: 3 * time.Second, State: supervisor.State{Unreachable: "since 12:05:00: timeout"}},
			"primary since 12:03:10, term 7, lease of 3s is not renewed: etcd cannot be reached since 12:05:00: timeout",
		},
		{
			supervisor.Status{Role: sdk.RolePromoting, Term: 7, Doing: "promote vip: adds the address", Cause: "n1 resigned"},
			"promoting for term 7: promote vip: adds the address",
		},
		{
			supervisor.Status{Role: sdk.RoleDemoting, Doing: "demote vip", Cause: "told to stop"},
			"demoting: demote vip; told to stop",
		},
		{supervisor.Status{Role: sdk.RoleDemoting, Cause: "told to stop"}, "demoting: told to stop"},
		{
			supervisor.Status{Role: sdk.RoleBlocked, Service: "orders", Cause: "demote vip: no permission"},
			"blocked: demote vip: no permission. Put it right, then `deputy clear orders`",
		},
		{
			supervisor.Status{Role: sdk.RoleFailed, Service: "orders", Cause: "demote vip: no permission"},
			"failed, may still act as primary: demote vip: no permission. Put it right, then `deputy clear orders`",
		},
		{supervisor.Status{Role: sdk.RoleCandidate, Verdict: "waits", State: led}, "candidate, primary is n2, term 7"},
		{supervisor.Status{Role: sdk.RoleCandidate, Verdict: "n2 ranks before it"}, "candidate, nobody is primary: n2 ranks before it"},
		{
			supervisor.Status{Role: sdk.RoleStandby, Verdict: "not fit: disk is full", State: led},
			"standby, primary is n2, term 7: not fit: disk is full",
		},
		{supervisor.Status{Role: sdk.RoleUnknown, Cause: "not started"}, "starting: not started"},
	} {
		if got := statusLine(c.s); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// What an earlier process left keeps the instants of its lease, also before there
// is a member: lost at s + 0.75 T, and taken down by s + 0.9 T.
func TestLeashOfALeftover(t *testing.T) {
	timing := supervisor.NewTiming(3 * time.Second)
	var none *leftover
	if got := none.leash(timing); got != (supervisor.Leash{}) {
		t.Errorf("nothing left: %+v", got)
	}
	l := newLeftover(1)
	sent := sdk.Instant(time.Hour)
	l.at = sent.Add(timing.Lost)
	if got := l.leash(timing).Until.Sub(sent); got != 2250*time.Millisecond+timing.Notice() {
		t.Errorf("not due: until s + %s", got)
	}
	l.due = true
	if got := l.leash(timing).Until.Sub(sent); got != 2700*time.Millisecond {
		t.Errorf("due: until s + %s", got)
	}
	l.late = true
	if got := l.leash(timing); got != (supervisor.Leash{Silence: timing.Watchdog}) {
		t.Errorf("late: %+v", got)
	}
}

// Before all seats are there a process is not said to live; then the one that has
// the least time counts.
func TestLeashOfAProcess(t *testing.T) {
	e := &engine{pid1: pid1{herald: systemd.NewHerald(nil, true, nil, nil)}}
	timing := supervisor.NewTiming(3 * time.Second)
	left := func(sent sdk.Instant) *seat {
		l := newLeftover(1)
		l.at = sent.Add(timing.Lost)
		return &seat{ttl: timing.TTL, past: l}
	}
	e.watch(&seat{ttl: timing.TTL})
	if got := e.leash(); got.Until != 1 {
		t.Errorf("with seats to come: %+v", got)
	}
	early := left(sdk.Instant(time.Hour))
	e.watch(left(sdk.Instant(2 * time.Hour)))
	e.watch(early)
	e.count()
	if got, want := e.leash(), early.leash(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	early.over.Store(true)
	if got, want := e.leash(), left(sdk.Instant(2*time.Hour)).leash(); got != want {
		t.Errorf("without the first: got %+v, want %+v", got, want)
	}
	// A role that is kept for the next process has its instants until that is there.
	early.kept.Store(int64(sdk.Instant(time.Minute).Add(timing.Until)))
	if got := e.leash().Until; got != sdk.Instant(time.Minute).Add(timing.Lost+timing.Notice()) {
		t.Errorf("with a role kept: %d", got)
	}
}
