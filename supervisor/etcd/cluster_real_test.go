package etcd

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
)

func TestClusterOnRealEtcd(t *testing.T) {
	t.Parallel()
	c := etcdtest.StartT(t, quick)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *etcdtest.Cluster)
	}{
		{"UnknownService", testUnknownService},
		{"State", testState},
		{"Watch", testWatch},
		{"History", testHistory},
		{"Reservation", testReservation},
		{"PauseAndResume", testPauseAndResume},
		{"Drain", testDrain},
		{"RemoveIsRefused", testRemoveIsRefused},
		{"RemoveAfterResigning", testRemoveAfterResigning},
		{"RemoveOfADeadPrimary", testRemoveOfADeadPrimary},
		{"Compaction", testCompaction},
		{"OrphanPulses", testOrphanPulses},
		{"Inspect", testInspect},
		{"Notices", testNotices},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, c) })
	}
}

func testUnknownService(t *testing.T, c *etcdtest.Cluster) {
	op, ctx := realClient(t, c, "desk"), t.Context()
	_, stateErr := op.State(ctx, "db")
	_, historyErr := op.History(ctx, "db")
	for what, err := range map[string]error{
		"state":   stateErr,
		"history": historyErr,
		"request": op.Request(ctx, "db", supervisor.Reservation{ID: "1", To: "b"}),
		"pause":   op.Pause(ctx, "db", supervisor.Pause{}),
		"resume":  op.Resume(ctx, "db"),
		"remove":  op.Remove(ctx, "db"),
	} {
		if !errors.Is(err, supervisor.ErrNoService) || !strings.Contains(err.Error(), "db") {
			t.Errorf("%s of a service that is not there: %v", what, err)
		}
	}
	if got, err := op.Services(ctx); err != nil || len(got) != 0 {
		t.Errorf("services: %q, %v; want none", got, err)
	}
}

func testState(t *testing.T, c *etcdtest.Cluster) {
	ctx, op := t.Context(), realClient(t, c, "desk")
	a := startReal(t, c, "a")
	l := takeReal(t, a, "db", time.Second)
	takeReal(t, a, "cache", time.Second)
	if err := a.Elector("db", time.Second).Publish(ctx, supervisor.Candidate{Node: supervisor.Node{Name: "a"}, Priority: 7}); err != nil {
		t.Fatal(err)
	}
	if got, err := op.Services(ctx); err != nil || !slices.Equal(got, []string{"cache", "db"}) {
		t.Errorf("services: %q, %v", got, err)
	}
	st, err := op.State(ctx, "db")
	if err != nil {
		t.Fatal(err)
	}
	if st.Primary == nil || st.Primary.Node != "a" || st.Primary.Term != 1 || st.Vacant || st.Term.Term != 1 {
		t.Errorf("state while a is primary: %+v", st)
	}
	if me := st.Candidate("a"); me == nil || me.Priority != 7 {
		t.Errorf("candidates: %+v", st.Candidates)
	}
	if err := l.Resign(ctx); err != nil {
		t.Fatal(err)
	}
	st, err = op.State(ctx, "db")
	if err != nil || st.Primary != nil || !st.Vacant || st.Unclean || !st.Term.Resigned {
		t.Errorf("state after a resigned: %+v, %v", st, err)
	}
}

func testWatch(t *testing.T, c *etcdtest.Cluster) {
	op, a := realClient(t, c, "desk"), startReal(t, c, "a")
	takeReal(t, a, "db", time.Second).Abandon()
	sawPrimary := false
	for st := range op.Watch(t.Context(), "db") {
		if !sawPrimary {
			if st.Primary == nil || st.Primary.Node != "a" {
				t.Fatalf("first state: %+v", st)
			}
			sawPrimary = true
			a.stop()
		}
		if st.Vacant {
			if !st.Unclean || st.Primary == nil {
				t.Errorf("state once the primary is silent: %+v", st)
			}
			break
		}
	}
	// The loop was left, so whatever watched has ended; another can begin.
	for st := range op.Watch(t.Context(), "db") {
		if st.Primary == nil {
			t.Errorf("first state of another watch: %+v", st)
		}
		break
	}
}

func testHistory(t *testing.T, c *etcdtest.Cluster) {
	ctx, op, a := t.Context(), realClient(t, c, "desk"), startReal(t, c, "a")
	e := a.Elector("db", time.Second)
	for _, term := range []sdk.Term{10, 9, 1, 2} {
		if err := e.Record(ctx, supervisor.Change{Term: term, Node: "a"}); err != nil {
			t.Fatal(err)
		}
	}
	changes, err := op.History(ctx, "db")
	if err != nil {
		t.Fatal(err)
	}
	var terms []sdk.Term
	for _, change := range changes {
		terms = append(terms, change.Term)
	}
	if !slices.Equal(terms, []sdk.Term{1, 2, 9, 10}) {
		t.Errorf("terms of the history: %v, want the oldest first", terms)
	}
}

