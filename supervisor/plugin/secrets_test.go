package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
)

func TestSecretsAreReadWhereTheSchemaSaysSo(t *testing.T) {
	const schema = `{"type": "object", "properties": {
		"password": {"type": "string", "writeOnly": true},
		"tokens":   {"type": "array", "items": {"type": "string"}, "writeOnly": true},
		"users":    {"type": "object", "additionalProperties": {"type": "string"}, "writeOnly": true},
		"nodes":    {"type": "array", "items": {"type": "object", "properties": {"key": {"type": "string", "writeOnly": true}}}},
		"pin":      {"type": "integer", "writeOnly": true},
		"log":      {"type": "object", "properties": {"file": {"type": "string"}}},
		"odd":      {"type": ["object", "string"], "writeOnly": true, "items": true, "additionalProperties": false},
		"name":     {"type": "string"}}}`
	type table = map[string]any
	where := func(name string) table { return table{"credential": name} }
	h := Host{Reveal: func(where map[string]any) (string, error) {
		if where["credential"] == "none" {
			return "", fs.ErrNotExist
		}
		return fmt.Sprint("secret of ", where["credential"]), nil
	}}
	given := table{
		"password": where("a"),
		"tokens":   []any{"as it is", where("b")},
		"users":    table{"credential": where("c"), "x": "y"},
		"nodes":    []any{table{"key": where("d"), "host": where("e")}},
		"pin":      where("f"),
		"log":      table{"file": "/var/log/x"},
		"odd":      where("g"),
		"name":     where("h"),
		"stranger": table{"file": "/x"},
	}
	before := fmt.Sprint(given)
	want := table{
		"password": "secret of a",
		"tokens":   []any{"as it is", "secret of b"},
		"users":    table{"credential": "secret of c", "x": "y"},
		"nodes":    []any{table{"key": "secret of d", "host": where("e")}},
		"pin":      where("f"),
		"log":      table{"file": "/var/log/x"},
		"odd":      where("g"),
		"name":     where("h"),
		"stranger": table{"file": "/x"},
	}
	got, err := h.Settings(json.RawMessage(schema), given)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	if after := fmt.Sprint(given); after != before {
		t.Errorf("the definition became %s", after)
	}

	missing := table{"password": where("none"), "nodes": []any{table{}, table{"key": where("none")}}}
	_, err = h.Settings(json.RawMessage(schema), missing)
	if want := "nodes[1].key: file does not exist\npassword: file does not exist"; fmt.Sprint(err) != want || !Lasting(err) {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err := (Host{}).Settings(json.RawMessage(schema), missing); !Lasting(err) {
		t.Errorf("a host that reads no secrets: %v", err)
	}
	if got, err := h.Settings(nil, given); err != nil || cmp.Diff(given, got) != "" {
		t.Errorf("without a schema: got %v, %v", got, err)
	}
}

func TestSecretsOfAProcess(t *testing.T) {
	s := newStage(t, "moody", map[string]any{"secret": map[string]any{"file": "password"}})
	s.host.Reveal = func(where map[string]any) (string, error) {
		text, err := os.ReadFile(filepath.Join(s.dir, fmt.Sprint(where["file"])))
		return string(text), err
	}
	var mistake *sdk.KeyError
	for name, err := range map[string]error{"verify": s.Verify(t.Context()), "open": s.Open(t.Context())} {
		if !errors.As(err, &mistake) || mistake.Key != "secret" || !Lasting(err) {
			t.Errorf("%s without the secret: %v", name, err)
		}
	}
	s.write("password", "hunter1")
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	last := func(want string) {
		t.Helper()
		if notes := s.notes(); notes[len(notes)-1] != want {
			t.Errorf("it was told %s, want %s at last", notes, want)
		}
	}
	last("secret hunter1")

	// What is the same but for the secret has changed, once.
	same := s.defined()
	s.write("password", "hunter2")
	for i, want := range []bool{true, false} {
		if _, changed, err := s.Configure(t.Context(), same); err != nil || changed != want {
			t.Errorf("time %d with another secret: changed is %t, %v", i+1, changed, err)
		}
	}
	if notes := strings.Join(s.notes(), "\n"); strings.Count(notes, "secret hunter2") != 1 {
		t.Errorf("it was told %s", notes)
	}

	// Without it those of before stay, also for the next process.
	if err := os.Remove(filepath.Join(s.dir, "password")); err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(t.Context(), same); !errors.As(err, &mistake) || mistake.Key != "secret" {
		t.Errorf("validate without the secret: %v", err)
	}
	if _, _, err := s.Configure(t.Context(), same); !errors.As(err, &mistake) || mistake.Key != "secret" {
		t.Errorf("configure without the secret: %v", err)
	}
	pid := s.PID()
	kill(pid, unix.SIGKILL)
	eventually(t, "another process", func() bool { now := s.PID(); return now != 0 && now != pid })
	last("secret hunter2")
	if text := s.log.String(); strings.Contains(text, "hunter") {
		t.Errorf("the log has the secret:\n%s", text)
	}
}
