package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// A plan is what a switchover or failover would do, as --dry-run prints it. It
// is made by the same checks; nothing is written.
type plan struct {
	Format  string     `json:"format"`
	Service string     `json:"service"`
	Reason  sdk.Reason `json:"reason"`
	From    string     `json:"from,omitempty"`
	To      string     `json:"to"`
	// Demotes and Promotes are the parts in their order, by the definition of this
	// node; empty where it has none.
	Demotes  []bound       `json:"demotes"`
	Promotes []bound       `json:"promotes"`
	HandOver time.Duration `json:"hand_over_ns"` // it is undone when the old primary has not left after so long
	All      time.Duration `json:"all_ns"`       // it has ended, well or not, after so long
}

// A bound is a part, and the longest that its act may take.
type bound struct {
	Part    string        `json:"part"`
	Longest time.Duration `json:"longest_ns"`
}

const planFormat = "deputy.plan/1"

// dryRun prints what a move would do.
func (a *app) dryRun(s supervisor.State, r supervisor.Reservation, timeout time.Duration) error {
	p := plan{Format: planFormat, Service: s.Service, Reason: r.Reason, From: movesFrom(s), To: r.To, Demotes: []bound{}, Promotes: []bound{}}
	p.HandOver, p.All = a.patience(s.Service, timeout, r.Fenced != nil)
	d, known := a.definition(s.Service)
	for _, part := range d.Parts {
		p.Promotes = append(p.Promotes, bound{part.Name, part.Promote.Longest()})
		if s.Primary != nil && !s.Vacant {
			p.Demotes = append([]bound{{part.Name, part.Demote.Longest()}}, p.Demotes...)
		}
	}
	if a.json() {
		return a.printJSON(p)
	}
	from := ""
	if p.From != "" {
		from = " from " + p.From
	}
	fmt.Fprintf(a.stdout, "%s: %s%s to %s would be carried out; nothing is changed\n", p.Service, p.Reason, from, p.To)
	line := func(format string, args ...any) { fmt.Fprintf(a.stdout, "  "+format+"\n", args...) }
	switch {
	case !known:
		line("there is no definition of it here to tell its parts and their bounds")
	case len(p.Demotes) > 0:
		line("%s demotes %s", p.From, boundsText(p.Demotes))
	default:
		line("nobody has to demote: the role is vacant")
	}
	if known {
		line("%s promotes %s", p.To, boundsText(p.Promotes))
	}
	if s.Primary != nil && !s.Vacant {
		line("undone, and %s stays primary, when it has not left within %s", p.From, p.HandOver)
	}
	line("over, well or not, within %s", p.All)
	if len(r.Fenced) > 0 {
		line("not fenced, as you say that it is down for certain: %s", strings.Join(r.Fenced, ", "))
	}
	return nil
}

// boundsText lists parts in their order; those that cannot promote are passed
// over by the node itself.
func boundsText(parts []bound) string {
	var texts []string
	for _, p := range parts {
		texts = append(texts, fmt.Sprintf("%s (at most %s)", p.Part, p.Longest))
	}
	return strings.Join(texts, ", then ")
}

// movesFrom is who has the role that is moved, or had it.
func movesFrom(s supervisor.State) string {
	switch lost := s.Term.Lost(); {
	case s.Primary != nil:
		return s.Primary.Node
	case len(lost) > 0: // and not who took the role since, and could not fence it
		return lost[len(lost)-1].Node
	}
	return s.Term.Node
}
