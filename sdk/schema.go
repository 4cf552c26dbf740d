package sdk

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// A jsonSchema is what JSON Schema 2020-12 can say about settings.
type jsonSchema struct {
	Schema      string      `json:"$schema,omitempty"`
	Type        string      `json:"type,omitempty"`
	Description string      `json:"description,omitempty"`
	Format      string      `json:"format,omitempty"`
	Pattern     string      `json:"pattern,omitempty"`
	Enum        []string    `json:"enum,omitempty"`
	Minimum     json.Number `json:"minimum,omitempty"`
	Maximum     json.Number `json:"maximum,omitempty"`
	MinLength   int         `json:"minLength,omitempty"`
	MinItems    int         `json:"minItems,omitempty"`
	Default     any         `json:"default,omitempty"`
	WriteOnly   bool        `json:"writeOnly,omitempty"` // a secret
	Items       *jsonSchema `json:"items,omitempty"`
	Properties  *properties `json:"properties,omitempty"`
	Additional  any         `json:"additionalProperties,omitempty"` // false, or a schema
	Required    []string    `json:"required,omitempty"`
}

// properties keep the order in which the author has declared them.
type properties []struct {
	key string
	is  *jsonSchema
}

// MarshalJSON writes the properties in their order.
func (ps properties) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, p := range ps {
		if i > 0 {
			b.WriteByte(',')
		}
		is, err := json.Marshal(p.is)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%q:%s", p.key, is)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// schema returns the settings as a JSON Schema.
func (s *settings) schema() string {
	top := s.top.schema(&field{})
	top.Schema = "https://json-schema.org/draft/2020-12/schema"
	text, err := json.Marshal(top)
	if err != nil {
		panic(err) // it holds nothing that JSON has not
	}
	return string(text)
}

func (s *shape) schema(f *field) *jsonSchema {
	j := &jsonSchema{Enum: f.enum}
	switch s.kind {
	case boolean:
		j.Type = "boolean"
	case whole:
		j.Type = "integer"
		least, most := limits(s.of)
		if least.Sign() == 0 || s.of.Bits() < 64 { // no need to tell of the largest
			j.Minimum = json.Number(least.String())
		}
		if s.of.Bits() < 64 {
			j.Maximum = json.Number(most.String())
		}
		j.bounds(f)
	case number:
		j.Type = "number"
		j.bounds(f)
	case text:
		j.Type = "string"
	case duration:
		j.Type, j.Pattern = "string", durationPattern
	case parsed:
		j.Type, j.Format = "string", nounOf(s.of).format
	case list:
		j.Type, j.Enum, j.Items = "array", nil, s.elem.schema(f)
	case dictionary:
		j.Type, j.Enum, j.Additional = "object", nil, s.elem.schema(f)
	case table:
		j.Type, j.Properties, j.Additional = "object", &properties{}, false
		for _, f := range s.fields {
			p := f.shape.schema(f)
			p.Description, p.Default, p.WriteOnly = f.doc, f.standard, f.sensitive
			if limits := f.limits(); limits != "" && f.scalar().kind == duration {
				p.Description += " (" + limits + ")"
			}
			if f.required {
				j.Required = append(j.Required, f.key)
				switch f.shape.kind {
				case text, parsed, duration:
					p.MinLength = 1
				case list:
					p.MinItems = 1
				}
			}
			*j.Properties = append(*j.Properties, struct {
				key string
				is  *jsonSchema
			}{f.key, p})
		}
	}
	return j
}

// durationPattern is what time.ParseDuration reads.
const durationPattern = `^[-+]?(0|([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))*)$`

func (j *jsonSchema) bounds(f *field) {
	if f.least.IsValid() {
		j.Minimum = json.Number(f.bounds[0])
	}
	if f.most.IsValid() {
		j.Maximum = json.Number(f.bounds[1])
	}
}
