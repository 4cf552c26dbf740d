package config

import (
	"strings"

	"github.com/BurntSushi/toml"
)

// The TOML library keeps the positions of keys to itself, so they are found
// here. The scanner only ever sees what the library has accepted, and so it
// checks nothing: it finds where keys and values begin and end.

// A place is a position in a file.
type place struct {
	file         string
	line, column int // from 1, the column in characters
}

// A node is a key, or an element of an array, and what lies below it.
type node struct {
	at    place
	keys  map[string]*node // of a table
	elems []*node          // of an array; of tables too
}

// child returns the node of a key below n, in the last element where n is an
// array of tables, and makes it where it is missing.
func (n *node) child(key string, at place) *node {
	if len(n.elems) > 0 {
		n = n.elems[len(n.elems)-1]
	}
	if n.keys == nil {
		n.keys = map[string]*node{}
	}
	if n.keys[key] == nil {
		n.keys[key] = &node{at: at}
	}
	return n.keys[key]
}

// scan finds the position of every key and array element of a valid document.
func scan(file, src string) *node {
	s := &scanner{src: src, at: place{file, 1, 1}}
	root := &node{at: place{file, 1, 1}}
	table := root
	for s.skip(" \t\r\n"); s.off < len(s.src); s.skip(" \t\r\n") {
		switch {
		case s.accept("[["):
			table = s.path(root)
			table.elems = append(table.elems, &node{at: s.last})
			s.accept("]]")
		case s.accept("["):
			table = s.path(root)
			s.accept("]")
		default:
			s.pair(table)
		}
	}
	return root
}

type scanner struct {
	src  string
	off  int
	last place // of the last part of the last path

	at      place // of the offset counted
	counted int
}

// here is the place of the offset at which the scanner stands. It only ever
// moves on, so each character is counted once.
func (s *scanner) here() place {
	for _, r := range s.src[s.counted:s.off] {
		s.at.column++
		if r == '\n' {
			s.at.line, s.at.column = s.at.line+1, 1
		}
	}
	s.counted = s.off
	return s.at
}

// skip passes over the given bytes and comments.
func (s *scanner) skip(bytes string) {
	for s.off < len(s.src) {
		switch c := s.src[s.off]; {
		case c == '#':
			s.until("\n")
		case strings.IndexByte(bytes, c) >= 0:
			s.off++
		default:
			return
		}
	}
}

// until passes over everything before the first of the given bytes.
func (s *scanner) until(bytes string) {
	if i := strings.IndexAny(s.src[s.off:], bytes); i >= 0 {
		s.off += i
	} else {
		s.off = len(s.src)
	}
}

func (s *scanner) accept(token string) bool {
	if strings.HasPrefix(s.src[s.off:], token) {
		s.off += len(token)
		return true
	}
	return false
}

// path reads a dotted key and returns its node below n.
func (s *scanner) path(n *node) *node {
	for {
		s.skip(" \t")
		s.last = s.here()
		n = n.child(s.key(), s.last)
		s.skip(" \t")
		if !s.accept(".") {
			return n
		}
	}
}

// key reads one part of a dotted key.
func (s *scanner) key() string {
	from := s.off
	if from < len(s.src) && (s.src[from] == '"' || s.src[from] == '\'') {
		s.quoted()
		return unquote(s.src[from:s.off])
	}
	s.until(".=[]{},#\"' \t\r\n")
	if s.off == from && s.off < len(s.src) {
		s.off++ // what cannot be in a valid document must not stop the scan
	}
	return s.src[from:s.off]
}

// unquote reads a quoted key as the library does.
func unquote(quoted string) string {
	var v struct{ K string }
	if _, err := toml.Decode("K = "+quoted, &v); err != nil {
		return quoted
	}
	return v.K
}

// pair reads a key and its value.
func (s *scanner) pair(table *node) {
	n := s.path(table)
	s.skip(" \t")
	s.accept("=")
	s.value(n)
}

// value passes over a value and notes what lies below it.
func (s *scanner) value(n *node) {
	s.skip(" \t")
	if s.off == len(s.src) {
		return
	}
	switch s.src[s.off] {
	case '"', '\'':
		s.quoted()
	case '[':
		s.within(']', func() {
			elem := &node{at: s.here()}
			n.elems = append(n.elems, elem)
			s.value(elem)
		})
	case '{':
		s.within('}', func() { s.pair(n) })
	default:
		s.until(",]}#\n")
	}
}

// within reads the items between the bracket at which it stands and its end.
func (s *scanner) within(end byte, item func()) {
	s.off++
	for {
		s.skip(" \t\r\n,")
		if s.off == len(s.src) {
			return
		}
		if s.src[s.off] == end {
			s.off++
			return
		}
		before := s.off
		item()
		if s.off == before {
			s.off++
		}
	}
}

// quoted passes over a string of any of the four kinds.
func (s *scanner) quoted() {
	quote := s.src[s.off : s.off+1]
	end := quote
	if strings.HasPrefix(s.src[s.off:], strings.Repeat(quote, 3)) {
		end = strings.Repeat(quote, 3)
	}
	for s.off += len(end); s.off < len(s.src); s.off++ {
		if quote == `"` && s.src[s.off] == '\\' {
			s.off++
			continue
		}
		if s.accept(end) {
			// Up to two quotes right before the end belong to the text.
			for range len(end) - 1 {
				s.accept(quote)
			}
			return
		}
	}
	s.off = min(s.off, len(s.src))
}
