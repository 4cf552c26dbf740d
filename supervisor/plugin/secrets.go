package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/deputy-ha/deputy/sdk"
)

// A shape is what a plugin's schema says of a setting, as far as secrets lie in
// it. A plugin's author may write any JSON Schema, so what is not understood is
// passed by.
type shape struct {
	Type       json.RawMessage            `json:"type"`
	WriteOnly  bool                       `json:"writeOnly"` // a secret, or holds them
	Items      json.RawMessage            `json:"items"`
	Properties map[string]json.RawMessage `json:"properties"`
	Additional json.RawMessage            `json:"additionalProperties"`
}

func shapeOf(schema json.RawMessage) shape {
	var s shape
	_ = json.Unmarshal(schema, &s)
	return s
}

// text reports whether it is a text, and can be no table.
func (s shape) text() bool {
	return strings.Contains(string(s.Type), `"string"`) && !strings.Contains(string(s.Type), `"object"`)
}

// below is the shape of a key in a table.
func (s shape) below(key string) shape {
	if is, ok := s.Properties[key]; ok {
		return shapeOf(is)
	}
	return shapeOf(s.Additional)
}

// Settings returns a config as a plugin with that schema is given it: where a
// secret is to be found has given way to the secret. Only a text that the
// schema calls writeOnly may be written so, as a table; what is right in such a
// table is for Reveal to judge. Errors are joined, an sdk.KeyError for each
// secret that cannot be read, and tell none.
func (h Host) Settings(schema json.RawMessage, config map[string]any) (map[string]any, error) {
	r := revealing{reveal: h.Reveal}
	whole, _ := r.value(shapeOf(schema), false, "", config).(map[string]any)
	return whole, errors.Join(r.wrong...)
}

// A revealing copies settings and reads the secrets in them.
type revealing struct {
	reveal func(map[string]any) (string, error)
	wrong  []error
}

// value returns the copy of a value at a path. What lies in a secret is one.
func (r *revealing) value(s shape, secret bool, path string, given any) any {
	secret = secret || s.WriteOnly
	switch v := given.(type) {
	case []any:
		all := make([]any, len(v))
		for i, one := range v {
			all[i] = r.value(shapeOf(s.Items), secret, fmt.Sprintf("%s[%d]", path, i), one)
		}
		return all
	case map[string]any:
		if secret && s.text() {
			return r.secret(path, v)
		}
		all := make(map[string]any, len(v))
		for _, key := range slices.Sorted(maps.Keys(v)) {
			all[key] = r.value(s.below(key), secret, strings.TrimPrefix(path+"."+key, "."), v[key])
		}
		return all
	}
	return given
}

func (r *revealing) secret(path string, where map[string]any) any {
	err := errors.New("nothing here reads secrets: write it as a text")
	if r.reveal != nil {
		var text string
		if text, err = r.reveal(where); err == nil {
			return text
		}
	}
	r.wrong = append(r.wrong, &sdk.KeyError{Key: path, Err: err})
	return nil
}
