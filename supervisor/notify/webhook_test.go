package notify

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deputy-ha/deputy/supervisor"
)

func webhook(address string) Webhook {
	return Webhook{
		Address: func() (string, error) { return address, nil },
		Headers: func() (http.Header, error) { return http.Header{"Authorization": {"Bearer secret"}}, nil },
		Agent:   "deputy/test",
	}
}

func message() Message {
	return Message{Event: supervisor.Event{
		Format: supervisor.EventFormat, ID: "db/2/primary", Service: "db", Node: "db2", Kind: supervisor.EventPrimary,
		Severity: supervisor.UrgencyInfo, At: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), Term: 2, From: "db1",
		WithoutPrimary: time.Second, Text: "db: db2 is primary",
	}, Sender: "db2"}
}

// The shape is an interface: what changes here has to be told, and another
// format if a field goes or means something else.
func TestWhatAWebhookIsSent(t *testing.T) {
	var body string
	var header http.Header
	srv := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		body, header = r.Method+" "+r.URL.Path+" "+string(b), r.Header
	}))
	defer srv.Close()
	w := webhook(srv.URL + "/hooks/secret")
	if err := w.Send(t.Context(), message()); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a stranger's certificate: %v", err)
	}
	w.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(w.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.Send(t.Context(), message()); err != nil {
		t.Fatal(err)
	}
	want := `POST /hooks/secret {"format":"deputy.event/1","id":"db/2/primary","service":"db","node":"db2","event":"primary","resolved":false,` +
		`"severity":"info","at":"2026-01-01T12:00:00Z","term":2,"from":"db1","without_primary_ns":1000000000,"text":"db: db2 is primary","sender":"db2"}`
	if diff := cmp.Diff(want, body); diff != "" {
		t.Error(diff)
	}
	for key, want := range map[string]string{
		"Content-Type": "application/json", "Idempotency-Key": "db/2/primary", "Authorization": "Bearer secret", "User-Agent": "deputy/test",
	} {
		if got := header.Get(key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}

func TestAnswersOfAWebhook(t *testing.T) {
	code := 0
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			t.Error("a redirect was followed")
		}
		rw.Header().Set("Location", "/elsewhere")
		rw.WriteHeader(code)
		_, _ = io.WriteString(rw, "so\nit is")
	}))
	defer srv.Close()
	for c, refused := range map[int]bool{400: true, 404: true, 401: true, 308: true, 302: true, 408: false, 425: false, 429: false, 500: false, 503: false} {
		code = c
		err := webhook(srv.URL+"/secret").Send(t.Context(), message())
		if err == nil || errors.Is(err, ErrRefused) != refused || !strings.Contains(err.Error(), "so it is") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%d: %v", c, err)
		}
	}
	for _, c := range []int{200, 202, 204} {
		code = c
		if err := webhook(srv.URL).Send(t.Context(), message()); err != nil {
			t.Errorf("%d: %v", c, err)
		}
	}
}

func TestAWebhookThatNeverAnswersIsLeft(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer srv.Close()
	defer close(release)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("not done within 50ms"))
	defer cancel()
	err := webhook(srv.URL+"/secret").Send(ctx, message())
	if err == nil || err.Error() != "post to "+srv.URL+": not done within 50ms" {
		t.Error(err)
	}
	// Nor is a file that cannot be read waited for.
	w := webhook(srv.URL)
	w.Headers = func() (http.Header, error) { <-release; return nil, nil }
	if err := w.Send(ctx, message()); err == nil || !strings.Contains(err.Error(), "not done within") {
		t.Error(err)
	}
}

func TestWhatAScriptIsGiven(t *testing.T) {
	m := message()
	want := map[string]string{
		"EVENT": "primary", "EVENT_ID": "db/2/primary", "EVENT_NODE": "db2", "RESOLVED": "false", "SEVERITY": "info",
		"SERVICE": "db", "NODE": "db2", "TERM": "2", "PREVIOUS_NODE": "db1", "TEXT": "db: db2 is primary",
	}
	if diff := cmp.Diff(want, m.Env()); diff != "" {
		t.Error(diff)
	}
	in, err := m.Input()
	var back Message
	if err != nil || json.Unmarshal(in, &back) != nil || !cmp.Equal(m, back) || in[len(in)-1] != '\n' {
		t.Errorf("%s, %v", in, err)
	}
}
