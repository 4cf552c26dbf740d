package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/deputy-ha/deputy/supervisor"
)

func withUnits(user string, units ...any) supervisor.Service {
	return supervisor.Service{Name: "db", User: user, Parts: []supervisor.Part{
		{Use: "exec", Name: "exec", Config: map[string]any{"units": []any{"none.service"}}},
		{Use: "systemd", Name: "one", Config: map[string]any{"units": units}},
	}}
}

func prepared(t *testing.T, p preparation, s supervisor.Service, members ...string) []string {
	t.Helper()
	did, err := p.write(p.pieces(s, managed(s), members))
	if err != nil {
		t.Fatal(err)
	}
	return did
}

func TestPreparationOfAServiceIsUndone(t *testing.T) {
	root := t.TempDir()
	p := preparation{root: root, service: "db"}
	condition := filepath.Join(root, "etc/systemd/system/parser.service.d/50-deputy-db.conf")
	rules := filepath.Join(root, "etc/polkit-1/rules.d/50-deputy-db.rules")

	did := prepared(t, p, withUnits("deputy", "parser.service", "feed@1.service"), "report.timer", "parser.service")
	want := []string{"wrote " + condition, "wrote " + filepath.Join(root, "etc/systemd/system/feed@1.service.d/50-deputy-db.conf"), "wrote " + rules}
	if !slices.Equal(did, want) {
		t.Errorf("it did\n%s\nwant\n%s", strings.Join(did, "\n"), strings.Join(want, "\n"))
	}
	for file, line := range map[string]string{
		condition: "\n[Unit]\nConditionPathExists=/run/deputy/db/allow-parser.service\nBindsTo=deputy-lease@db.service\n",
		rules:     "\n        start: [\"feed@1.service\", \"parser.service\"],\n        stop: [\"feed@1.service\", \"parser.service\", \"report.timer\"]\n",
	} {
		if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), line) {
			t.Errorf("%s: %v, want %q in\n%s", file, err, line, text)
		}
	}
	if did := prepared(t, p, withUnits("deputy", "parser.service", "feed@1.service"), "report.timer", "parser.service"); len(did) != 0 {
		t.Errorf("again it did %q", did)
	}

	// Another service's files are its own; a unit that is not there any more is
	// guarded no more.
	other := preparation{root: root, service: "other"}
	prepared(t, other, supervisor.Service{Name: "other", Parts: withUnits("", "parser.service").Parts})
	did = prepared(t, p, withUnits("deputy", "parser.service"))
	if !slices.Contains(did, "removed "+filepath.Join(root, "etc/systemd/system/feed@1.service.d/50-deputy-db.conf")) || !slices.Contains(did, "wrote "+rules) || len(did) != 2 {
		t.Errorf("with fewer units it did %q", did)
	}
	if did, err := p.unmake(); err != nil || len(did) != 2 {
		t.Errorf("undone: %q, %v", did, err)
	}
	if did, err := p.unmake(); err != nil || len(did) != 0 {
		t.Errorf("undone again: %q, %v", did, err)
	}
	if _, err := other.unmake(); err != nil {
		t.Error(err)
	}
	var left []string
	if err := filepath.WalkDir(filepath.Join(root, "etc"), func(path string, _ os.DirEntry, err error) error {
		left = append(left, strings.TrimPrefix(path, root))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"/etc", "/etc/polkit-1", "/etc/polkit-1/rules.d", "/etc/systemd", "/etc/systemd/system"}; !slices.Equal(left, want) {
		t.Errorf("left: %q", left)
	}
}

func TestPreparationLeavesFilesOfOthersAlone(t *testing.T) {
	root := t.TempDir()
	p := preparation{root: root, service: "db"}
	file := filepath.Join(root, "etc/systemd/system/parser.service.d/50-deputy-db.conf")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("[Unit]\nDescription=mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := withUnits("root", "parser.service")
	did, err := p.write(p.pieces(s, managed(s), nil))
	if err == nil || !strings.Contains(err.Error(), file+" is not of deputy") || len(did) != 0 {
		t.Errorf("it did %q, %v", did, err)
	}
	if did, err := p.unmake(); err != nil || len(did) != 0 {
		t.Errorf("undone: %q, %v", did, err)
	}
	if text, _ := os.ReadFile(file); string(text) != "[Unit]\nDescription=mine\n" {
		t.Errorf("it is now %q", text)
	}
}

func TestPreparationForUsers(t *testing.T) {
	p := preparation{root: t.TempDir(), service: "db"}
	paths := func(user string, units ...any) (all []string, text string) {
		s := withUnits(user, units...)
		for _, f := range p.pieces(s, managed(s), nil) {
			all = append(all, filepath.Base(f.path))
			text += f.text
		}
		return all, text
	}
	if got, _ := paths(""); len(got) != 0 {
		t.Errorf("nothing is needed, got %q", got)
	}
	got, text := paths("root", "parser.service")
	if want := []string{"50-deputy.conf", "50-deputy.conf", "50-deputy-db.conf"}; !slices.Equal(got, want) || !strings.Contains(text, "\nUser=root\nGroup=root\n") {
		t.Errorf("root: got %q with\n%s", got, text)
	}
	got, text = paths("mysql")
	if want := []string{"50-deputy.conf", "50-deputy.conf", "50-deputy-db.rules"}; !slices.Equal(got, want) ||
		!strings.Contains(text, "\nUser=mysql\n") || !strings.Contains(text, `subject.user == "mysql"`) || !strings.Contains(text, `"deputy-primary@db.target"`) {
		t.Errorf("mysql: got %q with\n%s", got, text)
	}
}
