package manual

import (
	"regexp"
	"strings"
)

// A block is one piece of Markdown.
type block struct {
	kind  blockKind
	level int        // of a chapter's head
	text  string     // of a head or paragraph in one line, of code as it stands
	items []string   // of a list
	mark  string     // of a list: the first item's mark
	rows  [][]string // of a table, the head first
}

type blockKind int

const (
	paragraph blockKind = iota
	head
	code
	list
	cells
)

// blocksOf takes Markdown apart.
func blocksOf(markdown string) (all []block) {
	item := regexp.MustCompile(`^ {0,3}([-*+]|[0-9]+[.)]) +(.*)$`)
	var open *block // what the next line may belong to
	begin := func(b block) *block {
		all = append(all, b)
		return &all[len(all)-1]
	}
	fenced := false
	for _, line := range strings.Split(strings.ReplaceAll(markdown, "\t", "    "), "\n") {
		trimmed := strings.TrimSpace(line)
		switch m := item.FindStringSubmatch(line); {
		case strings.HasPrefix(trimmed, "```"):
			if fenced = !fenced; fenced {
				open = begin(block{kind: code})
			} else {
				open = nil
			}
		case fenced:
			open.text += line + "\n"
		case trimmed == "":
			open = nil
		case strings.HasPrefix(line, "#"):
			text := strings.TrimLeft(line, "#")
			begin(block{kind: head, level: len(line) - len(text), text: strings.TrimSpace(text)})
			open = nil
		case strings.HasPrefix(trimmed, "|"):
			if open == nil || open.kind != cells {
				open = begin(block{kind: cells})
			}
			if row := rowOf(trimmed); strings.Trim(strings.Join(row, ""), "-: ") != "" {
				open.rows = append(open.rows, row)
			}
		case m != nil:
			if n := len(all); n > 0 && all[n-1].kind == list && numbered(all[n-1].mark) == numbered(m[1]) { // items may stand apart
				open = &all[n-1]
			} else {
				open = begin(block{kind: list, mark: m[1]})
			}
			open.items = append(open.items, m[2])
		case open != nil && open.kind == list:
			open.items[len(open.items)-1] += " " + trimmed
		case strings.HasPrefix(line, "    ") && (open == nil || open.kind == code):
			if open == nil {
				open = begin(block{kind: code})
			}
			open.text += line[4:] + "\n"
		case open != nil && open.kind == paragraph:
			open.text += " " + trimmed
		default:
			open = begin(block{kind: paragraph, text: trimmed})
		}
	}
	return all
}

// numbered reports whether an item's mark is a number.
func numbered(mark string) bool { return mark[0] >= '0' && mark[0] <= '9' }

// rowOf are the cells of a table's line.
func rowOf(line string) (cells []string) {
	const bar = "\x00"
	line = strings.TrimSuffix(strings.TrimPrefix(strings.ReplaceAll(line, `\|`, bar), "|"), "|")
	for _, cell := range strings.Split(line, "|") {
		cells = append(cells, strings.ReplaceAll(strings.TrimSpace(cell), bar, "|"))
	}
	return cells
}

// A span is a piece of a line that is set alike.
type span struct {
	set  byte // 'C' code, 'B' strong, 'I' emphasised, 'R' as ever
	text string
}

// spansOf takes a line of Markdown apart. Of a link its text is left.
func spansOf(line string) (all []span) {
	set := regexp.MustCompile("`([^`]+)`" + `|\*\*([^*]+)\*\*|(?:^|[\s(])\*([^*\s][^*]*)\*|\[([^]]+)\]\([^)]*\)`)
	at := 0
	put := func(kind byte, text string) {
		if text != "" {
			all = append(all, span{kind, text})
		}
	}
	for _, m := range set.FindAllStringSubmatchIndex(line, -1) {
		for i, kind := range []byte("CBIR") {
			if from, to := m[2*i+2], m[2*i+3]; from >= 0 {
				start := m[0]
				if kind == 'I' {
					start = from - 1
				}
				put('R', line[at:start])
				put(kind, line[from:to])
			}
		}
		at = m[1]
	}
	put('R', line[at:])
	return all
}
