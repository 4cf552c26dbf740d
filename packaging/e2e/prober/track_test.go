package prober

import (
	"slices"
	"testing"
	"time"
)

const tick = 2 * time.Millisecond

// answered writes one letter a question: who answered it a millisecond later,
// or a dot for nobody.
func answered(who string) (t track) {
	for i, c := range who {
		q := question{asked: Instant(1+i) * tick}
		if c != '.' {
			q.told, q.by = q.asked+time.Millisecond, string(c)
		}
		t = append(t, q)
	}
	return t
}

func TestOutages(t *testing.T) {
	for who, want := range map[string][]Outage{
		"":          nil,
		"...":       nil,
		"aaa":       nil,
		"..aaa..":   nil,
		"aab":       {{4 * time.Millisecond, 7 * time.Millisecond, "a", "b", 0}},
		"a..a.b":    {{2 * time.Millisecond, 9 * time.Millisecond, "a", "a", 2}, {8 * time.Millisecond, 13 * time.Millisecond, "a", "b", 1}},
		"aa...bbb.": {{4 * time.Millisecond, 13 * time.Millisecond, "a", "b", 3}},
	} {
		if got := answered(who).outages(0); !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", who, got, want)
		}
	}
	if got := answered("a..a.b").outages(9 * time.Millisecond); len(got) != 1 || got[0].After != "b" {
		t.Errorf("since the end of the first: got %v, want the second alone", got)
	}
}

func TestOverlaps(t *testing.T) {
	for _, c := range []struct {
		name, a, b string
		want       int
		long       time.Duration
	}{
		{"one after the other", "aaaa....", "....bbbb", 0, 0},
		{"nobody else", "aaaa....", "........", 0, 0},
		{"together", "aaaaaa..", "..bbbbbb", 1, 5 * time.Millisecond},
		{"an answer in between", "aaaaaaaa", "...b....", 1, 0},
		{"an answer at the edge", "aaaa....", "...b....", 0, 0},
		{"a short loss proves no end", "aaa..aaa", "...bb...", 1, time.Millisecond},
		{"a long one does", "aaa..................aaa", ".........bb.............", 0, 0},
	} {
		got := overlaps([]track{answered(c.a), answered(c.b)}, 0)
		if len(got) != c.want || c.want > 0 && got[0].Dur != c.long {
			t.Errorf("%s: got %v, want %d of %s", c.name, got, c.want, c.long)
		}
	}
}

func TestOverlapOfOneTrack(t *testing.T) {
	// A client that is answered by turns proves it as well.
	if got := overlaps([]track{answered("abababab")}, 0); len(got) == 0 {
		t.Error("two nodes that answer by turns are not noticed")
	}
	if got := overlaps([]track{answered("aaaabbbb")}, 0); len(got) != 0 {
		t.Errorf("a change of nodes is taken for %v", got)
	}
}
