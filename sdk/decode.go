package sdk

import (
	"cmp"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// decode returns the struct that a JSON object of settings makes, or every
// mistake in it, joined: a KeyError each where it is one setting's.
func (s *settings) decode(config string) (reflect.Value, error) {
	var given any
	in := json.NewDecoder(strings.NewReader(config))
	in.UseNumber() // integers stay exact
	if err := in.Decode(&given); err != nil && config != "" {
		return reflect.Value{}, fmt.Errorf("settings are not JSON: %w", err)
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return reflect.Value{}, errors.New("settings are not JSON: more follows the object")
	}
	if config == "" {
		given = map[string]any{}
	}
	v := reflect.New(s.top.of).Elem()
	var d decoder
	if _, ok := given.(map[string]any); !ok {
		return v, fmt.Errorf("settings must be a JSON object, not %s", kindOf(given))
	}
	d.read(v, s.top, &field{}, "", given)
	return v, d.err()
}

// A validator can tell what is wrong with settings whose values are right one
// by one.
type validator interface{ Validate() error }

// A decoder reads values as JSON has them into variables. Mistakes are
// collected, and reading goes on.
type decoder struct{ wrong []error }

func (d *decoder) err() error { return errors.Join(d.wrong...) }

func (d *decoder) mistake(path, format string, args ...any) bool {
	d.wrong = append(d.wrong, &KeyError{Key: path, Err: fmt.Errorf(format, args...)})
	return false
}

// read reads one value and reports whether it is right. Of a list and a
// dictionary f holds for the elements.
func (d *decoder) read(v reflect.Value, s *shape, f *field, path string, given any) bool {
	if s.option {
		v.Set(reflect.New(s.of))
		v = v.Elem()
	}
	is := func(must string, args ...any) bool {
		what := kindOf(given)
		if f.sensitive {
			what = "what is given"
		}
		return d.mistake(path, "must be "+must+", not %s", append(args, what)...)
	}
	switch s.kind {
	case boolean:
		b, ok := given.(bool)
		if !ok {
			return is("true or false, without quotes")
		}
		v.SetBool(b)
	case whole:
		return d.whole(v, f, path, given, is)
	case number:
		n, ok := given.(json.Number)
		if !ok {
			return is("a number, without quotes")
		}
		x, err := strconv.ParseFloat(n.String(), s.of.Bits())
		if err != nil || math.IsInf(x, 0) || math.IsNaN(x) {
			return is("a number of no more than %d bits", s.of.Bits())
		}
		v.SetFloat(x)
		return d.bounds(v, f, path)
	case text, duration, parsed:
		return d.text(v, s, f, path, given, is)
	case list:
		return d.list(v, s, f, path, given, is)
	case dictionary:
		entries, ok := given.(map[string]any)
		if !ok {
			return is("a table like { key = value }")
		}
		v.Set(reflect.MakeMapWithSize(v.Type(), len(entries)))
		before := len(d.wrong)
		for _, key := range slices.Sorted(maps.Keys(entries)) {
			one := reflect.New(v.Type().Elem()).Elem()
			d.read(one, s.elem, f, below(path, quoteKey(key)), entries[key])
			v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), one)
		}
		return len(d.wrong) == before
	case table:
		entries, ok := given.(map[string]any)
		if !ok {
			return is("a table like { key = value }")
		}
		return d.table(v, s, path, entries)
	}
	return true
}

// table reads the settings of a table, and asks its struct about the whole once
// each is right.
func (d *decoder) table(v reflect.Value, s *shape, path string, entries map[string]any) bool {
	before := len(d.wrong)
	var known []string
	for _, f := range s.fields {
		known = append(known, f.key)
		at := below(path, f.key)
		given, ok := entries[f.key]
		into := v.FieldByIndex(f.at)
		switch {
		case ok:
			if d.read(into, f.shape, f, at, given) && f.required && isEmpty(into) {
				d.mistake(at, "is empty, and it is required: %s", f.doc)
			}
		case f.required:
			d.mistake(at, "is missing, and it is required: %s", f.doc)
		case f.standard != nil:
			d.read(into, f.shape, f, at, f.standard)
		case f.shape.kind == table && !f.shape.option:
			d.table(into, f.shape, at, nil) // what is required in it is missing, and the rest has its defaults
		}
	}
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		if !slices.Contains(known, key) {
			d.mistake(below(path, quoteKey(key)), "unknown key; %s", suggest(key, known))
		}
	}
	if whole, ok := v.Addr().Interface().(validator); ok && len(d.wrong) == before {
		d.wrong = append(d.wrong, relocate(whole.Validate(), path)...)
	}
	return len(d.wrong) == before
}

func (d *decoder) list(v reflect.Value, s *shape, f *field, path string, given any, is func(string, ...any) bool) bool {
	all, ok := given.([]any)
	switch {
	case ok:
	case s.elem.kind == table:
		return is("an array of tables like [{ key = value }]")
	default:
		return is("an array like [one, two]")
	}
	v.Set(reflect.MakeSlice(v.Type(), len(all), len(all)))
	before := len(d.wrong)
	for i, one := range all {
		d.read(v.Index(i), s.elem, f, fmt.Sprintf("%s[%d]", path, i), one)
	}
	return len(d.wrong) == before
}

