package checker

import (
	"slices"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/packaging/e2e/prober"
)

// acts writes, in seconds, when a node acted.
func acts(node string, from, to float64) prober.Span {
	return prober.Span{Node: node, Start: seconds(from), End: seconds(to)}
}

func seconds(s float64) prober.Instant { return time.Duration(s * float64(time.Second)) }

func took(at float64, term uint64, node string) Record {
	return Record{Seen: seconds(at), Term: term, Node: node}
}

func gave(at float64) Record { return Record{Seen: seconds(at)} }

// Every kind of mistake is found, and what only looks like one is not.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name    string
		acts    []prober.Span
		records []Record
		want    []Rule
	}{
		{
			"a switchover",
			[]prober.Span{acts("a", 0, 2), acts("b", 2.03, 5)},
			[]Record{took(0, 1, "a"), gave(2.01), took(2.02, 2, "b")},
			nil,
		},
		{
			"a loss",
			[]prober.Span{acts("a", 0, 2), acts("b", 5.1, 8)},
			[]Record{took(0, 1, "a"), took(5, 2, "b")},
			nil,
		},
		{
			"a role given up and taken again by the same node",
			[]prober.Span{acts("a", 0, 9)},
			[]Record{took(0, 1, "a"), gave(2), took(2.05, 2, "a")},
			nil,
		},
		{
			"a record that was seen late",
			[]prober.Span{acts("a", 0, 2), acts("b", 2.03, 5)},
			[]Record{took(0, 1, "a"), gave(2.05), took(2.09, 2, "b")},
			nil,
		},
		{
			"two at once",
			[]prober.Span{acts("a", 0, 2.1), acts("b", 2.05, 5)},
			[]Record{took(0, 1, "a"), took(2.12, 2, "b")},
			[]Rule{Overlap},
		},
		{
			"a term that is given twice",
			[]prober.Span{acts("a", 0, 2), acts("b", 3, 5)},
			[]Record{took(0, 7, "a"), gave(2), took(2.9, 7, "b")},
			[]Rule{Growing},
		},
		{
			"a term that goes back",
			[]prober.Span{acts("a", 0, 2), acts("b", 3, 5)},
			[]Record{took(0, 7, "a"), gave(2), took(2.9, 6, "b")},
			[]Rule{Growing},
		},
		{
			"a node that was never given the role",
			[]prober.Span{acts("a", 0, 2), acts("c", 3, 4)},
			[]Record{took(0, 1, "a"), gave(2.05)},
			[]Rule{HasTerm},
		},
		{
			"a node that acts before it has the role",
			[]prober.Span{acts("a", 0, 2), acts("b", 2.5, 5)},
			[]Record{took(0, 1, "a"), gave(2.1), took(3, 2, "b")},
			[]Rule{HasTerm},
		},
		{
			"a role that is given up before it is left",
			[]prober.Span{acts("a", 0, 2.2)},
			[]Record{took(0, 1, "a"), gave(2.1)},
			[]Rule{Gave},
		},
		{
			"a late answer of one that was primary",
			[]prober.Span{acts("a", 0, 2), acts("b", 3, 3.5), acts("a", 4.01, 4), acts("b", 4.5, 5)},
			[]Record{took(0, 1, "a"), took(3, 2, "b")},
			[]Rule{Gave},
		},
		{
			"an answer on its way when the role was given up",
			[]prober.Span{{Node: "a", Start: seconds(2.2), End: seconds(2)}},
			[]Record{took(0, 1, "a"), gave(2.1)},
			nil,
		},
		{
			"nobody though somebody could",
			[]prober.Span{acts("a", 0, 2), acts("b", 7, 20)},
			[]Record{took(0, 1, "a"), took(6.9, 2, "b")},
			[]Rule{Locked},
		},
		{
			"nobody any more",
			[]prober.Span{acts("a", 0, 2)},
			[]Record{took(0, 1, "a"), gave(2.1)},
			[]Rule{Locked},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := History{
				Service: "db", Acts: c.acts, Records: c.records, Late: 100 * time.Millisecond, Without: 4 * time.Second,
				Able: []Time{{0, seconds(5)}},
			}
			if slices.Contains(c.want, Locked) {
				h.Able[0].To = seconds(20)
			}
			var got []Rule
			for _, v := range h.Check() {
				got = append(got, v.Rule)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", h.Check(), c.want)
			}
		})
	}
}
