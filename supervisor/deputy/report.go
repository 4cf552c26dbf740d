package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// reportText shows a service. Detail adds the plugins on this node.
func reportText(b *strings.Builder, r supervisor.Report, s screen, now time.Time, detail bool) {
	title := s.paint(bold, r.Service)
	if r.Description != "" {
		title += ": " + tidy(r.Description)
	}
	b.WriteString(title + "\n")
	if len(r.Nodes) > 0 {
		t := table{head: []string{"NODE", "ROLE", "HEALTH", "TERM", "SINCE", "LEASE", "VERDICT"}}
		for _, n := range r.Nodes {
			t.add(nodeCells(n, now)...)
		}
		t.write(b, s, "  ")
	}
	if detail && r.Local != nil && len(r.Local.Parts) > 0 {
		t := table{head: []string{"PLUGIN on " + r.Local.Node, "USES", "PROMOTED", "CHECK", "DETAIL"}}
		for _, p := range r.Local.Parts {
			t.add(partCells(p)...)
		}
		t.write(b, s, "  ")
	}
	for _, n := range r.Remarks(now) {
		for _, line := range wrap(tidy(n.Text), s.width-2) {
			b.WriteString("  " + s.paint(weightStyle(n.Weight), line) + "\n")
		}
		if n.Weight == supervisor.WeightWrong && n.Command != "" {
			b.WriteString("    " + typeThis(n) + "\n")
		}
	}
}

// typeThis says what to type.
func typeThis(n supervisor.Remark) string {
	if n.On != "" {
		return fmt.Sprintf("type on %s: %s", tidy(n.On), n.Command)
	}
	return "type: " + n.Command
}

func nodeCells(n supervisor.NodeReport, now time.Time) []cell {
	health, lease := cell{"fit", plain}, cell{"-", plain}
	switch {
	case !n.Present, n.Role == sdk.RoleUnknown:
		health = cell{"-", plain}
	case !n.Fit:
		health = cell{"unfit", bad}
	}
	if n.LeaseLeft > 0 {
		lease.text = fmt.Sprintf("%.1fs", n.LeaseLeft.Seconds())
	}
	verdict := n.Verdict
	if n.Drained && !strings.Contains(verdict, "drained") {
		verdict = strings.TrimPrefix(verdict+"; drained", "; ")
	}
	if n.Banned && !strings.Contains(verdict, "banned") {
		verdict = strings.TrimPrefix(verdict+"; banned", "; ")
	}
	return []cell{
		{tidy(n.Node), plain},
		{string(n.Role), roleStyle(n.Role)},
		health,
		{termText(n.Term), plain},
		{since(n.Since, now), plain},
		lease,
		{verdict, plain},
	}
}

func partCells(p supervisor.PartStatus) []cell {
	promoted, check := "no", cell{"-", plain}
	if p.Promoted {
		promoted = "yes"
	}
	if p.Checked {
		check = cell{"fit", plain}
		switch {
		case p.Warning:
			check = cell{"warning", moving}
		case !p.Fit:
			check = cell{"unfit", bad}
		}
	}
	return []cell{{p.Name, plain}, {p.Use, plain}, {promoted, plain}, check, {p.Detail, plain}}
}

// weightStyle is how a note stands out.
func weightStyle(w supervisor.Weight) style {
	switch w {
	case supervisor.WeightWrong:
		return bad
	case supervisor.WeightOdd:
		return moving
	}
	return faint
}
