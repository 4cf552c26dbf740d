package sdktest

import (
	"encoding/json"
	"slices"
	"strings"
)

// Readme fails the test for each setting of a schema whose row is missing from
// the chapter "Settings" of a README, and for each row there that is of none.
// Rows are | `key` | `default` | what it is for |, as the schema has them.
func Readme(t T, readme string, schema json.RawMessage) {
	t.Helper()
	want, err := readmeRows("", schema)
	if err != nil {
		t.Fatalf("schema: %v", err)
	}
	for _, row := range want {
		if !strings.Contains(readme, row+"\n") {
			t.Errorf("README.md lacks the row\n%s", row)
		}
	}
	_, section, _ := strings.Cut(readme, "## Settings\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		if line = strings.TrimSuffix(line, "\n"); strings.HasPrefix(line, "| `") && !slices.Contains(want, line) {
			t.Errorf("README.md has a row that the schema does not have:\n%s", line)
		}
	}
}

// readmeRows are the rows of the settings at and below a key.
func readmeRows(key string, schema json.RawMessage) ([]string, error) {
	var p struct {
		Description string
		Default     json.RawMessage
		Properties  map[string]json.RawMessage
	}
	if err := json.Unmarshal(schema, &p); err != nil {
		return nil, err
	}
	if len(p.Properties) == 0 {
		standard := ""
		if len(p.Default) > 0 {
			standard = "`" + string(p.Default) + "`"
		}
		return []string{"| `" + key + "` | " + standard + " | " + p.Description + " |"}, nil
	}
	var all []string
	for name, sub := range p.Properties {
		rows, err := readmeRows(strings.TrimPrefix(key+"."+name, "."), sub)
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
	}
	slices.Sort(all)
	return all, nil
}
