package main

import (
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/deputy-ha/deputy/supervisor"
)

// What is printed for programs is told in deputy-json(7), key by key: another
// shape shows there.
func TestManualHasEveryKeyOfJSON(t *testing.T) {
	sections := map[string]string{}
	for _, s := range strings.Split(page(t, "deputy-json.7.md"), "\n### ")[1:] {
		name, text, _ := strings.Cut(s, "\n")
		sections[name] = text
	}
	for name, of := range map[string]any{
		supervisor.ReportFormat: supervisor.Report{}, "remark": supervisor.Remark{}, "node": supervisor.NodeReport{},
		"primary": supervisor.Primary{}, "pause": supervisor.Pause{}, "reservation": supervisor.Reservation{},
		"local": supervisor.Status{}, "part": supervisor.PartStatus{}, "absent": supervisor.Absence{},
		explainFormat: explanation{}, "rank": rank{}, changeFormat: change{}, "step": supervisor.Step{},
		moveFormat: moved{}, "event": event{}, planFormat: plan{}, "bound": bound{},
	} {
		text, ok := sections[name]
		if !ok {
			t.Errorf("deputy-json(7) does not tell of %s", name)
		}
		delete(sections, name)
		var told []string
		for _, row := range regexp.MustCompile(`(?m)^\| ([a-z_, ]+) \|`).FindAllStringSubmatch(text, -1) {
			if row[1] != "key" {
				told = append(told, strings.Split(row[1], ", ")...)
			}
		}
		keys := jsonKeys(reflect.TypeOf(of))
		if name == supervisor.ReportFormat {
			keys = append(keys, "format", "remarks") // of the moment it is printed
		}
		agree(t, name+" in deputy-json(7)", keys, told)
	}
	for name := range sections {
		t.Errorf("deputy-json(7) tells of %s, which there is not", name)
	}
}

// jsonKeys are the keys of a struct's JSON.
func jsonKeys(of reflect.Type) (keys []string) {
	for i := range of.NumField() {
		f := of.Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && key == "":
			keys = append(keys, jsonKeys(f.Type)...)
		case key != "-":
			keys = append(keys, key)
		}
	}
	return keys
}
