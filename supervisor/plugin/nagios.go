package plugin

import (
	"log/slog"
	"strings"

	"github.com/deputy-ha/deputy/sdk"
)

// The exit codes of Nagios plugins.
const (
	nagiosOK       = 0
	nagiosWarning  = 1
	nagiosCritical = 2
	nagiosUnknown  = 3
)

// maxAnswer is how many bytes of a check's output count. Nagios takes as many.
const maxAnswer = 8 << 10

// An answer is a check's output, as Nagios plugins are to write it: a line of
// text, then perhaps more lines, and numbers for machines that draw behind a bar
// in the first line, and behind another in one of those that follow, up to the
// end ("Monitoring Plugins Development Guidelines", plugin output).
type answer struct {
	text     string // the first line: what the status shows
	more     []string
	perfdata []string
}

// parseAnswer reads lines that are clean and not empty.
func parseAnswer(lines []string) (a answer) {
	drawn := false // the rest is for machines that draw
	for i, line := range lines {
		text, numbers, bar := strings.Cut(line, "|")
		if drawn {
			text, numbers = "", line
		}
		if text = strings.TrimSpace(text); i == 0 {
			a.text = text
		} else if text != "" {
			a.more = append(a.more, text)
		}
		if numbers = strings.TrimSpace(numbers); numbers != "" {
			a.perfdata = append(a.perfdata, numbers)
		}
		// The bar of the first line ends that line alone: more text may follow.
		drawn = drawn || bar && i > 0
	}
	return a
}

// health is what an answer with an exit code from 0 to 3 comes to. Lenient says
// that UNKNOWN is no more than a warning.
func (a answer) health(code int, lenient bool) sdk.Health {
	name, text := [...]string{"ok", "warning", "critical", "unknown"}[code], a.text
	fit := code <= nagiosWarning || code == nagiosUnknown && lenient
	switch {
	case text == "" && code != nagiosOK:
		text = name
	case fit && code != nagiosOK && !strings.Contains(strings.ToLower(text), name):
		text = name + ": " + text
	}
	return sdk.Health{Fit: fit, Detail: text}
}

// attrs are what of an answer the log keeps besides the first line.
func (a answer) attrs() (attrs []any) {
	for _, more := range []struct {
		key   string
		lines []string
	}{{"more", a.more}, {"perfdata", a.perfdata}} {
		if more.lines != nil {
			attrs = append(attrs, slog.String(more.key, clean([]byte(strings.Join(more.lines, "; ")), maxLine)))
		}
	}
	return attrs
}
