// Package checker judges what was seen of a service from outside: when nodes
// acted, and what etcd recorded.
//
// What it guarantees: what it reports has happened. It counts for proven only
// what follows from answers and records whatever their delays were: a node acted
// from its first answer to its last question, and a record was written before it
// was seen. Its own test plays it histories with one mistake each.
//
// What it does not guarantee: to see what nobody asked about. What is shorter
// than the time between two questions, or happens while the recorder is held up,
// may be missed; the recorder tells how long that was.
package checker

import (
	"fmt"
	"math"
	"time"

	"github.com/deputy-ha/deputy/packaging/e2e/prober"
)

// A Record is one change of who is primary, as etcd has it.
type Record struct {
	Seen     prober.Instant // when it was seen: at the latest then it was written
	Revision int64          // etcd's, which tells the order
	Term     uint64
	Node     string // whose role begins; empty where one ends
}

// A Time is one in which the service has everything that it needs for a primary.
type Time struct{ From, To prober.Instant }

// A History is what was seen of one service, since a time at which the first of
// its records was in force.
type History struct {
	Service string
	Acts    []prober.Span // in order of time
	Records []Record      // in order of revisions
	Late    time.Duration // records were seen this long after they were written, at most

	Able    []Time        // in which a service is to have a primary
	Without time.Duration // it may lack one for so long in those times
}

// A Rule is one that a history has to keep.
type Rule string

// The rules.
const (
	Overlap Rule = "two at once"
	Growing Rule = "terms grow"
	HasTerm Rule = "no role without a term"
	Gave    Rule = "no act after the role was given up"
	Locked  Rule = "a primary while there can be one"
)

// A Violation is a rule that was broken, and how.
type Violation struct {
	Service string
	Rule    Rule
	At      prober.Instant
	Text    string
}

func (v Violation) String() string {
	return fmt.Sprintf("%s: %s: %s at %s", v.Service, v.Rule, v.Text, v.At)
}

// Check returns what is wrong, in the order of the rules.
func (h History) Check() (found []Violation) {
	report := func(r Rule, at prober.Instant, format string, args ...any) {
		found = append(found, Violation{h.Service, r, at, fmt.Sprintf(format, args...)})
	}
	for _, o := range prober.Overlaps(h.Acts) {
		report(Overlap, o.At, "%s and %s for %s", o.A, o.B, o.Dur)
	}
	h.checkTerms(report)
	h.checkActs(report)
	h.checkAble(report)
	return found
}

// checkTerms holds each new role against all terms before it.
func (h History) checkTerms(report func(Rule, prober.Instant, string, ...any)) {
	highest := uint64(0)
	for _, r := range h.Records {
		if r.Node == "" {
			continue
		}
		if r.Term <= highest {
			report(Growing, r.Seen, "%s is primary of term %d after there was term %d", r.Node, r.Term, highest)
		}
		highest = max(highest, r.Term)
	}
}

// A tenure is a time in which a node may act: from before its record was written
// to after that of its end was.
type tenure struct {
	node     string
	term     uint64 // the last one
	from, to prober.Instant
}

// tenures returns those of the records. Terms of one node that follow each other
// are one.
func (h History) tenures() (all []tenure) {
	var now *tenure // that goes on
	for i, r := range h.Records {
		if now != nil {
			now.to = r.Seen
			now = nil
		}
		if r.Node == "" {
			continue
		}
		from := r.Seen - h.Late
		if i == 0 {
			from = 0
		}
		if n := len(all); n > 0 && all[n-1].node == r.Node && from <= all[n-1].to {
			from = all[n-1].from
			all = all[:n-1]
		}
		all = append(all, tenure{r.Node, r.Term, from, forever})
		now = &all[len(all)-1]
	}
	return all
}

const forever = prober.Instant(math.MaxInt64)

// checkActs holds what nodes did against the terms that they had.
func (h History) checkActs(report func(Rule, prober.Instant, string, ...any)) {
	all := h.tenures()
	for _, act := range h.Acts {
		var mine *tenure // the last one that had begun
		for i, t := range all {
			if t.node == act.Node && t.from <= act.Start {
				mine = &all[i]
			}
		}
		switch {
		case mine == nil:
			report(HasTerm, act.First(), "%s acts and has no term", act.Node)
		case act.End > mine.to:
			report(Gave, mine.to, "%s acts %s after its term %d was over", act.Node, act.End-mine.to, mine.term)
		}
	}
}

// checkAble looks for times in which nobody acted though somebody could have.
func (h History) checkAble(report func(Rule, prober.Instant, string, ...any)) {
	for _, able := range h.Able {
		since := able.From
		note := func(to prober.Instant) {
			if lack := to - since; lack > h.Without {
				report(Locked, since, "nobody acts for %s, want at most %s", lack.Round(time.Millisecond), h.Without)
			}
		}
		for _, act := range h.Acts {
			if act.Last() < able.From || act.First() > able.To {
				continue
			}
			note(act.First())
			since = max(since, act.Last())
		}
		note(able.To)
	}
}
