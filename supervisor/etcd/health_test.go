package etcd

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/supervisor/supervisortest"
)

func TestComplaintsAboutAMember(t *testing.T) {
	sound := health{Version: "3.7.3", DBSize: 100 << 20, InUse: 90 << 20, Quota: 2 << 30, Leader: 1}
	for _, c := range []struct {
		name string
		edit func(*health)
		want string // part of the only complaint; empty for none
	}{
		{"sound", func(*health) {}, ""},
		{"just below the share", func(h *health) { h.DBSize, h.InUse = 1638<<20, 1638<<20 }, ""},
		{"above the share", func(h *health) { h.DBSize, h.InUse = 1640<<20, 1600<<20 }, "1640 MiB of 2048 MiB, 1600 MiB of it in use, and when it is full nobody can hold a role: compact it"},
		{"fragmented", func(h *health) { h.DBSize, h.InUse = 1900<<20, 100<<20 }, "etcdctl defrag"},
		{"quota not told", func(h *health) { h.Version, h.Quota, h.DBSize, h.InUse = "3.5.33", 0, 1900<<20, 1900<<20 }, "2048 MiB, etcd's default"},
		{"quota alarm", func(h *health) { h.Alarms = []string{"memberID:10501334649042878790 alarm:NOSPACE "}; h.Rev = 12 }, "member 91bc3c398fb3c146 has reached its quota, and etcd denies every write, so nobody can hold a role: etcdctl compact 12, etcdctl defrag --cluster, etcdctl alarm disarm"},
		{"corrupt", func(h *health) { h.Alarms = []string{"memberID:1 alarm:CORRUPT "} }, "member 1 has found its data corrupt: replace that member"},
		{"no leader", func(h *health) { h.Leader = 0 }, "sees no leader"},
		{"learner", func(h *health) { h.Learner = true }, "learner"},
		{"old 3.5", func(h *health) { h.Version = "3.5.32" }, "use 3.5.33 or later"},
		{"good 3.5", func(h *health) { h.Version = "3.5.33" }, ""},
		{"old 3.6", func(h *health) { h.Version = "3.6.13" }, "use 3.6.14 or later"},
		{"good 3.6", func(h *health) { h.Version = "3.6.14" }, ""},
		{"old 3.7", func(h *health) { h.Version = "3.7.0" }, "use 3.7.1 or later"},
		{"candidate of 3.7", func(h *health) { h.Version = "3.7.0-rc.1" }, "use 3.7.1 or later"},
		{"of a distribution", func(h *health) { h.Version = "3.4.23" }, "use 3.6.14 or later"},
		{"next minor", func(h *health) { h.Version = "3.8.0" }, ""},
		{"next major", func(h *health) { h.Version = "4.0.0" }, ""},
		{"not known", func(h *health) { h.Version = "unknown" }, ""},
	} {
		h := sound
		c.edit(&h)
		got := h.complaints()
		if c.want == "" && len(got) == 0 || c.want != "" && len(got) == 1 && strings.Contains(got[0].text, c.want) {
			continue
		}
		t.Errorf("%s: got %+v, want %q", c.name, got, c.want)
	}
}

func TestComplaintsAboutTheWhole(t *testing.T) {
	end := func(cluster string, members int) Endpoint {
		return Endpoint{URL: "x", Cluster: cluster, members: members}
	}
	for _, c := range []struct {
		name string
		ends []Endpoint
		want string
	}{
		{"three of three", []Endpoint{end("a", 3), end("a", 3), end("a", 3)}, ""},
		{"one of three down", []Endpoint{end("a", 3), {URL: "x", Problem: "down"}, end("a", 3)}, ""},
		{"not all named", []Endpoint{end("a", 3)}, "3 members, and endpoints names 1"},
		{"single", []Endpoint{end("a", 1)}, "has one member"},
		{"even", []Endpoint{end("a", 2), end("a", 2)}, "2 members, and bears the loss of no more than with 1"},
		{"two clusters", []Endpoint{end("a", 3), end("b", 3), end("a", 3)}, "2 etcd clusters"},
		{"nothing known", []Endpoint{{URL: "x", Problem: "down"}}, ""},
	} {
		got := wholeComplaints(c.ends)
		if c.want == "" && len(got) == 0 || c.want != "" && len(got) == 1 && strings.Contains(got[0], c.want) {
			continue
		}
		t.Errorf("%s: got %+v, want %q", c.name, got, c.want)
	}
}

// An ailing way has a health to show, and answers.
type ailing struct {
	kv
	health health
}

func (ailing) Name() string                              { return "http://ailing" }
func (a ailing) Health(context.Context) (health, error)  { return a.health, nil }
func (a ailing) Txn(context.Context, txn) (reply, error) { return reply{}, nil }
func (ailing) Close() error                              { return nil }

func TestTroubleIsToldOnceAnHour(t *testing.T) {
	supervisortest.Bubble(t, func(t *testing.T) {
		var log lines
		way := ailing{health: health{Version: "3.7.3", DBSize: 1900 << 20, InUse: 1900 << 20, Quota: 2 << 30, Leader: 1}}
		c := newClient(Config{Prefix: "/x", Clock: newClock(0, 1, &gate{}), Log: slog.New(slog.NewTextHandler(&log, nil))}, []kv{way})
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Minute)
		defer cancel()
		c.care.run(ctx)
		if said := strings.Count(log.String(), saidCare); said != 2 || !strings.Contains(log.String(), "endpoint=http://ailing") {
			t.Errorf("told %d times in 90 minutes, want 2:\n%s", said, &log)
		}
	})
}
