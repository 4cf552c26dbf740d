package prober

import (
	"slices"
	"testing"
	"time"
)

const tick = 2 * time.Millisecond

// answered writes one letter a question: who answered it a millisecond later,
// or a dot for nobody.
func answered(who string) (t []question) {
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
		if got := outages(answered(who), 0); !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", who, got, want)
		}
	}
	if got := outages(answered("a..a.b"), 9*time.Millisecond); len(got) != 1 || got[0].After != "b" {
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
		got := Overlaps(spans([][]question{answered(c.a), answered(c.b)}, 0))
		if len(got) != c.want || c.want > 0 && got[0].Dur != c.long {
			t.Errorf("%s: got %v, want %d of %s", c.name, got, c.want, c.long)
		}
	}
}

func TestOverlapOfOneTrack(t *testing.T) {
	// A client that is answered by turns proves it as well.
	if got := Overlaps(spans([][]question{answered("abababab")}, 0)); len(got) == 0 {
		t.Error("two nodes that answer by turns are not noticed")
	}
	if got := Overlaps(spans([][]question{answered("aaaabbbb")}, 0)); len(got) != 0 {
		t.Errorf("a change of nodes is taken for %v", got)
	}
}

// Where each node is asked at its own door alone, clients see whoever answers.
func TestMergedTracks(t *testing.T) {
	both := merge([][]question{answered("aa......"), answered("....bbb.")})
	want := []Outage{{4 * time.Millisecond, 11 * time.Millisecond, "a", "b", 2}}
	if got := outages(both, 0); len(both) != 8 || !slices.Equal(got, want) {
		t.Errorf("got %v of %d questions, want %v of 8", got, len(both), want)
	}
}

func TestForgottenQuestionsKeepTheirNumbers(t *testing.T) {
	var all track
	for i := range 10 {
		if n := all.ask(Instant(i) * tick); n != i {
			t.Fatalf("question %d has the number %d", i, n)
		}
	}
	all.forget(4 * tick)
	all.tell(3, "late", 9*tick) // to one that is forgotten
	all.tell(7, "a", 9*tick)
	all.tell(7, "b", 10*tick)
	if n := all.ask(10 * tick); n != 10 {
		t.Errorf("the next question has the number %d, want 10", n)
	}
	if q := all.newest(); q.asked != 7*tick || q.by != "a" {
		t.Errorf("the newest answer is %+v, want the first to question 7", q)
	}
	if len(all.asked) != 7 {
		t.Errorf("%d questions are left, want 7", len(all.asked))
	}
}

// A host that was frozen answers what it was asked meanwhile when it goes on: not
// all the time since then.
func TestAnswersThatComeLate(t *testing.T) {
	asked := answered("aaaaaaaaaa")
	for i := range asked[4:] {
		asked[4+i].told = 10 * time.Second
	}
	if got := spans([][]question{asked}, 0); got[0].End != 8*time.Millisecond || !got[len(got)-1].IsGlimpse() {
		t.Errorf("got %v, want one that ends with the last that was answered at once", got)
	}
	if got := outages(append(asked, question{asked: 11 * time.Second, told: 11 * time.Second, by: "b"}), 0); len(got) != 1 || got[0].Lost != 6 {
		t.Errorf("got %v, want one in which 6 are lost", got)
	}
}

// What the machine has no time for is lost at the control too.
func TestLostUnlikeAControl(t *testing.T) {
	asked, control := answered("aa....aa..a."), answered("bbb..bbbbbbb")
	if got := lostUnlike(asked, control, 0); got != 4 { // of 6 in outages, and one whose outage has not ended
		t.Errorf("%d are lost while the control answers, want 4", got)
	}
	if got := lostUnlike(asked, control, 8*tick); got != 2 {
		t.Errorf("%d are lost since the first outage, want 2", got)
	}
	control[2].told = control[2].asked + patience + tick
	if got := lostUnlike(asked, control, 0); got != 3 {
		t.Errorf("%d are lost where the control answers late, want 3", got)
	}
}

func TestDoubled(t *testing.T) {
	at := func(from, dur int) Overlap { return Overlap{At: Instant(from), Dur: time.Duration(dur)} }
	for _, c := range []struct {
		all  []Overlap
		want time.Duration
	}{
		{nil, 0},
		{[]Overlap{at(1, 4), at(9, 2)}, 6},
		{[]Overlap{at(1, 4), at(3, 5), at(4, 1)}, 7},
	} {
		if got := Doubled(c.all); got != c.want {
			t.Errorf("%v: got %d, want %d", c.all, got, c.want)
		}
	}
}
