package sdk

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"
)

// settings are a plugin's settings as its struct describes them: what one may
// write, what it is for, and what is wrong with what was written.
type settings struct{ top *shape }

// A kind is how a value is written in TOML.
type kind int

const (
	text       kind = iota
	boolean         // true or false
	whole           // a whole number
	number          // any number
	duration        // a text such as "200ms"
	parsed          // a text that its type reads
	list            // an array
	dictionary      // a table with any keys
	table           // a table with a key for each field
)

// A shape is what values of a type look like.
type shape struct {
	kind   kind
	of     reflect.Type // never a pointer
	option bool         // behind a pointer, which is nil when it is not given
	elem   *shape       // of a list or dictionary
	fields []*field     // of a table
}

// A field is one setting of a table.
type field struct {
	shape     *shape
	key       string
	at        []int // where in the struct, as reflect has it
	doc       string
	standard  any // the default as JSON has it; nil when there is none
	required  bool
	sensitive bool
	enum      []string
	least     reflect.Value // of each number or duration; not valid when there is no bound
	most      reflect.Value
	bounds    [2]string // both as written
}

// scalar is the shape of what a setting holds, or of what its list holds.
func (f *field) scalar() *shape {
	s := f.shape
	for s.elem != nil {
		s = s.elem
	}
	return s
}

// limits says between what a number or duration may be.
func (f *field) limits() string {
	switch least, most := f.least.IsValid(), f.most.IsValid(); {
	case least && most:
		return f.bounds[0] + " to " + f.bounds[1]
	case least:
		return "at least " + f.bounds[0]
	case most:
		return "at most " + f.bounds[1]
	}
	return ""
}

// settingsOf reads off a struct what its settings are.
func settingsOf(t reflect.Type) (*settings, error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("%s is no struct of settings", t)
	}
	fields, err := fieldsOf(t, nil)
	return &settings{&shape{kind: table, of: t, fields: fields}}, err
}

// shapeOf tells how values of a type are written. Above are the structs that
// it is part of.
func shapeOf(t reflect.Type, above []reflect.Type) (*shape, error) {
	s := &shape{of: t}
	if t.Kind() == reflect.Pointer {
		s.of, s.option = t.Elem(), true
	}
	var err error
	switch k := s.of.Kind(); {
	case s.of == reflect.TypeFor[time.Duration]():
		s.kind = duration
	case reflect.PointerTo(s.of).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		s.kind = parsed
	case k == reflect.String:
		s.kind = text
	case k == reflect.Bool:
		s.kind = boolean
	case k >= reflect.Int && k <= reflect.Uint64:
		s.kind = whole
	case k == reflect.Float32 || k == reflect.Float64:
		s.kind = number
	case k == reflect.Slice:
		s.kind = list
		s.elem, err = shapeOf(s.of.Elem(), above)
	case k == reflect.Map && s.of.Key().Kind() == reflect.String:
		s.kind = dictionary
		s.elem, err = shapeOf(s.of.Elem(), above)
	case k == reflect.Struct && slices.Contains(above, s.of):
		err = fmt.Errorf("%s is part of itself", s.of)
	case k == reflect.Struct:
		s.kind = table
		s.fields, err = fieldsOf(s.of, above)
	default:
		err = fmt.Errorf("a setting cannot be a %s", t)
	}
	return s, err
}

// fieldsOf reads the settings off a struct; those of embedded structs are its
// own.
func fieldsOf(t reflect.Type, above []reflect.Type) ([]*field, error) {
	above = append(slices.Clip(above), t)
	var all []*field
	for i := range t.NumField() {
		sf := t.Field(i)
		key, tagged := sf.Tag.Lookup("toml")
		var found []*field
		var err error
		switch {
		case sf.Anonymous && !tagged && sf.Type.Kind() == reflect.Struct && !slices.Contains(above, sf.Type):
			found, err = fieldsOf(sf.Type, above)
		case !sf.IsExported() && !tagged, key == "-":
			continue
		case !sf.IsExported():
			err = errors.New("has a tag toml but is not exported")
		default:
			var f *field
			f, err = fieldOf(sf, above)
			found = []*field{f}
		}
		if err != nil {
			return nil, fmt.Errorf("field %s.%s: %w", t, sf.Name, err)
		}
		for _, f := range found {
			f.at = append([]int{i}, f.at...)
			if slices.ContainsFunc(all, func(other *field) bool { return other.key == f.key }) {
				return nil, fmt.Errorf("field %s.%s: there is another setting %s", t, sf.Name, f.key)
			}
			all = append(all, f)
		}
	}
	return all, nil
}

