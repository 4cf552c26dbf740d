package config

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares a text with the file of that name.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: (-want +got)\n%s", file, diff)
	}
}

// Each testdata/mistakes/NAME.toml is refused with what NAME.txt says.
func TestServiceMistakes(t *testing.T) {
	each(t, "testdata/mistakes/*.toml", func(t *testing.T, file string) error {
		_, err := LoadService(file, []string{"guard", "http", "mysql", "tcp", "vip"})
		return err
	})
}

// The same for nodes.
func TestNodeMistakes(t *testing.T) {
	for _, name := range []string{"everything", "secrets", "empty", "dropin", "notify"} {
		each(t, "testdata/node/"+name+".toml", func(t *testing.T, file string) error {
			_, err := LoadNode(file)
			return err
		})
	}
}

func each(t *testing.T, pattern string, load func(*testing.T, string) error) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(file, ".toml")
		t.Run(filepath.Base(name), func(t *testing.T) {
			var mistakes Mistakes
			if err := load(t, file); !errors.As(err, &mistakes) {
				t.Fatalf("got %v, want mistakes", err)
			}
			said := strings.ReplaceAll(mistakes.Error(), filepath.Dir(file)+"/", "")
			if strings.Contains(said, "hunter2") {
				t.Error("a password is in the message")
			}
			golden(t, name+".txt", said+"\n")
		})
	}
}

func TestUnreadableFile(t *testing.T) {
	dir := t.TempDir()
	_, err := LoadService(dir+"/orders-db.toml", nil)
	want := dir + "/orders-db.toml: cannot be read: no such file or directory"
	if err == nil || err.Error() != want {
		t.Errorf("missing file: got %v, want %s", err, want)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want not-exist", err)
	}
	if err := os.WriteFile(dir+"/huge.toml", make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadService(dir+"/huge.toml", nil); err == nil || !strings.Contains(err.Error(), "larger than 256 KiB") {
		t.Errorf("huge file: got %v", err)
	}
	if _, err := LoadNode(dir + "/deputy.toml"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("missing node: got %v", err)
	}
}
