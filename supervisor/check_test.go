package supervisor_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	. "github.com/deputy-ha/deputy/supervisor/supervisortest"
)

// checked runs two machines with a vip and a probe whose policy is changed, and
// returns the primary.
func checked(t *testing.T, change func(*supervisor.CheckPolicy), play func(s *scene, db1, db2 *machine)) {
	t.Helper()
	Bubble(t, func(t *testing.T) {
		s := newScene(t)
		defer s.close()
		s.part("vip")
		change(&s.part("probe", sdk.CanCheck).Check)
		db1 := s.run("db1", "db2")
		s.wait(10 * time.Second)
		db1.is(sdk.RolePrimary)
		play(s, db1, s.machine("db2"))
		s.journal.NeverTwo(t)
	})
}

// probe is what a machine's status says of the probe.
func (m *machine) probe() supervisor.PartStatus {
	parts := m.member.Status().Parts
	return parts[slices.IndexFunc(parts, func(p supervisor.PartStatus) bool { return p.Name == "probe" })]
}

func TestWarningCostsNothing(t *testing.T) {
	checked(t, func(c *supervisor.CheckPolicy) { c.Severity = supervisor.Warning }, func(s *scene, db1, db2 *machine) {
		for _, m := range []*machine{db1, db2} {
			m.parts["probe"].Healths(sdk.Health{Detail: "90% full", Certain: true})
		}
		s.wait(10 * time.Second)
		db1.is(sdk.RolePrimary)
		db2.is(sdk.RoleCandidate)
		for _, m := range []*machine{db1, db2} {
			if p := m.probe(); p.Fit || !p.Warning || p.Detail != "90% full" {
				t.Errorf("%s says %+v, want a warning", m.name, p)
			}
			if st := m.member.Status(); !st.Fit {
				t.Errorf("%s is unfit by a warning", m.name)
			}
		}
		if c := db1.member.Status().State.Candidate("db2"); c == nil || !c.Fit || c.Health != "warning: probe: 90% full" {
			t.Errorf("others hear %+v, want fit, with the warning", c)
		}
		s.switchover("db2")
		s.wait(time.Second)
		db2.is(sdk.RolePrimary)
		for _, m := range []*machine{db1, db2} {
			m.parts["probe"].Fit("")
		}
		s.wait(10 * time.Second)
		if p := db2.probe(); !p.Fit || p.Warning {
			t.Errorf("it is well, and says %+v", p)
		}
	})
}

func TestEligibilityBarsPromotionOnly(t *testing.T) {
	checked(t, func(c *supervisor.CheckPolicy) { c.Severity = supervisor.Eligibility }, func(s *scene, db1, db2 *machine) {
		for _, m := range []*machine{db1, db2} {
			m.parts["probe"].Healths(sdk.Health{Detail: "no licence", Certain: true})
		}
		s.wait(10 * time.Second)
		db1.is(sdk.RolePrimary)
		if p := db1.probe(); p.Fit || !p.Warning {
			t.Errorf("a primary's failing check says %+v, want a warning", p)
		}
		db2.is(sdk.RoleStandby)
		if p := db2.probe(); p.Fit || p.Warning {
			t.Errorf("a standby's failing check says %+v, want unfit", p)
		}
		s.switchover("db2")
		s.wait(5 * time.Second)
		db1.is(sdk.RolePrimary)
		db2.parts["probe"].Fit("")
		s.wait(10 * time.Second)
		db2.is(sdk.RoleCandidate)
		db1.kill()
		db1.breakPart()
		s.wait(10 * time.Second)
		db2.is(sdk.RolePrimary)
	})
}

// breakPart has the vip not act any more, as on a machine without power.
func (m *machine) breakPart() { m.parts["vip"].Break(false, "off") }

// A part that promotes is asked about its eligibility in both roles.
func TestEligibilityOfAPartThatPromotes(t *testing.T) {
	stage(t, func(s *scene) {
		for i := range s.service.Parts {
			s.service.Parts[i].Check.Severity = supervisor.Eligibility
		}
		s.machine("db2").parts["disk"].Unfit("too small")
		s.run("db1", "db2")
		s.wait(10 * time.Second)
		s.machine("db2").is(sdk.RoleStandby)
		s.machine("db1").parts["disk"].Unfit("too small")
		s.wait(10 * time.Second)
		s.machine("db1").is(sdk.RolePrimary)
	})
}

// A failure is known sooner where the second answer does not wait for its turn.
func TestFastInterval(t *testing.T) {
	for _, c := range []struct {
		fast   time.Duration
		within time.Duration // of a failure that comes right after a check
		not    time.Duration
	}{{0, 3100 * time.Millisecond, 2900 * time.Millisecond}, {100 * time.Millisecond, 1400 * time.Millisecond, 1100 * time.Millisecond}} {
		checked(t, func(p *supervisor.CheckPolicy) { p.FastInterval = c.fast }, func(s *scene, db1, db2 *machine) {
			at := db1.probe().At
			for db1.probe().At.Equal(at) {
				s.wait(time.Millisecond)
			}
			db1.parts["probe"].Unfit("gone")
			s.wait(c.not)
			db1.is(sdk.RolePrimary)
			s.wait(c.within - c.not + 100*time.Millisecond)
			db2.is(sdk.RolePrimary)
			if c.fast == 0 {
				return
			}
			// And it is well again as soon.
			at = db1.probe().At
			for db1.probe().At.Equal(at) {
				s.wait(time.Millisecond)
			}
			db1.parts["probe"].Fit("")
			s.wait(1200 * time.Millisecond)
			db1.is(sdk.RoleCandidate)
		})
	}
}

// Checks come at the interval, give or take the jitter, and not in step.
func TestJitter(t *testing.T) {
	checked(t, func(c *supervisor.CheckPolicy) { c.Jitter = 20 }, func(s *scene, db1, _ *machine) {
		var at []time.Time
		for len(at) < 200 {
			if last := db1.probe().At; len(at) == 0 || last.After(at[len(at)-1]) {
				at = append(at, last)
			}
			s.wait(time.Millisecond)
		}
		var least, most time.Duration = time.Hour, 0
		for i := range at[1:] {
			d := at[i+1].Sub(at[i])
			least, most = min(least, d), max(most, d)
		}
		const answer = 4 * time.Millisecond // that a check of these takes
		if least < 800*time.Millisecond || most > 1200*time.Millisecond+answer {
			t.Errorf("checks came %s to %s apart, want 800ms to 1.2s", least, most)
		}
		if most-least < 200*time.Millisecond {
			t.Errorf("checks came %s to %s apart: no jitter", least, most)
		}
	})
}

// What costs no role is in the log once as it comes, and once as it goes.
func TestWarningIsLoggedOnce(t *testing.T) {
	checked(t, func(c *supervisor.CheckPolicy) { c.Severity = supervisor.Warning }, func(s *scene, db1, _ *machine) {
		db1.parts["probe"].Unfit("90% full")
		s.wait(20 * time.Second)
		db1.parts["probe"].Fit("")
		s.wait(20 * time.Second)
		log := s.journal.String()
		if n := strings.Count(log, "a check fails, which costs no role"); n != 1 {
			t.Errorf("told %d times\n%s", n, log)
		}
		if n := strings.Count(log, "a check passes again"); n != 1 {
			t.Errorf("its end is told %d times\n%s", n, log)
		}
	})
}
