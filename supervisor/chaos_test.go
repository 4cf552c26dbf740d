package supervisor_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	. "github.com/deputy-ha/deputy/supervisor/supervisortest"
)

// Members under random faults on virtual time: two never act as primary, and
// once all is well again somebody is. DEPUTY_SEED plays one seed again,
// DEPUTY_SEEDS says how many are played.
func TestRandomFaults(t *testing.T) {
	first, count := uint64(1), uint64(15)
	if s := os.Getenv("DEPUTY_SEEDS"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		count = n
	}
	if s := os.Getenv("DEPUTY_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, count = n, 1
	}
	for seed := first; seed < first+count; seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			Bubble(t, func(t *testing.T) { chaos(t, seed) })
		})
	}
}

func chaos(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	s := newScene(t)
	defer s.close()
	s.part("disk")
	s.part("vip")
	s.service.TTL = []time.Duration{time.Second, 3 * time.Second}[rnd.IntN(2)]
	s.service.Preempt = rnd.IntN(2) == 0
	if seed%2 == 0 {
		s.fencing()
	}
	names := []string{"db1", "db2", "db3"}
	for _, name := range names {
		m := s.machine(name)
		m.priority = 100 + rnd.IntN(2)
		m.guard()
		m.run()
	}
	acts := []sdk.Action{sdk.Promote, sdk.Demote}
	for i := range 200 {
		s.wait(time.Duration(rnd.Int64N(int64(2 * s.service.TTL))))
		m := s.machine(names[rnd.IntN(len(names))])
		part := m.parts[[]string{"disk", "vip"}[rnd.IntN(2)]]
		switch rnd.IntN(17) {
		case 0:
			if m.alive() {
				m.kill()
			}
		case 1, 2:
			m.revive()
		case 3:
			m.Freeze()
		case 4, 5:
			m.Thaw()
		case 6:
			m.Cut()
		case 7, 8:
			m.Heal()
		case 9:
			s.cluster.Down()
			s.wait(time.Duration(rnd.Int64N(int64(2 * s.service.TTL))))
			s.cluster.Up()
		case 10:
			m.LoseReply()
		case 11:
			b := Behaviour{Takes: time.Duration(rnd.Int64N(int64(s.service.TTL)))}
			b.Outcome = []sdk.Outcome{"", sdk.OutcomeUnknown, sdk.OutcomeUnchanged}[rnd.IntN(3)]
			b.Deaf = rnd.IntN(2) == 0
			part.Next(acts[rnd.IntN(2)], b)
			if power := m.parts["power"]; power != nil {
				power.Next(sdk.Fence, b)
			}
		case 12:
			s.try(func(ctx context.Context, c supervisor.Cluster) error {
				return c.Request(ctx, "db", supervisor.Reservation{
					ID: fmt.Sprint("r", i), To: m.name, Reason: sdk.ReasonSwitchover, State: supervisor.Asked, For: s.service.Patience(),
				})
			})
		case 13:
			s.try(func(ctx context.Context, c supervisor.Cluster) error {
				return c.Drain(ctx, supervisor.Drain{Node: m.name})
			})
		case 14:
			s.try(func(ctx context.Context, c supervisor.Cluster) error { return c.Undrain(ctx, m.name) })
		case 15:
			s.cluster.DeletePrimary("db")
		case 16:
			s.try(func(ctx context.Context, c supervisor.Cluster) error {
				return c.Ban(ctx, "db", supervisor.Ban{Node: m.name, Until: time.Now().Add(time.Duration(rnd.Int64N(int64(time.Minute))))})
			})
		}
	}

	s.says("all is well again")
	s.cluster.Up()
	for _, name := range names {
		m := s.machine(name)
		for _, p := range m.parts {
			p.Always(sdk.Promote, Behaviour{})
			p.Always(sdk.Demote, Behaviour{})
			p.Always(sdk.Fence, Behaviour{})
		}
		m.Thaw()
		m.Heal()
		s.try(func(ctx context.Context, c supervisor.Cluster) error { return c.Undrain(ctx, name) })
		m.revive()
	}
	s.wait(time.Minute)
	for _, name := range names {
		_ = s.machine(name).member.Clear() // most have nothing to clear
	}
	s.wait(time.Minute)
	primaries := 0
	for _, name := range names {
		status := s.machine(name).member.Status()
		s.says(fmt.Sprintf("%s is %s: %s", name, status.Role, status.Verdict))
		if status.Role == sdk.RolePrimary {
			primaries++
		}
	}
	if primaries != 1 {
		t.Errorf("seed %d: %d primaries after a minute without faults\n%s", seed, primaries, s.journal)
	}
	s.journal.NeverTwo(t)
}

// alive reports whether deputy runs on the machine.
func (m *machine) alive() bool {
	select {
	case <-m.ended:
		return false
	default:
		return true
	}
}

// revive starts deputy where it does not run.
func (m *machine) revive() {
	if !m.alive() {
		m.run()
	}
}

// try has an operator's side do what may fail, since nobody may be there.
func (s *scene) try(f func(context.Context, supervisor.Cluster) error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = f(ctx, s.cluster.Operator())
}
