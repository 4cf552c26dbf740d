package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// newProject makes a project and returns its folder, and where the program lies
// that a test of it needs.
func newProject(t *testing.T, lang string) (dir, deputy string) {
	t.Helper()
	top := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	deputy = filepath.Join(top, "deputy")
	if err := os.Symlink(self, deputy); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(top, "marker")
	args := []string{"plugin", "new", "marker", "--lang", lang, "--dir", dir}
	if lang == "go" {
		args = append(args, "--sdk", "../..")
	}
	var out bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &out, env: func(string) string { return "" }}
	if code := a.main(t.Context(), args); code != exitDone {
		t.Fatalf("deputy %q: %d\n%s", args, code, &out)
	}
	return dir, deputy
}

// makes runs make in a project, as its author does.
func makes(t *testing.T, dir, deputy string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "make", append([]string{"-C", dir, "DEPUTY=" + deputy}, args...)...)
	// Those of a make that runs this test are not the author's.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "MFLAGS=") || strings.HasPrefix(v, "VERSION=")
	})
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("make %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// maxFirst is how long the way from nothing to a plugin that keeps the contract
// may take on a machine that does nothing else, with much room for one that does.
const maxFirst = 3 * time.Minute

// TestNewProjectsKeepTheContract makes each project, tests it by its own make
// test, and installs it.
func TestNewProjectsKeepTheContract(t *testing.T) {
	for lang, c := range map[string]struct {
		says    string // what make test prints
		program string // what is installed
	}{
		"go":     {`(?m)^ok\s+deputy-plugin-marker\s`, "libexec/deputy/plugins/deputy-plugin-marker"},
		"python": {`(?s)\nOK\n.*\n[0-9]{2} passed, 0 failed, `, "libexec/deputy/plugins/deputy-plugin-marker"},
		"shell":  {`\n[0-9]+ passed, 0 failed, `, "libexec/deputy/hooks/marker"},
	} {
		t.Run(lang, func(t *testing.T) {
			t.Parallel()
			if lang == "python" {
				needGRPC(t)
			}
			began := time.Now()
			dir, deputy := newProject(t, lang)
			out := makes(t, dir, deputy, "test")
			took := time.Since(began)
			t.Logf("from nothing to a plugin that keeps the contract: %s", took.Round(10*time.Millisecond))
			if !regexp.MustCompile(c.says).MatchString(out) {
				t.Errorf("make test does not say %s:\n%s", c.says, out)
			}
			if took > maxFirst {
				t.Errorf("took %s, want %s at most", took, maxFirst)
			}
			root := t.TempDir()
			makes(t, dir, deputy, "install", "DESTDIR="+root, "prefix=/usr")
			program := filepath.Join(root, "usr", c.program)
			if info, err := os.Stat(program); err != nil || info.Mode().Perm() != 0o755 {
				t.Fatalf("installed: %v, %v", info, err)
			}
			if out, err := exec.CommandContext(t.Context(), program, "--help").CombinedOutput(); err != nil || !strings.Contains(string(out), "a file on the primary alone") {
				t.Errorf("installed, it does not help: %v\n%s", err, out)
			}
			if lang == "shell" && strings.Contains(read(t, program), "\n. \"${0%/*}") {
				t.Error("what is installed reads a kit that is not beside it")
			}
			if lang == "python" {
				out, err := exec.CommandContext(t.Context(), program, "describe", "-o", "markdown").CombinedOutput()
				if readme := read(t, filepath.Join(dir, "README.md")); err != nil || !strings.Contains(readme, string(out)) {
					t.Errorf("README.md lacks the settings as they are: %v\n%s", err, out)
				}
			}
			makes(t, dir, deputy, "clean")
			if _, err := os.Stat(filepath.Join(dir, "bin")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("make clean leaves bin: %v", err)
			}
		})
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// needGRPC skips what needs a Python that serves plugins, but not in CI.
func needGRPC(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("/usr/bin/python3", "-c", "import grpc, google.protobuf").CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("python3 with its grpcio and protobuf: %v\n%s", err, out)
		}
		t.Skipf("apt install python3-grpcio python3-protobuf: %v", err)
	}
}

// TestNewScriptKeepsTheContractInOtherShells has that of the project run by each.
func TestNewScriptKeepsTheContractInOtherShells(t *testing.T) {
	for _, sh := range []string{"/usr/bin/dash", "/bin/bash"} {
		t.Run(filepath.Base(sh), func(t *testing.T) {
			t.Parallel()
			dir, deputy := newProject(t, "shell")
			hook := filepath.Join(dir, "marker")
			script := strings.Replace(read(t, hook), "#!/bin/sh\n", "#!"+sh+"\n", 1)
			if err := os.WriteFile(hook, []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			out := makes(t, dir, deputy, "test")
			if !strings.HasPrefix(read(t, filepath.Join(dir, "bin/marker")), "#!"+sh) || !strings.Contains(out, ", 0 failed, ") {
				t.Errorf("not run by %s, or failed:\n%s", sh, out)
			}
		})
	}
}

// TestNewLeavesNothingHalfWritten has a file of a project fail to be written.
func TestNewLeavesNothingHalfWritten(t *testing.T) {
	top := t.TempDir()
	files := map[string]projectFile{"a": {"a", 0o644}, "b": {"b", 0o755}, strings.Repeat("c", 300): {"c", 0o644}}
	empty := filepath.Join(top, "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Join(top, "new"), empty} {
		if err := write(dir, files); err == nil {
			t.Fatalf("%s: wrote a file whose name is too long", dir)
		}
	}
	var left []string
	_ = filepath.WalkDir(top, func(path string, _ fs.DirEntry, _ error) error {
		left = append(left, strings.TrimPrefix(path, top))
		return nil
	})
	if !slices.Equal(left, []string{"", "/empty"}) {
		t.Errorf("left %q, want only what was there", left)
	}
}

// TestNewGoProjectIsOfThisVersion has a release name its module.
func TestNewGoProjectIsOfThisVersion(t *testing.T) {
	for version, want := range map[string]string{
		"v1.2.3": "require github.com/deputy-ha/deputy v1.2.3\n", "1.2.4": "require github.com/deputy-ha/deputy v1.2.4\n", "v1.2.3-rc1": "deputy v1.2.3-rc1\n", "v1.2.3-rc.1": "deputy v1.2.3-rc.1\n",
		"v1.2.3-4-g0123abc": "", "v1.2.3-dirty": "", "0123abc": "", "devel": "",
	} {
		p := project{Name: "marker", lang: "go"}
		err := p.complete(build{Version: version, Go: "go1.26.8 X:none"})
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), version) || !strings.Contains(err.Error(), "--sdk DIR") {
				t.Errorf("%s: got %v, want that it is no release, and what to do", version, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		files, err := p.files()
		if err != nil {
			t.Fatal(err)
		}
		if mod := files["go.mod"].text; !strings.Contains(mod, want) || !strings.Contains(mod, "\ngo 1.26.8\n") || strings.Contains(mod, "replace") {
			t.Errorf("%s: got\n%s", version, mod)
		}
	}
}

// TestNewPackageNames are held to what dpkg takes.
func TestNewPackageNames(t *testing.T) {
	if got := (project{Name: "My_plugin.2"}).Package(); got != "my-plugin.2" {
		t.Errorf("got %q", got)
	}
}
