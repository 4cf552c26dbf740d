package packages

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A host is the root of one: a shell, and programs of systemd that note how
// they were called.
type host struct {
	t    *testing.T
	root string
}

// noting is a program that notes its call, then does what case says.
const noting = `#!/bin/sh
echo "${0##*/} $*" >>/calls
case "${0##*/} $*" in
"systemctl list-units"*)
	[ ! -e /running ] || cat /running
	;;
"systemctl reload deputy@old-fashioned.service" | "deputy disable stuck")
	exit 1
	;;
"deputy disable "*)
	rm -f /etc/systemd/system/deputy.target.wants/deputy@$2.service
	;;
esac
exit 0
`

func newHost(t *testing.T) *host {
	t.Helper()
	need(t, "busybox")
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root, to change the root")
		}
		t.Skip("needs root, to change the root")
	}
	h := &host{t: t, root: t.TempDir()}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	h.write("bin/busybox", string(program), 0o755)
	run(t, "chroot", h.root, "/bin/busybox", "--install", "-s", "/bin")
	run(t, "mkdir", h.root+"/dev")
	run(t, "mknod", "-m", "666", h.root+"/dev/null", "c", "1", "3")
	for _, name := range []string{"systemctl", "systemd-sysusers", "systemd-tmpfiles", "deb-systemd-helper", "journalctl", "deputy"} {
		h.write("sbin/"+name, noting, 0o755)
	}
	return h
}

func (h *host) write(path, text string, mode os.FileMode) {
	h.t.Helper()
	writeFile(h.t, filepath.Join(h.root, path), text, mode)
}

func (h *host) has(path string) bool {
	_, err := os.Lstat(filepath.Join(h.root, path))
	return !errors.Is(err, fs.ErrNotExist)
}

func (h *host) read(path string) string {
	h.t.Helper()
	text, err := os.ReadFile(filepath.Join(h.root, path))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}

// calls returns what was called since the last time.
func (h *host) calls() []string {
	h.t.Helper()
	if !h.has("calls") {
		return nil
	}
	text := strings.TrimSpace(h.read("calls"))
	if err := os.Remove(filepath.Join(h.root, "calls")); err != nil {
		h.t.Fatal(err)
	}
	return strings.Split(text, "\n")
}

// live is what an administrator does between an installation and its end.
func (h *host) live() {
	h.t.Helper()
	h.write("etc/deputy/deputy.toml", "node = \"mine\"\n", 0o644)
	h.write("etc/deputy/services.d/orders-db.toml", "ttl = \"3s\"\n", 0o644)
	h.write("etc/deputy/credentials/etcd", "secret\n", 0o600)
	h.write("var/lib/deputy/orders-db/terms", "7\n", 0o600)
	h.write("run/deputy/orders-db/lock", "", 0o600)
	h.enable("orders-db")
	// What enable wrote and could not take back, and a drop-in of somebody else.
	h.write("etc/systemd/system/deputy@orders-db.service.d/50-deputy.conf", "# Written by `deputy enable orders-db`; `deputy disable orders-db` removes it.\n", 0o644)
	h.write("etc/systemd/system/mariadb.service.d/50-deputy-orders-db.conf", "# Written by `deputy enable orders-db`; `deputy disable orders-db` removes it.\n", 0o644)
	h.write("etc/systemd/system/mariadb.service.d/50-deputy-mine.conf", "# mine\n", 0o644)
	h.write("etc/polkit-1/rules.d/50-deputy-orders-db.rules", "// Written by `deputy enable orders-db`; `deputy disable orders-db` removes it.\n", 0o644)
	if err := os.MkdirAll(filepath.Join(h.root, "run/systemd/system"), 0o755); err != nil {
		h.t.Fatal(err)
	}
	h.write("running", "deputy@orders-db.service loaded active running High\n"+
		"deputy@old-fashioned.service loaded active running High\n"+
		"deputy@begun.service loaded activating start High\n", 0o644)
}

func (h *host) enable(name string) {
	h.t.Helper()
	wants := filepath.Join(h.root, "etc/systemd/system/deputy.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Symlink("/usr/lib/systemd/system/deputy@.service", filepath.Join(wants, "deputy@"+name+".service")); err != nil {
		h.t.Fatal(err)
	}
}

// installed judges what an installation called.
func (h *host) installed() {
	h.t.Helper()
	calls := h.calls()
	for _, c := range []string{"systemd-sysusers deputy.conf", "systemd-tmpfiles --create deputy.conf"} {
		if !slices.Contains(calls, c) {
			h.t.Errorf("installed without %q: %q", c, calls)
		}
	}
	h.nothingStarts(calls)
	for path, mode := range map[string]fs.FileMode{"etc/deputy": 0o755, "etc/deputy/services.d": 0o755, "etc/deputy/credentials": 0o700, "usr/bin/deputy": 0o755} {
		info, err := os.Stat(filepath.Join(h.root, path))
		if err != nil || info.Mode().Perm() != mode {
			h.t.Errorf("%s: %v %v, want mode %o", path, info, err, mode)
		}
	}
}

