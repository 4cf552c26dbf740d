package notify

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const examples = "../../contrib/notify"

// example runs a receiver of contrib with a message, as a supervisor does.
func example(t *testing.T, m Message, path string, argv ...string) (code int, said string) {
	t.Helper()
	in, err := m.Input()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(examples, argv[0]), argv[1:]...)
	cmd.Stdin = bytes.NewReader(in)
	cmd.Env = []string{"PATH=" + path}
	for name, value := range m.Env() {
		cmd.Env = append(cmd.Env, "DEPUTY_"+name+"="+value)
	}
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode(), string(out)
	} else if err != nil {
		t.Fatal(err)
	}
	return 0, string(out)
}

func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

func TestExampleMail(t *testing.T) {
	dir := t.TempDir()
	mail := filepath.Join(dir, "mail")
	fake := "#!/bin/sh\n{ echo \"$@\"; cat; } >" + mail + "\n[ ! -e " + mail + ".down ] || exit 75\n"
	if err := os.WriteFile(filepath.Join(dir, "sendmail"), []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	path := dir + ":" + os.Getenv("PATH")
	m := message()
	if code, said := example(t, m, path, "mail", "ops@example.com", "dba@example.com"); code != 0 {
		t.Fatalf("exit %d: %s", code, said)
	}
	got, err := os.ReadFile(mail)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(got), "\n\n")
	want := "-i -- ops@example.com dba@example.com\nTo: ops@example.com\nTo: dba@example.com\nSubject: db: primary\nMessage-ID: <db_2_primary@deputy.invalid>\n" +
		"Auto-Submitted: auto-generated\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8"
	if diff := cmp.Diff(want, head); diff != "" {
		t.Error(diff)
	}
	if in, _ := m.Input(); rest != m.Text+"\n\nAll of it:\n"+string(in) {
		t.Errorf("body: %q", rest)
	}
	m.Severity = "critical"
	for resolved, want := range map[bool]string{false: "Subject: [CRITICAL] db: primary\n", true: "Subject: [over] db: primary\n"} {
		m.Resolved = resolved
		_, _ = example(t, m, path, "mail", "ops@example.com")
		if got, err := os.ReadFile(mail); err != nil || !strings.Contains(string(got), want) {
			t.Errorf("%s, want %s; %v", got, want, err)
		}
	}
	// What fails is told to be tried again, but for what no try will mend.
	if err := os.WriteFile(mail+".down", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _ := example(t, m, path, "mail", "ops@example.com"); code != 75 {
		t.Errorf("exit %d with the mail server down", code)
	}
	if code, _ := example(t, m, path, "mail"); code != 20 {
		t.Errorf("exit %d without an address", code)
	}
}

func TestExamplePager(t *testing.T) {
	needs(t, "jq", "curl")
	var body string
	answer := http.StatusAccepted
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		body = string(b)
		w.WriteHeader(answer)
	}))
	defer srv.Close()
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("R0UT1NG\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := message()
	for resolved, action := range map[bool]string{false: "trigger", true: "resolve"} {
		m.ID, m.Resolved = "db/2/no-primary", resolved
		if resolved {
			m.ID += "/resolved"
		}
		if code, said := example(t, m, os.Getenv("PATH"), "pager", key, srv.URL); code != 0 {
			t.Fatalf("exit %d: %s", code, said)
		}
		var got struct {
			RoutingKey  string `json:"routing_key"`
			EventAction string `json:"event_action"`
			DedupKey    string `json:"dedup_key"`
			Payload     struct {
				Summary, Source, Severity, Timestamp string
				CustomDetails                        Message `json:"custom_details"`
			}
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err)
		}
		p := got.Payload
		if got.RoutingKey != "R0UT1NG" || got.EventAction != action || got.DedupKey != "db/2/no-primary" ||
			p.Summary != m.Text || p.Source != "db2" || p.Severity != "info" || p.Timestamp != "2026-01-01T12:00:00Z" || !cmp.Equal(p.CustomDetails, m) {
			t.Errorf("posted %s", body)
		}
	}
	for status, want := range map[int]int{400: 20, 429: 75, 500: 1} {
		answer = status
		if code, said := example(t, m, os.Getenv("PATH"), "pager", key, srv.URL); code != want {
			t.Errorf("exit %d at %d, want %d: %s", code, status, want, said)
		}
	}
	srv.Close()
	if code, _ := example(t, m, os.Getenv("PATH"), "pager", key, srv.URL); code == 0 || code == 20 {
		t.Errorf("exit %d when nobody answers", code)
	}
}

// The guide shows a message as it is.
func TestExampleMessageIsOne(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(examples, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile("(?s)```json\n(.*?)```").FindSubmatch(text)
	var m Message
	dec := json.NewDecoder(bytes.NewReader(shown[1]))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		t.Fatal(err)
	}
	again, err := m.Input()
	var flat bytes.Buffer
	if err != nil || json.Compact(&flat, shown[1]) != nil || flat.String()+"\n" != string(again) {
		t.Errorf("%s, want %s", flat.String(), again)
	}
}

func TestExamplesAreCleanShell(t *testing.T) {
	needs(t, "shellcheck")
	out, err := exec.CommandContext(t.Context(), "shellcheck", filepath.Join(examples, "mail"), filepath.Join(examples, "pager")).CombinedOutput()
	if err != nil {
		t.Errorf("%s%v", out, err)
	}
}
