package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/packaging/e2e/prober"
	"github.com/deputy-ha/deputy/supervisor"
)

// A scenario is something that happens to operators and hosts.
type scenario struct {
	name string
	run  func(s *scene)
}

// scenarios are all of them, in order: the first two make the others possible,
// the last removes everything. Each but the first begins with hosts that all
// take part.
func scenarios() []scenario {
	return []scenario{
		{"install", install},
		{"enable", enable},
		{"start", start},
		{"status", status},
		{"switchover", switchover},
		{"stop", stopPrimary},
		{"kill", killSupervisor},
		{"restart", restart},
		{"freeze", freeze},
		{"freeze-host", freezeHost},
		{"reload", reload},
		{"wrong-definition", wrongDefinition},
		{"upgrade", upgrade},
		{"needrestart", needrestart},
		{"binary-that-rejects", rejectBinary},
		{"role-targets", roleTargets},
		{"gate", gateDemotes},
		{"unit-fails", unitFails},
		{"poweroff", poweroff("systemctl", "poweroff")},
		{"poweroff-target", poweroff("systemctl", "start", "--no-block", "poweroff.target")},
		{"poweroff-without-logind", poweroffAlone},
		{"reboot", reboot},
		{"power-loss", losePower},
		{"power-loss-frozen", losePowerFrozen},
		{"journal", journalTells},
		{"security", security},
		{"denials", denials},
		{"purge", purge},
	}
}

