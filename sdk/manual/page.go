package manual

import (
	"fmt"
	"strings"
)

// Page is the plugin's manual page, deputy-plugin-NAME(8), for man(7).
func (p Plugin) Page() (string, error) {
	p = p.cleaned()
	settings, err := Settings(p.Schema)
	if err != nil {
		return "", err
	}
	name := "deputy-plugin-" + p.Name
	r := roff{}
	// What is not known is left out: the date, so that the same plugin always
	// has the same page.
	r.request("TH", strings.ToUpper(name), "8", "", strings.TrimSpace(name+" "+p.Version), "Plugins of deputy")
	r.WriteString(".ad l\n.nh\n") // paths and settings are to be copied
	r.request("SH", "NAME")
	r.text(name + " - " + strings.TrimSuffix(p.Summary(), "."))

	var settled []block // what the plugin says of its settings
	chapter := ""
	r.request("SH", "DESCRIPTION")
	for i, b := range blocksOf(p.Doc) {
		switch {
		case b.kind == head && b.level == 1 && i == 0:
			r.block(block{kind: paragraph, text: b.text})
			continue
		case b.kind == head && b.level <= 2:
			chapter = b.text
		}
		switch {
		case chapter != settingsChapter:
			r.block(b)
		case b.kind != head && (b.kind != cells || !lists(b.rows, settings)):
			settled = append(settled, b)
		}
	}
	if strings.TrimSpace(p.Doc) == "" {
		r.text(p.Summary())
	}

	r.request("SH", "SETTINGS")
	if len(settings) == 0 {
		r.text("It has none.")
	} else {
		r.text("They stand under **config** in the definition of a service, **deputy-service**(5).")
	}
	for _, s := range settings {
		r.WriteString(".TP\n")
		r.text("**" + s.Key + "** = *" + s.Value + "*")
		words := s.Doc
		switch {
		case s.Required:
			words += ". **Required.**"
		case s.Default != "":
			words += ". Default: `" + s.Default + "`."
		default:
			words += "."
		}
		r.text(strings.TrimPrefix(words, "."))
	}
	for _, b := range settled {
		r.block(b)
	}

	r.request("SH", "CAPABILITIES")
	for _, c := range p.Capabilities {
		r.WriteString(".TP\n")
		r.text("**" + c + "**")
		r.text(calls(c))
	}
	if promises := p.promises(); len(promises) > 0 {
		r.request("SH", "WHAT IT PROMISES")
		r.text(strings.Join(promises, " "))
	}
	r.request("SH", "SEE ALSO")
	r.text("**deputy**(1), **deputy-service**(5), **deputy-plugins**(7)")
	return r.String(), nil
}

// lists reports whether a table has nothing but settings, which are told anyway.
func lists(rows [][]string, settings []Setting) bool {
	for _, row := range rows[min(1, len(rows)):] {
		known := false
		for _, s := range settings {
			known = known || strings.Trim(row[0], "`") == s.Key
		}
		if !known {
			return false
		}
	}
	return true
}

// A roff is a page in the language of man(7).
type roff struct {
	strings.Builder
	headed bool // nothing is below the last head yet
}

// paragraph begins one.
func (r *roff) paragraph() {
	if !r.headed {
		r.WriteString(".PP\n")
	}
	r.headed = false
}

// request writes a macro with its arguments.
func (r *roff) request(macro string, args ...string) {
	r.headed = true
	r.WriteString("." + macro)
	for _, a := range args {
		r.WriteString(` "` + strings.ReplaceAll(escaped(a), `"`, `\(dq`) + `"`)
	}
	r.WriteString("\n")
}

// text writes one line of Markdown.
func (r *roff) text(line string) {
	r.headed = false
	r.WriteString(set(line) + "\n")
}

func (r *roff) block(b block) {
	switch b.kind {
	case head:
		if b.level <= 2 {
			r.request("SS", plainOf(b.text))
			return
		}
		r.paragraph()
		r.text("**" + plainOf(b.text) + "**")
	case code:
		r.paragraph()
		r.WriteString(".in +4n\n.EX\n")
		for line := range strings.Lines(b.text) {
			line = escaped(strings.TrimRight(line, "\n "))
			if strings.HasPrefix(line, ".") || strings.HasPrefix(line, `\(aq`) {
				line = `\&` + line
			}
			r.WriteString(line + "\n")
		}
		r.WriteString(".EE\n.in\n")
	case list:
		for i, item := range b.items {
			mark := `\(bu`
			if numbered(b.mark) {
				mark = fmt.Sprintf("%d.", i+1)
			}
			r.WriteString(".IP " + mark + " 4\n")
			r.text(item)
		}
	case cells:
		r.table(b.rows)
	default:
		r.paragraph()
		r.text(b.text)
	}
}

// table writes rows as a list of what their first cells name: cells have
// sentences, for which a terminal has no room beside each other.
func (r *roff) table(rows [][]string) {
	for n, row := range rows {
		if n == 0 && strings.Join(row, "") == "" {
			continue
		}
		if len(row) < 2 {
			r.paragraph()
			r.text(row[0])
			continue
		}
		r.WriteString(".TP\n")
		if n == 0 {
			r.text("*" + plainOf(row[0]) + "*")
			r.text("*" + plainOf(strings.Join(row[1:], "; ")) + "*")
			continue
		}
		r.text(row[0])
		for i, cell := range row[1:] {
			if i > 0 {
				r.WriteString(".br\n")
			}
			r.text(cell)
		}
	}
}

// plainOf is a line of Markdown without what sets pieces of it off.
func plainOf(line string) string {
	var b strings.Builder
	for _, s := range spansOf(line) {
		b.WriteString(s.text)
	}
	return b.String()
}

// set is a line of Markdown in roff.
func set(line string) string {
	var b strings.Builder
	for _, s := range spansOf(line) {
		switch s.set {
		case 'C', 'B':
			b.WriteString(`\fB` + escaped(s.text) + `\fR`)
		case 'I':
			b.WriteString(`\fI` + escaped(s.text) + `\fR`)
		default:
			b.WriteString(escaped(s.text))
		}
	}
	text := strings.TrimLeft(b.String(), " ")
	if strings.HasPrefix(text, ".") || text == "" {
		return `\&` + text
	}
	return text
}

// escaped is text of which roff takes no letter for its own. What stands for
// something else in typography is what may be copied.
func escaped(text string) string {
	var b strings.Builder
	for _, c := range text {
		switch c {
		case '\\':
			b.WriteString(`\(rs`)
		case '-':
			b.WriteString(`\-`)
		case '\'':
			b.WriteString(`\(aq`)
		case '`':
			b.WriteString(`\(ga`)
		case '^':
			b.WriteString(`\(ha`)
		case '~':
			b.WriteString(`\(ti`)
		case '/':
			b.WriteString(`/\:`) // a long path may go on in the next line
		case '\n', '\r':
			b.WriteByte(' ')
		default:
			switch {
			case c < ' ' || c == 0x7f: // of no use to anybody
			case c > 0x7e:
				fmt.Fprintf(&b, `\[u%04X]`, c)
			default:
				b.WriteRune(c)
			}
		}
	}
	return b.String()
}
