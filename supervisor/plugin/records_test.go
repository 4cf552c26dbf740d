package plugin

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRecordsOfALog(t *testing.T) {
	for line, want := range map[string]struct {
		level slog.Level
		text  string
		attrs []string
	}{
		`{"time":"x","level":"DEBUG+2","msg":"said","b":true,"a":1.50}`: {slog.LevelDebug + 2, "said", []string{"a=1.50", "b=true"}},
		`{"msg":""}`: {slog.LevelInfo, "(no message)", nil},
		` {"@level":"trace","@message":"said","msg":"kept"} `: {slog.LevelDebug, "said", []string{"plugin_msg=kept"}},
		`{"level":"warn","msg":"a\u001b[2Jb","odd key\n":null,"list":["x",{"y":1}]}`: {
			slog.LevelWarn, "a?[2Jb", []string{`list=["x",{"y":1}]`, "odd_key?=null"},
		},
		`{"msg":"said","service":"mine","time":"now","line":7,"":8}`: {slog.LevelInfo, "said", []string{"plugin_=8", "plugin_line=7", "plugin_service=mine"}},
		`{"msg":"said","stack":"one\n\ttwo"}`:                        {slog.LevelInfo, "said", []string{"stack=one\n two"}},
	} {
		r, ok := parseRecord([]byte(line))
		var attrs []string
		for _, a := range r.attrs {
			attrs = append(attrs, a.Key+"="+a.Value.String())
		}
		if !ok || r.level != want.level || r.text != want.text {
			t.Errorf("%s: got %+v, %t", line, r, ok)
		}
		if diff := cmp.Diff(want.attrs, attrs); diff != "" {
			t.Errorf("%s: attributes (-want +got):\n%s", line, diff)
		}
	}
	many := `{"msg":"said"` + strings.Repeat(`,"x":1`, 3)
	for i := range 2 * maxAttrs {
		many += `,"k` + strings.Repeat("y", i) + `":1`
	}
	if r, ok := parseRecord([]byte(many + "}")); !ok || len(r.attrs) != maxAttrs {
		t.Errorf("a record of too many attributes: got %d, %t", len(r.attrs), ok)
	}
}

func FuzzRecords(f *testing.F) {
	for _, line := range []string{`{"@message": 5}`, `{"msg":"x","level":"INFO","a":{"b":[1]}}`, `{"msg":"x"} {"msg":"y"}`, "{", ""} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, ok := parseRecord(line)
		if ok && r.text == "" {
			t.Error("a record that says nothing")
		}
		if strings.ContainsAny(r.text, "\n\x1b\x00") {
			t.Errorf("%q is not for a terminal", r.text)
		}
	})
}
