package sdktest

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
)

// A notebook is a test that only notes its failures.
type notebook struct {
	*testing.T
	said []string
}

func (n *notebook) Errorf(format string, args ...any) {
	n.said = append(n.said, fmt.Sprintf(format, args...))
}

func TestReadme(t *testing.T) {
	schema := json.RawMessage(`{"properties": {
		"file": {"description": "where"},
		"probe": {"properties": {"count": {"description": "how often", "default": 3}}}
	}}`)
	const file, count = "| `file` |  | where |\n", "| `probe.count` | `3` | how often |\n"
	for name, c := range map[string]struct {
		readme string
		want   []string
	}{
		"complete":       {"# x\n\n## Settings\n" + file + count + "\n## Limits\n| `other` | | not a setting |\n", nil},
		"one is missing": {"## Settings\n" + file, []string{"README.md lacks the row\n| `probe.count` | `3` | how often |"}},
		"another default": {"## Settings\n" + file + "| `probe.count` | `4` | how often |\n", []string{
			"README.md lacks the row\n| `probe.count` | `3` | how often |",
			"README.md has a row that the schema does not have:\n| `probe.count` | `4` | how often |",
		}},
	} {
		n := &notebook{T: t}
		if Readme(n, c.readme, schema); !slices.Equal(n.said, c.want) {
			t.Errorf("%s: said %q, want %q", name, n.said, c.want)
		}
	}
}
