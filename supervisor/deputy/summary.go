package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// weigh is how much the gravest remark on a service matters; empty where there
// is none.
func weigh(r supervisor.Report, now time.Time) supervisor.Weight {
	remarks := r.Remarks(now)
	if len(remarks) == 0 {
		return ""
	}
	return remarks[0].Weight
}

// maxNeeds bounds how many services a summary names.
const maxNeeds = 8

// summaryText tells how many services need somebody and, unless each is shown
// in detail below, of each why and what to type. Those come first in reports.
func summaryText(b *strings.Builder, reports []supervisor.Report, s screen, now time.Time, detail bool) {
	wrong, odd := 0, 0
	for _, r := range reports {
		switch weigh(r, now) {
		case supervisor.WeightWrong:
			wrong++
		case supervisor.WeightOdd:
			odd++
		}
	}
	text, st := fmt.Sprintf("%d services, all have a primary", len(reports)), good
	if wrong > 0 {
		verb := "needs"
		if wrong > 1 {
			verb = "need"
		}
		text, st = fmt.Sprintf("%d of %d services %s you", wrong, len(reports), verb), bad
	}
	if odd > 0 {
		text += fmt.Sprintf("; %d not as usual", odd)
	}
	b.WriteString(s.paint(st, text) + "\n")
	if detail || len(reports) <= fewServices {
		return
	}
	for _, r := range reports[:min(wrong, maxNeeds)] {
		n := r.Remarks(now)[0]
		for i, line := range wrap(tidy(r.Service+": "+n.Text), s.width-4) {
			b.WriteString(strings.Repeat(" ", 2+2*min(i, 1)) + s.paint(bad, line) + "\n")
		}
		if n.Command != "" {
			b.WriteString("    " + typeThis(n) + "\n")
		}
	}
	if wrong > maxNeeds {
		fmt.Fprintf(b, "  and %d more, below\n", wrong-maxNeeds)
	}
}

// listText shows one line of each service.
func listText(b *strings.Builder, reports []supervisor.Report, s screen, now time.Time) {
	t := table{head: listHead(), oneLine: true}
	for _, r := range reports {
		t.add(listCells(r, now)...)
	}
	t.write(b, s, "")
}

func listHead() []string {
	return []string{" ", "SERVICE", "PRIMARY", "TERM", "SINCE", "FIT", "REMARKS"}
}

// listCells are the line of a service: who is primary, for how long, and how
// many of the nodes that are known are fit.
func listCells(r supervisor.Report, now time.Time) []cell {
	mark := cell{" ", plain}
	weight := weigh(r, now)
	switch weight {
	case supervisor.WeightWrong:
		mark = cell{"!", bad}
	case supervisor.WeightOdd:
		mark = cell{"~", moving}
	}
	primary, age := cell{"-", plain}, "-"
	if p := r.Primary; p != nil && !r.Vacant {
		primary, age = cell{tidy(p.Node), roleStyle(p.State)}, since(p.Since, now)
		if p.State != sdk.RolePrimary {
			primary.text += " " + string(p.State)
		}
	}
	fit := 0
	for _, n := range r.Nodes {
		if n.Fit {
			fit++
		}
	}
	var texts []string
	for _, n := range r.Remarks(now) {
		if n.Weight == weight {
			texts = append(texts, n.Text)
		}
	}
	return []cell{
		mark,
		{tidy(r.Service), bold},
		primary,
		{termText(r.Term), plain},
		{age, plain},
		{fmt.Sprintf("%d/%d", fit, len(r.Nodes)), plain},
		{strings.Join(texts, "; "), weightStyle(weight)},
	}
}

// crop cuts a line that is too long.
func crop(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	if width <= 3 {
		return strings.Repeat(".", max(width, 0))
	}
	return string([]rune(text)[:width-3]) + "..."
}