// text reads what is written in quotes.
func (d *decoder) text(v reflect.Value, s *shape, f *field, path string, given any, is func(string, ...any) bool) bool {
	said, ok := given.(string)
	shown := strconv.Quote(said)
	if f.sensitive {
		shown = "what is given"
	}
	switch s.kind {
	case text:
		if !ok {
			return is("a text in quotes")
		}
		v.SetString(said)
	case duration:
		if n, isNumber := given.(json.Number); isNumber && len(n) < 10 {
			return is(`a duration in quotes with its unit, like "%ss" or "%sms"`, n, n)
		}
		if !ok {
			return is(`a duration in quotes with its unit, like "3s" or "500ms"`)
		}
		length, err := time.ParseDuration(said)
		if err != nil {
			return d.mistake(path, `%s is not a duration; write a number and its unit (ms, s, m, h), like "500ms" or "1m30s"`, shown)
		}
		v.SetInt(int64(length))
		return d.bounds(v, f, path)
	case parsed:
		n := nounOf(s.of)
		if !ok {
			return is(n.one + " in quotes")
		}
		if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(said)); err != nil {
			switch {
			case n.example != "":
				return d.mistake(path, "%s is not %s, like %q", shown, n.one, n.example)
			case f.sensitive:
				return d.mistake(path, "what is given cannot be read")
			}
			return d.mistake(path, "%s: %w", shown, err)
		}
	}
	if f.enum != nil && !slices.Contains(f.enum, said) {
		return d.mistake(path, "%s is not one of its values; %s", shown, suggest(said, f.enum))
	}
	return true
}

// whole reads a whole number into a variable that may be too small for it.
func (d *decoder) whole(v reflect.Value, f *field, path string, given any, is func(string, ...any) bool) bool {
	n, ok := given.(json.Number)
	if !ok {
		return is("a whole number, without quotes")
	}
	exact, ok := new(big.Int).SetString(n.String(), 10)
	if !ok {
		return is("a whole number")
	}
	least, most := limits(v.Type())
	switch {
	case exact.Cmp(least) < 0:
		return d.mistake(path, "is %s, must be at least %s", n, least)
	case exact.Cmp(most) > 0:
		return d.mistake(path, "is %s, must be at most %s", n, most)
	case v.CanInt():
		v.SetInt(exact.Int64())
	default:
		v.SetUint(exact.Uint64())
	}
	return d.bounds(v, f, path)
}

// limits are the smallest and the largest number that a type holds.
func limits(t reflect.Type) (least, most *big.Int) {
	least, most = new(big.Int), big.NewInt(1)
	if k := t.Kind(); k >= reflect.Int && k <= reflect.Int64 {
		most.Lsh(most, uint(t.Bits()-1))
		least.Neg(most)
	} else {
		most.Lsh(most, uint(t.Bits()))
	}
	return least, most.Sub(most, big.NewInt(1))
}

// bounds holds a number or a duration against the bounds that its tags give.
func (d *decoder) bounds(v reflect.Value, f *field, path string) bool {
	shown := fmt.Sprint(v)
	if f.sensitive {
		shown = "what it must not be"
	}
	switch {
	case f.least.IsValid() && compare(v, f.least) < 0:
		return d.mistake(path, "is %s, must be at least %s", shown, f.bounds[0])
	case f.most.IsValid() && compare(v, f.most) > 0:
		return d.mistake(path, "is %s, must be at most %s", shown, f.bounds[1])
	}
	return true
}

// compare holds two values of one type of numbers against each other.
func compare(a, b reflect.Value) int {
	switch {
	case a.CanInt():
		return cmp.Compare(a.Int(), b.Int())
	case a.CanUint():
		return cmp.Compare(a.Uint(), b.Uint())
	}
	return cmp.Compare(a.Float(), b.Float())
}

// isEmpty reports whether a value holds nothing, though it is given.
func isEmpty(v reflect.Value) bool {
	v = reflect.Indirect(v)
	switch v.Kind() {
	case reflect.String, reflect.Slice, reflect.Map:
		return v.Len() == 0
	}
	return false
}

// kindOf names a value as TOML does.
func kindOf(given any) string {
	switch is := given.(type) {
	case nil:
		return "null"
	case string:
		if len(is) > 40 {
			return "a text"
		}
		return fmt.Sprintf("the text %q", is)
	case json.Number:
		if len(is) > 40 {
			return "such a long one"
		}
		return "the number " + is.String()
	case []any:
		return "an array"
	case map[string]any:
		return "a table"
	}
	return fmt.Sprint(given)
}

// below is the path of a key in the table of a path.
func below(path, key string) string {
	if path == "" || key == "" || key[0] == '[' {
		return path + key
	}
	return path + "." + key
}

// relocate returns the mistakes of an error about the table of a path.
func relocate(err error, path string) []error {
	var all []error
	for _, one := range apart(err) {
		var key *KeyError
		switch {
		case errors.As(one, &key):
			all = append(all, &KeyError{Key: below(path, key.Key), Err: key.Err})
		case path != "":
			all = append(all, &KeyError{Key: path, Err: one})
		default:
			all = append(all, one)
		}
	}
	return all
}

// apart returns the errors that were joined to one, as errors.Join does.
func apart(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	switch {
	case err == nil:
		return nil
	case !ok || err.Error() != errors.Join(joined.Unwrap()...).Error(): // its own words tell more
		return []error{err}
	}
	var all []error
	for _, one := range joined.Unwrap() {
		all = append(all, apart(one)...)
	}
	return all
}
