package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// An explanation is what `deputy explain -o json` prints.
type explanation struct {
	Format  string             `json:"format"`
	Service string             `json:"service"`
	Primary string             `json:"primary,omitempty"`
	Role    sdk.Role           `json:"role,omitempty"` // of the primary, as it recorded it
	Term    sdk.Term           `json:"term"`
	Why     string             `json:"why"` // why the primary is where it is, or why there is none
	Last    *supervisor.Change `json:"last,omitempty"`
	Ranking []rank             `json:"ranking"`           // who would follow, first first
	IfLost  string             `json:"if_lost,omitempty"` // what would happen if the primary died now
	Unblock *supervisor.Remark `json:"unblock,omitempty"` // the one thing to do where there is no primary
	Notes   []string           `json:"notes,omitempty"`
}

// A rank is one candidate's place.
type rank struct {
	Place    int    `json:"place,omitempty"` // from 1; none for who may not lead
	Node     string `json:"node"`
	Priority int    `json:"priority"`
	Eligible bool   `json:"eligible"`
	Why      string `json:"why"`               // by the ranking
	Verdict  string `json:"verdict"`           // by the node itself, unless it was lost
	ToLead   string `json:"to_lead,omitempty"` // what would have to change for it to lead, or to come first
}

const explainFormat = "deputy.explain/1"

func (a *app) explainCommand() *cobra.Command {
	return a.prints(&cobra.Command{
		Use:   "explain SERVICE",
		Short: "Tell why the primary is where it is, and who would follow",
		Long: "Tell why the primary is where it is, what would happen if it died now, and of each\n" +
			"candidate its place, what put it there, and what would have to change for it to lead.\n" +
			"Where there is no primary, tell the one thing that ends that, with the command.\n\n" +
			"What only a plugin can tell when the role is vacant, who has more data, is not in it.\n\n" +
			"Its JSON is described in deputy-json(7).",
		Args: one("SERVICE"),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := interruptible(c.Context())
			defer stop()
			s, changes, err := a.past(ctx, args[0])
			if err != nil {
				return err
			}
			d, _ := a.definition(args[0])
			e := explain(s, changes, d.TTL)
			if a.json() {
				return a.printJSON(e)
			}
			fmt.Fprint(a.stdout, e.text(a.screen, time.Now()))
			return nil
		},
	})
}

// past returns what the records say of a service now, and of its past.
func (a *app) past(ctx context.Context, service string) (supervisor.State, []supervisor.Change, error) {
	way, err := a.contact(ctx, service)
	if err != nil {
		return supervisor.State{}, nil, err
	}
	defer way.close()
	ctx, cancel := context.WithTimeout(ctx, 2*askTime)
	defer cancel()
	s, err := way.state(ctx, service)
	if errors.Is(err, supervisor.ErrNoService) {
		return s, nil, a.noService(service)
	}
	if err != nil {
		return s, nil, way.fault(err)
	}
	changes, err := way.History(ctx, service)
	return s, changes, way.fault(err)
}

// state returns the service's state: as the daemon sees it, which has watched
// for a while, or else as the records say it.
func (c *contact) state(ctx context.Context, service string) (supervisor.State, error) {
	if c.daemon != nil {
		if st, err := c.daemon.Status(ctx); err == nil && st.Service == service {
			return st.State, nil
		}
	}
	return c.State(ctx, service)
}

func explain(s supervisor.State, changes []supervisor.Change, ttl time.Duration) explanation {
	e := explanation{Format: explainFormat, Service: s.Service, Term: s.Term.Term, Ranking: []rank{}}
	if n := len(changes); n > 0 {
		e.Last = &changes[n-1]
	}
	switch p := s.Primary; {
	case p != nil && !s.Vacant:
		e.Primary, e.Role = p.Node, p.State
		e.Why = "no record tells why"
		if e.Last != nil && e.Last.Term == p.Term {
			e.Why = e.Last.Cause
		}
	case p != nil:
		e.Why = p.Node + " was lost: its lease ran out"
	case s.Term.Term == 0:
		e.Why = "there was no primary yet"
	case e.Last != nil && e.Last.EndCause != "":
		e.Why = e.Last.Node + " left the role: " + e.Last.EndCause
	case s.Term.Resigned:
		e.Why = s.Term.Node + " has resigned"
	default:
		e.Why = fmt.Sprintf("the record of the primary is gone, and %s did not resign", s.Term.Node)
	}
	place, ranking := 0, supervisor.Ranking(s)
	if e.Primary != "" {
		e.IfLost = ifLost(s, ranking, ttl)
	}
	e.Unblock = unblock(s, ranking)
	for _, p := range ranking {
		r := rank{Node: p.Name, Priority: p.Priority, Eligible: p.Eligible, Why: p.Why, Verdict: p.Verdict, ToLead: toLead(s, ranking, p)}
		if p.Eligible {
			place++
			r.Place = place
		}
		e.Ranking = append(e.Ranking, r)
	}
	for _, n := range supervisor.NewReport(s, nil).Remarks(time.Now()) {
		e.Notes = append(e.Notes, n.Text)
	}
	return e
}

func (e explanation) text(s screen, now time.Time) string {
	var b strings.Builder
	head := "no primary"
	if e.Primary != "" {
		head = fmt.Sprintf("%s is %s, term %d", e.Primary, e.Role, e.Term)
		if e.Last != nil && e.Last.Term == e.Term {
			head += ", since " + since(e.Last.At, now)
		}
	}
	fmt.Fprintf(&b, "%s: %s\n", s.paint(bold, e.Service), head)
	lines := []string{"because " + e.Why}
	if e.IfLost != "" {
		lines = append(lines, fmt.Sprintf("if %s died now: %s", e.Primary, e.IfLost))
	}
	for _, n := range e.Notes {
		if !strings.HasPrefix(n, "no primary") {
			lines = append(lines, n)
		}
	}
	for _, l := range lines {
		b.WriteString("  " + strings.Join(wrap(tidy(l), s.width-2), "\n  ") + "\n")
	}
	if u := e.Unblock; u != nil {
		b.WriteString("  " + strings.Join(wrap("to have a primary: "+tidy(u.Text), s.width-2), "\n  ") + "\n")
		if u.Command != "" {
			b.WriteString("    " + typeThis(*u) + "\n")
		}
	}
	if len(e.Ranking) == 0 {
		b.WriteString("  no candidates: no supervisor takes part\n")
		return b.String()
	}
	b.WriteString("\n")
	t := table{head: []string{"PLACE", "NODE", "PRIORITY", "VERDICT"}}
	for _, r := range e.Ranking {
		place, st := "-", faint
		if r.Eligible {
			place, st = fmt.Sprint(r.Place), plain
		}
		why := r.Why
		if e.Primary == "" && r.Verdict != "" && r.Verdict != r.Why {
			why += "\nitself: " + r.Verdict
		}
		if r.ToLead != "" {
			why += "\nto lead: " + r.ToLead
		}
		t.add(cell{place, st}, cell{tidy(r.Node), st}, cell{fmt.Sprint(r.Priority), st}, cell{why, plain})
	}
	t.write(&b, s, "  ")
	return b.String()
}
