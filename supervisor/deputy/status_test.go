package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

var plainScreen = screen{width: plainWidth}

func noon() time.Time { return time.Date(2030, 5, 6, 12, 0, 0, 0, time.UTC) }

// orders is a service of three nodes: db1 is primary, db2 could follow, db3
// could not.
func orders() supervisor.State {
	at := noon()
	return supervisor.State{
		Service: "orders-db",
		Primary: &supervisor.Primary{Node: "db1", Address: "192.0.2.11", Term: 42, State: sdk.RolePrimary, Since: at.Add(-3 * time.Minute)},
		Term:    supervisor.TermRecord{Term: 42, Node: "db1"},
		Candidates: []supervisor.Candidate{
			{Node: supervisor.Node{Name: "db1", Address: "192.0.2.11"}, Priority: 100, Role: sdk.RolePrimary, Term: 42, Since: at.Add(-192 * time.Second), Fit: true, Verdict: "is primary", Hash: "1f3a99e0aa"},
			{Node: supervisor.Node{Name: "db2", Address: "192.0.2.12"}, Priority: 100, Role: sdk.RoleCandidate, Since: at.Add(-2 * time.Hour), Fit: true, Verdict: "primary is db1", Hash: "1f3a99e0aa"},
			{Node: supervisor.Node{Name: "db3", Address: "192.0.2.13"}, Priority: 50, Role: sdk.RoleStandby, Since: at.Add(-10 * time.Second), Verdict: "not fit: mysql: replication is 1h20m behind and the relay log cannot be read: error 1594", Hash: "1f3a99e0aa"},
		},
	}
}

func compare(t *testing.T, got, want string) {
	t.Helper()
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for line := range strings.Lines(got) {
		if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > plainWidth {
			t.Errorf("wider than %d columns: %q", plainWidth, line)
		}
	}
}

func TestStatusFromEtcd(t *testing.T) {
	r := supervisor.NewReport(orders(), nil)
	r.Description = "one writable MySQL behind one address"
	compare(t, statusText([]supervisor.Report{r}, plainScreen, noon(), false), `
orders-db: one writable MySQL behind one address
  NODE  ROLE       HEALTH  TERM  SINCE  LEASE  VERDICT
  db1   primary    fit     42    3m12s  -      is primary
  db2   candidate  fit     -     2h00m  -      primary is db1
  db3   standby    unfit   -     10s    -      not fit: mysql: replication is 1h20m behind and the
                                               relay log cannot be read: error 1594
`)
}

func TestStatusFromTheDaemon(t *testing.T) {
	s := orders()
	s.Pause = &supervisor.Pause{Until: noon().Add(time.Hour), By: "root", Reason: "new switch"}
	s.Reservation = &supervisor.Reservation{To: "db2", From: "db1", Reason: sdk.ReasonSwitchover, By: "alice", State: supervisor.Accepted}
	local := supervisor.Status{
		Service: "orders-db", Node: "db1", Role: sdk.RoleDemoting, Term: 42, Since: noon().Add(-time.Second),
		Fit: true, Verdict: "switchover to db2", LeaseLeft: 2140 * time.Millisecond, Doing: "demote mysql: waits for 3 transactions",
		Parts: []supervisor.PartStatus{
			{Name: "mysql", Use: "mysql", Promoted: true, Checked: true, Fit: true, Detail: "writable, 14 connections"},
			{Name: "vip", Use: "vip"},
		},
		State: s,
	}
	compare(t, statusText([]supervisor.Report{supervisor.NewReport(s, &local)}, plainScreen, noon(), true), `
orders-db
  NODE  ROLE       HEALTH  TERM  SINCE  LEASE  VERDICT
  db1   demoting   fit     42    1s     2.1s   switchover to db2
  db2   candidate  fit     -     2h00m  -      primary is db1
  db3   standby    unfit   -     10s    -      not fit: mysql: replication is 1h20m behind and the
                                               relay log cannot be read: error 1594
  PLUGIN on db1  USES   PROMOTED  CHECK  DETAIL
  mysql          mysql  yes       fit    writable, 14 connections
  vip            vip    no        -
  paused until 2030-05-06T13:00:00Z by root (new switch)
  switchover to db2, accepted, asked by alice
  db1: demote mysql: waits for 3 transactions
`)
}

