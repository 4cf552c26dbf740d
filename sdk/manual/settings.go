package manual

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// A Setting says of one setting what people want to know.
type Setting struct {
	Key      string // with those of the tables around it; [] is each of an array, * each of a table
	Value    string // what may be written, in words
	Default  string // as it is written; empty when there is none
	Required bool
	Doc      string
}

// standard is what a column of defaults has.
func (s Setting) standard() string {
	if s.Required {
		return "required"
	}
	return s.Default
}

// A node is the schema of one value, as far as it is told. What is of another
// kind than expected is left out: a plugin may say what it likes.
type node struct {
	kind, format, pattern, doc string
	standard, properties       json.RawMessage
	least, most                json.Number
	enum                       []json.RawMessage
	items, additional          json.RawMessage
	required                   []string
	secret                     bool
}

func nodeOf(schema json.RawMessage) node {
	var has map[string]json.RawMessage
	_ = json.Unmarshal(schema, &has) // true and false are schemas, too
	var n node
	for key, into := range map[string]any{
		"type": &n.kind, "format": &n.format, "pattern": &n.pattern, "description": &n.doc,
		"minimum": &n.least, "maximum": &n.most, "enum": &n.enum, "required": &n.required, "writeOnly": &n.secret,
	} {
		_ = json.Unmarshal(has[key], into)
	}
	n.standard, n.properties, n.items, n.additional = has["default"], has["properties"], has["items"], has["additionalProperties"]
	return n
}

// Settings are those that a JSON Schema has, in its order. What is no JSON is
// an error.
func Settings(schema json.RawMessage) ([]Setting, error) {
	if len(schema) == 0 {
		return nil, nil
	}
	if !json.Valid(schema) {
		return nil, fmt.Errorf("read the schema of its settings: it is no JSON: %.40q", schema)
	}
	return below("", schema), nil
}

// below returns the settings of a table whose keys begin with prefix.
func below(prefix string, schema json.RawMessage) (all []Setting) {
	top := nodeOf(schema)
	dec := json.NewDecoder(bytes.NewReader(top.properties))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil
	}
	for dec.More() {
		token, _ := dec.Token() // all of it is known to be JSON
		name := fmt.Sprint(token)
		var one json.RawMessage
		_ = dec.Decode(&one)
		n := nodeOf(one)
		value, _ := n.words()
		s := Setting{
			Key: Tidy(prefix + name), Value: Tidy(value), Default: Tidy(spaced(n.standard)), Doc: Tidy(n.doc),
			Required: slices.Contains(top.required, name),
		}
		all = append(all, s)
		for key := s.Key; len(one) > 0; n = nodeOf(one) {
			all = append(all, below(key+".", one)...)
			if one = n.items; len(one) > 0 {
				key += "[]"
			} else if one = n.additional; len(one) > 0 {
				key += ".*"
			}
		}
	}
	return all
}

// spaced is JSON with a space behind each element of an array, at which a line
// may end.
func spaced(value json.RawMessage) string {
	var all []json.RawMessage
	if json.Unmarshal(value, &all) != nil || all == nil {
		return string(value)
	}
	words := make([]string, len(all))
	for i, one := range all {
		words[i] = string(one)
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// words say what one value is written as, and several.
func (n node) words() (one, many string) {
	one, many = n.noun()
	if limits := n.limits(); limits != "" {
		one, many = one+", "+limits, many+", each "+limits
	}
	if n.secret {
		one += ", secret"
	}
	return one, many
}

func (n node) noun() (one, many string) {
	switch {
	case len(n.enum) > 0:
		words := make([]string, len(n.enum))
		for i, w := range n.enum {
			words[i] = string(w)
		}
		one = strings.Join(words, ", ")
		if last := len(words) - 1; last > 0 {
			one = strings.Join(words[:last], ", ") + " or " + words[last]
		}
		return one, one
	case n.kind == "array":
		item := nodeOf(n.items)
		if item.kind == "array" {
			item, _ := item.words()
			return "array, each " + item, "arrays, each an array, each " + item
		}
		_, items := item.words()
		return "array of " + items, "arrays of " + items
	case n.kind == "object":
		if each := nodeOf(n.additional); len(n.properties) == 0 && each.kind != "" {
			value, _ := each.words()
			return "table with any keys, each " + value, "tables with any keys, each " + value
		}
		return "table", "tables"
	case n.kind == "boolean":
		return "true or false", "true or false"
	case n.kind == "integer":
		return "whole number", "whole numbers"
	case n.kind == "number":
		return "number", "numbers"
	case n.format == "ip":
		return "IP address", "IP addresses"
	case n.format == "ip-prefix":
		return "IP address with its prefix length", "IP addresses with their prefix lengths"
	case n.format == "ip-port":
		return "IP address with its port", "IP addresses with their ports"
	case n.format != "":
		return "text (" + n.format + ")", "texts (" + n.format + ")"
	case strings.Contains(n.pattern, "ns|us"):
		return "duration", "durations"
	case n.kind == "string":
		return "text", "texts"
	}
	return "any value", "any values"
}

// limits says between what a number may be. What only says how large the
// numbers of a machine are is left out.
func (n node) limits() string {
	of := func(limit json.Number) bool {
		f, ok := new(big.Float).SetString(limit.String())
		return ok && f.Abs(f).Cmp(big.NewFloat(1<<31-1)) < 0
	}
	switch least, most := of(n.least), of(n.most); {
	case least && most:
		return n.least.String() + " to " + n.most.String()
	case least:
		return "at least " + n.least.String()
	case most:
		return "at most " + n.most.String()
	}
	return ""
}

// Markdown returns settings as a table for a README.
func Markdown(settings []Setting) string {
	if len(settings) == 0 {
		return "It has no settings.\n"
	}
	var b strings.Builder
	b.WriteString("| setting | value | default | what it is for |\n|---|---|---|---|\n")
	cell := strings.NewReplacer("|", `\|`, "\n", " ")
	for _, s := range settings {
		standard := s.standard()
		if standard != "" && !s.Required {
			standard = "`" + standard + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", s.Key, cell.Replace(s.Value), cell.Replace(standard), cell.Replace(s.Doc))
	}
	return b.String()
}
