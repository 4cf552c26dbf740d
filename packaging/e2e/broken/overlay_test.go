package broken

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// root is that of the tree.
const root = "../../.."

// Each mutation fits the product as it is, and all of them together compile.
func TestMutationsFit(t *testing.T) {
	names := make(map[string]bool)
	for _, m := range Mutations() {
		if names[m.Name] || m.Why == "" {
			t.Errorf("%q is there twice, or does not tell why", m.Name)
		}
		names[m.Name] = true
		if _, err := Overlay(root, t.TempDir(), m); err != nil {
			t.Error(err)
		}
	}
	overlay, err := Overlay(root, t.TempDir(), Mutations()...)
	if err != nil {
		t.Fatal(err)
	}
	// Compiled, and not linked, which takes longest.
	cmd := exec.CommandContext(t.Context(), "go", "list", "-export", "-overlay", overlay, "./supervisor/deputy", "./plugins/...")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-trimpath")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestOverlay(t *testing.T) {
	tree := t.TempDir()
	if err := os.MkdirAll(filepath.Join(tree, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "a/b/c.go"), []byte("one two two"), 0o600); err != nil {
		t.Fatal(err)
	}
	edit := func(was, is string) Mutation {
		return Mutation{Name: "m", Edits: []Edit{{"a/b/c.go", was, is}}}
	}
	for _, c := range []struct {
		name string
		all  []Mutation
		want string // of the error; empty for none
	}{
		{"once", []Mutation{edit("one", "1"), edit("1 two", "2")}, ""},
		{"gone", []Mutation{edit("three", "3")}, "a/b/c.go has 0 times"},
		{"twice", []Mutation{edit("two", "2")}, "a/b/c.go has 2 times"},
		{"no file", []Mutation{{Name: "m", Edits: []Edit{{"a/d.go", "x", "y"}}}}, "mutate m: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			at, err := Overlay(tree, dir, c.all...)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			list, err := os.ReadFile(at)
			if err != nil || !strings.Contains(string(list), filepath.Join(tree, "a/b/c.go")) {
				t.Errorf("the overlay is %q (%v), want the file's own path in it", list, err)
			}
			if got, err := os.ReadFile(filepath.Join(dir, "a-b-c.go")); err != nil || string(got) != "2 two" {
				t.Errorf("got %q (%v), want both changes", got, err)
			}
			if was, err := os.ReadFile(filepath.Join(tree, "a/b/c.go")); err != nil || string(was) != "one two two" {
				t.Errorf("the tree has %q (%v) now", was, err)
			}
		})
	}
}
