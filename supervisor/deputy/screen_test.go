package main

import (
	"bytes"
	"testing"
)

func TestNoTerminal(t *testing.T) {
	if s := screenOf(new(bytes.Buffer), func(string) string { return "" }); s.terminal || s.colour || s.width != plainWidth {
		t.Errorf("got %+v, want no terminal, no colour and %d columns", s, plainWidth)
	}
}
