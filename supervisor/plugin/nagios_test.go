package plugin

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/deputy-ha/deputy/sdk"
)

func TestAnswerIsParsed(t *testing.T) {
	for _, c := range []struct {
		lines string
		want  answer
	}{
		{"", answer{}},
		{"OK", answer{text: "OK"}},
		{"OK - fine | a=1;2;3 b=2", answer{text: "OK - fine", perfdata: []string{"a=1;2;3 b=2"}}},
		{"| a=1", answer{perfdata: []string{"a=1"}}},
		// As the guidelines have it: numbers in the first line, then text, then
		// numbers from a bar to the end.
		{
			"DISK OK - free: 3326 MB | /=2643MB\n/ 15272 MB\n/boot 68 MB\n/var/log 819 MB | /boot=68MB\n/home=69357MB\n/var/log=818MB",
			answer{
				text: "DISK OK - free: 3326 MB", more: []string{"/ 15272 MB", "/boot 68 MB", "/var/log 819 MB"},
				perfdata: []string{"/=2643MB", "/boot=68MB", "/home=69357MB", "/var/log=818MB"},
			},
		},
		{"OK\n| a=1\nb=2", answer{text: "OK", perfdata: []string{"a=1", "b=2"}}},
	} {
		var lines []string
		if c.lines != "" {
			lines = strings.Split(c.lines, "\n")
		}
		if diff := cmp.Diff(c.want, parseAnswer(lines), cmp.AllowUnexported(answer{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.lines, diff)
		}
	}
}

// UNKNOWN is a failure, unless the definition says that it is a warning.
func TestUnknownByPolicy(t *testing.T) {
	for policy, want := range map[string]sdk.Health{
		"":        {Detail: "no such device"},
		"unfit":   {Detail: "no such device"},
		"warning": {Fit: true, Detail: "unknown: no such device"},
	} {
		config := map[string]any{"check": "echo 'no such device|t=0'; exit 3"}
		if policy != "" {
			config["unknown"] = policy
		}
		b := newBench(t, config)
		if got, err := b.Check(t.Context(), sdk.RolePrimary, 7); err != nil || got != want {
			t.Errorf("unknown = %q: got %+v, %v, want %+v", policy, got, err, want)
		}
	}
}

// The whole of an answer is logged when its exit code is news, and then only.
func TestAnswerIsLoggedWhenItIsNews(t *testing.T) {
	b := newBench(t, map[string]any{"check": "cat $TMPDIR/text; exit $(cat $TMPDIR/code)"})
	answer := func(code int, text string) {
		t.Helper()
		for name, text := range map[string]string{"code": fmt.Sprint(code), "text": text} {
			if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.Check(t.Context(), sdk.RolePrimary, 7); err != nil {
			t.Fatal(err)
		}
	}
	const news = "check answers otherwise"
	answer(0, "OK | t=1\nall is well | u=2\nv=3\n")
	answer(0, "OK | t=4\n")
	if n := strings.Count(b.log.String(), news); n != 1 {
		t.Errorf("logged %d times", n)
	}
	if want := `text=OK more="all is well" perfdata="t=1; u=2; v=3"`; !strings.Contains(b.log.String(), want) {
		t.Errorf("the log has no %s:\n%s", want, b.log)
	}
	answer(2, "DOWN\n")
	answer(2, "DOWN\n")
	answer(0, "OK\n")
	if n := strings.Count(b.log.String(), news); n != 3 {
		t.Errorf("logged %d times", n)
	}
	if want := `level=WARN msg="` + news; !strings.Contains(b.log.String(), want) {
		t.Errorf("the log has no %s:\n%s", want, b.log)
	}
}

// However much a check writes, 8 KiB are its answer, and it ends.
func TestAnswerIsBounded(t *testing.T) {
	b := newBench(t, map[string]any{"check": "echo first; yes 'more and more and more' | head -c 3000000; exit 2"})
	got, err := b.Check(t.Context(), sdk.RolePrimary, 7)
	if err != nil || got != (sdk.Health{Detail: "first"}) {
		t.Errorf("got %+v, %v", got, err)
	}
	for line := range strings.Lines(b.log.String()) {
		if strings.Contains(line, "check answers otherwise") && len(line) > maxAnswer {
			t.Errorf("%d bytes are logged", len(line))
		}
	}
}

// Programs as Debian has them in monitoring-plugins-basic.
func TestRealNagiosPlugins(t *testing.T) {
	const dir = "/usr/lib/nagios/plugins"
	if _, err := os.Stat(filepath.Join(dir, "check_tcp")); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%v: install monitoring-plugins-basic", err)
		}
		t.Skipf("%v: Debian has it in monitoring-plugins-basic", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := func(l net.Listener) string { return fmt.Sprint(l.Addr().(*net.TCPAddr).Port) }
	none := port(closed)
	closed.Close()
	for _, c := range []struct {
		argv   []any
		fit    bool
		detail string // what it looks like
		log    string // part of the log
	}{
		{[]any{"check_tcp", "-H", "127.0.0.1", "-p", port(l)}, true, `^TCP OK - [\d.]+ second response time on 127\.0\.0\.1 port \d+$`, "perfdata=\"time="},
		{[]any{"check_tcp", "-H", "127.0.0.1", "-p", port(l), "-w", "0.0000001"}, true, `^TCP WARNING - [\d.]+ second response time`, "code=1"},
		{[]any{"check_tcp", "-H", "127.0.0.1", "-p", none}, false, `(?i)refused`, "code=2"},
		{[]any{"check_tcp", "-p", "no port"}, false, `.`, "code=3"},
		{[]any{"check_procs", "-c", "1:"}, true, `^PROCS OK: \d+ processes$`, "perfdata=\"procs="},
		{[]any{"check_procs", "-c", "1:", "-C", "nobody-runs-this"}, false, `^PROCS CRITICAL: 0 processes`, "code=2"},
		{[]any{"check_load", "-w", "90000,90000,90000", "-c", "90000,90000,90000"}, true, `^(LOAD )?OK - .*load average: `, "load15="},
		{[]any{"check_dummy", "3", "somebody said so"}, false, `^UNKNOWN: somebody said so$`, "code=3"},
	} {
		argv := append([]any{filepath.Join(dir, c.argv[0].(string))}, c.argv[1:]...)
		b := newBench(t, map[string]any{"check": argv})
		got, err := b.Check(t.Context(), sdk.RolePrimary, 7)
		if err != nil || got.Fit != c.fit || !regexp.MustCompile(c.detail).MatchString(got.Detail) || strings.Contains(got.Detail, "|") {
			t.Errorf("%v: got %+v, %v", c.argv, got, err)
		}
		if !strings.Contains(b.log.String(), c.log) {
			t.Errorf("%v: the log has no %s:\n%s", c.argv, c.log, b.log)
		}
	}
}
