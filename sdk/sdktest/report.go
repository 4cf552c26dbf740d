package sdktest

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/deputy-ha/deputy/sdk/manual"
)

// String is Text in lines of at most 100 characters.
func (r Result) String() string { return r.Text(100) }

// Text tells of a case for people, in lines of at most width characters,
// except where a single word is longer. A pass or a skip is one paragraph. A
// failure says below it what was done, step by step with the time of each since
// the first; what was seen; what the plugin printed last; what the contract
// says; and, where one is known, the cure.
func (r Result) Text(width int) string {
	head := fmt.Sprintf("%s: %s after %s", r.Case, r.Verdict, short(r.Took))
	if r.Verdict != Failed {
		if r.Note != "" {
			head += ": " + r.Note
		}
		return strings.Join(wrap(head, width, "  "), "\n")
	}
	lines := []string{head}
	for _, part := range []struct {
		name  string
		texts []string
	}{
		{"done", r.Did},
		{"seen", []string{r.Saw}},
		{"printed", lastLines(r.Said)},
		{"contract", []string{r.Contract}},
		{"cure", []string{r.Cure}},
	} {
		if len(part.texts) == 0 || part.texts[0] == "" {
			continue
		}
		indent := fmt.Sprintf("  %-8s  ", part.name)
		for _, text := range part.texts {
			for _, line := range wrap(text, width-len(indent), "  ") {
				lines = append(lines, strings.TrimRight(indent+line, " "))
				indent = strings.Repeat(" ", len(indent))
			}
		}
	}
	return strings.Join(lines, "\n")
}

// The bounds of what is told of what a plugin printed.
const (
	maxLines = 8
	maxLine  = 300 // characters, the last ones
)

func lastLines(said string) []string {
	lines := strings.Split(said, "\n")
	lines = lines[max(0, len(lines)-maxLines):]
	for i, line := range lines {
		if r := []rune(line); len(r) > maxLine {
			lines[i] = "..." + string(r[len(r)-maxLine:])
		}
	}
	return lines
}

// wrap breaks text at single spaces so that no line is longer than width,
// except where a word is. All lines but the first begin with indent. What a
// terminal would obey is left out.
func wrap(text string, width int, indent string) []string {
	var lines []string
	line, begun := "", false
	for word := range strings.SplitSeq(plain(text), " ") {
		switch {
		case !begun:
			line, begun = word, true
		case strings.TrimSpace(line) == "", utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = indent + word
		}
	}
	return append(lines, line)
}

// plain makes one line of what others have said.
func plain(text string) string {
	return strings.NewReplacer("\n", " ", string(utf8.RuneError), "").Replace(manual.Tidy(strings.TrimSpace(text)))
}
