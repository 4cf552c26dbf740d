package packages

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// packageNames are those of all that is made.
func packageNames() []string {
	return []string{"deputy", "deputy-plugins", "deputy-plugin-fence", "deputy-plugin-ocf"}
}

func TestLintianFindsNothing(t *testing.T) {
	dir := built(t)
	need(t, "lintian")
	for _, name := range packageNames() {
		out, _ := exec.Command("lintian", "-I", "-E", "--pedantic", "--tag-display-limit", "0", "--allow-root", debOf(t, dir, name)).CombinedOutput()
		for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
			// A tag that is overridden has its reason in packaging/lintian.
			if line != "" && !strings.HasPrefix(line, "N:") {
				t.Errorf("%s: %s", name, line)
			}
		}
	}
}

// reviewed are the tags of rpmlint that stand, each with its reason.
func reviewed() map[string]string {
	return map[string]string{
		"no-signature":                 "who publishes the packages signs them",
		"no-changelogname-tag":         "the changelog is a file, the same as in the deb",
		"no-binary":                    "nfpm writes no file classes, by which rpmlint knows a binary",
		"only-non-binary-in-usr-lib":   "units and their like belong there",
		"no-documentation":             "there is some, see not-listed-as-documentation",
		"no-manual-page-for-binary":    "nfpm writes no file classes; every command is in deputy(1)",
		"manpage-not-compressed":       "with bz2, which is no distribution's way any more",
		"invalid-license":              "Apache-2.0 is its SPDX name; old lists have ASL 2.0",
		"non-standard-dir-perm":        "/etc/deputy/credentials is for root alone",
		"dangerous-command-in-%postun": "what deputy wrote goes with it",
		"not-listed-as-documentation":  "nfpm marks single files alone, and a list of all would be forgotten",
		"non-executable-script":        "examples are read, and installed from there to where they run",
		"statically-linked-binary":     "programs of Go without C need no library of the system, as for lintian",

		"position-independent-executable-suggested": "one of Go wants the dynamic linker of a libc, and there is none else",
	}
}

func TestRpmlintFindsNothingNew(t *testing.T) {
	dir := built(t)
	need(t, "rpmlint", "cpio")
	// It unpacks by a cpio that takes absolute names as they are, which are those
	// of this machine.
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Fatal(err)
	}
	shim := t.TempDir()
	writeFile(t, filepath.Join(shim, "cpio"), "#!/bin/sh\nexec "+cpio+" --no-absolute-filenames \"$@\"\n", 0o755)
	t.Setenv("PATH", shim+":"+os.Getenv("PATH"))
	before := installed()
	tag := regexp.MustCompile(`^\S+: [EW]: (\S+)`)
	for _, name := range packageNames() {
		out, _ := exec.Command("rpmlint", rpmOf(t, dir, name)).CombinedOutput()
		if !strings.Contains(string(out), "1 packages and 0 specfiles checked") {
			t.Fatalf("rpmlint did not judge %s:\n%s", name, out)
		}
		for _, line := range strings.Split(string(out), "\n") {
			if m := tag.FindStringSubmatch(line); m != nil && reviewed()[m[1]] == "" {
				t.Error(line)
			}
		}
	}
	if after := installed(); after != before {
		t.Errorf("judging the packages has changed what this machine has of deputy: %s, was %s", after, before)
	}
}

// installed tells what this machine has of deputy, and since when.
func installed() string {
	var all []string
	for _, path := range []string{"/usr/bin/deputy", "/usr/libexec/deputy/plugins", "/etc/deputy", "/usr/share/doc/deputy", "/usr/lib/systemd/system/deputy@.service"} {
		if i, err := os.Lstat(path); err == nil {
			all = append(all, path+" of "+i.ModTime().String())
		}
	}
	return fmt.Sprint(all)
}

