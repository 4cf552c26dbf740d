// Package porting is the worked examples of moving scripts of keepalived,
// Patroni, orchestrator and Pacemaker to deputy. README.md is the guide.
//
// What its tests show: each adapter keeps the contract with the old script as it
// was, as deputy plugin test proves it; the old script is called as its own world
// called it; what the old script gets wrong is noticed; and the old script alone
// keeps the contract nowhere.
package porting

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/deputy-ha/deputy/contrib/shell"
)

// A host is a root of its own in which an example is installed as its README
// says, by paths that begin elsewhere.
type host struct {
	t      *testing.T
	root   string
	deputy string
}

// paths are those of the examples that are put below the root of a host.
func paths() []string {
	return []string{"/etc/deputy/hooks", "/etc/keepalived", "/etc/patroni", "/usr/local/bin", "/usr/lib/ocf", "/run/app"}
}

func newHost(t *testing.T) *host {
	t.Helper()
	root, err := os.MkdirTemp("", "h") // short: sockets lie below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	h := &host{t: t, root: root, deputy: filepath.Join(root, "deputy")}
	h.build(h.deputy, "../../supervisor/deputy")
	h.write("/etc/deputy/hooks/deputy.sh", shell.Kit)
	for _, dir := range []string{"/run/app", "/services.d", "/state", "/plugins"} {
		if err := os.MkdirAll(h.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h.write("/deputy.toml", "node = \"db1\"\nplugin_dirs = [\""+h.path("/plugins")+"\"]\n[etcd]\nendpoints = [\"http://127.0.0.1:1\"]\n")
	return h
}

func (h *host) path(name string) string { return filepath.Join(h.root, name) }

func (h *host) build(to, pkg string) {
	h.t.Helper()
	if out, err := exec.Command("go", "build", "-o", to, pkg).CombinedOutput(); err != nil {
		h.t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
}

// below puts the paths in a text below the root.
func (h *host) below(text string) string {
	for _, p := range paths() {
		text = regexp.MustCompile(p+`\b`).ReplaceAllString(text, h.path(p))
	}
	return text
}

// write puts a text where the examples have it.
func (h *host) write(name, text string) {
	h.t.Helper()
	file := h.path(name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		h.t.Fatal(err)
	}
}

// install copies a file of an example.
func (h *host) install(from, to string) {
	h.t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		h.t.Fatal(err)
	}
	h.write(to, h.below(string(text)))
}

// service installs the definition of a service, by its file's name.
func (h *host) service(from string) {
	h.install(from, filepath.Join("/services.d", filepath.Base(from)))
}

// ran is what `deputy plugin …` printed, and its exit code.
func (h *host) ran(args ...string) (string, int) {
	h.t.Helper()
	cmd := exec.Command(h.deputy, append([]string{"plugin"}, args...)...)
	cmd.Env = append(os.Environ(), "DEPUTY_CONFIG="+h.path("/deputy.toml"), "DEPUTY_SERVICES="+h.path("/services.d"),
		"DEPUTY_STATE_DIR="+h.path("/state"), "DEPUTY_RUN_DIR="+h.path("/run"))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// passes has a part of a service judged.
func (h *host) passes(args ...string) {
	h.t.Helper()
	out, exit := h.ran(append([]string{"test", "--yes"}, args...)...)
	if exit != 0 || !strings.Contains(out, " 0 failed") || !strings.Contains(out, "kill-promote") {
		h.t.Errorf("deputy plugin test %s: exit code %d\n%s", strings.Join(args, " "), exit, out)
	}
}

// told is what the old script is called with, each call a line.
func (h *host) told() string {
	h.t.Helper()
	text, err := os.ReadFile(h.path("/run/app/told"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.t.Fatal(err)
	}
	_ = os.Remove(h.path("/run/app/told"))
	return string(text)
}

// tells has the old script write down what it is called with.
func (h *host) tells(script, what string) {
	h.t.Helper()
	text, err := os.ReadFile(h.path(script))
	if err != nil {
		h.t.Fatal(err)
	}
	h.write(script, strings.Replace(string(text), "#!/bin/sh\n", "#!/bin/sh\necho \""+what+"\" >>"+h.path("/run/app/told")+"\n", 1))
}

// call has one act done and wants its outcome.
func (h *host) call(want int, words string, args ...string) {
	h.t.Helper()
	if out, exit := h.ran(append([]string{"call"}, args...)...); exit != want || !strings.Contains(out, words) {
		h.t.Errorf("deputy plugin call %s: exit code %d, want %d with %q\n%s", strings.Join(args, " "), exit, want, words, out)
	}
}

// is wants a text of a file, none for "".
func (h *host) is(file, want string) {
	h.t.Helper()
	got, err := os.ReadFile(h.path(file))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		h.t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func (h *host) toldAre(want string) {
	h.t.Helper()
	if diff := cmp.Diff(want, h.told()); diff != "" {
		h.t.Errorf("the old script is called with (-want +got):\n%s", diff)
	}
}

// breaks wants the old script to break the contract when nothing stands
// between it and deputy.
func (h *host) breaks(script string) {
	h.t.Helper()
	h.write("/alone.toml", h.below("promote = [\""+script+"\"]\ndemote = [\""+script+"\"]\n"))
	if out, exit := h.ran("test", "exec", "--yes", "--settings", h.path("/alone.toml"), "--run", "^(demote-first|promote|promote-twice|adopt)$"); exit != 1 {
		h.t.Errorf("alone, %s keeps the contract: exit code %d\n%s", script, exit, out)
	}
}

func TestKeepalived(t *testing.T) {
	h := newHost(t)
	h.install("keepalived/notify.sh", "/etc/keepalived/notify.sh")
	h.install("keepalived/keepalived", "/etc/deputy/hooks/keepalived")
	h.write("/usr/local/bin/check-app", "#!/bin/sh\n")
	h.service("keepalived/web.toml")
	part := []string{"exec", "--service", "web", "--part", "exec"}
	h.passes(part...)
	h.call(0, ": fit ", "exec", "check", "--service", "web", "--part", "check-app")
	h.breaks("/etc/keepalived/notify.sh")

	h.tells("/etc/keepalived/notify.sh", "$*")
	for _, c := range []struct{ act, reason, words string }{
		{"promote", "election", ": done "},
		{"promote", "start", ": already "},
		{"demote", "switchover", ": done "},
		{"demote", "stop", ": already "},
		{"demote", "unfit", ": already "},
		{"demote", "lost", ": already "},
	} {
		h.call(0, c.words, append([]string{part[0], c.act, "--reason", c.reason}, part[1:]...)...)
		if c.act == "promote" {
			h.is("/run/app/active", "VI_1 100\n")
		} else {
			h.is("/run/app/active", "")
		}
	}
	h.toldAre("INSTANCE VI_1 MASTER 100\nINSTANCE VI_1 BACKUP 100\nINSTANCE VI_1 STOP 100\nINSTANCE VI_1 FAULT 100\nINSTANCE VI_1 BACKUP 100\n")

	h.call(0, ": done ", append([]string{"exec", "promote"}, part[1:]...)...)
	h.write("/etc/keepalived/notify.sh", "#!/bin/sh\nexit 0\n") // says so, and does nothing
	h.call(1, "failed-unknown", append([]string{"exec", "demote", "--timeout", "2s"}, part[1:]...)...)
}

func TestPatroni(t *testing.T) {
	h := newHost(t)
	h.install("patroni/callback.sh", "/etc/patroni/callback.sh")
	h.install("patroni/patroni", "/etc/deputy/hooks/patroni")
	h.service("patroni/orders.toml")
	part := []string{"exec", "--service", "orders", "--part", "pooler"}
	h.passes(part...)
	h.breaks("/etc/patroni/callback.sh")

	h.tells("/etc/patroni/callback.sh", "$*")
	for _, c := range []struct{ act, reason, words string }{
		{"demote", "start", ": already "},
		{"promote", "failover", ": done "},
		{"demote", "lost", ": done "},
		{"demote", "stop", ": already "},
	} {
		h.call(0, c.words, append([]string{"exec", c.act, "--reason", c.reason}, part[1:]...)...)
	}
	h.toldAre("on_start replica orders\non_role_change primary orders\non_role_change replica orders\non_stop replica orders\n")

	h.write("/etc/patroni/callback.sh", "#!/bin/sh\nexit 0\n")
	h.call(1, "failed-unknown", append([]string{"exec", "promote"}, part[1:]...)...)
}

func TestOrchestrator(t *testing.T) {
	h := newHost(t)
	h.install("orchestrator/post-failover.sh", "/usr/local/bin/post-failover.sh")
	h.install("orchestrator/orchestrator", "/etc/deputy/hooks/orchestrator")
	h.service("orchestrator/orders.toml")
	part := []string{"exec", "--service", "orders"}
	h.passes(part...)
	h.breaks("/usr/local/bin/post-failover.sh")

	h.tells("/usr/local/bin/post-failover.sh", "$* $ORC_COMMAND")
	h.call(0, ": done ", append([]string{"exec", "promote", "--reason", "failover", "--previous", "db2"}, part[1:]...)...)
	h.is("/run/app/writer", "writer=db1 was=db2 type=DeadMaster cluster=orders\n")
	h.call(0, ": done ", append([]string{"exec", "demote"}, part[1:]...)...)
	h.is("/run/app/writer", "")
	h.call(0, ": done ", append([]string{"exec", "promote", "--reason", "switchover", "--previous", "db2"}, part[1:]...)...)
	h.toldAre("db2 db1 \ndb2 db1 graceful-master-takeover\n")

	h.call(0, ": done ", append([]string{"exec", "demote"}, part[1:]...)...)
	h.write("/usr/local/bin/post-failover.sh", "#!/bin/sh\nexit 0\n")
	h.call(1, "failed-unknown", append([]string{"exec", "promote"}, part[1:]...)...)
}

// The agent is run by the plugin ocf as it is, and by the adapter.
func TestOCF(t *testing.T) {
	h := newHost(t)
	h.build(h.path("/plugins/deputy-plugin-ocf"), "../../contrib/ocf")
	h.install("ocf/worker", "/usr/lib/ocf/resource.d/example/worker")
	h.install("ocf/ocf", "/etc/deputy/hooks/ocf")
	h.service("ocf/by-hand.toml")
	worker, err := os.ReadFile("ocf/worker.toml")
	if err != nil {
		t.Fatal(err)
	}
	h.write("/services.d/worker.toml", strings.Replace(h.below(string(worker)), `{ agent = `, `{ root = "`+h.path("/usr/lib/ocf")+`", agent = `, 1))
	for _, part := range [][]string{{"ocf", "--service", "worker"}, {"exec", "--service", "by-hand"}} {
		h.passes(part...)
		h.call(0, ": done ", append([]string{part[0], "promote"}, part[1:]...)...)
		if _, err := os.Stat(h.path("/run/app/working")); err != nil {
			t.Error(err)
		}
		h.call(0, ": done ", append([]string{part[0], "demote"}, part[1:]...)...)
		if _, err := os.Stat(h.path("/run/app/working")); err == nil {
			t.Errorf("%s: it works still", part[0])
		}
	}
	h.breaks("/usr/lib/ocf/resource.d/example/worker")
	h.call(0, ": done ", "exec", "promote", "--service", "by-hand")
	h.write("/usr/lib/ocf/resource.d/example/worker", "#!/bin/sh\n[ \"$1\" != monitor ] || exit 0\n") // stop does nothing
	h.call(1, "failed-unknown", "exec", "demote", "--service", "by-hand")
}