// What is wrong with a service stands below its table.
func TestStatusOfTroubles(t *testing.T) {
	lost := orders()
	lost.Service, lost.Vacant, lost.Unclean = "lost", true, true
	lost.Candidates = lost.Candidates[1:]

	// db1 is dead, but its own record has not run out yet.
	stale := orders()
	stale.Service, stale.Primary = "stale", &supervisor.Primary{Node: "db2", Term: 43, State: sdk.RolePromoting}
	stale.Term = supervisor.TermRecord{Term: 43, Node: "db2"}
	stale.Candidates[1].Role, stale.Candidates[1].Term, stale.Candidates[1].Verdict = sdk.RolePromoting, 43, "promotes"

	differ := orders()
	differ.Service, differ.Candidates[2].Hash = "differ", "99ab0000bb"
	differ.Drained = []supervisor.Drain{{Node: "db2"}, {Node: "db9"}}

	blind := orders()
	blind.Service, blind.Unreachable = "blind", "since 12:00:05, no answer from any endpoint"
	blind.Candidates = nil

	blocked := orders()
	blocked.Service = "blocked"
	blocked.Candidates = blocked.Candidates[:1]
	stuck := supervisor.Status{Service: "blocked", Node: "db1", Role: sdk.RoleBlocked, Term: 42, Since: noon(), Cause: "demote vip: exit code 3", Verdict: "blocked: put it right, then `deputy clear blocked`", LeaseLeft: time.Second, State: blocked}

	reports := []supervisor.Report{
		supervisor.NewReport(lost, nil), supervisor.NewReport(stale, nil), supervisor.NewReport(differ, nil), supervisor.NewReport(blind, nil), supervisor.NewReport(blocked, &stuck),
		supervisor.NewReport(supervisor.State{Service: "new"}, nil),
		{Service: "away", Problem: "no daemon answers at /run/deputy/away/control.sock"},
	}
	compare(t, statusText(reports, plainScreen, noon(), false), `
5 of 7 services need you; 2 not as usual
  lost: no primary: db1 was lost, its lease ran out
    type: deputy explain lost
  blind: etcd cannot be reached: since 12:00:05, no answer from any endpoint; this is what was
    last known
    type: deputy check --deep
  blocked: db1 is blocked: demote vip: exit code 3
    type on db1: deputy clear blocked
  new: no primary: there was none yet
    type: deputy explain new
  away: no daemon answers at /run/deputy/away/control.sock
    type: deputy check --deep away

   SERVICE  PRIMARY        TERM  SINCE  FIT  REMARKS
!  lost     -              42    -      1/3  no primary: db1 was lost, its lease ran out
!  blind    db1            42    3m00s  0/1  etcd cannot be reached: since 12:00:05, no answer fr...
!  blocked  db1            42    3m00s  0/1  db1 is blocked: demote vip: exit code 3
!  new      -              -     -      0/0  no primary: there was none yet
!  away     -              -     -      0/0  no daemon answers at /run/deputy/away/control.sock
~  stale    db2 promoting  43    -      1/3  nobody could take over
~  differ   db1            42    3m00s  2/4  nobody could take over; the definitions differ: db1 ...
`)
	compare(t, statusText(reports, plainScreen, noon(), true), `
5 of 7 services need you; 2 not as usual

lost
  NODE  ROLE       HEALTH  TERM  SINCE  LEASE  VERDICT
  db1   unknown    -       42    -      -      was lost as primary; not present
  db2   candidate  fit     -     2h00m  -      primary is db1
  db3   standby    unfit   -     10s    -      not fit: mysql: replication is 1h20m behind and the
                                               relay log cannot be read: error 1594
  no primary: db1 was lost, its lease ran out
    type: deputy explain lost

blind
  NODE  ROLE     HEALTH  TERM  SINCE  LEASE  VERDICT
  db1   primary  -       42    3m00s  -      not present: dead, or cut off from etcd
  etcd cannot be reached: since 12:00:05, no answer from any endpoint; this is what was last known
    type: deputy check --deep

blocked
  NODE  ROLE     HEALTH  TERM  SINCE  LEASE  VERDICT
  db1   blocked  unfit   42    0s     1.0s   blocked: put it right, then `+"`"+`deputy clear blocked`+"`"+`
  db1 is blocked: demote vip: exit code 3
    type on db1: deputy clear blocked
  nobody could take over: no other node takes part

new
  no primary: there was none yet
    type: deputy explain new

away
  no daemon answers at /run/deputy/away/control.sock
    type: deputy check --deep away

stale
  NODE  ROLE       HEALTH  TERM  SINCE  LEASE  VERDICT
  db1   unknown    -       -     3m12s  -      was lost as primary in term 42, and silent since
  db2   promoting  fit     43    2h00m  -      promotes
  db3   standby    unfit   -     10s    -      not fit: mysql: replication is 1h20m behind and the
                                               relay log cannot be read: error 1594
  nobody could take over

differ
  NODE  ROLE       HEALTH  TERM  SINCE  LEASE  VERDICT
  db1   primary    fit     42    3m12s  -      is primary
  db2   candidate  fit     -     2h00m  -      primary is db1; drained
  db3   standby    unfit   -     10s    -      not fit: mysql: replication is 1h20m behind and the
                                               relay log cannot be read: error 1594
  db9   unknown    -       -     -      -      not present; drained: `+"`deputy undrain db9`"+` ends it
  nobody could take over
  the definitions differ: db1 and db2 have 1f3a99e0 as the primary, db3 has 99ab0000; bring the
  files in line, then `+"`"+`deputy reload differ`+"`"+` there
`)
}