func (h *host) nothingStarts(calls []string) {
	h.t.Helper()
	starts := regexp.MustCompile(`\b(start|restart|try-restart|reload-or-restart|--now|isolate)\b`)
	for _, c := range calls {
		// Where it runs: it holds no role.
		if c == "systemctl try-restart deputy-http.service" {
			continue
		}
		if strings.HasPrefix(c, "systemctl ") && starts.MatchString(c) {
			h.t.Errorf("starts something: %s", c)
		}
	}
}

// upgraded judges what an upgrade called and said.
func (h *host) upgraded(out string) {
	h.t.Helper()
	calls := h.calls()
	h.nothingStarts(calls)
	var reloads []string
	daemon := -1
	for i, c := range calls {
		if strings.HasPrefix(c, "systemctl") && strings.Contains(c, "daemon-reload") {
			daemon = i
		}
		if strings.HasPrefix(c, "systemctl reload ") {
			reloads = append(reloads, c)
			if daemon < 0 {
				h.t.Errorf("%s before systemd knows the new units: %q", c, calls)
			}
		}
		if strings.Contains(c, " stop ") || strings.Contains(c, "disable") {
			h.t.Errorf("an upgrade called %q", c)
		}
	}
	// What is starting is not touched; what refuses does not keep the others from it.
	want := []string{"systemctl reload deputy@orders-db.service", "systemctl reload deputy@old-fashioned.service"}
	if !slices.Equal(reloads, want) {
		h.t.Errorf("reloaded %q, want %q; calls: %q", reloads, want, calls)
	}
	if !slices.Contains(calls, "systemctl try-restart deputy-http.service") {
		h.t.Errorf("deputy-http keeps the old program; calls: %q", calls)
	}
	for _, said := range []string{"deputy@old-fashioned.service keeps the old program and its role", "deputy@begun.service is activating"} {
		if !strings.Contains(out, said) {
			h.t.Errorf("the upgrade did not say %q:\n%s", said, out)
		}
	}
	if got := h.read("etc/deputy/deputy.toml"); got != "node = \"mine\"\n" {
		h.t.Errorf("the administrator's deputy.toml became %q", got)
	}
}

// removed judges what a removal called, in order.
func (h *host) removed() {
	h.t.Helper()
	calls := h.calls()
	disable := slices.Index(calls, "deputy disable orders-db")
	if disable < 0 || !slices.Contains(calls[disable:], "deputy disable old-fashioned") {
		h.t.Errorf("a removal hands over what is enabled, then the rest; calls: %q", calls)
	}
	for _, path := range []string{"usr/bin/deputy", "usr/lib/systemd/system/deputy@.service", "usr/libexec/deputy"} {
		if h.has(path) {
			h.t.Errorf("%s is still there", path)
		}
	}
}