// fieldOf reads one setting off its field.
func fieldOf(sf reflect.StructField, above []reflect.Type) (*field, error) {
	f := &field{key: sf.Tag.Get("toml"), doc: sf.Tag.Get("doc")}
	switch {
	case f.key == "":
		return nil, errors.New("needs a tag toml with its key")
	case f.key != quoteKey(f.key):
		return nil, fmt.Errorf("key %q: use letters, digits, _ and -", f.key)
	case f.doc == "":
		return nil, errors.New("needs a tag doc that says what it is for")
	}
	var err error
	if f.shape, err = shapeOf(sf.Type, above); err != nil {
		return nil, err
	}
	for tag, into := range map[string]*bool{"required": &f.required, "sensitive": &f.sensitive} {
		switch said, ok := sf.Tag.Lookup(tag); {
		case said == "true":
			*into = true
		case ok:
			return nil, fmt.Errorf("tag %s is %q, must be \"true\"", tag, said)
		}
	}
	one := f.scalar()
	if words, ok := sf.Tag.Lookup("enum"); ok {
		if f.enum = strings.Split(words, "|"); one.kind != text && one.kind != parsed {
			return nil, errors.New("tag enum is for texts")
		}
	}
	for i, tag := range []string{"min", "max"} {
		said, ok := sf.Tag.Lookup(tag)
		if !ok {
			continue
		}
		if one.kind != whole && one.kind != number && one.kind != duration {
			return nil, fmt.Errorf("tag %s is for numbers and durations", tag)
		}
		bound, plain := reflect.New(one.of).Elem(), *one
		plain.option = false
		var d decoder
		if !d.read(bound, &plain, &field{}, tag, literal(&plain, said)) {
			return nil, fmt.Errorf("tag %w", d.err())
		}
		f.bounds[i] = said
		*[]*reflect.Value{&f.least, &f.most}[i] = bound
	}
	said, ok := sf.Tag.Lookup("default")
	switch {
	case !ok:
		return f, nil
	case f.required:
		return nil, errors.New("is required, so it can have no default")
	case f.shape.kind == table || f.shape.kind == dictionary || f.shape.option:
		return nil, errors.New("can have no default of its own")
	}
	f.standard = literal(f.shape, said)
	d := decoder{}
	if d.read(reflect.New(f.shape.of).Elem(), f.shape, f, f.key, f.standard); d.err() != nil {
		return nil, fmt.Errorf("tag default: %w", d.err())
	}
	return f, nil
}

// literal returns what a tag says as JSON has it. The elements of a list are
// apart by commas.
func literal(s *shape, said string) any {
	switch s.kind {
	case boolean:
		if said == "true" || said == "false" {
			return said == "true"
		}
	case whole, number:
		return json.Number(said)
	case list:
		all := []any{}
		for one := range strings.SplitSeq(said, ",") {
			if one = strings.TrimSpace(one); one != "" {
				all = append(all, literal(s.elem, one))
			}
		}
		return all
	}
	return said
}

// A noun names what a text is to be that its type reads.
type noun struct{ one, example, format string }

func nounOf(t reflect.Type) noun {
	switch t {
	case reflect.TypeFor[netip.Addr]():
		return noun{"an IP address", "192.0.2.10", "ip"}
	case reflect.TypeFor[netip.Prefix]():
		return noun{"an IP address with its prefix length", "192.0.2.10/24", "ip-prefix"}
	case reflect.TypeFor[netip.AddrPort]():
		return noun{"an IP address with its port", "192.0.2.10:80", "ip-port"}
	}
	return noun{one: "a text"}
}

// quoteKey writes a key as it must be written in TOML.
func quoteKey(key string) string {
	bare := key != "" && !strings.ContainsFunc(key, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
	})
	if bare {
		return key
	}
	return fmt.Sprintf("%q", key)
}
