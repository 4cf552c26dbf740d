package plugin

import (
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/deputy-ha/deputy/sdk"
)

func TestOutletReadsWhatIsInThePipeAndNoMore(t *testing.T) {
	for _, open := range []bool{true, false} {
		o, w, err := newOutlet()
		if err != nil {
			t.Fatal(err)
		}
		w.WriteString(strings.Repeat("0123456789\n", 3000)) // more than one read takes
		o.finish()
		if !open {
			w.Close()
		}
		n := 0
		lines(o, maxLine, func([]byte) { n++ })
		if n != 3000 || o.held != open {
			t.Errorf("other end open %t: read %d lines, held %t; want 3000, %t", open, n, o.held, open)
		}
		w.Close()
		o.f.Close()
	}
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", 3*maxLine)
	for text, want := range map[string][]string{
		"":                     nil,
		"\n":                   {""},
		"a\n\nb":               {"a", "", "b"},
		long + "\nshort\n":     {long[:maxLine], "short"},
		"a\n" + long:           {"a", long[:maxLine]},
		"a\r\n<3>b\x00c\xff\n": {"a\r", "<3>b\x00c\xff"},
	} {
		var got []string
		lines(strings.NewReader(text), maxLine, func(line []byte) { got = append(got, string(line)) })
		if strings.Join(got, "\n") != strings.Join(want, "\n") || len(got) != len(want) {
			t.Errorf("%.20q: got %d lines, %.60q", text, len(got), got)
		}
	}
}

func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		" a\tb \r":                 "a b",
		"\x1b[2Jgone\x00":          "?[2Jgone?",
		"bad \xff utf-8":           "bad ? utf-8",
		"größer":                   "größer",
		strings.Repeat("é", 11):    strings.Repeat("é", 8) + "…",
		strings.Repeat("a", 20):    strings.Repeat("a", 20),
		strings.Repeat("a", 21):    strings.Repeat("a", 17) + "…",
		"right to left \u202e bad": "right to left ? bad",
	} {
		if got := clean([]byte(text), 20); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestOneLine(t *testing.T) {
	if got := oneLine("\nfirst\nsecond\x1b\n", 100); got != "first; second?" {
		t.Errorf("got %q", got)
	}
}

// What a process says that panics is told with its end, unless it goes on.
func TestPanicOfAProcess(t *testing.T) {
	log := &journal{}
	s := &transcript{log: log.logger(), level: slog.LevelInfo, records: true}
	for _, line := range []string{"panic: of a child", "goroutine 1", `{"msg":"goes on"}`, "plain"} {
		s.err([]byte(line))
	}
	if got := s.last(1); got != "plain" {
		t.Errorf("after the panic of another: %q is last", got)
	}
	for _, line := range []string{"panic: its own", "", "goroutine 1 [running]:", "main.main()"} {
		s.err([]byte(line))
	}
	if got := s.last(1); got != "panic: its own" {
		t.Errorf("after its own panic: %q is last", got)
	}
	for _, want := range []string{`level=ERROR msg="plugin says" line="goroutine 1"`, `level=INFO msg="plugin says" line=plain`, `level=ERROR msg="plugin says" line=main.main()`} {
		if !strings.Contains(log.String(), want+"\n") {
			t.Errorf("the log lacks %s:\n%s", want, log)
		}
	}
}

func TestNoProgressAfterTheAct(t *testing.T) {
	n := 0
	s := &transcript{log: slog.New(slog.DiscardHandler), progress: func(string) { n++ }}
	s.step([]byte("one"))
	s.mute()
	s.step([]byte("two"))
	if n != 1 {
		t.Errorf("got %d calls, want 1", n)
	}
}

func TestRunKilledBeforeItsStartNeverStarts(t *testing.T) {
	b := newBench(t, map[string]any{"demote": `touch "$TMPDIR/ran"`})
	r := newRun(program{argv: b.settings.argv[sdk.CanDemote], env: os.Environ(), kind: acting, says: &transcript{log: b.Exec.log}}, os.Geteuid())
	r.destroy()
	if e := r.live(); !errors.Is(e.err, ErrKilled) || e.state != nil {
		t.Errorf("got %+v, want ErrKilled", e)
	}
	if b.exists("ran") {
		t.Error("it ran")
	}
}
