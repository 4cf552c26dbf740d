package supervisor_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// These tests keep the tree as the architecture has it: what lies where, who
// imports whom (layout_imports_test.go) and what no source file may hold
// (layout_source_test.go). Each rule is a function from what it judges to its
// complaints, so that the rules themselves are tested on small bad inputs.

const (
	module = "github.com/deputy-ha/deputy"
	root   = ".." // the module's folder, seen from this package
)

// A listed is what the go command says about one package of the module.
type listed struct {
	ImportPath   string
	Dir          string
	Name         string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string // of the package itself, not of its tests
}

// path is where the package lies below the module.
func (p listed) path() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

// list returns every package of the module.
func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-e",
		"-json=ImportPath,Dir,Name,GoFiles,TestGoFiles,XTestGoFiles,Imports,TestImports,XTestImports,Deps", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list packages: %v\n%s", err, stderr.String())
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		all = append(all, p)
	}
	if len(all) == 0 {
		t.Fatal("go list names no package")
	}
	return all
}

// complain fails the test with each complaint on a line of its own.
func complain(t *testing.T, complaints []string) {
	t.Helper()
	for _, c := range complaints {
		t.Error(c)
	}
}

func TestTopLevelIsFixed(t *testing.T) {
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	complain(t, topLevelFaults(names))
}

// topLevelFaults judges the names in the module's folder.
func topLevelFaults(names []string) (faults []string) {
	fixed := strings.Fields("supervisor plugins sdk contrib examples packaging go.mod go.sum Makefile README.md")
	built := []string{"bin", "dist"} // not in git
	for _, name := range names {
		if !strings.HasPrefix(name, ".") && !slices.Contains(fixed, name) && !slices.Contains(built, name) {
			faults = append(faults, name+": the top level is fixed; see the tree in README.md")
		}
	}
	return faults
}

func TestPackageNamesSayWhatIsInside(t *testing.T) {
	for _, p := range list(t) {
		complain(t, nameFaults(p.path()))
	}
}

// nameFaults judges the path of one package below the module.
func nameFaults(path string) (faults []string) {
	empty := strings.Fields("util utils common helper helpers types structs manager base misc shared lib cmd internal pkg docs")
	for _, word := range strings.Split(path, "/") {
		if slices.Contains(empty, word) {
			faults = append(faults, fmt.Sprintf("%s: %q says nothing about what is inside", path, word))
		}
	}
	return faults
}

func TestEveryPackageHasItsDoc(t *testing.T) {
	for _, p := range list(t) {
		var docs []string
		for _, file := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Errorf("parse %s: %v", file, err)
			} else if doc := strings.TrimSpace(f.Doc.Text()); doc != "" {
				docs = append(docs, doc)
			}
		}
		complain(t, docFaults(p.path(), p.Name, docs))
	}
}

// docFaults judges the comments above a package's clauses.
func docFaults(path, name string, docs []string) []string {
	switch {
	case len(docs) == 0:
		return []string{path + ": no package doc: say what it guarantees, then what it does not"}
	case len(docs) > 1:
		return []string{path + ": more than one package doc"}
	case name != "main" && !strings.HasPrefix(docs[0], "Package "+name+" "):
		return []string{fmt.Sprintf("%s: the package doc does not begin with %q", path, "Package "+name)}
	}
	return nil
}

func TestNoFileNamesTheMachineItWasWrittenOn(t *testing.T) {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name, _ := filepath.Rel(root, path); d.IsDir() && (name == ".git" || name == "bin" || name == "dist") {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() || path == filepath.Join(root, ".git") { // a linked work tree has a file there
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		complain(t, machineFaults(path, text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// machineFaults judges the text of one file. A path of somebody's machine
// works nowhere else.
func machineFaults(path string, text []byte) (faults []string) {
	if bytes.IndexByte(text, 0) >= 0 {
		return nil // not text
	}
	home := regexp.MustCompile(`(^|[^\w.$}/-])/(root/(go|\.\w+)|home/\w+|work|Users/\w+)/[\w.-]+`)
	for i, line := range bytes.Split(text, []byte("\n")) {
		if found := home.Find(line); found != nil {
			faults = append(faults, fmt.Sprintf("%s:%d: a path of one machine: %q", path, i+1, found))
		}
	}
	return faults
}

func TestLayoutRulesComplain(t *testing.T) {
	for _, c := range []struct {
		name string
		got  []string
		want int
	}{
		{"known names", topLevelFaults([]string{".git", ".ci", "supervisor", "go.mod", "bin"}), 0},
		{"unknown names", topLevelFaults([]string{"cmd", "docs", "sdk"}), 2},
		{"telling name", nameFaults("supervisor/etcd/etcdtest"), 0},
		{"empty name", nameFaults("supervisor/utils"), 1},
		{"empty folder", nameFaults("internal/etcd"), 1},
		{"doc", docFaults("sdk", "sdk", []string{"Package sdk holds."}), 0},
		{"doc of a program", docFaults("supervisor/deputy", "main", []string{"Deputy is."}), 0},
		{"no doc", docFaults("sdk", "sdk", nil), 1},
		{"two docs", docFaults("sdk", "sdk", []string{"Package sdk holds.", "Package sdk is."}), 1},
		{"doc of another name", docFaults("sdk", "sdk", []string{"Package api holds."}), 1},
		{"path below ours", machineFaults("x", []byte("see example.org/work/x, $HOME/root/x and ./home/me/x")), 0},
		{"path of a home", machineFaults("x", []byte("a\nrun /"+"home/me/x")), 1},
		{"path of root", machineFaults("x", []byte(`"/`+`root/go/bin"`)), 1},
		{"path of a work tree", machineFaults("x", []byte("/"+"work/main")), 1},
	} {
		if len(c.got) != c.want {
			t.Errorf("%s: got %d complaints, want %d: %q", c.name, len(c.got), c.want, c.got)
		}
	}
}
