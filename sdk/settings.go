package sdk

import (
	"encoding/json"
	"reflect"
)

// settings are a plugin's settings as its struct describes them.
type settings struct {
	of reflect.Type
}

func settingsOf(t reflect.Type) *settings { return &settings{of: t} }

// decode returns the struct that a JSON object of settings makes, or every
// mistake in it.
func (s *settings) decode(config string) (reflect.Value, error) {
	v := reflect.New(s.of)
	if err := json.Unmarshal([]byte(config), v.Interface()); err != nil {
		return reflect.Value{}, err
	}
	return v.Elem(), nil
}

// schema returns the settings as a JSON Schema.
func (s *settings) schema() string { return "{}" }
