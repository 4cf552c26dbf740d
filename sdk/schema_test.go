package sdk

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"github.com/deputy-ha/deputy/sdk/manual"
)

// What the schema takes decode takes, as somebody else reads JSON Schema
// (python3-jsonschema), who first judges the schema itself.
func TestSchemaAgreesWithDecode(t *testing.T) {
	s := describe[every](t)
	wide, err := manual.Plugin{Name: "every", Schema: json.RawMessage(s.schema())}.EditorSchema()
	if err != nil {
		t.Fatal(err)
	}
	own, editors := written(t, s.schema()), written(t, string(wide))
	for _, c := range []struct {
		settings string
		right    bool
	}{
		{`{"need":"x"}`, true},
		{`{"need":"x","port":8080,"small":-128,"share":1,"every":"1m","addr":"192.0.2.1","on":"fail","flag":false}`, true},
		{`{"need":"x","families":["ipv6"],"times":["1s"],"labels":{"a":"b"},"retry":{"count":1},"tls":{"cert":"c"},"nodes":[{"host":"h"}]}`, true},
		{`{}`, false},
		{`{"need":""}`, false},
		{`{"need":"x","neet":"y"}`, false},
		{`{"need":"x","port":8081}`, false},
		{`{"need":"x","port":"80"}`, false},
		{`{"need":"x","small":128}`, false},
		{`{"need":"x","share":1.5}`, false},
		{`{"need":"x","every":"1 day"}`, false},
		{`{"need":"x","on":"never"}`, false},
		{`{"need":"x","families":["ipx"]}`, false},
		{`{"need":"x","families":"ipv4"}`, false},
		{`{"need":"x","labels":{"a":1}}`, false},
		{`{"need":"x","retry":{"count":0}}`, false},
		{`{"need":"x","tls":{}}`, false},
		{`{"need":"x","nodes":[{"port":1}]}`, false},
		{`{"need":"x","password":{"credential":"c"}}`, false}, // which deputy has read before
	} {
		if _, err := s.decode(c.settings); (err == nil) != c.right {
			t.Errorf("decode of %s: %v, want right %t", c.settings, err, c.right)
		}
		if said, right := judged(t, own, c.settings); right != c.right {
			t.Errorf("schema on %s: right %t, want %t\n%s", c.settings, right, c.right, said)
		}
	}
	for settings, want := range map[string]bool{
		`{"need":"x","password":"p"}`:                           true,
		`{"need":"x","password":{"credential":"c"}}`:            true,
		`{"need":"x","password":{"file":"/f"}}`:                 true,
		`{"need":"x","password":{}}`:                            false,
		`{"need":"x","password":{"file":"f","credential":"c"}}`: false,
		`{"need":{"credential":"c"}}`:                           false,
	} {
		if said, right := judged(t, editors, settings); right != want {
			t.Errorf("editors' schema on %s: right %t, want %t\n%s", settings, right, want, said)
		}
	}
}

// judged has settings judged by a schema, in a file.
func judged(t *testing.T, schema, settings string) (said string, right bool) {
	t.Helper()
	out, err := exec.Command("/usr/bin/jsonschema", "-i", written(t, settings), schema).CombinedOutput()
	var failed *exec.ExitError
	if err != nil && (!errors.As(err, &failed) || strings.Contains(string(out), "Traceback")) {
		t.Fatalf("this needs the package python3-jsonschema: %v\n%s", err, out)
	}
	return string(out), err == nil
}

// Each default in the schema is one that its own schema takes.
func TestSchemaTakesItsDefaults(t *testing.T) {
	s := describe[every](t)
	var schema struct {
		Properties map[string]struct{ Default any }
	}
	if err := json.Unmarshal([]byte(s.schema()), &schema); err != nil {
		t.Fatal(err)
	}
	settings := map[string]any{"need": "x"}
	for key, p := range schema.Properties {
		if p.Default != nil {
			settings[key] = p.Default
		}
	}
	if len(settings) < 8 {
		t.Fatalf("few defaults: %v", settings)
	}
	text, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	given, err := s.decode(string(text))
	if err != nil {
		t.Fatal(err)
	}
	left, err := s.decode(`{"need":"x"}`)
	if err != nil || !reflect.DeepEqual(given.Interface(), left.Interface()) {
		t.Errorf("with defaults %v, without %v: %v", given, left, err)
	}
	if said, right := judged(t, written(t, s.schema()), string(text)); !right {
		t.Error(said)
	}
}

func written(t *testing.T, text string) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "*.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}
