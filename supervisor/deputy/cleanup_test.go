package main

import (
	"errors"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

func TestCleanupObeysWhatWasNoted(t *testing.T) {
	const ttl = time.Second
	s := sdk.Instant(100 * time.Second) // the last acknowledged pulse was sent
	at := func(share float64) sdk.Instant { return s.Add(time.Duration(share * float64(ttl))) }
	held := func(boot string, promoted ...string) supervisor.Note {
		return supervisor.Note{Role: sdk.RolePrimary, Promoted: promoted, Tenure: &supervisor.Tenure{Term: 3, Boot: boot, Until: at(0.95)}}
	}
	for _, c := range []struct {
		name          string
		note          supervisor.Note
		damaged       error
		behind, alone bool
		abandoned     bool
		now           float64 // in T after s
		want          verdict
	}{
		{name: "nothing was noted", now: 0, want: nothing},
		{name: "nothing was noted, behind", behind: true, now: 0, want: nothing},
		{name: "was standby", note: supervisor.Note{Role: sdk.RoleStandby}, now: 9, want: nothing},
		{name: "damaged", damaged: errors.New("torn"), now: 0, want: demote},
		{name: "damaged, behind", damaged: errors.New("torn"), behind: true, now: 0, want: demote},
		{name: "lost before all was demoted", note: supervisor.Note{Role: sdk.RoleFailed, Promoted: []string{"vip"}}, now: 0, want: demote},

		{name: "can be taken over", note: held("now", "vip"), now: 0.49, want: leave},
		{name: "cannot be taken over in time", note: held("now", "vip"), now: 0.51, want: demote},
		{name: "long ago", note: held("now", "vip"), now: 50, want: demote},
		{name: "nobody comes", note: held("now", "vip"), alone: true, now: 0.1, want: demote},
		{name: "of another boot", note: held("before", "vip"), now: 0.1, want: demote},
		{name: "demoted, can be taken over", note: held("now"), now: 0.49, want: leave},
		{name: "demoted, not resigned", note: held("now"), now: 0.51, want: giveBack},
		{name: "demoted, not resigned, nobody comes", note: held("now"), alone: true, now: 0.1, want: giveBack},

		{name: "behind, before its time", note: held("now", "vip"), behind: true, now: 0.89, want: leave},
		{name: "behind one that is dead, before its time", note: held("now", "vip"), behind: true, abandoned: true, now: 0.74, want: leave},
		{name: "behind one that is dead, in time", note: held("now", "vip"), behind: true, abandoned: true, now: 0.76, want: demote},
		{name: "behind, in time", note: held("now", "vip"), behind: true, now: 0.91, want: demote},
		{name: "behind, demoted, not resigned", note: held("now"), behind: true, now: 0.91, want: giveBack},
		{name: "behind, demoted, lost", note: supervisor.Note{Role: sdk.RoleStandby}, behind: true, now: 0.91, want: nothing},
	} {
		cleaner := &cleaner{boot: "now", behind: c.behind, alone: c.alone}
		if got, why := cleaner.judge(c.note, c.damaged, ttl, at(c.now), c.abandoned); got != c.want || why == "" {
			t.Errorf("%s: got %s (%s), want %s", c.name, got, why, c.want)
		}
	}
}

func TestTheCommandOfAProcess(t *testing.T) {
	for line, want := range map[string]string{
		"/usr/bin/deputy\x00run\x00db\x00":                      "run",
		"/usr/bin/deputy\x00run\x00gate\x00":                    "run", // a service may be called like that
		"/usr/bin/deputy\x00run\x00cleanup\x00":                 "run",
		"/usr/bin/deputy\x00cleanup\x00--behind\x00run\x00":     "cleanup",
		"/usr/bin/deputy\x00--run-dir\x00/r\x00gate\x00run\x00": "gate",
		"/usr/bin/deputy\x00status\x00db\x00":                   "",
		"run\x00":                                               "",
		"":                                                      "",
	} {
		if got := commandOf(line); got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}