func TestHosts(t *testing.T) {
	wanted := needHosts(t)
	f := &figures{}
	defer f.print(os.Stdout)
	for _, r := range wanted {
		t.Run(r.suite, func(t *testing.T) {
			inLab(t, r, quick(ttl), f, func(l *lab) {
				for _, s := range scenarios() {
					ok := t.Run(s.name, func(t *testing.T) { l.play(t, s) })
					if ok {
						continue
					}
					if t.Context().Err() != nil {
						t.FailNow()
					}
					// What failed may have left anything behind.
					if err := l.reset(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

// needHosts returns the releases that were asked for. Where no hosts can be
// booted it skips the test, or fails it where they were asked for in CI.
func needHosts(t *testing.T) []release {
	t.Helper()
	if reason := why(); reason != "" {
		if os.Getenv(wantedEnv) != "" && os.Getenv("CI") == "true" {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	wanted, err := releases()
	if err != nil {
		t.Fatal(err)
	}
	return wanted
}

// inLab plays in a lab with fresh hosts of a release.
func inLab(t *testing.T, r release, what setup, f *figures, play func(l *lab)) {
	t.Helper()
	l, err := openLab(t.Context(), os.Getenv(insideEnv), r, what, f)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		f.note(r.systemd, "longest time the prober did not ask", ms(l.probe.Held(0)))
		if err := l.close(); err != nil {
			t.Error(err)
		}
	}()
	play(l)
}

// sceneFor is longer than any scenario takes.
func sceneFor() time.Duration { return time.Duration(1+runs()) * time.Minute }

// A scene is a scenario that is being played.
type scene struct {
	*testing.T
	*lab
	ctx   context.Context
	began prober.Instant
}

// play plays a scenario, and shows what hosts and prober saw when it fails.
func (l *lab) play(t *testing.T, what scenario) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), sceneFor(), fmt.Errorf("the scenario took longer than %s", sceneFor()))
	defer cancel()
	s := &scene{T: t, lab: l, ctx: ctx, began: now()}
	since := time.Now()
	defer func() {
		for _, w := range l.services {
			for _, o := range w.Overlaps(s.began) {
				t.Errorf("%s: two at once: %s", w.name, o)
			}
		}
		for _, o := range prober.Overlaps(l.health.acts(s.began)) {
			t.Errorf("%s over HTTP: two at once: %s", l.health.service, o)
		}
		if t.Failed() || os.Getenv("DEPUTY_E2E_TELL") != "" {
			s.tell(since)
		}
	}()
	what.run(s)
}

// playIn plays in another test than that which a scene has, for so long at most.
func playIn(t *testing.T, scene **testing.T, all *context.Context, atMost time.Duration, play func()) {
	outer, before := *scene, *all
	ctx, cancel := context.WithTimeoutCause(before, atMost, fmt.Errorf("one run took longer than %s", atMost))
	*scene, *all = t, ctx
	defer func() {
		*scene, *all = outer, before
		cancel()
	}()
	play()
}

// tell prints what is known of a failure.
func (s *scene) tell(since time.Time) {
	s.Helper()
	for _, w := range s.services {
		for _, o := range w.Outages(s.began) {
			s.Logf("%s: at %s, %s", w.name, time.Now().Add(o.From-now()).UTC().Format("15:04:05.000"), o)
		}
		who, ago := w.Answering()
		s.Logf("%s: the last answer is from %s, %s ago", w.name, who, ago)
	}
	s.Logf("the prober itself was held up for %s at most", s.probe.Held(s.began))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, h := range s.hosts {
		s.Logf("journal of %s:\n%s", h.name, s.journal(ctx, h, since, 80))
	}
}

// journal returns the last lines about deputy and what it manages, also of a
// host that is off.
func (s *scene) journal(ctx context.Context, h *host, since time.Time, lines int) string {
	args := []string{"--no-pager", "-q", "-o", "short-precise", "--since", since.UTC().Format("2006-01-02 15:04:05 UTC")}
	var out string
	var err error
	if h.isOn() {
		out, err = h.run(ctx, append([]string{"journalctl"}, args...)...)
	} else {
		out, err = command(ctx, "journalctl", append([]string{"--directory=" + filepath.Join(h.disk(), "var/log/journal")}, args...)...)
	}
	if err != nil {
		return err.Error()
	}
	var found []string
	for line := range strings.Lines(out) {
		if about := strings.ToLower(line); slices.ContainsFunc([]string{"deputy", "shop", "queue", "polkit", "mariadb", "network of this host", "answers for this host"}, func(word string) bool {
			return strings.Contains(about, word)
		}) {
			found = append(found, line)
		}
	}
	return strings.TrimSpace(strings.Join(found[max(0, len(found)-lines):], ""))
}

const runsEnv = "DEPUTY_E2E_RUNS"

// runs is how often what is measured is repeated.
func runs() int {
	if n, err := strconv.Atoi(os.Getenv(runsEnv)); err == nil && n > 0 {
		return n
	}
	return 3
}

// ok runs a program on a host, which must succeed.
func (s *scene) ok(h *host, args ...string) string {
	s.Helper()
	out, err := h.run(s.ctx, args...)
	if err != nil {
		s.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// property asks systemd on a host for a property of a unit.
func (s *scene) property(h *host, unit, name string) string {
	s.Helper()
	return s.ok(h, "systemctl", "show", "-P", name, unit)
}

// primary waits until the role is settled and returns who has it.
func (s *scene) primary() (*host, supervisor.Primary) {
	s.Helper()
	p, err := s.orders.settled(s.ctx, 0)
	if err != nil {
		s.Fatal(err)
	}
	return s.host(p.Node), p
}

// current returns who is primary now; nil for nobody.
func (s *scene) current() (*host, supervisor.Primary) {
	s.Helper()
	r, err := s.orders.records(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	return s.host(r.primary.Node), r.primary
}

// moved waits until another term is settled than that of before.
func (s *scene) moved(before supervisor.Primary) (*host, supervisor.Primary) {
	s.Helper()
	p, err := s.orders.settled(s.ctx, before.Term)
	if err != nil {
		s.Fatal(err)
	}
	return s.host(p.Node), p
}

// served waits until a primary of another term answers than that of before.
func (s *scene) served(before supervisor.Primary) {
	s.Helper()
	if _, err := s.orders.until(s.ctx, before.Term, s.orders.isServed); err != nil {
		s.Fatal(err)
	}
}

// unit is the supervisor's of the service.
const unit = "deputy@" + service + ".service"