// What plugins and operators write cannot steer the terminal.
func TestStatusIsTidy(t *testing.T) {
	s := orders()
	s.Candidates[0].Verdict = "is \x1b[2Jprimary\r\u009b31m\a"
	s.Pause = &supervisor.Pause{Reason: "a\x1b]0;title\x07b"}
	got := statusText([]supervisor.Report{supervisor.NewReport(s, nil)}, plainScreen, noon(), false)
	if strings.ContainsAny(got, "\x1b\r\a\u009b") {
		t.Errorf("control characters are left: %q", got)
	}
}

func TestColourIsForTerminals(t *testing.T) {
	r := []supervisor.Report{supervisor.NewReport(orders(), nil)}
	if got := statusText(r, plainScreen, noon(), false); strings.Contains(got, "\x1b[") {
		t.Errorf("colour where there is no terminal: %q", got)
	}
	got := statusText(r, screen{terminal: true, colour: true, width: plainWidth}, noon(), false)
	if !strings.Contains(got, "\x1b[32mprimary\x1b[0m ") || !strings.Contains(got, "\x1b[31munfit\x1b[0m ") {
		t.Errorf("primary is not green or unfit not red on a terminal: %q", got)
	}
}

func TestStatusAsJSON(t *testing.T) {
	s := orders()
	local := supervisor.Status{Service: "orders-db", Node: "db1", Role: sdk.RolePrimary, Term: 42, Fit: true, LeaseLeft: time.Second, State: s}
	b, err := json.Marshal(supervisor.NewReport(s, &local))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Service, Source string
		Primary         struct {
			Node  string
			Term  int
			State string
		}
		Vacant       bool
		HashesDiffer bool `json:"hashes_differ"`
		Nodes        []struct {
			Node, Role, Verdict string
			Present, Fit        bool
			LeaseLeft           int `json:"lease_left_ns"`
		}
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got.Service != "orders-db" || got.Source != "daemon" || got.Primary.Node != "db1" || got.Primary.Term != 42 ||
		got.Primary.State != "primary" || got.Vacant || got.HashesDiffer || len(got.Nodes) != 3 ||
		got.Nodes[0].LeaseLeft != 1e9 || got.Nodes[1].Role != "candidate" || got.Nodes[2].Fit || !got.Nodes[2].Present {
		t.Errorf("got %+v from %s", got, b)
	}
}

func TestCheckOfAPart(t *testing.T) {
	for want, p := range map[string]supervisor.PartStatus{
		"-":       {Fit: true},
		"fit":     {Checked: true, Fit: true},
		"unfit":   {Checked: true},
		"warning": {Checked: true, Warning: true},
	} {
		if got := partCells(p)[3].text; got != want {
			t.Errorf("%+v: got %q, want %q", p, got, want)
		}
	}
}