func testReservation(t *testing.T, c *etcdtest.Cluster) {
	ctx, op, a := t.Context(), realClient(t, c, "desk"), startReal(t, c, "a")
	takeReal(t, a, "db", time.Second)
	r := supervisor.Reservation{ID: "1", To: "b", Reason: sdk.ReasonSwitchover, For: time.Minute, State: supervisor.Asked}
	if err := op.Request(ctx, "db", r); err != nil {
		t.Fatal(err)
	}
	other := r
	other.ID, other.To = "2", "c"
	if err := op.Request(ctx, "db", other); !errors.Is(err, supervisor.ErrBusy) || !strings.Contains(err.Error(), "switchover for b") {
		t.Errorf("request while another is in force: %v", err)
	}
	st, err := op.State(ctx, "db")
	if err != nil || st.Reservation == nil || st.Reservation.To != "b" {
		t.Errorf("reservation: %+v, %v", st.Reservation, err)
	}
	if err := op.Cancel(ctx, "db", "2"); err != nil {
		t.Fatal(err)
	}
	if st, err := op.State(ctx, "db"); err != nil || st.Reservation == nil {
		t.Errorf("cancelling another reservation deleted this one: %v", err)
	}
	for range 2 { // the second time there is none
		if err := op.Cancel(ctx, "db", "1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := op.Request(ctx, "db", other); err != nil {
		t.Errorf("request after the other was cancelled: %v", err)
	}
}

func testPauseAndResume(t *testing.T, c *etcdtest.Cluster) {
	ctx, op, a := t.Context(), realClient(t, c, "desk"), startReal(t, c, "a")
	l := takeReal(t, a, "db", time.Second)
	moved := supervisor.Reservation{ID: "1", To: "a", Reason: sdk.ReasonFailover, For: time.Minute, State: supervisor.Asked}
	if err := op.Request(ctx, "db", moved); err != nil {
		t.Fatal(err)
	}
	if err := l.Resign(ctx); err != nil {
		t.Fatal(err)
	}
	takeReal(t, a, "db", time.Second)
	for _, reason := range []string{"upgrade", "longer upgrade"} {
		if err := op.Pause(ctx, "db", supervisor.Pause{Reason: reason}); err != nil {
			t.Fatal(err)
		}
		st, err := op.State(ctx, "db")
		if err != nil || st.Pause == nil || st.Pause.Reason != reason || !st.Term.Moved {
			t.Errorf("paused: %+v, moved %t, %v", st.Pause, st.Term.Moved, err)
		}
	}
	for range 2 { // the second time it is not paused
		if err := op.Resume(ctx, "db"); err != nil {
			t.Fatal(err)
		}
		st, err := op.State(ctx, "db")
		if err != nil || st.Pause != nil || st.Term.Moved || st.Term.Term != 2 || st.Term.Node != "a" {
			t.Errorf("resumed: %+v, term %+v, %v", st.Pause, st.Term, err)
		}
	}
}

func testDrain(t *testing.T, c *etcdtest.Cluster) {
	ctx, op, a := t.Context(), realClient(t, c, "desk"), startReal(t, c, "a")
	takeReal(t, a, "db", time.Second)
	if err := op.Drain(ctx, supervisor.Drain{Node: "a", Reason: "new disk"}); err != nil {
		t.Fatal(err)
	}
	if st, err := op.State(ctx, "db"); err != nil || !st.IsDrained("a") || st.Drained[0].Reason != "new disk" {
		t.Errorf("drained: %+v, %v", st.Drained, err)
	}
	for range 2 {
		if err := op.Undrain(ctx, "a"); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := op.State(ctx, "db"); err != nil || st.IsDrained("a") {
		t.Errorf("undrained: %+v, %v", st.Drained, err)
	}
}

func testRemoveIsRefused(t *testing.T, c *etcdtest.Cluster) {
	ctx, op, a := t.Context(), realClient(t, c, "desk"), startReal(t, c, "a")
	takeReal(t, a, "db", time.Second)
	if err := op.Remove(ctx, "db"); !errors.Is(err, supervisor.ErrBusy) || !strings.Contains(err.Error(), "a is primary") {
		t.Errorf("remove while a is primary: %v", err)
	}
	if err := a.Elector("db", time.Second).Publish(ctx, supervisor.Candidate{Node: supervisor.Node{Name: "a"}}); err != nil {
		t.Fatal(err)
	}
	if err := op.Remove(ctx, "db"); !errors.Is(err, supervisor.ErrBusy) || !strings.Contains(err.Error(), "a member runs on a") {
		t.Errorf("remove while a is candidate: %v", err)
	}
	if st, err := op.State(ctx, "db"); err != nil || st.Primary == nil || len(st.Candidates) != 1 {
		t.Errorf("after the refusals: %+v, %v", st, err)
	}
}

func testRemoveAfterResigning(t *testing.T, c *etcdtest.Cluster) {
	ctx, op, a := t.Context(), realClient(t, c, "desk"), startReal(t, c, "a")
	if err := takeReal(t, a, "db", time.Second).Resign(ctx); err != nil {
		t.Fatal(err)
	}
	takeReal(t, a, "db2", time.Second)
	if err := a.Elector("db", time.Second).Record(ctx, supervisor.Change{Term: 1}); err != nil {
		t.Fatal(err)
	}
	if err := op.Pause(ctx, "db", supervisor.Pause{}); err != nil {
		t.Fatal(err)
	}
	if err := op.Remove(ctx, "db"); err != nil {
		t.Fatal(err)
	}
	if got, err := op.Services(ctx); err != nil || !slices.Equal(got, []string{"db2"}) {
		t.Errorf("services after removing db: %q, %v", got, err)
	}
}

func testRemoveOfADeadPrimary(t *testing.T, c *etcdtest.Cluster) {
	ctx, op, a := t.Context(), realClient(t, c, "desk"), startReal(t, c, "a")
	takeReal(t, a, "db", time.Second).Abandon()
	a.stop()
	begin := time.Now()
	if err := op.Remove(ctx, "db"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < time.Second {
		t.Errorf("removed after %v, before its primary's TTL of 1s was over", took)
	}
	if _, err := op.State(ctx, "db"); !errors.Is(err, supervisor.ErrNoService) {
		t.Errorf("state after the removal: %v", err)
	}
}
