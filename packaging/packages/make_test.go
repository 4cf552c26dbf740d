// Package packages proves that the packages for Debian and Red Hat are what an
// administrator may rely on: that the same sources make the same bytes, that
// the distributions' own judges find nothing, and that an installation starts
// nothing, an upgrade restarts nothing, a removal hands over first and a purge
// leaves only what is the administrator's.
//
// It does not prove that systemd does what it is told: the root of a host is
// played here by busybox, and systemctl by a script that notes what it was
// called with. Real hosts are in packaging/e2e.
//
// `make package-test` runs it: building packages takes minutes.
package packages

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

const root = "../.."

// built are the packages, made once for all tests.
func built(t *testing.T) string {
	t.Helper()
	if os.Getenv("DEPUTY_PACKAGES") == "" {
		t.Skip("makes packages, which takes minutes: make package-test")
	}
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "packages")
	if err != nil {
		return "", err
	}
	return dir, makePackages(root, dir)
})

func makePackages(tree, dir string, env ...string) error {
	cmd := exec.Command("make", "--no-print-directory", "-C", tree, "package", "DIST="+dir)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make package: %w\n%s", err, out)
	}
	return nil
}

func TestMain(m *testing.M) {
	status := m.Run()
	if os.Getenv("DEPUTY_PACKAGES") != "" {
		if dir, err := build(); err == nil {
			os.RemoveAll(dir)
		}
	}
	os.Exit(status)
}

// file returns the one package whose name matches.
func file(t *testing.T, dir, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("packages %s: %v %v, want one", pattern, found, err)
	}
	return found[0]
}

func debOf(t *testing.T, dir, name string) string {
	return file(t, dir, name+"_*_"+runtime.GOARCH+".deb")
}

func rpmOf(t *testing.T, dir, name string) string {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	return file(t, dir, name+"-[0-9]*"+arch+".rpm")
}

// run runs a program to its end and returns what it printed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// need skips the test where a program is not installed, but not in CI.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			continue
		}
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed", p)
		}
		t.Skipf("%s is not installed", p)
	}
}

func TestSameSourcesMakeSamePackages(t *testing.T) {
	one := built(t)
	two := t.TempDir()
	// Whatever differs between two machines and is not in the sources: where they
	// lie, who may read them, time and place.
	tree := t.TempDir()
	run(t, "sh", "-c", `cd "$1" && tar -c --exclude=./bin --exclude=./dist . | tar -x -C "$2" && chmod -R go-rwx "$2" && find "$2" -exec touch -h {} +`, "sh", root, tree)
	if err := makePackages(tree, two, "TZ=Asia/Tokyo", "LC_ALL=C", "USER=somebody", "HOSTNAME=elsewhere"); err != nil {
		t.Fatal(err)
	}
	a, b := sums(t, one), sums(t, two)
	if want := 4 * len(packageNames()); len(a) != want {
		t.Errorf("made %d packages, want %d: each of %q as deb and rpm for two architectures: %q", len(a), want, packageNames(), a)
	}
	if !slices.Equal(a, b) {
		t.Errorf("the same sources made other packages:\n%s\n\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
	}
}

func sums(t *testing.T, dir string) (sums []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, fmt.Sprintf("%x  %s", sha256.Sum256(content), e.Name()))
	}
	return sums
}
