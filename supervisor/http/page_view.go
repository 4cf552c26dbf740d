package http

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

const (
	patience = time.Second            // what all services together have to answer in
	fresh    = 400 * time.Millisecond // who looks again before that sees the same

	// The past is read from etcd: rarely, unless something happens.
	pastFresh = 10 * time.Second
	pastShown = 5 // changes of a service, and
	pastAll   = 8 // of all together

	openUpTo = 6 // services that are shown in full though they are well
)

// A lookout looks at the services for the page. Whatever the number of those
// who look at the page, a service is asked twice in a second at most.
type lookout struct {
	node Node

	mu    sync.Mutex // held while the services are asked, for so long as patience
	last  pageView
	asked map[string]answered
}

// An answered is what was last heard of a service.
type answered struct {
	report supervisor.Report
	at     time.Time // when the report was asked for; zero for never
	past   []supervisor.Change
	pastAt time.Time
	// settled: the past told of the present tenure when it was read, so that
	// nothing is about to be added to it.
	settled bool
}

// A pageView is what the page shows.
type pageView struct {
	Node     string // this one, as far as a service tells it
	At       time.Time
	Title    string // what there is to know, in one sentence
	Needs    bool   // somebody has to do something
	Urgent   []card // those that are not well, the wrong ones first
	Services []card // all, by name
	Hosts    []host
	Changes  []event // of all services, the newest first
}

// A card is one service on the page.
type card struct {
	supervisor.Report
	State   supervisor.Weight // wrong, odd, or empty when it is well
	Matters []supervisor.Remark
	Notes   []supervisor.Remark // for the record
	Advice  []advice
	Lead    string // in a few words, who is primary
	Since   string // how long that one is in its role
	Silent  time.Time
	Rows    []row
	Changes []event // the newest first
	Open    bool
}

// An advice is a command, and what it is for.
type advice struct{ Command, For string }

// A row is one node of a service.
type row struct {
	supervisor.NodeReport
	Health string // fit or unfit; empty where nobody knows
	Age    string
	Trust  string // good, moving, bad or quiet: how its role stands out
}

// A host is one node, whatever runs on it.
type host struct {
	Name, Address, Version string
	Here, Drained          bool
	Leads                  []string // the services it is primary of
	Stands                 int      // those it takes part in otherwise
	Wrong                  []string // those it is unfit for, or absent from
}

// An event is one tenure of a service.
type event struct {
	Service string
	supervisor.Change
	Ago  string
	Kept string // for how long, once it has ended
	Took string // all steps together
}

// view asks the services, or returns what they have just said.
func (l *lookout) view(ctx context.Context) pageView {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if since := now.Sub(l.last.At); since >= 0 && since < fresh {
		return l.last
	}
	// Who asked may leave; the others who wait want an answer all the same.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), patience, fmt.Errorf("no answer within %s", patience))
	defer cancel()
	names := l.node.Services()
	slices.Sort(names)
	heard, errs := make([]answered, len(names)), make([]error, len(names))
	look := func(ctx context.Context, name string) (answered, error) { return l.ask(ctx, name, l.asked[name], now) }
	each(ctx, names, look, func(i int, a answered, err error) { heard[i], errs[i] = a, err })
	l.asked = map[string]answered{}
	for i, name := range names {
		l.asked[name] = heard[i]
	}
	l.last = newView(names, heard, errs, now)
	return l.last
}

// ask returns what a service says, and what it last said with an error.
func (l *lookout) ask(ctx context.Context, name string, a answered, now time.Time) (answered, error) {
	r, err := l.node.Report(ctx, name)
	if err != nil {
		return a, err
	}
	r.Service = name
	a.report, a.at = r, now
	if r.Unreachable != "" || a.settled && settled(r, a.past) && now.Sub(a.pastAt) < pastFresh {
		return a, nil
	}
	past, err := l.node.History(ctx, name)
	if err != nil {
		return a, nil // of now it has told: what it cannot reach is in the report
	}
	a.past, a.pastAt, a.settled = past, now, settled(r, past)
	return a, nil
}

