package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// maxFile bounds a file; what is larger was not written by hand.
const maxFile = 256 << 10

// A value is something in a document, and where it is.
type value struct {
	at place
	is any // string, int64, float64, bool, time.Time, []*value or map[string]*value
}

// readDocument reads and parses one file.
func readDocument(file string) (*value, Mistakes) {
	src, err := readFile(file)
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		return nil, Mistakes{{File: file, Text: "cannot be read: " + err.Error(), cause: err}}
	}
	return parseDocument(file, src)
}

func readFile(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxFile {
		return "", fmt.Errorf("larger than %d KiB", maxFile>>10)
	}
	return string(b), nil
}

// parseDocument parses a file's text. The library stops at the first mistake
// of syntax, so there is at most one.
func parseDocument(file, src string) (*value, Mistakes) {
	src = strings.TrimPrefix(src, "\uFEFF")
	var plain map[string]any
	if _, err := toml.Decode(src, &plain); err != nil {
		var syntax toml.ParseError
		if !errors.As(err, &syntax) {
			return nil, Mistakes{{File: file, Line: 1, Column: 1, Text: "is not TOML: " + err.Error()}}
		}
		at := clamp(file, src, syntax.Position)
		return nil, Mistakes{{File: file, Line: at.line, Column: at.column, Key: syntax.LastKey, Text: "is not TOML: " + syntax.Message}}
	}
	root := scan(file, src)
	if at, found := emptyKey(root); found {
		return nil, Mistakes{{File: file, Line: at.line, Column: at.column, Key: `""`, Text: "is an empty key; give it a name, or remove it"}}
	}
	return join(plain, root, place{file, 1, 1}), nil
}

// emptyKey finds a key "". TOML allows it, nothing here is called so, and the
// library loses values of an array that holds a table with such a key.
func emptyKey(n *node) (place, bool) {
	for key, below := range n.keys {
		if key == "" {
			return below.at, true
		}
		if at, found := emptyKey(below); found {
			return at, true
		}
	}
	for _, below := range n.elems {
		if at, found := emptyKey(below); found {
			return at, true
		}
	}
	return place{}, false
}

// clamp makes a place of the library's position: columns in characters, and
// inside the file.
func clamp(file, src string, p toml.Position) place {
	lines := strings.Split(src, "\n")
	line := min(max(p.Line, 1), len(lines))
	text := lines[line-1]
	bytes := min(max(p.Col-1, 0), len(text))
	for bytes > 0 && bytes < len(text) && !utf8.RuneStart(text[bytes]) {
		bytes-- // the library may point into the middle of a character
	}
	return place{file, line, utf8.RuneCountInString(text[:bytes]) + 1}
}

// join puts values and positions together. A value whose position is not
// known has that of what contains it.
func join(plain any, n *node, around place) *value {
	if n == nil {
		n = &node{at: around}
	}
	v := &value{at: n.at, is: plain}
	elem := func(i int) *node {
		if i < len(n.elems) {
			return n.elems[i]
		}
		return nil
	}
	switch p := plain.(type) {
	case map[string]any:
		keys := make(map[string]*value, len(p))
		for k, below := range p {
			keys[k] = join(below, n.keys[k], n.at)
		}
		v.is = keys
	case []any:
		elems := make([]*value, len(p))
		for i, below := range p {
			elems[i] = join(below, elem(i), n.at)
		}
		v.is = elems
	case []map[string]any:
		elems := make([]*value, len(p))
		for i, below := range p {
			elems[i] = join(below, elem(i), n.at)
		}
		v.is = elems
	}
	return v
}

// plain is the value without its positions, as plugins are given it.
func (v *value) plain() any {
	switch is := v.is.(type) {
	case map[string]*value:
		m := make(map[string]any, len(is))
		for k, below := range is {
			m[k] = below.plain()
		}
		return m
	case []*value:
		a := make([]any, len(is))
		for i, below := range is {
			a[i] = below.plain()
		}
		return a
	default:
		return is
	}
}

// kind names the value's type for people.
func (v *value) kind() string {
	switch is := v.is.(type) {
	case string:
		if len(is) > 40 {
			return "a text"
		}
		return fmt.Sprintf("the text %q", is)
	case int64:
		return fmt.Sprintf("the number %d", is)
	case float64:
		return fmt.Sprintf("the number %v", is)
	case bool:
		return fmt.Sprint(is)
	case time.Time:
		return "a date"
	case []*value:
		return "an array"
	case map[string]*value:
		return "a table"
	default:
		return fmt.Sprintf("a %T", is)
	}
}

// merge puts later over v, key by key; arrays and single values are replaced.
func (v *value) merge(later *value) {
	ours, ok := v.is.(map[string]*value)
	theirs, also := later.is.(map[string]*value)
	if !ok || !also {
		*v = *later
		return
	}
	for k, below := range theirs {
		if ours[k] == nil {
			ours[k] = below
		} else {
			ours[k].merge(below)
		}
	}
}
