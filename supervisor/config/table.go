package config

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// A table reads the keys of a TOML table into typed variables. A variable
// whose key is missing or mistaken keeps what it had, its default; mistakes
// are collected, and reading goes on.
type table struct {
	at    place
	path  string // "" at the top, else ending in a dot
	keys  map[string]*value
	known []string
	wrong *Mistakes
}

// top is the document's own table.
func top(v *value, wrong *Mistakes) *table {
	keys, _ := v.is.(map[string]*value)
	return &table{at: v.at, keys: keys, wrong: wrong}
}

// get returns a key's value, or nil, and remembers that the key is known.
func (t *table) get(key string) *value {
	t.known = append(t.known, key)
	return t.keys[key]
}

// has reports whether the key is there.
func (t *table) has(key string) bool { return t.keys[key] != nil }

// where is the key's own place, or the table's where it is missing.
func (t *table) where(key string) place {
	if v := t.keys[key]; v != nil {
		return v.at
	}
	return t.at
}

// mistake notes a mistake about a key.
func (t *table) mistake(key, format string, args ...any) {
	t.wrong.add(t.where(key), t.path+key, format, args...)
}

// close reports the keys that nobody asked for.
func (t *table) close() {
	for _, key := range slices.Sorted(maps.Keys(t.keys)) {
		if !slices.Contains(t.known, key) {
			t.wrong.add(t.keys[key].at, t.path+quoteKey(key), "unknown key; %s", suggest(key, t.known))
		}
	}
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

// sub reads a table below this one; a missing one is empty.
func (t *table) sub(key string) *table {
	s := &table{at: t.where(key), path: t.path + key + ".", wrong: t.wrong}
	if v := t.get(key); v != nil {
		keys, ok := v.is.(map[string]*value)
		if !ok {
			t.mistake(key, "must be a table like { key = value }, not %s", v.kind())
		}
		s.keys = keys
	}
	return s
}

// subs reads an array of tables.
func (t *table) subs(key string) []*table {
	v := t.get(key)
	if v == nil {
		return nil
	}
	elems, ok := v.is.([]*value)
	if !ok {
		t.mistake(key, "must be written as [[%s]], with two brackets, once for each", key)
		return nil
	}
	var subs []*table
	for _, e := range elems {
		keys, ok := e.is.(map[string]*value)
		if !ok {
			t.wrong.add(e.at, t.path+key, "must be a table, not %s", e.kind())
			continue
		}
		subs = append(subs, &table{at: e.at, path: t.path + key + ".", keys: keys, wrong: t.wrong})
	}
	return subs
}

// text reads a string and reports whether one is there.
func (t *table) text(key string, into *string) bool {
	v := t.get(key)
	if v == nil {
		return false
	}
	s, ok := v.is.(string)
	if !ok {
		t.mistake(key, "must be a text in quotes, not %s", v.kind())
		return false
	}
	*into = s
	return true
}

// flag reads true or false.
func (t *table) flag(key string, into *bool) {
	v := t.get(key)
	if v == nil {
		return
	}
	b, ok := v.is.(bool)
	if !ok {
		t.mistake(key, "must be true or false, without quotes, not %s", v.kind())
		return
	}
	*into = b
}

// number reads a whole number within bounds.
func (t *table) number(key string, into *int, least, most int64) {
	v := t.get(key)
	if v == nil {
		return
	}
	n, ok := v.is.(int64)
	switch {
	case !ok:
		t.mistake(key, "must be a whole number, without quotes, not %s", v.kind())
	case n < least:
		t.mistake(key, "is %d, must be at least %d", n, least)
	case n > most:
		t.mistake(key, "is %d, must be at most %d", n, most)
	default:
		*into = int(n)
	}
}

// duration reads a duration within bounds and reports whether a good one is there.
func (t *table) duration(key string, into *time.Duration, least, most time.Duration) bool {
	v := t.get(key)
	if v == nil {
		return false
	}
	s, ok := v.is.(string)
	if !ok {
		hint := `"3s" or "500ms"`
		if n, isNumber := v.is.(int64); isNumber && n > 0 && n < math.MaxInt32 {
			hint = fmt.Sprintf(`"%ds" or "%dms"`, n, n)
		}
		t.mistake(key, "must be a duration in quotes with its unit, like %s, not %s", hint, v.kind())
		return false
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		t.mistake(key, `%q is not a duration; write a number and its unit (ms, s, m, h), like "500ms" or "1m30s"`, s)
	case d < least:
		t.mistake(key, "is %s, must be at least %s", short(d), short(least))
	case d > most:
		t.mistake(key, "is %s, must be at most %s", short(d), short(most))
	default:
		*into = d
		return true
	}
	return false
}

// oneOf reads one of a few words.
func oneOf[T ~string](t *table, key string, into *T, words ...T) {
	var s string
	if !t.text(key, &s) {
		return
	}
	known := make([]string, len(words))
	for i, w := range words {
		if T(s) == w {
			*into = w
			return
		}
		known[i] = string(w)
	}
	t.mistake(key, "%q is not one of its values; %s", s, suggest(s, known))
}

// texts reads an array of strings, each with its place.
func (t *table) texts(key string) ([]string, []place) {
	v := t.get(key)
	if v == nil {
		return nil, nil
	}
	elems, ok := v.is.([]*value)
	if !ok {
		t.mistake(key, `must be an array of texts like ["one", "two"], not %s`, v.kind())
		return nil, nil
	}
	out, at := make([]string, 0, len(elems)), make([]place, 0, len(elems))
	for _, e := range elems {
		s, ok := e.is.(string)
		if !ok {
			t.wrong.add(e.at, t.path+key, "must hold only texts in quotes, not %s", e.kind())
			continue
		}
		out, at = append(out, s), append(at, e.at)
	}
	return out, at
}

// short writes a duration without the zeros that nobody needs: 5m, not 5m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