// purged judges what is left at the very end.
func (h *host) purged(kept ...string) {
	h.t.Helper()
	kept = append(kept, "etc/deputy", "etc/deputy/services.d", "etc/deputy/services.d/orders-db.toml",
		"etc/deputy/credentials", "etc/deputy/credentials/etcd", "etc/systemd/system/mariadb.service.d/50-deputy-mine.conf", "sbin/deputy")
	err := filepath.WalkDir(h.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, _ := filepath.Rel(h.root, path)
		if below == "var/lib/dpkg" || below == "var/lib/rpm" {
			return fs.SkipDir
		}
		if strings.Contains(below, "deputy") && !slices.Contains(kept, below) {
			h.t.Errorf("%s is left", below)
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	for _, path := range kept {
		if !h.has(path) {
			h.t.Errorf("%s is the administrator's and is gone", path)
		}
	}
}

func TestLifeOfTheDebs(t *testing.T) {
	dir := built(t)
	need(t, "dpkg", "ldd")
	h := newHost(t)
	h.borrow("/usr/bin/dpkg-trigger")
	for _, d := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "tmp"} {
		if err := os.MkdirAll(filepath.Join(h.root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// What deputy depends on. With --force-depends dpkg would process no trigger.
	h.write("var/lib/dpkg/status", "Package: systemd\nStatus: install ok installed\nMaintainer: nobody <nobody@localhost>\n"+
		"Architecture: all\nVersion: 252.39-1\nDescription: played by a script\n\n", 0o644)
	deputy, plugins := debOf(t, dir, "deputy"), debOf(t, dir, "deputy-plugins")
	try := func(args ...string) (string, error) {
		cmd := exec.Command("dpkg", append([]string{"--root=" + h.root, "--force-depends", "--force-confold"}, args...)...)
		cmd.Env = append(os.Environ(), "PATH=/sbin:/usr/sbin:/usr/bin:/bin", "DEBIAN_FRONTEND=noninteractive")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	dpkg := func(args ...string) string {
		t.Helper()
		out, err := try(args...)
		if err != nil {
			t.Fatalf("dpkg %q: %v\n%s", args, err, out)
		}
		return out
	}

	dpkg("-i", deputy, plugins)
	if calls := h.calls(); !slices.Contains(calls, "deb-systemd-helper enable deputy.target") {
		t.Errorf("deputy.target is not enabled, so nothing would start at boot: %q", calls)
	} else {
		h.write("calls", strings.Join(calls, "\n"), 0o644)
	}
	h.installed()
	h.live()
	h.upgraded(dpkg("-i", deputy, plugins))

	// New plugins alone are entered, too.
	dpkg("-i", plugins)
	if calls := h.calls(); !slices.Contains(calls, "systemctl reload deputy@orders-db.service") {
		t.Errorf("new plugins are not used: %q", calls)
	}

	// What uses them is handed over before plugins go, the rest stays.
	h.write("etc/deputy/services.d/address.toml", "[[plugin]]\nuse = \"vip\"\n", 0o644)
	h.enable("address")
	dpkg("-r", "deputy-plugins")
	if calls := h.calls(); !slices.Contains(calls, "deputy disable address") || slices.Contains(calls, "deputy disable orders-db") {
		t.Errorf("plugins went, and these were called: %q", calls)
	}
	if err := os.Remove(filepath.Join(h.root, "etc/deputy/services.d/address.toml")); err != nil {
		t.Fatal(err)
	}

	// What cannot be demoted keeps its supervisor, and so the package.
	h.enable("stuck")
	if out, err := try("-r", "deputy"); err == nil || !strings.Contains(out, "not removed, because these may still be led here: stuck") {
		t.Errorf("removed under a service that cannot be demoted: %v\n%s", err, out)
	}
	if !h.has("usr/bin/deputy") {
		t.Error("the program is gone, and is still needed")
	}
	if err := os.Remove(filepath.Join(h.root, "etc/systemd/system/deputy.target.wants/deputy@stuck.service")); err != nil {
		t.Fatal(err)
	}
	h.enable("orders-db")
	h.calls()

	dpkg("-r", "deputy")
	h.removed()
	if got := h.read("etc/deputy/deputy.toml"); got != "node = \"mine\"\n" {
		t.Errorf("a removal changed deputy.toml to %q", got)
	}
	if out := dpkg("--purge", "deputy"); !strings.Contains(out, "/etc/deputy is kept") {
		t.Errorf("a purge does not say what it keeps:\n%s", out)
	}
	h.purged()
}

func TestLifeOfTheRPMs(t *testing.T) {
	dir := built(t)
	need(t, "rpm")
	h := newHost(t)
	deputy, plugins := rpmOf(t, dir, "deputy"), rpmOf(t, dir, "deputy-plugins")
	try := func(args ...string) (string, error) {
		out, err := exec.Command("rpm", append([]string{"--root", h.root, "--nodeps", "--force-debian"}, args...)...).CombinedOutput()
		return string(out), err
	}
	rpm := func(args ...string) string {
		t.Helper()
		out, err := try(args...)
		if err != nil {
			t.Fatalf("rpm %q: %v\n%s", args, err, out)
		}
		return out
	}

	rpm("-i", deputy, plugins)
	if calls := h.calls(); !slices.Contains(calls, "systemctl --no-reload preset deputy.target") {
		t.Errorf("deputy.target is not preset: %q", calls)
	} else {
		h.write("calls", strings.Join(calls, "\n"), 0o644)
	}
	h.installed()
	h.live()
	h.upgraded(rpm("-U", "--force", deputy))

	rpm("-U", "--force", plugins)
	if calls := h.calls(); !slices.Contains(calls, "systemctl reload deputy@orders-db.service") {
		t.Errorf("new plugins are not used: %q", calls)
	}

	h.enable("stuck")
	if out, err := try("-e", "deputy-plugins", "deputy"); err == nil || !h.has("usr/bin/deputy") {
		t.Errorf("removed under a service that cannot be demoted: %v\n%s", err, out)
	}
	if err := os.Remove(filepath.Join(h.root, "etc/systemd/system/deputy.target.wants/deputy@stuck.service")); err != nil {
		t.Fatal(err)
	}
	h.enable("orders-db")
	h.calls()
	rpm("-e", "deputy-plugins", "deputy")
	h.removed()
	h.purged("etc/deputy/deputy.toml.rpmsave")
}

// borrow copies a program of this machine, with the libraries that it needs.
func (h *host) borrow(program string) {
	h.t.Helper()
	library := regexp.MustCompile(`/\S+`)
	for _, path := range append(library.FindAllString(run(h.t, "ldd", program), -1), program) {
		content, err := os.ReadFile(path)
		if err != nil {
			h.t.Fatal(err)
		}
		h.write(path, string(content), 0o755)
	}
}
