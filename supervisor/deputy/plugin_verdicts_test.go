package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deputy-ha/deputy/sdk/sdktest"
)

func someVerdicts() verdicts {
	v := verdicts{
		Format: verdictsFormat, Plugin: "hello", Path: "/opt/deputy-plugin-hello", Version: "1.2", Deputy: "v1", Node: "db1",
		Began: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Took: 1500 * time.Millisecond, Interrupted: "interrupted",
	}
	for _, r := range []sdktest.Result{
		{Case: "start", Contract: "It starts.", Verdict: sdktest.Passed, Took: 12 * time.Millisecond, Note: "first answer after 8ms"},
		{
			Case: "adopt", Contract: "What was promoted stays.", Verdict: sdktest.Failed, Took: 1300 * time.Millisecond,
			Did: []string{"+0s  start it", "+8ms  promote, term 7, within 10s: done after 42ms: wrote <file> & more"},
			Saw: "a fresh process answered with done (\x1b[31mred]]> \ufffe", Said: "one\ntwo \xff", Cure: "Look first.",
		},
		{Case: "rank", Contract: "A rank answers.", Verdict: sdktest.Skipped, Note: "not run: interrupted"},
	} {
		v.add(r)
	}
	return v
}

func TestVerdictsAsJSON(t *testing.T) {
	var out bytes.Buffer
	v := someVerdicts()
	a := &app{stdout: &out}
	if err := a.printJSON(v); err != nil {
		t.Fatal(err)
	}
	var back verdicts
	d := json.NewDecoder(&out)
	d.DisallowUnknownFields()
	if err := d.Decode(&back); err != nil {
		t.Fatal(err)
	}
	v.Cases[1].Said = strings.ToValidUTF8(v.Cases[1].Said, "\ufffd")
	if diff := cmp.Diff(v, back); diff != "" {
		t.Errorf("(-printed +read)\n%s", diff)
	}
	if back.Passed != 1 || back.Failed != 1 || back.Skipped != 1 {
		t.Errorf("got %d, %d, %d of each, want one", back.Passed, back.Failed, back.Skipped)
	}
}

// TestManualHasTheVerdicts fails for a key that the manual does not tell of.
func TestManualHasTheVerdicts(t *testing.T) {
	text, err := json.Marshal(someVerdicts())
	if err != nil {
		t.Fatal(err)
	}
	var whole map[string]any
	if err := json.Unmarshal(text, &whole); err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(page(t, "deputy.1.md"), "### deputy plugin test")
	section, _, _ = strings.Cut(section, "\n### ")
	keys := whole
	for _, c := range whole["cases"].([]any) {
		for key := range c.(map[string]any) {
			keys[key] = nil
		}
	}
	for key := range keys {
		if !strings.Contains(section, "*"+key+"*") && !strings.Contains(section, "*cases[]."+key+"*") {
			t.Errorf("deputy(1) does not tell of %s", key)
		}
	}
}

func TestVerdictsAsJUnit(t *testing.T) {
	var out bytes.Buffer
	v := someVerdicts()
	if err := v.junit(&out); err != nil {
		t.Fatal(err)
	}
	const want = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="deputy-plugin-hello" tests="3" failures="1" errors="0" skipped="1" time="1.500">
  <testsuite name="deputy-plugin-hello" tests="3" failures="1" errors="0" skipped="1" time="1.500" timestamp="2026-01-02T03:04:05" hostname="db1">
    <properties>
      <property name="path" value="/opt/deputy-plugin-hello"></property>
      <property name="version" value="1.2"></property>
      <property name="deputy" value="v1"></property>
      <property name="interrupted" value="interrupted"></property>
    </properties>
    <testcase name="start" classname="deputy-plugin-hello" time="0.012">
      <system-out>first answer after 8ms</system-out>
    </testcase>
    <testcase name="adopt" classname="deputy-plugin-hello" time="1.300">
      <failure message="a fresh process answered with done ([31mred]]&gt; �" type="contract"><![CDATA[adopt: fail after 1.3s
  done      +0s  start it
            +8ms  promote, term 7, within 10s: done after 42ms: wrote <file> & more
  seen      a fresh process answered with done ([31mred]]]]><![CDATA[> 
  printed   one
            two
  contract  What was promoted stays.
  cure      Look first.]]></failure>
    </testcase>
    <testcase name="rank" classname="deputy-plugin-hello" time="0.000">
      <skipped message="not run: interrupted"></skipped>
    </testcase>
  </testsuite>
</testsuites>
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	// As a CI system reads it.
	var back junitSuites
	if err := xml.Unmarshal(out.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	s := back.Suites[0]
	var failed, skipped int
	for i, c := range s.Cases {
		if r := v.Cases[i]; c.Name != r.Case || (c.Failure != nil) != (r.Verdict == sdktest.Failed) || (c.Skipped != nil) != (r.Verdict == sdktest.Skipped) {
			t.Errorf("case %d: got %+v, want %+v", i, c, r)
		}
		if c.Failure != nil {
			failed++
		}
		if c.Skipped != nil {
			skipped++
		}
	}
	if s.Tests != len(s.Cases) || s.Failures != failed || s.Skipped != skipped {
		t.Errorf("counts of %+v are not those of its cases", s.junitCounts)
	}
}

func TestVerdictsThatWereDenied(t *testing.T) {
	v := someVerdicts()
	if v.denied() {
		t.Error("nothing was denied")
	}
	v.add(sdktest.Result{Case: "promote", Verdict: sdktest.Failed, Saw: "it could not be promoted: open /etc/x: permission denied"})
	if !v.denied() {
		t.Error("the last case was denied something")
	}
}

// A table is told while it is made, and no line of a failure is too wide.
func TestVerdictsAsTable(t *testing.T) {
	v := someVerdicts()
	s := screen{width: 60}
	text := v.line(v.Cases[1], 10, s) + v.text(s)
	for line := range strings.Lines(text) {
		if len([]rune(line)) > 61 {
			t.Errorf("longer than 60: %q", line)
		}
	}
	for _, want := range []string{
		"adopt       fail     1.3s  a fresh process answered with\n",
		"\nadopt: fail after 1.3s\n  done      +0s  start it\n", "\n  cure      Look first.\n",
		"\n1 passed, 1 failed, 1 skipped in 1.5s\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
	if strings.ContainsRune(text, 0x1b) {
		t.Error("it hands on what a terminal obeys")
	}
}
