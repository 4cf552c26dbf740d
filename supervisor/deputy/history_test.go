package main

import (
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

func changes() []supervisor.Change {
	return []supervisor.Change{
		{
			Term: 41, Node: "db2", At: noon().Add(-25 * time.Hour), Reason: sdk.ReasonElection, Cause: "there was no primary",
			Steps: []supervisor.Step{{Plugin: "mysql", Action: sdk.Promote, Outcome: sdk.OutcomeDone, Dur: 812 * time.Millisecond}, {Plugin: "vip", Action: sdk.Promote, Outcome: sdk.OutcomeDone, Dur: 3 * time.Millisecond}},
			Ended: noon().Add(-3 * time.Minute), EndReason: sdk.ReasonUnfit, EndCause: "not fit: mysql: connection refused",
			EndSteps: []supervisor.Step{{Plugin: "vip", Action: sdk.Demote, Mode: sdk.Planned, Outcome: sdk.OutcomeDone, Dur: 2 * time.Millisecond}, {Plugin: "mysql", Action: sdk.Demote, Mode: sdk.Planned, Outcome: sdk.OutcomeUnknown, Detail: "exit code 3", Dur: 10 * time.Second}},
		},
		{Term: 42, Node: "db1", From: "db2", At: noon().Add(-3 * time.Minute), Reason: sdk.ReasonSwitchover, Cause: "switchover to this node, asked by alice"},
	}
}

func TestHistory(t *testing.T) {
	compare(t, historyText(recount(changes()), plainScreen, time.UTC), `
WHEN                 TERM  FROM  TO   TOOK   WHY
2030-05-05 11:00:00  41    -     db2  815ms  election: there was no primary
                                             promoted: mysql 812ms, vip 3ms
                                             ended after 1d0h, unfit: not fit: mysql: connection
                                             refused
                                             demoted: vip 2ms, mysql 10s failed-unknown (exit code
                                             3)
2030-05-06 11:57:00  42    db2   db1  -      switchover: switchover to this node, asked by alice
`)
	compare(t, historyText(nil, plainScreen, time.UTC), "no change of role yet\n")
	fenced := supervisor.Change{Term: 43, Node: "db2", From: "db1", At: noon(), Reason: sdk.ReasonFailover, Cause: "db1 was lost: its lease ran out", Steps: []supervisor.Step{
		{Plugin: "board", Action: sdk.Fence, Victim: "db1", Outcome: sdk.OutcomeUnknown, Detail: "no answer", Dur: 20 * time.Second},
		{Plugin: "rack", Action: sdk.Fence, Victim: "db1", Outcome: sdk.OutcomeDone, Dur: 2 * time.Second},
		{Plugin: "vip", Action: sdk.Promote, Outcome: sdk.OutcomeDone, Dur: 3 * time.Millisecond},
	}}
	compare(t, historyText(recount([]supervisor.Change{fenced}), plainScreen, time.UTC), `
WHEN                 TERM  FROM  TO   TOOK  WHY
2030-05-06 12:00:00  43    db1   db2  22s   failover: db1 was lost: its lease ran out
                                            fenced: db1 by board 20s failed-unknown (no answer), db1
                                            by rack 2s
                                            promoted: vip 3ms
`)
}

func TestTimeWithoutAPrimary(t *testing.T) {
	all := changes()
	all[1].At = all[0].Ended.Add(240 * time.Millisecond)
	all[1].Steps = all[0].Steps
	compare(t, historyText(recount(all)[1:], plainScreen, time.UTC), `
WHEN                 TERM  FROM  TO   TOOK   WHY
2030-05-06 11:57:00  42    db2   db1  815ms  switchover: switchover to this node, asked by alice
                                             promoted: mysql 812ms, vip 3ms
                                             nobody was primary for 1.06s
`)
	all[0].Ended = time.Time{} // it was lost
	if got := recount(all)[1].Without; got != 0 {
		t.Errorf("a node that was lost: got %s, want that nobody knows", got)
	}
	all[0].Ended, all[0].Term = noon(), 40 // what came between is not in the history
	if got := recount(all)[1].Without; got != 0 {
		t.Errorf("a term is missing: got %s, want that nobody knows", got)
	}
}

func TestExplain(t *testing.T) {
	s := orders()
	compare(t, explain(s, changes(), 3*time.Second).text(plainScreen, noon()), `
orders-db: db1 is primary, term 42, since 3m00s
  because switchover to this node, asked by alice
  if db1 died now: db2 would take over once its lease has run out, at most 3s later

  PLACE  NODE  PRIORITY  VERDICT
  1      db2   100       fit, priority 100
  -      db1   100       is primary
  -      db3   50        not fit: mysql: replication is 1h20m behind and the relay log cannot be
                         read: error 1594
                         to lead: its checks have to pass again; it would then be place 2
`)
	s.Vacant = true
	s.Candidates[1].Verdict = "lacks data that db3 has: waits for it, or `deputy failover orders-db --to db2`"
	s.Frozen = "records went back in time: waits 2s"
	compare(t, explain(s, changes(), 3*time.Second).text(plainScreen, noon()), `
orders-db: no primary
  because db1 was lost: its lease ran out
  nobody here campaigns: records went back in time: waits 2s
  to have a primary: what keeps this node from campaigning has to end, or to be put right
    type: deputy check --deep orders-db

  PLACE  NODE  PRIORITY  VERDICT
  1      db2   100       fit, priority 100
                         itself: lacks data that db3 has: waits for it, or `+"`"+`deputy failover
                         orders-db --to db2`+"`"+`
  -      db1   100       was lost as primary in term 42, and silent since
                         to lead: its supervisor has to come back; it would then be place 1
  -      db3   50        not fit: mysql: replication is 1h20m behind and the relay log cannot be
                         read: error 1594
                         to lead: its checks have to pass again; it would then be place 2
`)
	compare(t, explain(supervisor.State{Service: "new"}, nil, 0).text(plainScreen, noon()), `
new: no primary
  because there was no primary yet
  to have a primary: start its supervisor on a node
    type: systemctl start deputy@new
  no candidates: no supervisor takes part
`)
}
