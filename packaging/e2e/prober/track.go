package prober

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// An Instant is CLOCK_BOOTTIME, the same for all processes of a machine.
type Instant = time.Duration

// together is how far apart two answers of a node may be that prove that it
// acted all the time in between.
const together = 25 * time.Millisecond

// patience is how long a client waits for an answer. A host that was frozen gives
// those that it owes when it goes on.
const patience = time.Second

// A question has its number in a track for ever.
type question struct {
	asked, told Instant // told is zero for as long as there is no answer
	by          string  // the node that answered
}

// heard is when it was answered; after everything for as long as it is not.
func (q question) heard() Instant {
	if q.told == 0 {
		return math.MaxInt64
	}
	return q.told
}

// served reports whether a client was still there when the answer came.
func (q question) served() bool { return q.told != 0 && q.told-q.asked <= patience }

// A track is all that was asked at one place, in order, but for what is
// forgotten.
type track struct {
	asked     []question
	forgotten int
}

// ask adds a question and returns its number.
func (t *track) ask(at Instant) (number int) {
	t.asked = append(t.asked, question{asked: at})
	return t.forgotten + len(t.asked) - 1
}

// tell keeps the first answer to a question.
func (t *track) tell(number int, by string, at Instant) {
	i := number - t.forgotten
	if i < 0 || i >= len(t.asked) || t.asked[i].told != 0 {
		return
	}
	t.asked[i].told, t.asked[i].by = at, by
}

// newest returns the newest question that was answered; a zero one for none.
func (t *track) newest() question {
	for _, q := range slices.Backward(t.asked) {
		if q.told != 0 {
			return q
		}
	}
	return question{}
}

// forget drops what was asked before an instant.
func (t *track) forget(before Instant) {
	n, _ := slices.BinarySearchFunc(t.asked, before, func(q question, at Instant) int { return cmp.Compare(q.asked, at) })
	t.asked = slices.Clone(t.asked[n:])
	t.forgotten += n
}

// merge returns what was asked at the same time in several tracks as one
// question each, with its first answer.
func merge(tracks [][]question) (all []question) {
	for _, t := range tracks {
		all = append(all, t...)
	}
	slices.SortStableFunc(all, func(a, b question) int {
		return cmp.Or(cmp.Compare(a.asked, b.asked), cmp.Compare(a.heard(), b.heard()))
	})
	return slices.CompactFunc(all, func(a, b question) bool { return a.asked == b.asked })
}

// An Outage is the time from the last question that was answered to the next
// answer, with questions without an answer in between, or another node's.
type Outage struct {
	From, To      Instant
	Before, After string // the nodes that answered
	Lost          int    // questions without an answer
}

// Dur is how long nobody answered.
func (o Outage) Dur() time.Duration { return o.To - o.From }

func (o Outage) String() string {
	return fmt.Sprintf("%s without an answer, %d lost, %s before and %s after", o.Dur().Round(100*time.Microsecond), o.Lost, o.Before, o.After)
}

// outages returns those that ended after from. What came before the first
// answer, or after the last, is none: nobody knows its length.
func outages(t []question, from Instant) (found []Outage) {
	last, lost := -1, 0
	for i, q := range t {
		if !q.served() {
			lost++
			continue
		}
		if last >= 0 && q.told > from && (lost > 0 || t[last].by != q.by) {
			// From when the last one was asked: its answer may have come late.
			o := Outage{t[last].asked, q.told, t[last].by, q.by, lost}
			found = append(found, o)
		}
		last, lost = i, 0
	}
	return found
}

// lostUnlike counts the questions without an answer in the outages of t that
// ended after from whose counterparts in control, asked at the same instants,
// were answered.
func lostUnlike(t, control []question, from Instant) (lost int) {
	at := func(q question, asked Instant) int { return cmp.Compare(q.asked, asked) }
	for _, o := range outages(t, from) {
		first, _ := slices.BinarySearchFunc(t, o.From, at)
		last, _ := slices.BinarySearchFunc(t, o.To, at)
		for _, q := range t[first:last] {
			i, found := slices.BinarySearchFunc(control, q.asked, at)
			if found && !q.served() && control[i].served() {
				lost++
			}
		}
	}
	return lost
}

// A Span is a time in which a node is proven to have acted: from Start at the
// latest, to End at the earliest. Where End comes first, one answer alone was
// heard, some time between the two.
type Span struct {
	Node       string
	Start, End Instant
}

// First is before all that the span proves.
func (s Span) First() Instant { return min(s.Start, s.End) }

// Last is after all that the span proves.
func (s Span) Last() Instant { return max(s.Start, s.End) }

// IsGlimpse reports whether one answer alone was heard.
func (s Span) IsGlimpse() bool { return s.End <= s.Start }

// spans returns, in order of time, when each node acted since from.
func spans(tracks [][]question, from Instant) (all []Span) {
	for _, t := range tracks {
		open := make(map[string]int) // a node's newest span, in all
		for _, q := range t {
			if q.told == 0 || q.asked < from {
				continue
			}
			if q.told-q.asked > together { // some time in between, and no longer
				all = append(all, Span{q.by, q.told, q.asked})
				continue
			}
			i, ok := open[q.by]
			if !ok || q.asked-all[i].End > together {
				i = len(all)
				open[q.by] = i
				all = append(all, Span{q.by, q.told, q.asked})
			}
			all[i].End = max(all[i].End, q.asked)
		}
	}
	slices.SortFunc(all, func(a, b Span) int { return cmp.Compare(a.First(), b.First()) })
	return all
}

// A Reply is an answer that somebody else than a prober got.
type Reply struct {
	Asked, Told Instant
	By          string // the node that gave it
}

// Proven returns, in order of time, when each node acted since from, by answers
// in any order.
func Proven(all []Reply, from Instant) []Span {
	t := make([]question, 0, len(all))
	for _, a := range all {
		t = append(t, question{asked: a.Asked, told: a.Told, by: a.By})
	}
	slices.SortFunc(t, func(a, b question) int { return cmp.Compare(a.asked, b.asked) })
	return spans([][]question{t}, from)
}

// An Overlap is a time in which two nodes acted, proven by their answers.
type Overlap struct {
	A, B string
	At   Instant
	Dur  time.Duration // at least; zero for an instant
}

func (o Overlap) String() string {
	return fmt.Sprintf("%s and %s together for %s at %s", o.A, o.B, o.Dur, o.At)
}

// Overlaps returns the proven ones among spans in order of time.
func Overlaps(all []Span) (found []Overlap) {
	for i, a := range all {
		for _, b := range all[i+1:] {
			if b.First() >= a.Last() {
				break
			}
			// A single answer may have been given at any time of its span: it
			// proves something only when all of that lies within another's.
			if a.Node == b.Node || a.IsGlimpse() || b.IsGlimpse() && b.Last() > a.Last() {
				continue
			}
			found = append(found, Overlap{a.Node, b.Node, b.First(), max(min(a.End, b.End)-b.Start, 0)})
		}
	}
	return found
}

// Doubled is how long overlaps in order of time last in all. What is proven more
// than once, by several ways of asking, counts once.
func Doubled(all []Overlap) (sum time.Duration) {
	end := Instant(0)
	for _, o := range all {
		sum += max(o.At+o.Dur-max(o.At, end), 0)
		end = max(end, o.At+o.Dur)
	}
	return sum
}
