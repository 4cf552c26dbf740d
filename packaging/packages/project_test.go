package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestKitsAreInstalled compares them with those that projects get.
func TestKitsAreInstalled(t *testing.T) {
	dir := built(t)
	need(t, "dpkg-deb")
	host := t.TempDir()
	run(t, "dpkg-deb", "-x", debOf(t, dir, "deputy"), host)
	for kit, source := range map[string]string{"python/deputy_plugin.py": "contrib/python/deputy_plugin.py", "shell/deputy.sh": "contrib/shell/deputy.sh"} {
		run(t, "cmp", filepath.Join(host, "usr/share/deputy", kit), filepath.Join(root, source))
		run(t, "test", "-s", filepath.Join(host, "usr/share/doc/deputy", filepath.Dir(kit)+".md"))
	}
}

// TestProjectsArePackaged makes projects by the deputy that is in the package,
// with nothing else of it there, and packages of them.
func TestProjectsArePackaged(t *testing.T) {
	dir := built(t)
	need(t, "dpkg-deb", "rpm")
	host := t.TempDir()
	run(t, "dpkg-deb", "-x", debOf(t, dir, "deputy"), host)
	tree, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	nfpm := exec.Command("go", "tool", "-modfile=packaging/tools/package.mod", "-n", "nfpm")
	nfpm.Dir = tree
	out, err := nfpm.Output()
	if err != nil {
		t.Fatalf("go tool -n nfpm: %v", err)
	}
	for lang, c := range map[string]struct{ name, file string }{
		"go":     {"deputy-plugin-my-marker", "/usr/libexec/deputy/plugins/deputy-plugin-My_marker"},
		"python": {"deputy-plugin-my-marker", "/usr/libexec/deputy/plugins/deputy-plugin-My_marker"},
		"shell":  {"deputy-hook-my-marker", "/usr/libexec/deputy/hooks/My_marker"},
	} {
		project := filepath.Join(t.TempDir(), "project")
		args := []string{"plugin", "new", "My_marker", "--lang", lang, "--dir", project}
		if lang == "go" {
			args = append(args, "--sdk", tree)
		}
		run(t, filepath.Join(host, "usr/bin/deputy"), args...)
		cmd := exec.Command("make", "-C", project, "package", "VERSION=1.2.3", "NFPM="+strings.TrimSpace(string(out)))
		cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: make package: %v\n%s", lang, err, out)
		}
		dist := filepath.Join(project, "dist")
		deb, rpm := file(t, dist, "*.deb"), file(t, dist, "*.rpm")
		if got := run(t, "dpkg-deb", "-W", deb); got != c.name+"\t1.2.3\n" {
			t.Errorf("%s: the deb is %q", lang, got)
		}
		if got := run(t, "dpkg-deb", "-c", deb); !strings.Contains(got, "-rwxr-xr-x root/root") || !strings.Contains(got, "."+c.file+"\n") {
			t.Errorf("%s: the deb lacks %s, or nobody may run it:\n%s", lang, c.file, got)
		}
		if got := run(t, "rpm", "-qp", "--qf", "%{NAME} %{VERSION}\n[%{FILENAMES}\n]", rpm); !strings.HasPrefix(got, c.name+" 1.2.3\n") || !strings.Contains(got, c.file+"\n") {
			t.Errorf("%s: the rpm is\n%s", lang, got)
		}
	}
}
