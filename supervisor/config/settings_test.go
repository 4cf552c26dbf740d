package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/deputy-ha/deputy/sdk"
)

func TestSettingsAreBlamedByLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hello.toml")
	text := "greeting = 1\n\n[[peer]]\nport = 1\n\n[[peer]]\nport = 0\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := LoadSettings(file)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"greeting": int64(1), "peer": []any{map[string]any{"port": int64(1)}, map[string]any{"port": int64(0)}}}
	if diff := cmp.Diff(want, s.Table); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	key := func(k, text string) error { return &sdk.KeyError{Key: k, Err: errors.New(text)} }
	for _, c := range []struct {
		err  error
		want string // FILE is the file
	}{
		{key("greeting", "must be a text"), "FILE:1:1: greeting: must be a text"},
		{key("peer[1].port", "is zero"), "FILE:7:1: peer[1].port: is zero"},
		{key("peer.0.port", "is one"), "FILE:4:1: peer.0.port: is one"},
		{key("file", "is missing"), "FILE:1:1: file: is missing"},
		{key("peer[1].name", "is missing"), "FILE:6:3: peer[1].name: is missing"},
		{errors.Join(key("peer[0].port", "is one"), key("greeting", "must be a text")), "FILE:1:1: greeting: must be a text\nFILE:4:1: peer[0].port: is one"},
		{errors.New("no connection"), "no connection"},
		{fmt.Errorf("validate hello: %w", errors.Join(key("greeting", "must be a text"), key("file", "is missing"))), "FILE:1:1: file: is missing\nFILE:1:1: greeting: must be a text"},
		{errors.Join(errors.New("no connection"), key("greeting", "must be a text")), "FILE:1:1: greeting: must be a text\nno connection"},
	} {
		if got := strings.ReplaceAll(s.Blame(c.err).Error(), file, "FILE"); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	if s.Blame(nil) != nil {
		t.Error("nothing is wrong, and something is blamed")
	}
	if err := (Settings{}).Blame(key("a", "b")); err.Error() != "a: b" {
		t.Errorf("got %v, want the error as it is", err)
	}
}

func TestSettingsThatCannotBeRead(t *testing.T) {
	if _, err := LoadSettings(filepath.Join(t.TempDir(), "none.toml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that there is no such file", err)
	}
	if _, err := ReadSettings("-", strings.NewReader("a = ")); err == nil || !strings.Contains(err.Error(), "-:1:") {
		t.Errorf("got %v, want the line", err)
	}
	if _, err := ReadSettings("-", strings.NewReader(strings.Repeat("#", maxFile+1))); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("got %v, want that it is too large", err)
	}
	if s, err := ReadSettings("-", strings.NewReader("")); err != nil || len(s.Table) != 0 {
		t.Errorf("got %v, %v, want no settings", s, err)
	}
}

func TestBlameOfAPartNamesFileLineAndPlugin(t *testing.T) {
	file := filepath.Join(t.TempDir(), "db.toml")
	text := `ttl = "3s"

[[plugin]]
use = "vip"
config = { address = "192.0.2.10/32" }

[[plugin]]
use = "vip"
name = "second"
[plugin.config]
interface = "eth0"
address = "192.0.2.11"
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := LoadService(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	missing := &sdk.KeyError{Key: "label", Err: errors.New("is missing")}
	odd := &sdk.KeyError{Key: "address", Err: errors.New("has no prefix")}
	got := PartSettings(s, "second").Blame(fmt.Errorf("open second: %w", errors.Join(missing, odd, errors.New("and more"))))
	want := file + ":10:9: plugin.config.label: plugin second: is missing\n" +
		file + ":12:1: plugin.config.address: plugin second: has no prefix\nand more"
	if got.Error() != want {
		t.Errorf("got\n%v, want\n%s", got, want)
	}
	got = PartSettings(s, "vip").Blame(odd)
	if want := file + ":5:12: plugin.config.address: plugin vip: has no prefix"; got.Error() != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got := PartSettings(s, "vip").Blame(odd); !errors.Is(got, error(odd)) {
		t.Errorf("without the file: got %v, want what the plugin said", got)
	}
}
