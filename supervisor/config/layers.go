package config

import (
	"fmt"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// A Layer is one of the things that keep two nodes from acting at once. It
// holds where what it stops has stopped before another node may start.
type Layer struct {
	Key    string        `json:"key"`
	Layer  string        `json:"layer"`
	Covers string        `json:"covers"`
	By     time.Duration `json:"by_ns"`   // after s: it has acted by then
	Left   time.Duration `json:"left_ns"` // from then until s + T
	Holds  bool          `json:"holds"`
	Says   string        `json:"says"` // what it guarantees at this ttl
}

// What the layers outside this process need, measured on systemd 252 and 257:
// its timers have an accuracy of 250 ms, and to run a stop command takes up to
// 33 ms.
const (
	systemdLate = 250 * time.Millisecond
	systemdRuns = 33 * time.Millisecond
)

// killed is when systemd has killed a frozen supervisor at the latest: it was
// heard last right before the pulse that it did not send any more.
func killed(t supervisor.Timing) time.Duration {
	return min(t.Renew+t.Watchdog, t.Lost) + systemdLate
}

func watchdogHolds(t supervisor.Timing) bool {
	return killed(t)+systemdRuns+t.Forced() <= t.Until
}

func gateHolds(t supervisor.Timing) bool { return t.Trigger+systemdRuns < t.Until }

// room is how long etcd may take no writes, whenever that begins: a pulse that
// was on its way then is acknowledged one renewal and one outage after the
// sending of the pulse before it.
func room(t supervisor.Timing) time.Duration { return t.Lost - t.Renew }

// smallest returns the smallest ttl, in steps of 10 ms, for which a condition
// holds that holds for every larger one.
func smallest(holds func(supervisor.Timing) bool) time.Duration {
	ttl := supervisor.MinTTL
	for ttl < supervisor.MaxTTL && !holds(supervisor.NewTiming(ttl)) {
		ttl += 10 * time.Millisecond
	}
	return ttl
}

func layers(t supervisor.Timing) []Layer {
	worst := outages()[0].Lasts
	ls := []Layer{
		{
			Key: "deadline", Layer: "own deadline", Covers: "etcd lost, node cut off, pulse deleted",
			By: t.Trigger, Holds: true,
			Says: fmt.Sprintf("begins at s+%s and demotes within %s, if the plugins keep to that", ms(t.Lost), ms(t.Forced())),
		},
		{
			Key: "watchdog", Layer: "systemd watchdog", Covers: "supervisor frozen",
			By: killed(t), Holds: watchdogHolds(t),
			Says: "kills it and cleans up in time, but for a storm of daemon-reloads",
		},
		{
			Key: "gate", Layer: "gate", Covers: "supervisor dead and not back, or demoting too slowly",
			By: t.Trigger + systemdRuns, Holds: gateHolds(t),
			Says: fmt.Sprintf("demotes from outside; what then takes more than %s overlaps", ms(t.TTL-t.Trigger-systemdRuns)),
		},
		{
			Key: "guard", Layer: "kernel guard", Covers: "every process frozen or dead",
			By: t.Until, Holds: true,
			Says: "the kernel closes addresses and ports, to the millisecond (plugins vip, guard)",
		},
		{
			Key: "etcd", Layer: "etcd, leader lost", Covers: "no fence, but what the ttl must outlast to keep the role",
			By: t.Renew + worst, Holds: worst <= room(t),
			Says: fmt.Sprintf("%s without writes cost nothing; with etcd's defaults it takes %s", ms(room(t)), ms(worst)),
		},
	}
	for i := range ls {
		l := &ls[i]
		l.Left = t.TTL - l.By
		if l.Holds {
			continue
		}
		switch l.Key {
		case "watchdog":
			l.Says = fmt.Sprintf("may come too late, needs a ttl of %s; a kernel guard covers this", short(smallest(watchdogHolds)))
		case "gate":
			l.Says = fmt.Sprintf("may come too late, needs a ttl of %s; a kernel guard covers this", short(smallest(gateHolds)))
		case "etcd":
			l.Says = fmt.Sprintf("%s without writes cost nothing, but with etcd's defaults it takes %s", ms(room(t)), ms(worst))
		}
	}
	return ls
}

// An outage is how long etcd takes no writes after its leader is lost, by its
// election timeout; measured with three members on one fast network.
type outage struct {
	Election string
	Lasts    time.Duration
}

// outages are in order: the longest first, which is that of etcd's defaults.
func outages() []outage {
	return []outage{
		{"1s, the default,", 2000 * time.Millisecond},
		{"500ms", 1100 * time.Millisecond},
		{"250ms", 450 * time.Millisecond},
		{"100ms", 310 * time.Millisecond},
	}
}

// outageNote says what a lost etcd leader means at this ttl.
func outageNote(t supervisor.Timing) string {
	held := ""
	for i, o := range outages() {
		if o.Lasts > room(t) {
			continue
		}
		held = fmt.Sprintf("with an election timeout of %s etcd takes no writes for %s, which fits into", o.Election, ms(o.Lasts))
		if i == 0 {
			return fmt.Sprintf("A lost etcd leader costs no role: %s the %s that this ttl has room for.", held, ms(room(t)))
		}
		break
	}
	safe := smallest(func(t supervisor.Timing) bool { return outages()[0].Lasts <= room(t) })
	cure := fmt.Sprintf("with etcd's default election timeout of 1s it takes no writes for %s, which a ttl of %s outlasts", ms(outages()[0].Lasts), short(safe))
	if held != "" {
		cure = held + fmt.Sprintf(" the %s that this ttl has room for; ", ms(room(t))) + cure
	}
	return "A lost etcd leader may cost the role, if a pulse comes at a bad moment: " + cure + "."
}
