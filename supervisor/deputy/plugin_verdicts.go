package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk/sdktest"
)

// verdictsFormat is the version of what `deputy plugin test -o json` prints. It
// grows when something that was there goes or means something else; what is
// added later leaves it as it is.
const verdictsFormat = 1

// Verdicts are what `deputy plugin test -o json` prints, also where cases failed
// or somebody has interrupted it. Durations are nanoseconds.
type verdicts struct {
	Format      int              `json:"format"`
	Plugin      string           `json:"plugin"`
	Path        string           `json:"path,omitempty"`    // of its program; none of what is built in
	Version     string           `json:"version,omitempty"` // that it says it is
	Deputy      string           `json:"deputy"`            // the version that has examined it
	Node        string           `json:"node"`
	Began       time.Time        `json:"began"`
	Took        time.Duration    `json:"took_ns"`
	Passed      int              `json:"passed"`
	Failed      int              `json:"failed"`
	Skipped     int              `json:"skipped"`
	Interrupted string           `json:"interrupted,omitempty"` // why cases were not run
	Cases       []sdktest.Result `json:"cases"`                 // in the order in which they ran
}

// add takes the result of one case.
func (v *verdicts) add(r sdktest.Result) {
	v.Cases = append(v.Cases, r)
	switch r.Verdict {
	case sdktest.Passed:
		v.Passed++
	case sdktest.Failed:
		v.Failed++
	default:
		v.Skipped++
	}
}

// denied reports whether the system has denied a case something, by the words
// of errno(3).
func (v *verdicts) denied() bool {
	return slices.ContainsFunc(v.Cases, func(r sdktest.Result) bool {
		saw := strings.ToLower(r.Saw)
		return strings.Contains(saw, "permission denied") || strings.Contains(saw, "operation not permitted")
	})
}

// line is one case as it is shown once it is known.
func (v *verdicts) line(r sdktest.Result, width int, s screen) string {
	st := map[sdktest.Verdict]style{sdktest.Passed: good, sdktest.Failed: bad, sdktest.Skipped: faint}[r.Verdict]
	note := r.Note
	if r.Verdict == sdktest.Failed {
		note = r.Saw
	}
	line := fmt.Sprintf("%-*s  %s  %7s  ", width, r.Case, s.paint(st, string(r.Verdict)), short(r.Took))
	indent := "\n" + strings.Repeat(" ", width+17)
	return strings.TrimRight(line+strings.Join(wrap(tidy(note), max(s.width-width-17, minLast)), indent), " ") + "\n"
}

// text tells more of what failed, and sums up.
func (v *verdicts) text(s screen) string {
	var b strings.Builder
	for _, r := range v.Cases {
		if r.Verdict == sdktest.Failed {
			head, rest, _ := strings.Cut(r.Text(s.width), "\n")
			fmt.Fprintf(&b, "\n%s\n%s\n", s.paint(bold, head), rest)
		}
	}
	fmt.Fprintf(&b, "\n%d passed, %d failed, %d skipped in %s\n", v.Passed, v.Failed, v.Skipped, short(v.Took))
	return b.String()
}

// What CI systems read as JUnit's: the elements and attributes that Jenkins,
// GitLab and their like have in common.
type (
	junitSuites struct {
		XMLName xml.Name `xml:"testsuites"`
		junitCounts
		Suites []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		junitCounts
		Timestamp  string          `xml:"timestamp,attr"`
		Hostname   string          `xml:"hostname,attr"`
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitCase     `xml:"testcase"`
	}
	junitCounts struct {
		Name     string `xml:"name,attr"`
		Tests    int    `xml:"tests,attr"`
		Failures int    `xml:"failures,attr"`
		Errors   int    `xml:"errors,attr"`
		Skipped  int    `xml:"skipped,attr"`
		Time     string `xml:"time,attr"` // seconds
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Name      string        `xml:"name,attr"`
		Classname string        `xml:"classname,attr"`
		Time      string        `xml:"time,attr"`
		Failure   *junitFailure `xml:"failure"`
		Skipped   *junitSkipped `xml:"skipped"`
		Out       string        `xml:"system-out,omitempty"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",cdata"`
	}
	junitSkipped struct {
		Message string `xml:"message,attr"`
	}
)

// junit writes the verdicts as JUnit XML: one test suite, one test case each.
// What was not run is skipped, with the reason.
func (v *verdicts) junit(w io.Writer) error {
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }
	name := "deputy-plugin-" + v.Plugin
	counts := junitCounts{Name: name, Tests: len(v.Cases), Failures: v.Failed, Skipped: v.Skipped, Time: seconds(v.Took)}
	s := junitSuite{junitCounts: counts, Timestamp: v.Began.UTC().Format("2006-01-02T15:04:05"), Hostname: v.Node}
	for _, p := range []junitProperty{{"path", v.Path}, {"version", v.Version}, {"deputy", v.Deputy}, {"interrupted", v.Interrupted}} {
		if p.Value != "" {
			s.Properties = append(s.Properties, p)
		}
	}
	for _, r := range v.Cases {
		c := junitCase{Name: r.Case, Classname: name, Time: seconds(r.Took)}
		switch r.Verdict {
		case sdktest.Failed:
			c.Failure = &junitFailure{Message: tidy(r.Saw), Type: "contract", Text: strings.Map(inXML, r.String())}
		case sdktest.Skipped:
			c.Skipped = &junitSkipped{Message: tidy(r.Note)}
		default:
			c.Out = tidy(r.Note)
		}
		s.Cases = append(s.Cases, c)
	}
	text, err := xml.MarshalIndent(junitSuites{junitCounts: counts, Suites: []junitSuite{s}}, "", "  ")
	if err == nil {
		_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, text)
	}
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// inXML drops what XML 1.0 has no way to write; in what is no CDATA the encoder
// sees to it.
func inXML(r rune) rune {
	if r == 0xfffe || r == 0xffff {
		return -1
	}
	return r
}
