package main

import (
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/plugin"
)

// What `describe exec` says has to be what exec takes.
func TestExecIsDescribedAsItIs(t *testing.T) {
	settings, err := settingsOf("", execAbout().Schema)
	if err != nil {
		t.Fatal(err)
	}
	config := map[string]any{}
	for _, s := range settings {
		switch s.kind {
		case "list of text":
			config[s.key] = []any{"/bin/true"}
		case "duration":
			config[s.key] = "1s"
		case "text":
			config[s.key] = "root"
		case "unfit | warning":
			config[s.key] = "warning"
		default:
			t.Errorf("%s is of a kind that exec does not have: %s", s.key, s.kind)
		}
	}
	p, err := plugin.New(plugin.Host{Log: slog.New(slog.DiscardHandler)}, supervisor.Part{Use: execPlugin, Name: execPlugin, Config: config})
	if err != nil {
		t.Fatalf("exec does not take what its schema has: %v", err)
	}
	if diff := cmp.Diff(execAbout().Capabilities, p.Describe().Capabilities); diff != "" {
		t.Errorf("capabilities (-described +with all settings):\n%s", diff)
	}
	if p.Describe().ForcedBound == 0 {
		t.Error("exec has not taken forced_bound")
	}
}

func TestSettingsAreReadOffASchema(t *testing.T) {
	const schema = `{"type": "object", "required": ["zone"], "properties": {
		"zone": {"type": "string", "description": "the zone"},
		"kind": {"enum": ["A", "AAAA"], "default": "A"},
		"ttl": {"type": "string", "pattern": "([0-9]+(ns|us|ms|s|m|h))+", "default": "5s"},
		"port": {"type": "integer", "default": 53},
		"dry": {"type": "boolean"},
		"address": {"type": "string", "format": "ip"},
		"tsig": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "key": {"type": "string"}}},
		"server": {"type": "array", "items": {"type": "object", "properties": {"host": {"type": "string"}}}}
	}}`
	got, err := settingsOf("", json.RawMessage(schema))
	if err != nil {
		t.Fatal(err)
	}
	want := []setting{
		{key: "zone", kind: "text", what: "the zone", required: true},
		{key: "kind", kind: "A | AAAA", standard: `"A"`},
		{key: "ttl", kind: "duration", standard: `"5s"`},
		{key: "port", kind: "integer", standard: "53"},
		{key: "dry", kind: "true | false"},
		{key: "address", kind: "ip"},
		{key: "tsig", kind: "table"},
		{key: "tsig.name", kind: "text", required: true},
		{key: "tsig.key", kind: "text"},
		{key: "server", kind: "list of table"},
		{key: "server[].host", kind: "text"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(setting{})); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	for _, none := range []string{"", "{}", `{"type": "object"}`} {
		if got, err := settingsOf("", json.RawMessage(none)); err != nil || got != nil {
			t.Errorf("schema %q: got %v, %v, want no settings", none, got, err)
		}
	}
	if _, err := settingsOf("", json.RawMessage(`{"properties": []}`)); err != nil {
		t.Logf("refused: %v", err)
	}
}
