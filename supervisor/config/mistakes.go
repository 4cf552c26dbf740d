package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Mistake is one thing in a file that is not right.
type Mistake struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`   // from 1; zero when it is about the file as a whole
	Column int    `json:"column,omitempty"` // in characters, from 1
	Key    string `json:"key,omitempty"`    // as TOML names it: plugin.check.fall
	Text   string `json:"text"`             // what is wrong, and what would be right

	cause error // why a file could not be read
}

func (m Mistake) String() string {
	var b strings.Builder
	b.WriteString(m.File)
	if m.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", m.Line, m.Column)
	}
	if m.Key != "" {
		b.WriteString(": " + m.Key)
	}
	b.WriteString(": " + m.Text)
	return b.String()
}

// Mistakes are all that were found, in the order of files and lines. As an
// error they are printed one a line.
type Mistakes []Mistake

func (ms Mistakes) Error() string {
	lines := make([]string, len(ms))
	for i, m := range ms {
		lines[i] = m.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns why files could not be read, such as fs.ErrNotExist and
// fs.ErrPermission.
func (ms Mistakes) Unwrap() []error {
	var causes []error
	for _, m := range ms {
		if m.cause != nil {
			causes = append(causes, m.cause)
		}
	}
	return causes
}

// err returns the mistakes sorted, or nil when there are none.
func (ms Mistakes) err() error {
	if len(ms) == 0 {
		return nil
	}
	slices.SortStableFunc(ms, func(a, b Mistake) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Key, b.Key))
	})
	return ms
}

// add notes a mistake at a place.
func (ms *Mistakes) add(at place, key, format string, args ...any) {
	*ms = append(*ms, Mistake{File: at.file, Line: at.line, Column: at.column, Key: key, Text: fmt.Sprintf(format, args...)})
}
