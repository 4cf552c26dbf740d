package supervisor

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Who takes part no more is absent until it is back; what is seen while etcd
// cannot be reached tells nothing, and nobody is absent from itself.
func TestAbsent(t *testing.T) {
	of := func(names ...string) State {
		var s State
		for _, n := range names {
			s.Candidates = append(s.Candidates, Candidate{Node: Node{Name: n}})
		}
		return s
	}
	blind := of()
	blind.Unreachable = "no answer"
	at := func(step int) time.Time { return time.Date(2030, 5, 6, 12, 0, step, 0, time.UTC) }
	var known []Absence
	was := State{}
	for i, step := range []struct {
		now  State
		want []Absence
	}{
		{of("db1", "db2", "db3"), nil},
		{blind, nil},
		{of("db1", "db2", "db3"), nil},
		{of("db1", "db2"), []Absence{{"db3", at(3)}}},
		{of("db1"), []Absence{{"db2", at(4)}, {"db3", at(3)}}},
		{of("db2"), []Absence{{"db3", at(3)}}},
		{of("db1", "db2", "db3"), nil},
	} {
		known = absent(known, was, step.now, "db1", at(i))
		was = step.now
		if d := cmp.Diff(step.want, known); d != "" {
			t.Errorf("step %d (-want +got):\n%s", i, d)
		}
	}
}
