package plugin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

// A record is a line of a log, as log/slog or hclog write it in JSON.
type record struct {
	level slog.Level
	text  string
	attrs []slog.Attr
}

// maxAttrs is how many attributes of a record are logged.
const maxAttrs = 32

// parseRecord reads a line of a log in JSON. Whatever is not just as these two
// libraries write it is no record: ok is false, and the line is text.
func parseRecord(line []byte) (_ record, ok bool) {
	line = bytes.TrimSpace(line)
	if len(line) == 0 || line[0] != '{' {
		return record{}, false
	}
	var fields map[string]any
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.UseNumber()
	if err := dec.Decode(&fields); err != nil || dec.More() {
		return record{}, false
	}
	keys := [...]string{"level", "msg", "time"} // of log/slog
	if _, ok := fields["@message"]; ok {
		keys = [...]string{"@level", "@message", "@timestamp"} // of hclog
	}
	var told [len(keys)]string
	for i, key := range keys {
		value, given := fields[key]
		delete(fields, key)
		if told[i], ok = value.(string); given && !ok || i == 1 && !given {
			return record{}, false
		}
	}
	r := record{text: clean([]byte(told[1]), maxLine)}
	switch strings.ToLower(told[0]) {
	case "":
		r.level = slog.LevelInfo
	case "trace":
		r.level = slog.LevelDebug
	default:
		if err := r.level.UnmarshalText([]byte(told[0])); err != nil {
			return record{}, false
		}
	}
	if r.text == "" {
		r.text = "(no message)"
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if len(r.attrs) == maxAttrs {
			break
		}
		r.attrs = append(r.attrs, slog.String(attrName(key), attrValue(fields[key])))
	}
	return r, true
}

// attrName is the name under which an attribute of a plugin is logged. Those
// that the supervisor gives itself stay its own.
func attrName(key string) string {
	key = strings.Join(strings.Fields(clean([]byte(key), 64)), "_")
	switch key {
	case slog.TimeKey, slog.LevelKey, slog.MessageKey, slog.SourceKey, "", "line", "service", "node", "plugin", "role":
		return "plugin_" + key
	case "@module":
		return "module"
	}
	return key
}

func attrValue(v any) string {
	text, ok := v.(string)
	if !ok {
		if whole, err := json.Marshal(v); err == nil {
			text = string(whole)
		} else {
			text = fmt.Sprint(v)
		}
	}
	return cleanText(text, maxRecord)
}