// settled reports whether a past tells of the tenure that a report tells of.
func settled(r supervisor.Report, past []supervisor.Change) bool {
	if len(past) == 0 || r.Primary == nil || r.Vacant || r.Primary.State != sdk.RolePrimary {
		return false
	}
	last := past[len(past)-1]
	return last.Term == r.Primary.Term && last.Ended.IsZero()
}

func newView(names []string, heard []answered, errs []error, now time.Time) pageView {
	v := pageView{At: now}
	for i, name := range names {
		c := newCard(name, heard[i], errs[i], now)
		if c.Local != nil && v.Node == "" {
			v.Node = c.Local.Node
		}
		v.Services = append(v.Services, c)
		v.Changes = append(v.Changes, c.Changes...)
	}
	for i := range v.Services {
		c := &v.Services[i]
		c.Open = len(names) <= openUpTo || c.State != ""
		if c.State != "" {
			v.Urgent = append(v.Urgent, *c)
		}
	}
	wrong := func(c card) int {
		if c.State == supervisor.WeightWrong {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(v.Urgent, func(a, b card) int { return cmp.Compare(wrong(a), wrong(b)) })
	slices.SortStableFunc(v.Changes, func(a, b event) int { return b.moment().Compare(a.moment()) })
	v.Changes = v.Changes[:min(len(v.Changes), pastAll)]
	v.Hosts = hosts(v)
	v.Title, v.Needs = title(v)
	return v
}

// title tells in one sentence how it stands.
func title(v pageView) (text string, needs bool) {
	all, wrong := len(v.Services), 0
	for _, c := range v.Urgent {
		if c.State == supervisor.WeightWrong {
			wrong++
		}
	}
	switch odd := len(v.Urgent) - wrong; {
	case all == 0:
		return "No service runs on this node", false
	case wrong > 0:
		return fmt.Sprintf("%s %s somebody", some(wrong, all), plural(wrong, "needs", "need")), true
	case odd > 0:
		return fmt.Sprintf("%s %s not as usual", some(odd, all), plural(odd, "is", "are")), false
	}
	return "All is well", false
}

// some is so many of the services.
func some(n, all int) string {
	if n == all {
		return plural(n, "The service", fmt.Sprintf("All %d services", n))
	}
	return fmt.Sprintf("%d of %d services", n, all)
}

func plural(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

func newCard(name string, a answered, err error, now time.Time) card {
	c := card{Report: a.report, Lead: "no primary"}
	c.Service = name
	if err != nil {
		c.Silent = a.at
		text := "the supervisor here does not answer: " + err.Error()
		if !a.at.IsZero() {
			text += fmt.Sprintf("; this is what it said %s ago", supervisor.Age(now.Sub(a.at)))
		}
		c.Matters = append(c.Matters, supervisor.Remark{Text: text, Weight: supervisor.WeightWrong})
	}
	if err == nil || !a.at.IsZero() {
		c.told(now)
	} else {
		c.Lead = "nothing is known"
	}
	for _, m := range c.Matters {
		if c.State = supervisor.WeightOdd; m.Weight == supervisor.WeightWrong {
			c.State = supervisor.WeightWrong
			break
		}
	}
	c.Advice = advise(c.Report, err != nil, now)
	for _, change := range slices.Backward(a.past) {
		if len(c.Changes) == pastShown {
			break
		}
		c.Changes = append(c.Changes, newEvent(name, change, now))
	}
	return c
}

// told puts in what the report says.
func (c *card) told(now time.Time) {
	for _, m := range c.Remarks(now) {
		if m.Weight == supervisor.WeightPast {
			c.Notes = append(c.Notes, m)
		} else {
			c.Matters = append(c.Matters, m)
		}
	}
	if p := c.Primary; p != nil && !c.Vacant {
		c.Lead, c.Since = fmt.Sprintf("%s is %s", p.Node, p.State), since(p.Since, now)
		if p.State == sdk.RolePromoting || p.State == sdk.RoleDemoting {
			if c.Local == nil || c.Local.Doing == "" { // else that says more
				c.Matters = append(c.Matters, supervisor.Remark{Text: c.Lead, Weight: supervisor.WeightOdd})
			}
		}
	}
	for _, n := range c.Nodes {
		r := newRow(n, now)
		if !c.Silent.IsZero() {
			r.LeaseLeft = 0 // it was so much then
		}
		c.Rows = append(c.Rows, r)
	}
}

func newRow(n supervisor.NodeReport, now time.Time) row {
	r := row{NodeReport: n, Age: since(n.Since, now), Trust: "quiet"}
	switch n.Role {
	case sdk.RolePrimary:
		r.Trust = "good"
	case sdk.RolePromoting, sdk.RoleDemoting:
		r.Trust = "moving"
	case sdk.RoleBlocked, sdk.RoleFailed:
		r.Trust = "bad"
	}
	if n.Present && n.Role != sdk.RoleUnknown {
		if r.Health = "fit"; !n.Fit {
			r.Health = "unfit"
		}
	}
	if n.Drained && !strings.Contains(n.Verdict, "drained") {
		r.Verdict = strings.TrimPrefix(n.Verdict+"; drained", "; ")
	}
	return r
}

// since is how long ago t was; empty for never.
func since(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return supervisor.Age(now.Sub(t))
}

// plain is a name that a shell takes as it stands.
var plain = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// advise tells what to type about a service, the most telling first: what its
// remarks say. What has a strange name is not to be copied into a shell.
func advise(r supervisor.Report, silent bool, now time.Time) (all []advice) {
	if !plain.MatchString(r.Service) {
		return nil
	}
	if silent {
		return []advice{
			{"systemctl status deputy@" + r.Service, "is its supervisor running"},
			{"journalctl -u deputy@" + r.Service + " -n 50", "what it said last"},
		}
	}
	say := func(a advice) {
		if a.Command != "" && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	for _, m := range r.Remarks(now) {
		switch {
		case m.On == "":
			say(advice{m.Command, "type"})
		case plain.MatchString(m.On):
			say(advice{m.Command, "type on " + m.On})
		}
	}
	for _, n := range r.Nodes {
		if n.Drained && plain.MatchString(n.Node) {
			say(advice{"deputy undrain " + n.Node, "lets it lead again"})
		}
		if n.Banned && plain.MatchString(n.Node) {
			say(advice{"deputy unban " + r.Service + " " + n.Node, "lets it lead this service again"})
		}
	}
	return all
}

func newEvent(service string, c supervisor.Change, now time.Time) event {
	e := event{Service: service, Change: c, Ago: since(c.At, now)}
	if !c.Ended.IsZero() {
		e.Kept = supervisor.Age(c.Ended.Sub(c.At))
	}
	var took time.Duration
	for _, s := range c.Steps {
		took += s.Dur
	}
	if len(c.Steps) > 0 {
		e.Took = supervisor.Short(took)
	}
	return e
}

// moment is when something last happened in a tenure.
func (e event) moment() time.Time {
	if e.Ended.IsZero() {
		return e.At
	}
	return e.Ended
}

// hosts gathers the nodes of all services, by name.
func hosts(v pageView) []host {
	all := map[string]*host{}
	for _, c := range v.Services {
		for _, n := range c.Rows {
			h := all[n.Node]
			if h == nil {
				h = &host{Name: n.Node, Here: n.Node == v.Node}
				all[n.Node] = h
			}
			h.Address, h.Version = cmp.Or(h.Address, n.Address), cmp.Or(h.Version, n.Version)
			h.Drained = h.Drained || n.Drained
			switch {
			case supervisor.Holds(n.Role):
				h.Leads = append(h.Leads, c.Service)
			case n.Present && n.Role != sdk.RoleUnknown:
				h.Stands++
			}
			if !n.Present || !n.Fit {
				h.Wrong = append(h.Wrong, c.Service)
			}
		}
	}
	var list []host
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, *all[name])
	}
	return list
}
