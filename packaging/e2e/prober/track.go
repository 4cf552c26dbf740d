package prober

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// An Instant is CLOCK_BOOTTIME, the same for all processes of a machine.
type Instant = time.Duration

// together is how far apart two answers of a node may be that prove that it
// acted all the time in between.
const together = 25 * time.Millisecond

// A question has its place in a track for ever.
type question struct {
	asked, told Instant // told is zero for as long as there is no answer
	by          string  // the node that answered
}

// A track is all that was asked at one place, in order.
type track []question

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
func (t track) outages(from Instant) (found []Outage) {
	last, lost := -1, 0
	for i, q := range t {
		if q.told == 0 {
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

// A span is a time in which a node is proven to have acted: from start at the
// latest, to end at the earliest. Where end comes first, one answer alone was
// heard, some time between the two.
type span struct {
	node       string
	start, end Instant
}

func (s span) first() Instant  { return min(s.start, s.end) }
func (s span) last() Instant   { return max(s.start, s.end) }
func (s span) isGlimpse() bool { return s.end <= s.start }

// spans returns, in order of time, when each node acted since from.
func spans(tracks []track, from Instant) (all []span) {
	for _, t := range tracks {
		open := make(map[string]int) // a node's newest span, in all
		for _, q := range t {
			if q.told == 0 || q.asked < from {
				continue
			}
			i, ok := open[q.by]
			if !ok || q.asked-all[i].end > together {
				i = len(all)
				open[q.by] = i
				all = append(all, span{q.by, q.told, q.asked})
			}
			all[i].end = max(all[i].end, q.asked)
		}
	}
	slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.first(), b.first()) })
	return all
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

// overlaps returns the proven ones since from.
func overlaps(tracks []track, from Instant) (found []Overlap) {
	all := spans(tracks, from)
	for i, a := range all {
		for _, b := range all[i+1:] {
			if b.first() >= a.last() {
				break
			}
			// A single answer may have been given at any time of its span: it
			// proves something only when all of that lies within another's.
			if a.node == b.node || a.isGlimpse() || b.isGlimpse() && b.last() > a.last() {
				continue
			}
			found = append(found, Overlap{a.node, b.node, b.first(), max(min(a.end, b.end)-b.start, 0)})
		}
	}
	return found
}
