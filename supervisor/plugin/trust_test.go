package plugin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/deputy-ha/deputy/sdk"
)

// tree makes bin/hooks/run, a program, and returns the folder above bin and
// the program's path.
func tree(t *testing.T) (dir, path string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "bin/hooks"), 0o755); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "bin/hooks/run")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir, path
}

func TestProgramThatOthersCouldChangeIsRefused(t *testing.T) {
	dir, path := tree(t)
	if err := trusted(path, os.Geteuid()); err != nil {
		t.Fatalf("a sound program is refused: %v", err)
	}
	for _, c := range []struct {
		change string
		mode   os.FileMode
		good   os.FileMode
	}{
		{"bin/hooks/run", 0o775, 0o755},
		{"bin/hooks/run", 0o757, 0o755},
		{"bin/hooks", 0o775, 0o755},
		{"bin", 0o777, 0o755},
	} {
		at := filepath.Join(dir, c.change)
		os.Chmod(at, c.mode)
		err := trusted(path, os.Geteuid())
		if !errors.Is(err, ErrUnsafe) || !strings.Contains(err.Error(), "chmod go-w "+at) {
			t.Errorf("%s with mode %o: got %v, want ErrUnsafe and its cure", c.change, c.mode, err)
		}
		os.Chmod(at, c.good)
	}
	os.Chmod(filepath.Join(dir, "bin"), 0o777|os.ModeSticky)
	if err := trusted(path, os.Geteuid()); err != nil {
		t.Errorf("in a folder where nobody can replace what is others': %v", err)
	}
}

func TestLinksAreFollowedAndTheirFoldersSeen(t *testing.T) {
	dir, path := tree(t)
	for at, to := range map[string]string{
		"current":       "bin",                 // relative, to a folder
		"bin/run":       "hooks/../hooks/run",  // with a way back
		"open/run":      path,                  // absolute
		"loop":          "loop",                // to itself
		"bin/hooks/up":  "../../current/./run", // through another link
		"bin/hooks/bad": "../../open/run",
	} {
		os.MkdirAll(filepath.Dir(filepath.Join(dir, at)), 0o755)
		if err := os.Symlink(to, filepath.Join(dir, at)); err != nil {
			t.Fatal(err)
		}
	}
	os.Chmod(filepath.Join(dir, "open"), 0o777)
	for at, good := range map[string]bool{
		"current/hooks/run": true, "bin/run": true, "current/run": true, "bin/hooks/up": true,
		"open/run": false, "loop": false, "bin/hooks/bad": false,
	} {
		if err := trusted(filepath.Join(dir, at), os.Geteuid()); (err == nil) != good {
			t.Errorf("%s: got %v, want good: %t", at, err, good)
		}
	}
}

func TestProgramOfAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		needsRoot(t)
	}
	for _, change := range []string{"bin/hooks/run", "bin/hooks", "bin"} {
		dir, path := tree(t)
		at := filepath.Join(dir, change)
		if err := os.Chown(at, 12345, 0); err != nil {
			t.Fatal(err)
		}
		err := trusted(path, 0)
		if !errors.Is(err, ErrUnsafe) || !strings.Contains(err.Error(), "it is 12345's: chown -h root "+at) {
			t.Errorf("%s is another's: got %v, want ErrUnsafe and its cure", change, err)
		}
		if err := trusted(path, 12345); err != nil {
			t.Errorf("%s is the supervisor's: got %v", change, err)
		}
	}
}

func TestProgramThatCannotBeRun(t *testing.T) {
	b := newBench(t, map[string]any{"promote": "exit 0", "demote": "exit 0", "check": "exit 0"})
	path := filepath.Join(b.dir, "promote")
	for _, c := range []struct {
		name  string
		spoil func() error
		want  string
	}{
		{"not executable", func() error { return os.Chmod(path, 0o644) }, "is not executable: chmod +x " + path},
		{"writable", func() error { return os.Chmod(path, 0o777) }, "chmod go-w " + path},
		{"missing", func() error { return os.Remove(path) }, path + " is not there"},
		{"a folder", func() error { return os.Mkdir(path, 0o755) }, "is a folder"},
		{"no interpreter", func() error {
			os.Remove(path)
			return os.WriteFile(path, []byte("#! /no/such/sh -e\n"), 0o755)
		}, "names an interpreter that is not there: stat /no/such/sh"},
		{"no program", func() error { return os.WriteFile(path, []byte("echo hello\n"), 0o755) }, "#!/bin/sh"},
	} {
		if err := c.spoil(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"demote", "check"} {
			os.RemoveAll(filepath.Join(b.dir, name))
			os.Symlink(path, filepath.Join(b.dir, name))
		}
		if got := b.Do(t.Context(), act(sdk.Promote, long), nil); got.Outcome != sdk.OutcomeUnchanged || !got.Refused || !strings.Contains(got.Detail, c.want) {
			t.Errorf("%s: promote: got %+v, want unchanged, refused, and %q", c.name, got, c.want)
		}
		// Nothing was started, so nothing has changed; but that it is demoted
		// is not proven, and another try may find the program mended.
		if got := b.Do(t.Context(), act(sdk.Demote, long), nil); got.Outcome != sdk.OutcomeUnchanged || got.Refused || !strings.Contains(got.Detail, c.want) {
			t.Errorf("%s: demote: got %+v, want unchanged and %q", c.name, got, c.want)
		}
		if h, err := b.Check(t.Context(), sdk.RolePrimary, 7); err == nil || h.Fit || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: check: got %+v, %v, want %q", c.name, h, err, c.want)
		}
		if c.name == "no program" {
			continue // only the kernel knows what it can run
		}
		if err := b.Verify(t.Context()); err == nil || !strings.Contains(err.Error(), "promote: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: verify: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestVerifyRunsNothing(t *testing.T) {
	b := newBench(t, map[string]any{"promote": `touch "$TMPDIR/ran"`, "demote": `touch "$TMPDIR/ran"`})
	if err := b.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	if b.exists("ran") {
		t.Error("it ran")
	}
}