// TestBothHoldTheSame compares the deb with the rpm, file by file.
func TestBothHoldTheSame(t *testing.T) {
	dir := built(t)
	need(t, "dpkg-deb", "rpm")
	for _, name := range packageNames() {
		deb := map[string]string{}
		for _, line := range strings.Split(strings.TrimSpace(run(t, "dpkg-deb", "-c", debOf(t, dir, name))), "\n") {
			if f := strings.Fields(line); !strings.HasPrefix(line, "d") {
				deb[strings.TrimPrefix(f[5], ".")] = f[0] + " " + f[1]
			}
		}
		rpm := map[string]string{}
		for _, line := range strings.Split(strings.TrimSpace(run(t, "rpm", "-qp", "--qf", "[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES}\n]", rpmOf(t, dir, name))), "\n") {
			if f := strings.Fields(line); !strings.HasPrefix(line, "d") {
				rpm[f[2]] = f[0] + " " + f[1]
			}
		}
		apart := regexp.MustCompile(`^/usr/share/(lintian|licenses|zsh|doc/[^/]+/copyright)|^/etc/needrestart`)
		for path, mode := range deb {
			if !apart.MatchString(path) && rpm[path] != mode {
				t.Errorf("%s: %s is %q in the deb, %q in the rpm", name, path, mode, rpm[path])
			}
		}
		for path := range rpm {
			if !apart.MatchString(path) && deb[path] == "" {
				t.Errorf("%s: %s is in the rpm alone", name, path)
			}
		}
	}
}

// TestUnitsAreSoundAndConfined has systemd judge the units as they are installed.
func TestUnitsAreSoundAndConfined(t *testing.T) {
	dir := built(t)
	need(t, "dpkg-deb", "systemd-analyze")
	host := t.TempDir()
	run(t, "dpkg-deb", "-x", debOf(t, dir, "deputy"), host)
	writeFile(t, filepath.Join(host, "bin/false"), "#!/bin/sh\n", 0o755)
	units, err := filepath.Glob(filepath.Join(host, "usr/lib/systemd/system/*"))
	if err != nil || len(units) < 7 {
		t.Fatalf("units: %q %v", units, err)
	}
	var names []string
	for _, u := range units {
		// A template is judged by an instance of it.
		names = append(names, strings.Replace(filepath.Base(u), "@.", "@orders-db.", 1))
	}
	for _, instance := range slices.DeleteFunc(slices.Clone(names), func(s string) bool { return !strings.Contains(s, "@") }) {
		template := strings.Replace(instance, "@orders-db.", "@.", 1)
		if err := os.Symlink(template, filepath.Join(host, "usr/lib/systemd/system", instance)); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{"verify", "--man=no", "--recursive-errors=no", "--root=" + host}, names...)
	if out, err := exec.Command("systemd-analyze", args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	for _, unit := range []string{"deputy@.service", "deputy-lease@.service", "deputy-http.service"} {
		const most = 22 // tenths
		out, err := exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", fmt.Sprintf("--threshold=%d", most),
			filepath.Join(host, "usr/lib/systemd/system", strings.Replace(unit, "@.", "@orders-db.", 1))).CombinedOutput()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		t.Logf("%s: %s", unit, lines[len(lines)-1])
		if err != nil {
			t.Errorf("systemd-analyze security of %s: above %d: %v\n%s", unit, most, err, out)
		}
	}
}

func TestUnitsNameManualPagesThatThereAre(t *testing.T) {
	units, err := filepath.Glob(filepath.Join(root, "packaging/systemd/*.*"))
	if err != nil || len(units) == 0 {
		t.Fatal(units, err)
	}
	page := regexp.MustCompile(`man:([\w.-]+)\((\d)\)`)
	for _, u := range units {
		text, err := os.ReadFile(u)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(root, "packaging/man", m[1]+"."+m[2]+".md")); err != nil {
				t.Errorf("%s: %v", u, err)
			}
		}
	}
}

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}
