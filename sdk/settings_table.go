package sdk

import (
	"encoding/json"
	"fmt"
	"strings"
)

// scalar is the shape of what a setting holds, or of what its list holds.
func (f *field) scalar() *shape {
	s := f.shape
	for s.elem != nil {
		s = s.elem
	}
	return s
}

// limits says between what a number or duration may be.
func (f *field) limits() string {
	switch least, most := f.least.IsValid(), f.most.IsValid(); {
	case least && most:
		return f.bounds[0] + " to " + f.bounds[1]
	case least:
		return "at least " + f.bounds[0]
	case most:
		return "at most " + f.bounds[1]
	}
	return ""
}

// A row says of one setting what people want to know.
type row struct{ key, value, standard, doc string }

func (s *settings) rows() []row { return s.top.rows("") }

func (s *shape) rows(path string) []row {
	var all []row
	for _, f := range s.fields {
		key := below(path, f.key)
		r := row{key: key, value: f.words(), doc: f.doc}
		switch {
		case f.required:
			r.standard = "required"
		case f.standard != nil:
			text, _ := json.Marshal(f.standard) // what a tag said is written in JSON as in TOML
			r.standard = string(text)
		}
		all = append(all, r)
		one := f.shape
		for one.elem != nil {
			if one.kind == list {
				key += "[]"
			} else {
				key += ".*"
			}
			one = one.elem
		}
		all = append(all, one.rows(key)...)
	}
	return all
}

// words says what may be written.
func (f *field) words() string {
	words := f.shape.words()
	if f.enum != nil {
		quoted := make([]string, len(f.enum))
		for i, one := range f.enum {
			quoted[i] = fmt.Sprintf("%q", one)
		}
		words = strings.Join(quoted, ", ")
		if n := len(quoted); n > 1 {
			words = strings.Join(quoted[:n-1], ", ") + " or " + quoted[n-1]
		}
		if f.shape.kind == list {
			words = "array of " + words
		}
	}
	if limits := f.limits(); limits != "" {
		words += ", " + limits
	}
	if f.sensitive {
		words += ", secret"
	}
	return words
}

func (s *shape) words() string {
	switch s.kind {
	case boolean:
		return "true or false"
	case whole:
		return "whole number"
	case number:
		return "number"
	case duration:
		return "duration"
	case parsed:
		_, one, _ := strings.Cut(nounOf(s.of).one, " ")
		return one
	case list:
		switch s.elem.kind {
		case table:
			return "array of tables"
		case text:
			return "array of texts"
		case duration:
			return "array of durations"
		case parsed:
			return "array of " + nounOf(s.elem.of).many
		}
		return "array, each " + s.elem.words()
	case dictionary:
		return "table with any keys, each " + s.elem.words()
	case table:
		return "table"
	}
	return "text"
}

// SettingsTable returns what a plugin's settings are as a table in Markdown, for
// its README. A test of the plugin may hold the README against it.
func SettingsTable(p Plugin) string {
	rows := p.settings.rows()
	if len(rows) == 0 {
		return "It has no settings.\n"
	}
	var b strings.Builder
	b.WriteString("| setting | value | default | what it is for |\n|---|---|---|---|\n")
	cell := strings.NewReplacer("|", `\|`, "\n", " ")
	for _, r := range rows {
		if r.standard != "" && r.standard != "required" {
			r.standard = "`" + r.standard + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", r.key, cell.Replace(r.value), cell.Replace(r.standard), cell.Replace(r.doc))
	}
	return b.String()
}
