package boottime

import (
	"errors"
	"os"
	"testing"
)

func TestBootIDStays(t *testing.T) {
	a, err := BootID()
	if err != nil {
		t.Fatal(err)
	}
	b, err := BootID()
	if err != nil || a != b || len(a) != 36 {
		t.Errorf("got %q, then %q, %v", a, b, err)
	}
}

func TestReadID(t *testing.T) {
	file := t.TempDir() + "/machine-id"
	if _, err := readID(file); !errors.Is(err, ErrNoID) {
		t.Errorf("no file: got %v, want no id", err)
	}
	for text, want := range map[string]string{
		"0123456789abcdef0123456789abcdef\n":       "0123456789abcdef0123456789abcdef",
		"01234567-89ab-cdef-0123-456789abcdef":     "01234567-89ab-cdef-0123-456789abcdef",
		"uninitialized\n":                          "",
		"":                                         "",
		"0123456789abcdef0123456789abcdeg\n":       "",
		"0123456789abcdef0123456789abcdef01234567": "",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readID(file)
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrNoID) {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
}
