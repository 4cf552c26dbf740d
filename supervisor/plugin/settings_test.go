package plugin

import (
	"errors"
	"log/slog"
	"slices"
	"testing"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

func TestMistakesInTheSettings(t *testing.T) {
	good := []any{"/bin/true"}
	for _, c := range []struct {
		name   string
		config map[string]any
		keys   []string // of the mistakes; empty for one that is no key's
	}{
		{"sound", map[string]any{"promote": good, "demote": []string{"/bin/true", "x"}, "check": good, "follow": good, "fence": good, "user": "root", "forced_bound": "1s", "unknown": "warning"}, nil},
		{"nothing to run", map[string]any{"user": "root"}, []string{""}},
		{"nothing at all", nil, []string{""}},
		{"a string", map[string]any{"demote": "/bin/true"}, []string{"demote"}},
		{"no strings", map[string]any{"demote": []any{"/bin/true", int64(1)}}, []string{"demote"}},
		{"empty", map[string]any{"demote": []any{}}, []string{"demote"}},
		{"relative", map[string]any{"demote": []any{"true"}}, []string{"demote"}},
		{"zero byte", map[string]any{"demote": []any{"/bin/true", "\x00"}}, []string{"demote"}},
		{"promotes for ever", map[string]any{"promote": good}, []string{"promote"}},
		{"bound", map[string]any{"demote": good, "forced_bound": int64(1)}, []string{"forced_bound"}},
		{"bound below zero", map[string]any{"demote": good, "forced_bound": "-1s"}, []string{"forced_bound"}},
		{"what UNKNOWN is", map[string]any{"check": good, "unknown": "fit"}, []string{"unknown"}},
		{"unknown and more", map[string]any{"demot": good, "check": "x", "user": int64(0)}, []string{"check", "demot", "user"}},
	} {
		_, err := New(Host{Log: slog.New(slog.DiscardHandler)}, supervisor.Part{Use: "exec", Name: "hook", Config: c.config})
		var keys []string
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				var mistake *sdk.KeyError
				if errors.As(e, &mistake) {
					keys = append(keys, mistake.Key)
				} else {
					keys = append(keys, "")
				}
			}
		}
		if !slices.Equal(keys, c.keys) {
			t.Errorf("%s: got mistakes in %q, want %q: %v", c.name, keys, c.keys, err)
		}
	}
}
