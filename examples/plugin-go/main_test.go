package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/sdktest"
)

// The contract, case by case: see the verdicts with go test -v.
func TestContract(t *testing.T) {
	file := filepath.Join(t.TempDir(), "greeting")
	sdktest.Run(t, sdktest.Binary(sdktest.Build(t, ".")), sdktest.Config{
		Settings: map[string]any{"file": file, "greeting": "good morning"},
		Promoted: func() (bool, error) {
			said, err := os.ReadFile(file)
			if errors.Is(err, fs.ErrNotExist) {
				return false, nil
			}
			return string(said) == "good morning", err
		},
	})
}

func TestReadmeHasTheSettings(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if table := sdk.SettingsTable(sdk.New("hello", newGreeter)); !strings.Contains(string(readme), table) {
		t.Errorf("README.md lacks the settings as they are:\n%s", table)
	}
}
