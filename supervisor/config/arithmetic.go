package config

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/deputy-ha/deputy/supervisor"
)

// A Table is the arithmetic of a service: what follows from its ttl and its
// policies. Durations are nanoseconds in JSON.
type Table struct {
	Service string        `json:"service"`
	TTL     time.Duration `json:"ttl_ns"`
	Lines   []Line        `json:"lines"`
	Checks  []Check       `json:"checks"`
	Layers  []Layer       `json:"layers"`
	Notes   []string      `json:"notes"`
}

// A Line is one duration.
type Line struct {
	Key  string        `json:"key"`
	What string        `json:"what"`
	Time time.Duration `json:"time_ns"`
	Why  string        `json:"why"`
}

// A Check is what follows from how one part is checked, if it can be.
type Check struct {
	Part     string              `json:"part"`
	Interval time.Duration       `json:"interval_ns"`
	Unfit    time.Duration       `json:"unfit_ns"` // a failure that stays is known for sure after that
	Fit      time.Duration       `json:"fit_ns"`   // and a recovery
	On       supervisor.On       `json:"on,omitempty"`
	Severity supervisor.Severity `json:"severity"`
}

// checks works out how soon the checks of a service notice, at worst: each
// answer comes as late as it may, and what changes does so right after one.
func checks(s supervisor.Service) []Check {
	all := []Check{}
	for _, p := range s.Parts {
		if !may(p, "check") {
			continue
		}
		c := p.Check
		after := func(answers int) time.Duration {
			pauses := c.Pause(false) + time.Duration(answers-1)*c.Pause(true)
			return pauses + pauses*time.Duration(c.Jitter)/100 + time.Duration(answers)*c.Timeout
		}
		all = append(all, Check{p.Name, c.Interval, after(c.Fall), after(c.Rise), c.On, c.Severity})
	}
	return all
}

// costs tells what a failure costs.
func (c Check) costs() string {
	switch {
	case c.Severity == supervisor.Warning:
		return "nothing, it is told"
	case c.Severity == supervisor.Eligibility, c.On == supervisor.OnStandby:
		return "promotion"
	case c.On == supervisor.OnPrimary:
		return "the role"
	case c.On == supervisor.OnBoth:
		return "the role, and promotion"
	}
	return "the role; promotion, if it only checks"
}

// Arithmetic works out a service's table. Every instant is reckoned from s,
// the sending of the last acknowledged pulse; T is the ttl.
func Arithmetic(s supervisor.Service) Table {
	t := supervisor.NewTiming(s.TTL)
	promote, demote := longest(s)
	table := Table{
		Service: s.Name,
		TTL:     s.TTL,
		Lines: []Line{
			{"renew", "renewal interval", t.Renew, "T/6, at least 50ms; a single pulse may take as long"},
			{"lost", "self-demotion deadline", t.Lost, "s + 0.75 T: not renewed by then, every part demotes by force"},
			{"forced", "forced budget", t.Forced(), "0.15 T: what a forced demotion has, for all parts at once"},
			{"watchdog", "watchdog", t.Watchdog, "T/5, within 200ms and 1s: the longest silence systemd allows"},
			{"trigger", "outside help", t.Trigger, "s + 0.9 T: not proven demoted, so the fences outside act"},
			{"until", "end of every guard", t.Until, "s + 0.95 T: nothing anywhere counts on more"},
			{"earliest", "earliest take-over", t.TTL, "s + T: from here on another node may be primary"},
			{"gap_typical", "no primary, typically", t.TTL - t.Renew/2, "a node is lost between two pulses; until another has the role"},
			{"gap_worst", "no primary, at worst", t.TTL + t.Renew + t.Step, "lost with a pulse on its way, and the second in line leads"},
			{"promote", "promoting, at most", promote, "comes on top: timeout × (1 + retries) of all parts"},
			{"demote", "demoting, at most", demote, "when planned: timeout × (1 + retries) of all parts"},
		},
		Checks: checks(s),
		Layers: layers(t),
		Notes:  notes(s, t),
	}
	if s.OnUnclean == supervisor.UncleanFence {
		table.Lines = append(table.Lines, Line{"fence", "fencing, at most", Fencing(s), "by one part, for each node that was lost: timeout × (1 + retries), before promoting"})
	}
	return table
}

// may reports whether a part may be able to do something. Of exec the definition
// tells; any other plugin is counted as one that can.
func may(p supervisor.Part, act string) bool { return p.Use != execPlugin || p.Config[act] != nil }

// longest adds up what promoting and demoting in order may take.
func longest(s supervisor.Service) (promote, demote time.Duration) {
	for _, p := range s.Parts {
		if may(p, "promote") {
			promote += p.Promote.Longest()
		}
		if may(p, "demote") {
			demote += p.Demote.Longest()
		}
	}
	return promote, demote
}

// Fencing is how long one part may take at most to fence one node.
func Fencing(s supervisor.Service) time.Duration {
	var most time.Duration
	for _, p := range s.Parts {
		if may(p, "fence") {
			most = max(most, p.Fence.Longest())
		}
	}
	return most
}

func notes(s supervisor.Service, t supervisor.Timing) []string {
	var notes []string
	if s.Priority == 0 {
		notes = append(notes, "This node never leads, as priority is 0; it takes part to follow.")
	}
	if t.TTL < 3*time.Second {
		notes = append(notes, "Address lifetimes are whole seconds and up to 0.46s late: below a ttl of 3s they tidy up and fence nothing.")
	}
	return append(notes, outageNote(t))
}

// columns is the width that the table keeps to.
const columns = 100

// Write prints the table for people, within 100 columns.
func (t Table) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: what follows from ttl T = %s (s: the sending of the last acknowledged pulse)\n\n", t.Service, short(t.TTL))
	for _, l := range t.Lines {
		fmt.Fprintf(&b, "  %s %9s  %s\n", pad(l.What, 22), ms(l.Time), l.Why)
	}
	if len(t.Checks) > 0 {
		fmt.Fprintf(&b, "\n  %s %-9s %-11s %-11s %s\n", pad("check", 18), "every", "unfit after", "fit after", "at worst; what a failure costs")
		for _, c := range t.Checks {
			fmt.Fprintf(&b, "  %s %-9s %-11s %-11s %s\n", pad(c.Part, 18), ms(c.Interval), ms(c.Unfit), ms(c.Fit), c.costs())
		}
	}
	fmt.Fprintf(&b, "\n  %s %-11s %-9s %s\n", pad("layer", 18), "has acted", "left of T", "against what; and below, what it guarantees at this ttl")
	for _, l := range t.Layers {
		left := ms(l.Left)
		if !l.Holds {
			left = "no"
		}
		fmt.Fprintf(&b, "  %s %-11s %-9s %s\n", pad(l.Layer, 18), "s+"+ms(l.By), left, l.Covers)
		for _, line := range wrap(l.Says, columns-6) {
			fmt.Fprintf(&b, "      %s\n", line)
		}
	}
	for _, note := range t.Notes {
		for i, line := range wrap(note, columns-4) {
			if i == 0 {
				b.WriteString("\n")
			}
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// pad fills a text with spaces to a width in characters.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}

// wrap breaks a text between words into lines of a width in characters.
func wrap(s string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(s) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// ms writes a duration rounded to what a person compares.
func ms(d time.Duration) string {
	if d >= 10*time.Second {
		return short(d.Round(100 * time.Millisecond))
	}
	return short(d.Round(time.Millisecond))
}
