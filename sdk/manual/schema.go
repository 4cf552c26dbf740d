package manual

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// EditorSchema is the JSON Schema of what stands under config in a definition,
// for editors: the plugin's own, with a title, and with secrets that may also be
// references, { credential = "NAME" } or { file = "/path" }, which deputy reads
// before the plugin is told. The order of its keys is kept.
func (p Plugin) EditorSchema() (json.RawMessage, error) {
	schema := p.Schema
	if len(schema) == 0 {
		schema = json.RawMessage(`{"type":"object"}`)
	}
	dec := json.NewDecoder(bytes.NewReader(schema))
	dec.UseNumber()
	read, err := ordered(dec)
	if err != nil {
		return nil, fmt.Errorf("read the schema of its settings: %w", err)
	}
	wide := widen(read, false)
	if o, ok := wide.(object); ok {
		wide = slices.Concat(object{
			{"title", "Settings of the plugin " + p.Name},
			{"description", strings.TrimSuffix(p.Summary(), ".")},
		}, o.without("title", "description"))
	}
	return json.Marshal(wide)
}

// An object is one of JSON whose members keep their order.
type object []member

type member struct {
	key   string
	value any
}

func (o object) get(key string) any {
	for _, m := range o {
		if m.key == key {
			return m.value
		}
	}
	return nil
}

func (o object) without(keys ...string) object {
	return slices.DeleteFunc(slices.Clone(o), func(m member) bool { return slices.Contains(keys, m.key) })
}

// MarshalJSON writes the members in their order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(m.key)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(append(append(key, ':'), value...))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// ordered reads one value.
func ordered(dec *json.Decoder) (any, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		all := object{}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, err
			}
			value, err := ordered(dec)
			if err != nil {
				return nil, err
			}
			all = append(all, member{fmt.Sprint(key), value})
		}
		_, err = dec.Token()
		return all, err
	case json.Delim('['):
		all := []any{}
		for dec.More() {
			value, err := ordered(dec)
			if err != nil {
				return nil, err
			}
			all = append(all, value)
		}
		_, err = dec.Token()
		return all, err
	}
	return token, nil
}

// reference is how a secret is written that is not told.
func reference() object {
	text := object{{"type", "string"}}
	return object{
		{"type", "object"},
		{"properties", object{{"credential", text}, {"file", text}}},
		{"additionalProperties", false},
		{"minProperties", 1},
		{"maxProperties", 1},
	}
}

// widen lets each text that is a secret be a reference, too. What lies in a
// secret is one.
func widen(schema any, secret bool) any {
	o, ok := schema.(object)
	if !ok {
		return schema
	}
	secret = secret || o.get("writeOnly") == true
	if secret && o.get("type") == "string" {
		about := []string{"title", "description", "default", "writeOnly"}
		text := o.without(about...)
		o = slices.DeleteFunc(slices.Clone(o), func(m member) bool { return !slices.Contains(about, m.key) })
		return append(o, member{"anyOf", []any{text, reference()}})
	}
	wide := slices.Clone(o)
	for i, m := range wide {
		switch m.key {
		case "items", "additionalProperties":
			wide[i].value = widen(m.value, secret)
		case "properties":
			if all, ok := m.value.(object); ok {
				all = slices.Clone(all)
				for j := range all {
					all[j].value = widen(all[j].value, secret)
				}
				wide[i].value = all
			}
		}
	}
	return wide
}
