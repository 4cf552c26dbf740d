package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

func TestPlanSwitchover(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*supervisor.State)
		to     string
		want   string // the target, or part of the reason
	}{
		{"best candidate", nil, "", "db2"},
		{"named candidate", nil, "db2", "db2"},
		{"to the primary", nil, "db1", "is primary already"},
		{"unfit target", nil, "db3", "db3 cannot lead: not fit: mysql: replication"},
		{"unknown target", nil, "db9", "db9 is not present: those who take part are db2, db1 and db3"},
		{"drained target", func(s *supervisor.State) { s.Drained = []supervisor.Drain{{Node: "db2"}} }, "db2", "db2 cannot lead: drained"},
		{"target that never leads", func(s *supervisor.State) { s.Candidates[1].Priority = 0 }, "db2", "db2 cannot lead: priority 0 never leads"},
		{"nobody else", func(s *supervisor.State) { s.Candidates = s.Candidates[:1] }, "", "no other node takes part"},
		{"nobody else fit", func(s *supervisor.State) { s.Candidates[1].Priority = 0 }, "", "no other node can lead: db3: not fit"},
		{"no primary", func(s *supervisor.State) { s.Primary = nil }, "", "there is no primary that could hand over"},
		{"lost primary", func(s *supervisor.State) { s.Vacant = true }, "db2", "deputy failover orders-db --to NODE"},
		{"blocked primary", func(s *supervisor.State) { s.Primary.State = sdk.RoleBlocked }, "db2", "db1 is blocked: put it right there, then `deputy clear orders-db` on that node"},
		{"promoting primary", func(s *supervisor.State) { s.Primary.State = sdk.RolePromoting }, "db2", "db1 is promoting: wait"},
		{"paused", func(s *supervisor.State) { s.Pause = &supervisor.Pause{Reason: "disk"} }, "", "paused until resumed (disk): name the node with --to"},
		{"paused, with a name", func(s *supervisor.State) { s.Pause = &supervisor.Pause{} }, "db2", "db2"},
		{"pause that has ended", func(s *supervisor.State) { s.Pause = &supervisor.Pause{Until: noon().Add(-time.Second)} }, "", "db2"},
		{"another order", func(s *supervisor.State) {
			s.Reservation = &supervisor.Reservation{To: "db3", Reason: sdk.ReasonSwitchover, By: "alice", State: supervisor.Asked}
		}, "db2", "a switchover to db3 asked by alice"},
		{"an order that was declined", func(s *supervisor.State) {
			s.Reservation = &supervisor.Reservation{To: "db3", State: supervisor.Declined}
		}, "db2", "db2"},
		{"etcd gone", func(s *supervisor.State) { s.Unreachable = "no answer" }, "db2", "cannot be reached: no answer"},
	} {
		s := orders()
		if c.change != nil {
			c.change(&s)
		}
		got, err := planSwitchover(s, c.to, noon())
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// TestRefusalsTellTheWay: a reason alone leaves an operator where they were.
func TestRefusalsTellTheWay(t *testing.T) {
	reserved := func(s *supervisor.State) {
		s.Reservation = &supervisor.Reservation{To: "db3", Reason: sdk.ReasonSwitchover, State: supervisor.Asked, For: 8 * time.Second}
	}
	lost := func(s *supervisor.State) { s.Vacant, s.Unclean = true, true }
	for _, c := range []struct {
		name     string
		failover bool
		change   func(*supervisor.State)
		to       string
		way      string
	}{
		{"etcd gone", false, func(s *supervisor.State) { s.Unreachable = "no answer" }, "db2", "`deputy check --deep`"},
		{"etcd gone", true, func(s *supervisor.State) { s.Unreachable = "no answer" }, "db2", "`deputy check --deep`"},
		{"no primary", false, func(s *supervisor.State) { s.Primary = nil }, "", "`deputy failover orders-db --to NODE`"},
		{"blocked", false, func(s *supervisor.State) { s.Primary.State = sdk.RoleBlocked }, "db2", "`deputy clear orders-db`"},
		{"blocked", true, func(s *supervisor.State) { s.Primary.State = sdk.RoleBlocked }, "db2", "`deputy clear orders-db`"},
		{"promoting", false, func(s *supervisor.State) { s.Primary.State = sdk.RolePromoting }, "db2", "wait until it is done"},
		{"alive", true, func(*supervisor.State) {}, "db2", "`deputy switchover orders-db --to db2`"},
		{"paused", false, func(s *supervisor.State) { s.Pause = &supervisor.Pause{} }, "", "`deputy resume orders-db`"},
		{"another order", false, reserved, "db2", "wait until it is done, which takes 8s at most"},
		{"another order", true, func(s *supervisor.State) { lost(s); reserved(s) }, "db2", "wait until it is done"},
		{"drained", false, func(s *supervisor.State) { s.Drained = []supervisor.Drain{{Node: "db2"}} }, "db2", "`deputy undrain db2`"},
		{"banned", false, func(s *supervisor.State) { s.Banned = []supervisor.Ban{{Node: "db2"}} }, "db2", "`deputy unban orders-db db2`"},
		{"banned", true, func(s *supervisor.State) { lost(s); s.Banned = []supervisor.Ban{{Node: "db2"}} }, "db2", "`deputy unban orders-db db2`"},
		{"never leads", false, func(s *supervisor.State) { s.Candidates[1].Priority = 0 }, "db2", "`deputy reload orders-db`"},
		{"not fit", false, func(*supervisor.State) {}, "db3", "`deputy status orders-db`"},
		{"failed", false, func(s *supervisor.State) { s.Candidates[1].Role = sdk.RoleFailed }, "db2", "`deputy clear orders-db`"},
		{"was lost", true, lost, "db1", "name another node"},
		{"not present", false, func(*supervisor.State) {}, "db9", "`systemctl start deputy@orders-db`"},
		{"nobody else", false, func(s *supervisor.State) { s.Candidates = s.Candidates[:1] }, "", "`systemctl start deputy@orders-db`"},
		{"nobody else can", false, func(s *supervisor.State) { s.Candidates[1].Priority = 0 }, "", "`deputy status orders-db`"},
	} {
		s := orders()
		c.change(&s)
		_, err := planSwitchover(s, c.to, noon())
		if c.failover {
			err = planFailover(s, c.to, nil)
		}
		if err == nil || !strings.Contains(err.Error(), c.way) {
			t.Errorf("%s, failover %v: %v; the way is not told: %s", c.name, c.failover, err, c.way)
		}
	}
}

func TestPlanFailover(t *testing.T) {
	lost := func(s *supervisor.State) { s.Vacant, s.Unclean = true, true }
	for _, c := range []struct {
		name   string
		change func(*supervisor.State)
		to     string
		want   string // empty: it can work
		fenced []string
	}{
		{name: "primary lost", change: lost, to: "db2"},
		{name: "primary lost, vouched for", change: func(s *supervisor.State) { lost(s); s.Candidates = s.Candidates[1:] }, to: "db2", fenced: []string{"db1"}},
		{name: "primary lost, and still recorded as it was", change: lost, to: "db2", fenced: []string{"db1"}},
		{
			name: "a healthy node vouched for", change: lost, to: "db2", fenced: []string{"db3"},
			want: "--fenced db3: it was not lost as primary, so it needs no fence; that was db1",
		},
		{
			name: "vouched for though it is back", to: "db2", fenced: []string{"db1"},
			change: func(s *supervisor.State) { lost(s); s.Candidates[0].Role = sdk.RoleCandidate },
			want:   "--fenced db1: it is not down: it takes part, as candidate. Give it the role by --to db1",
		},
		{
			name: "nobody was lost", to: "db2", fenced: []string{"db1"},
			change: func(s *supervisor.State) { s.Primary, s.Vacant, s.Term.Resigned = nil, true, true },
			want:   "no node was lost that did not resign",
		},
		{
			name: "lost two tenures ago", to: "db2", fenced: []string{"db9"},
			change: func(s *supervisor.State) {
				s.Primary, s.Vacant, s.Term.Resigned, s.Term.Victims = nil, true, true, []sdk.Peer{{Node: "db9"}}
			},
		},
		{
			name: "somebody tries to fence it", to: "db2", fenced: []string{"db9"},
			change: func(s *supervisor.State) {
				s.Primary.State, s.Term.Victims = sdk.RolePromoting, []sdk.Peer{{Node: "db9"}}
			},
		},
		{
			name: "vouched for who tries to fence", to: "db2", fenced: []string{"db1"},
			change: func(s *supervisor.State) {
				s.Primary.State, s.Term.Victims = sdk.RolePromoting, []sdk.Peer{{Node: "db9"}}
			},
			want: "--fenced db1: it was not lost as primary, so it needs no fence; that was db9",
		},
		{
			name: "promoting", to: "db2", want: "db1 is promoting: wait until it is done",
			change: func(s *supervisor.State) { s.Primary.State = sdk.RolePromoting },
		},
		{name: "primary gone", change: func(s *supervisor.State) { s.Primary, s.Vacant = nil, true }, to: "db2", want: ""},
		{name: "primary alive", change: nil, to: "db2", want: "db1 is alive: its lease is being renewed; use `deputy switchover orders-db --to db2`"},
		{name: "primary blocked", change: func(s *supervisor.State) { s.Primary.State = sdk.RoleBlocked }, to: "db2", want: "db1 is alive and blocked: it may still act as primary: put it right there"},
		{name: "target unfit", change: lost, to: "db3", want: "db3 cannot lead: not fit"},
		{name: "target the lost one", change: lost, to: "db1", want: "db1 cannot lead: was lost as primary"},
	} {
		s := orders()
		if c.change != nil {
			c.change(&s)
		}
		got := ""
		if err := planFailover(s, c.to, c.fenced); err != nil {
			got = err.Error()
		}
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// told tells states one second apart and returns the lines, and how it ended.
func told(y *story, states ...supervisor.State) (lines []string, done bool, err error) {
	for i, s := range states {
		var more []string
		more, done, err = y.tell(s, noon().Add(time.Duration(i)*time.Second))
		lines = append(lines, more...)
		if done {
			return lines, i == len(states)-1, err
		}
	}
	return lines, false, nil
}

func stages() (y *story, asked, accepted, demoting, free, promoting, primary supervisor.State) {
	asked = orders()
	y = &story{to: "db2", id: "r1", term: 42, last: asked}
	r := supervisor.Reservation{ID: "r1", To: "db2", From: "db1", State: supervisor.Asked}
	asked.Reservation = &r
	accepted = asked
	yes := r
	yes.State = supervisor.Accepted
	accepted.Reservation = &yes
	demoting = accepted
	leaving := *asked.Primary
	leaving.State = sdk.RoleDemoting
	demoting.Primary = &leaving
	free = accepted
	free.Primary, free.Vacant, free.Term.Resigned = nil, true, true
	promoting = asked
	promoting.Reservation = nil
	next := supervisor.Primary{Node: "db2", Term: 43, State: sdk.RolePromoting}
	promoting.Primary, promoting.Term = &next, supervisor.TermRecord{Term: 43, Node: "db2"}
	primary = promoting
	full := next
	full.State = sdk.RolePrimary
	primary.Primary = &full
	return
}

func TestStoryOfASwitchover(t *testing.T) {
	y, asked, accepted, demoting, free, promoting, primary := stages()
	lines, done, err := told(y, asked, accepted, accepted, demoting, free, promoting, primary)
	if !done || err != nil {
		t.Errorf("done %v, %v, want the end at db2's promotion", done, err)
	}
	want := []string{"db2 is ready", "db1 demotes", "db1 has left the role", "db2 promotes, term 43", "db2 is primary, term 43"}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := y.back.Sub(y.left); got != 3*time.Second {
		t.Errorf("nobody was primary for %v, want 3s", got)
	}
}

// Whoever looks seldom sees less, and still the end.
func TestStoryWithStatesLeftOut(t *testing.T) {
	y, asked, _, _, _, _, primary := stages()
	lines, done, err := told(y, asked, primary)
	if diff := cmp.Diff([]string{"db2 is primary, term 43"}, lines); !done || err != nil || diff != "" {
		t.Errorf("done %v, %v (-want +got):\n%s", done, err, diff)
	}
}

func TestStoryThatEndsBadly(t *testing.T) {
	answer := func(s supervisor.State, state supervisor.ReservationState, why string) supervisor.State {
		r := *s.Reservation
		r.State, r.Why = state, why
		s.Reservation = &r
		return s
	}
	y, asked, _, _, _, _, _ := stages()
	if _, done, err := told(y, asked, answer(asked, supervisor.Declined, "not fit: disk")); !done || err == nil || err.Error() != "db2 declined: not fit: disk" {
		t.Errorf("declined: done %v, %v", done, err)
	}
	y, asked, accepted, demoting, _, _, _ := stages()
	if _, done, err := told(y, asked, accepted, answer(demoting, supervisor.Undone, "mysql: timeout")); !done || err == nil || err.Error() != "undone, db1 stays primary: mysql: timeout" {
		t.Errorf("undone: done %v, %v", done, err)
	}
	y, asked, _, _, free, _, primary := stages()
	other := *primary.Primary
	other.Node = "db3"
	primary.Primary = &other
	if _, done, err := told(y, asked, free, primary); !done || err == nil || err.Error() != "db3 took the role instead of db2" {
		t.Errorf("somebody else: done %v, %v", done, err)
	}
	// The reservation has run out before the old primary had left.
	y, asked, _, demoting, _, _, _ = stages()
	if lines, done, err := told(y, asked, demoting, orders()); !done || err == nil || err.Error() != "undone, db1 stays primary: it had not left in time; --timeout gives it longer" || lines[len(lines)-1] != "db1 is primary again" {
		t.Errorf("run out: done %v, %v, %q", done, err, lines)
	}
	// It took the role, and gave it up again.
	y, asked, _, _, free, promoting, _ := stages()
	again := free
	again.Reservation, again.Term = nil, supervisor.TermRecord{Term: 43, Node: "db2", Resigned: true}
	if _, done, err := told(y, asked, free, promoting, again); !done || err == nil || !strings.Contains(err.Error(), "db2 took the role in term 43 and could not become primary") {
		t.Errorf("gave it up again: done %v, %v", done, err)
	}
	// Somebody else's answer is none of ours.
	y, asked, _, _, _, _, _ = stages()
	foreign := answer(asked, supervisor.Declined, "x")
	foreign.Reservation.ID = "r0"
	if _, done, err := told(y, foreign); done || err != nil {
		t.Errorf("another reservation: done %v, %v", done, err)
	}
}

func TestExitCodes(t *testing.T) {
	if got := exitCode(mark(errors.New("x"), errConfig)); got != 78 {
		t.Errorf("a mistake in a file: got %d, want 78", got)
	}
	for err, want := range map[error]int{nil: 0, errors.New("x"): 1, errUsage: 64, supervisor.ErrUnreachable: 69, supervisor.ErrBusy: 1} {
		if got := exitCode(err); got != want {
			t.Errorf("%v: got %d, want %d", err, got, want)
		}
	}
}

func TestHooksOfAMove(t *testing.T) {
	promotion := []supervisor.Step{{Plugin: "vip", Action: sdk.Promote, Outcome: sdk.OutcomeDone, Dur: 4 * time.Millisecond}}
	before := supervisor.Change{Term: 6, Node: "db1", EndSteps: []supervisor.Step{{Plugin: "vip", Action: sdk.Demote, Outcome: sdk.OutcomeDone, Dur: 3 * time.Millisecond}}}
	ended := before
	ended.Ended = time.Now()
	fenced := append([]supervisor.Step{{Plugin: "ipmi", Action: sdk.Fence, Victim: "db1", Outcome: sdk.OutcomeDone, Dur: time.Second}}, promotion...)
	older := supervisor.Change{Term: 5, Node: "db3", EndSteps: before.EndSteps}
	for _, c := range []struct {
		name    string
		from    string
		changes []supervisor.Change
		lines   []string
		whole   bool
	}{
		{"both have ended", "db1", []supervisor.Change{older, ended, {Term: 7, Node: "db2", Steps: promotion}}, []string{"db1 demoted: vip 3ms", "db2 promoted: vip 4ms"}, true},
		{"the end of the old one is not on record yet", "db1", []supervisor.Change{older, {Term: 6, Node: "db1"}, {Term: 7, Node: "db2", Steps: promotion}}, []string{"db2 promoted: vip 4ms"}, false},
		{"the new one has not written", "db1", []supervisor.Change{older, ended}, []string{"db1 demoted: vip 3ms"}, false},
		{"there was none before", "", []supervisor.Change{{Term: 7, Node: "db2", Steps: fenced}}, []string{"fenced: db1 by ipmi 1s", "db2 promoted: vip 4ms"}, true},
	} {
		lines, whole := hooks(c.changes, c.from, 7)
		if !slices.Equal(lines, c.lines) || whole != c.whole {
			t.Errorf("%s: %q, %t, want %q, %t", c.name, lines, whole, c.lines, c.whole)
		}
	}
}
