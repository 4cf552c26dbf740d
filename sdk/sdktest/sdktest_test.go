package sdktest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestExampleKeepsTheContract(t *testing.T) {
	file := filepath.Join(t.TempDir(), "greeting")
	Run(t, Binary(Build(t, "../../examples/plugin-go")), Config{
		Settings: map[string]any{"file": file},
		Promoted: func() (bool, error) {
			_, err := os.Stat(file)
			if errors.Is(err, fs.ErrNotExist) {
				return false, nil
			}
			return err == nil, err
		},
	})
}
