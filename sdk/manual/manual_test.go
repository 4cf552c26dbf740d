package manual_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/deputy-ha/deputy/sdk/manual"
)

func TestSettingsAreReadOffASchema(t *testing.T) {
	const schema = `{"type": "object", "required": ["zone"], "properties": {
		"zone": {"type": "string", "description": "the zone"},
		"kind": {"enum": ["A", "AAAA"], "default": "A"},
		"ttl": {"type": "string", "pattern": "([0-9]+(ns|us|ms|s|m|h))+", "default": "5s"},
		"port": {"type": "integer", "default": 53, "minimum": 1, "maximum": 65535},
		"size": {"type": "integer", "minimum": -2147483648, "maximum": 2147483647},
		"share": {"type": "number", "minimum": 0.5},
		"dry": {"type": "boolean"},
		"address": {"type": "string", "format": "ip-prefix"},
		"mail": {"type": "string", "format": "email"},
		"waits": {"type": "array", "items": {"type": "string", "pattern": "ns|us"}, "default": ["1s","5s"]},
		"pairs": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
		"key": {"type": "string", "writeOnly": true},
		"tsig": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "key": {"type": "string"}}},
		"labels": {"type": "object", "additionalProperties": {"type": "string"}},
		"zones": {"type": "object", "additionalProperties": {"type": "object", "properties": {"ttl": {"type": "integer"}}}},
		"server": {"type": "array", "items": {"type": "object", "properties": {"host": {"type": "string"}}}},
		"odd": {"type": ["string", "object"], "items": true, "minimum": "x"},
		"any": true
	}}`
	got, err := manual.Settings(json.RawMessage(schema))
	if err != nil {
		t.Fatal(err)
	}
	want := []manual.Setting{
		{Key: "zone", Value: "text", Doc: "the zone", Required: true},
		{Key: "kind", Value: `"A" or "AAAA"`, Default: `"A"`},
		{Key: "ttl", Value: "duration", Default: `"5s"`},
		{Key: "port", Value: "whole number, 1 to 65535", Default: "53"},
		{Key: "size", Value: "whole number"},
		{Key: "share", Value: "number, at least 0.5"},
		{Key: "dry", Value: "true or false"},
		{Key: "address", Value: "IP address with its prefix length"},
		{Key: "mail", Value: "text (email)"},
		{Key: "waits", Value: "array of durations", Default: `["1s", "5s"]`},
		{Key: "pairs", Value: "array, each array of numbers"},
		{Key: "key", Value: "text, secret"},
		{Key: "tsig", Value: "table"},
		{Key: "tsig.name", Value: "text", Required: true},
		{Key: "tsig.key", Value: "text"},
		{Key: "labels", Value: "table with any keys, each text"},
		{Key: "zones", Value: "table with any keys, each table"},
		{Key: "zones.*.ttl", Value: "whole number"},
		{Key: "server", Value: "array of tables"},
		{Key: "server[].host", Value: "text"},
		{Key: "odd", Value: "any value"},
		{Key: "any", Value: "any value"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	for _, none := range []string{"", "{}", "true", `{"type": "object"}`, `{"properties": []}`} {
		if got, err := manual.Settings(json.RawMessage(none)); err != nil || got != nil {
			t.Errorf("schema %q: got %v, %v, want no settings", none, got, err)
		}
	}
	if _, err := manual.Settings(json.RawMessage(`{"properties"`)); err == nil || !strings.Contains(err.Error(), "it is no JSON") {
		t.Errorf("half a schema: %v", err)
	}
}

// pager is a plugin whose words have whatever could go wrong in a page.
func pager() manual.Plugin {
	return manual.Plugin{
		Name: "pager", Version: "1.2", Path: "/opt/deputy-plugin-pager", ForcedBound: 50 * time.Millisecond, Silent: true,
		Capabilities: []string{"promote", "demote", "dance"},
		Schema: json.RawMessage(`{"properties": {
			"file": {"type": "string", "description": "the file, such as C:\\x or .hidden"},
			"mode": {"enum": ["-a", "'b'"], "default": "-a", "description": "how"},
			"key": {"type": "string", "writeOnly": true, "description": "what opens it"}}, "required": ["file"]}`),
		Doc: "Keeps a file.\nAnd `more`: a*b*c, *leaning*, **strong** and [a link](http://192.0.2.1/).\n\n" +
			"```toml\n.dotted = 'x'\n\\path\n```\n\n" +
			"## What it does\n\n### In short\n\n.Begins with a dot — and a ~ ^ ` \\ of its own.\n'Quoted.\n\n" +
			"- one\n  goes on\n- two with `-o man`\n\n1. first\n2. second\n\n" +
			"## Settings\n\n| key | meaning |\n|---|---|\n| `file` | again |\n\nOne is `required`.\n\n" +
			"| you see | it means | cure |\n|---|---|---|\n| `a \\| b` | 'tis | none |\n| | empty | .x |\n\n" +
			"    indented code\n\n## Limits\n\nNone\x1b[31m.\n",
	}
}

func TestText(t *testing.T) {
	const want = `<pager> 1.2  (/opt/deputy-plugin-pager)

Keeps a file. And ` + "`more`" + `: a*b*c, *leaning*, **strong** and
[a link](http://192.0.2.1/).

    .dotted = 'x'
    \path

Can promote, demote, dance.
A forced demotion that is given 50ms is done in that time.
It sends no heartbeats: while it works, a slow one cannot be
told from a frozen one.

(SETTING)  (VALUE)          (WHAT IT IS FOR)
<file>     text           the file, such as C:\x or .hidden
         required
<mode>     "-a" or "'b'"  how
         default "-a"
<key>      text, secret   what opens it

Its manual page has more: What it does; Limits. See describe
-o man.
`
	around := func(open, end string) func(string) string { return func(s string) string { return open + s + end } }
	got, err := pager().Text(60, around("<", ">"), around("(", ")"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
}

// Whatever is said fits, but for words that are too long by themselves.
func TestTextFits(t *testing.T) {
	p := pager()
	p.Schema = json.RawMessage(`{"properties": {
		"` + strings.Repeat("k", 30) + `": {"enum": ["` + strings.Repeat("some words ", 20) + `"], "description": "` + strings.Repeat("and more ", 40) + `"},
		"b": {"type": "string", "default": "` + strings.Repeat("d ", 90) + `", "description": "x"}}}`)
	for _, width := range []int{60, 80, 100} {
		text, err := p.Text(width, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width || strings.HasSuffix(line, " \n") {
				t.Errorf("width %d: a line of %d: %q", width, n, line)
			}
		}
	}
}

// run pipes text through a program, which may say nothing besides.
func run(t *testing.T, in, program string, args ...string) string {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(in)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=80")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil || said.Len() > 0 {
		t.Errorf("%s: %v\n%s", cmd, err, said.String())
	}
	return out.String()
}

func TestPage(t *testing.T) {
	page, err := pager().Page()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "page.8")
	if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	lint, _ := exec.Command("mandoc", "-T", "lint", "-W", "warning", file).Output()
	if complaints := strings.Split(strings.TrimSpace(string(lint)), "\n"); len(complaints) != 1 || !strings.Contains(complaints[0], "missing date") {
		t.Errorf("mandoc does not complain of the missing date alone:\n%s", lint)
	}
	for name, text := range map[string]string{
		"groff":  run(t, page, "groff", "-ww", "-man", "-Tutf8", "-P-cbou"),
		"mandoc": run(t, page, "mandoc", "-T", "utf8"),
		"man":    run(t, "", "man", "--warnings=w", "-l", file),
	} {
		text = unstruck(text)
		at := 0
		for _, want := range []string{
			"DEPUTY-PLUGIN-PAGER(8)", "NAME", "deputy-plugin-pager - Keeps a file\n", "DESCRIPTION", "Keeps a file. And more: a*b*c, leaning, strong and a link.",
			".dotted = 'x'\n", "\\path\n", "What it does\n", "In short", ".Begins with a dot — and a ~ ^ ` \\ of its own. 'Quoted.",
			"one goes on", "two with -o man", "1.", "first", "2.", "second", "Limits\n", "None[31m.",
			"SETTINGS\n", "file = text\n", "the file, such as C:\\x or .hidden. Required.", `mode = "-a" or "'b'"`, `how. Default: "-a".`, "key = text, secret",
			"One is required.", "you see", "it means; cure", "a | b", "'tis", "none", "empty", ".x", "indented code",
			"CAPABILITIES\n", "promote", "demote", "dance", "WHAT IT PROMISES\n", "50ms", "heartbeats", "SEE ALSO\n", "deputy-service(5)",
		} {
			found := strings.Index(text[at:], want)
			if found < 0 {
				t.Fatalf("%s: no %q where it should be:\n%s", name, want, text[at:])
			}
			at += found + len(want)
		}
		if strings.Contains(text, "again") {
			t.Errorf("%s: the settings are told twice:\n%s", name, text)
		}
	}
}

// unstruck takes bold and underlined letters for letters.
func unstruck(text string) string {
	var b []rune
	for _, r := range text {
		if r == '\b' {
			b = b[:max(len(b)-1, 0)]
			continue
		}
		b = append(b, r)
	}
	return string(b)
}

func TestPageOfOneWhoSaysNothing(t *testing.T) {
	page, err := manual.Plugin{Name: "mute", Capabilities: []string{"check"}}.Page()
	if err != nil {
		t.Fatal(err)
	}
	text := run(t, page, "groff", "-ww", "-man", "-Tutf8", "-P-cbou")
	for _, want := range []string{"deputy-plugin-mute - A plugin of deputy\n", "It has none.", "fit for the role?"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "PROMISES") {
		t.Errorf("who only checks promises nothing:\n%s", text)
	}
}

func TestEditorSchema(t *testing.T) {
	p := manual.Plugin{Name: "p", Doc: "# Keeps it.\n\nMore.", Schema: json.RawMessage(`{"$schema":"s","title":"old","properties":{
		"b":{"type":"string","minLength":1,"description":"d","writeOnly":true},
		"a":{"type":"array","items":{"type":"string"},"writeOnly":true,"default":[]},
		"n":{"type":"integer","maximum":18446744073709551615,"writeOnly":true},
		"t":{"properties":{"writeOnly":{"type":"string"},"k":{"type":"string","writeOnly":true}}}},
		"additionalProperties":false}`)}
	const ref = `{"type":"object","properties":{"credential":{"type":"string"},"file":{"type":"string"}},` +
		`"additionalProperties":false,"minProperties":1,"maxProperties":1}`
	const want = `{"title":"Settings of the plugin p","description":"Keeps it","$schema":"s","properties":{` +
		`"b":{"description":"d","writeOnly":true,"anyOf":[{"type":"string","minLength":1},` + ref + `]},` +
		`"a":{"type":"array","items":{"anyOf":[{"type":"string"},` + ref + `]},"writeOnly":true,"default":[]},` +
		`"n":{"type":"integer","maximum":18446744073709551615,"writeOnly":true},` +
		`"t":{"properties":{"writeOnly":{"type":"string"},"k":{"writeOnly":true,"anyOf":[{"type":"string"},` + ref + `]}}}},` +
		`"additionalProperties":false}`
	got, err := p.EditorSchema()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("schema (-want +got):\n%s", diff)
	}
	p.Schema = nil
	if got, err := p.EditorSchema(); err != nil || string(got) != `{"title":"Settings of the plugin p","description":"Keeps it","type":"object"}` {
		t.Errorf("of no settings: %s, %v", got, err)
	}
	p.Schema = json.RawMessage(`{"a"`)
	if _, err := p.EditorSchema(); err == nil {
		t.Error("half a schema is no error")
	}
}

func TestMarkdown(t *testing.T) {
	const want = "| setting | value | default | what it is for |\n|---|---|---|---|\n" +
		"| `a` | \"x\" or \"y\" | `\"x\"` | this \\| that |\n| `b` | text | required |  |\n"
	got := manual.Markdown([]manual.Setting{
		{Key: "a", Value: `"x" or "y"`, Default: `"x"`, Doc: "this | that"},
		{Key: "b", Value: "text", Required: true},
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	if got := manual.Markdown(nil); got != "It has no settings.\n" {
		t.Errorf("none: %q", got)
	}
}
