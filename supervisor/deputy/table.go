package main

import (
	"strings"
	"unicode/utf8"

	"github.com/deputy-ha/deputy/sdk/manual"
)

// A table is lines of cells under a head. The last column takes what is left
// of the width, and is broken into lines where that does not do.
type table struct {
	head []string
	rows [][]cell

	oneLine bool // the last column is cut off rather than broken
}

// A cell is one text of a table. In the last column it may have several lines.
type cell struct {
	text  string
	style style
}

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

// minLast is the least width of a last column, however narrow the screen is.
const minLast = 20

// write puts the table into b, each line behind indent.
func (t *table) write(b *strings.Builder, s screen, indent string) {
	last := len(t.head) - 1
	widths := make([]int, last)
	for i := range widths {
		widths[i] = utf8.RuneCountInString(t.head[i])
		for _, row := range t.rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
	}
	left := s.width - len(indent)
	for _, w := range widths {
		left -= w + 2
	}
	left = max(left, minLast)

	head := make([]cell, len(t.head))
	for i, h := range t.head {
		head[i] = cell{h, faint}
	}
	for _, row := range append([][]cell{head}, t.rows...) {
		lines := []string{crop(tidy(row[last].text), left)}
		if !t.oneLine {
			lines = wrap(tidy(row[last].text), left)
		}
		for n, line := range lines {
			out := indent
			for i, w := range widths {
				text := ""
				if n == 0 {
					text = row[i].text
				}
				out += s.paint(row[i].style, text) + strings.Repeat(" ", w+2-utf8.RuneCountInString(text))
			}
			b.WriteString(strings.TrimRight(out+s.paint(row[last].style, line), " ") + "\n")
		}
	}
}

// wrap breaks text as descriptions of plugins are.
func wrap(text string, width int) []string { return manual.Wrap(text, width) }
