package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPositionsParsedOnce(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       int
		err        string // part of it; empty for none
	}{
		{"two nodes after another", "1 n1 1 10\n2 n1 1 15\n3 n2 2 20\n", 3, ""},
		{"parsed twice", "1 n1 1 10\n2 n1 1 15\n2 n2 2 20\n", 0, "n2 parsed position 2 where 3 was due, after n1"},
		{"left out", "1 n1 1 10\n3 n2 2 20\n", 0, "n2 parsed position 3 where 2 was due"},
		{"torn", "1 n1 1 10\nx\n", 0, "read position 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "positions")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := once(file)
			switch {
			case c.err == "" && (err != nil || got != c.want):
				t.Errorf("got %d, %v, want %d", got, err, c.want)
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("got %v, want an error with %q", err, c.err)
			}
		})
	}
}
