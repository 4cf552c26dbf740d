package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/deputy-ha/deputy/sdk/sdktest"
)

// It is small, and keeps the contract all the same.
func TestContract(t *testing.T) {
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range strings.Lines(string(source)) {
		if strings.TrimSpace(line) != "" {
			lines++
		}
	}
	t.Logf("%d lines that are not blank", lines)
	if lines > 20 {
		t.Errorf("%d lines that are not blank, want 20 at most", lines)
	}
	file := filepath.Join(t.TempDir(), "role")
	sdktest.Run(t, sdktest.Binary(sdktest.Build(t, ".")), sdktest.Config{
		Settings: map[string]any{"file": file},
		Promoted: func() (bool, error) {
			said, err := os.ReadFile(file)
			if errors.Is(err, fs.ErrNotExist) {
				return false, nil
			}
			return len(said) > 0, err
		},
	})
}
