package main

import (
	"bytes"
	"testing"
)

func TestPage(t *testing.T) {
	s := screen{terminal: true, height: 3}
	if got, want := s.page("a\nb\nc\n"), "\x1b[Ha\x1b[K\nb\x1b[K\nc\x1b[K\x1b[J"; got != want {
		t.Errorf("a page that fits: got %q, want %q", got, want)
	}
	if got, want := s.page("a\nb\nc\nd\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n... 2 more lines\x1b[K\x1b[J"; got != want {
		t.Errorf("a page that is too long: got %q, want %q", got, want)
	}
}

func TestNoTerminal(t *testing.T) {
	if s := screenOf(new(bytes.Buffer), func(string) string { return "" }); s.terminal || s.colour || s.width != plainWidth {
		t.Errorf("got %+v, want no terminal, no colour and %d columns", s, plainWidth)
	}
}
