package manual

import (
	"strings"
	"unicode/utf8"
)

// Text is what there is to say at a terminal: what comes before the first
// chapter of the plugin's own words, what it can be called for, what it promises
// and its settings. What stands out goes through bold, and through faint what
// does not have to; nil leaves it.
func (p Plugin) Text(width int, bold, faint func(string) string) (string, error) {
	p = p.cleaned()
	settings, err := Settings(p.Schema)
	if err != nil {
		return "", err
	}
	s := sheetOf(width, bold, faint)
	s.WriteString(s.bold(p.Name))
	if p.Version != "" {
		s.WriteString(" " + p.Version)
	}
	if p.Path != "" {
		s.WriteString("  " + s.faint(p.Path))
	}
	s.WriteString("\n")
	intro, chapters := introOf(p.Doc)
	for _, b := range intro {
		s.block(b)
	}
	s.line("")
	s.lines(strings.Join(append([]string{"Can " + strings.Join(p.Capabilities, ", ") + "."}, p.promises()...), "\n"), "")
	s.line("")
	s.settings(settings)
	if len(chapters) > 0 {
		s.line("")
		s.lines("Its manual page has more: "+strings.Join(chapters, "; ")+". See describe -o man.", "")
	}
	return s.String(), nil
}

// SettingsText is the table of its settings alone.
func (p Plugin) SettingsText(width int) (string, error) {
	settings, err := Settings(p.Schema)
	if err != nil {
		return "", err
	}
	s := sheetOf(width, nil, nil)
	s.settings(settings)
	return s.String(), nil
}

// introOf returns what comes before the first chapter, without the title, and
// the chapters' names.
func introOf(doc string) (intro []block, chapters []string) {
	begun := false
	for i, b := range blocksOf(doc) {
		switch {
		case b.kind == head && b.level == 1 && i == 0:
			intro = append(intro, block{kind: paragraph, text: b.text})
		case b.kind == head && b.level <= 2:
			begun = true
			if b.text != settingsChapter {
				chapters = append(chapters, b.text)
			}
		case !begun:
			intro = append(intro, b)
		}
	}
	return intro, chapters
}

// settingsChapter is where a plugin says more of its settings than each alone.
const settingsChapter = "Settings"

// A sheet is text of some width.
type sheet struct {
	strings.Builder
	width       int
	bold, faint func(string) string
}

func sheetOf(width int, bold, faint func(string) string) *sheet {
	s := &sheet{width: max(width, 40), bold: bold, faint: faint}
	if s.bold == nil {
		s.bold = strings.Clone
	}
	if s.faint == nil {
		s.faint = strings.Clone
	}
	return s
}

func (s *sheet) settings(all []Setting) {
	if len(all) == 0 {
		s.line("It has no settings.")
		return
	}
	rows := [][]string{{"SETTING", "VALUE", "WHAT IT IS FOR"}}
	for _, one := range all {
		value := one.Value
		switch {
		case one.Required:
			value += "\nrequired"
		case one.Default != "":
			value += "\ndefault " + one.Default
		}
		rows = append(rows, []string{one.Key, value, one.Doc})
	}
	s.table(rows, "")
}

func (s *sheet) line(text string) { s.WriteString(strings.TrimRight(text, " ") + "\n") }

// lines breaks text at spaces, and puts indent before each line.
func (s *sheet) lines(text, indent string) {
	for _, line := range Wrap(text, s.width-len(indent)) {
		s.line(indent + line)
	}
}

func (s *sheet) block(b block) {
	s.line("")
	switch b.kind {
	case head:
		s.line(s.bold(b.text))
	case code:
		for line := range strings.Lines(b.text) {
			s.line("    " + strings.TrimRight(line, "\n"))
		}
	case list:
		for _, item := range b.items {
			for i, line := range Wrap(item, s.width-4) {
				s.line([]string{"  - ", "    "}[min(i, 1)] + line)
			}
		}
	case cells:
		s.table(b.rows, "  ")
	default:
		s.lines(b.text, "")
	}
}

// table writes rows below a head. Columns that are too wide give way, the
// widest first, but none below its longest word.
func (s *sheet) table(rows [][]string, indent string) {
	columns := 0
	for _, row := range rows {
		columns = max(columns, len(row))
	}
	widths, least := make([]int, columns), make([]int, columns)
	total := len(indent) + 2*(columns-1)
	for i := range widths {
		for _, row := range rows {
			if i >= len(row) {
				continue
			}
			for _, line := range strings.Split(row[i], "\n") {
				widths[i] = max(widths[i], utf8.RuneCountInString(line))
			}
			for word := range strings.FieldsSeq(row[i]) {
				least[i] = max(least[i], utf8.RuneCountInString(word))
			}
		}
		total += widths[i]
	}
	for ; total > s.width; total-- {
		widest := -1
		for i, w := range widths {
			if w > least[i] && (widest < 0 || w > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	for n, row := range rows {
		wrapped := make([][]string, columns)
		height := 0
		for i := range row {
			wrapped[i] = Wrap(row[i], widths[i])
			height = max(height, len(wrapped[i]))
		}
		for h := range height {
			line := indent
			for i := range row {
				text := ""
				if h < len(wrapped[i]) {
					text = wrapped[i][h]
				}
				pad := strings.Repeat(" ", max(widths[i]-utf8.RuneCountInString(text), 0)+2)
				switch {
				case text == "":
				case n == 0:
					text = s.faint(text)
				case i == 0:
					text = s.bold(text)
				}
				line += text + pad
			}
			s.line(line)
		}
	}
}

// Wrap breaks text at spaces so that no line is longer than width, except
// where a single word is.
func Wrap(text string, width int) []string {
	var lines []string
	for _, paragraph := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		line := ""
		for _, word := range strings.Fields(paragraph) {
			switch {
			case line == "":
				line = word
			case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
				line += " " + word
			default:
				lines = append(lines, line)
				line = word
			}
		}
		lines = append(lines, line)
	}
	return lines
}
