package rundir

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deputy-ha/deputy/supervisor"
)

func TestDefinitionOutlivesTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	d := open(t, path)
	if _, err := d.Definition(); !errors.Is(err, fs.ErrNotExist) || Defined(path) {
		t.Errorf("at first: %v", err)
	}
	s := supervisor.Service{Name: "db", TTL: 3 * time.Second, Parts: []supervisor.Part{{
		Use: "vip", Name: "address", Demote: supervisor.ActPolicy{Timeout: time.Second},
		Config: map[string]any{"address": "192.0.2.10", "count": int64(math.MaxInt64), "deep": map[string]any{"list": []any{true, 0.5}}},
	}}}
	if err := d.SaveDefinition(s); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(path, definitionFile))
	if err != nil || info.Mode().Perm() != 0o600 || !Defined(path) {
		t.Errorf("the file is %v, %v", info, err)
	}

	d = open(t, path)
	want := s
	want.Parts[0].Config["count"] = json.Number("9223372036854775807")
	want.Parts[0].Config["deep"] = map[string]any{"list": []any{true, json.Number("0.5")}}
	want.File = filepath.Join(path, definitionFile)
	got, err := d.Definition()
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}

	// What cannot be kept leaves none of before.
	s.Parts[0].Config = map[string]any{"weight": math.NaN()}
	if err := d.SaveDefinition(s); err == nil || Defined(path) {
		t.Errorf("what JSON lacks: %v", err)
	}
	if err := os.WriteFile(filepath.Join(path, definitionFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Definition(); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a damaged one: %v", err)
	}
	for range 2 {
		if err := d.ForgetDefinition(); err != nil || Defined(path) {
			t.Errorf("forget: %v", err)
		}
	}
}
