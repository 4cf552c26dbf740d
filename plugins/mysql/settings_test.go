package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/deputy-ha/deputy/sdk/sdktest"
	"github.com/deputy-ha/deputy/sdk/wire"
)

func TestSettings(t *testing.T) {
	h := sdktest.Own(t)
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	type m = map[string]any
	for _, c := range []struct {
		name   string
		config m
		want   string // empty when it is right; else part of what is wrong
	}{
		{"nothing", m{}, ""},
		{"an address", m{"address": "127.0.0.1:3306", "unit": "mariadb.service", "tls": m{"mode": "required"}}, ""},
		{"an option file", m{"defaults_file": write("private", "[client]\nuser=x\n", 0o600)}, ""},

		{"no host", m{"address": "3306"}, "address: "},
		{"a relative socket", m{"socket": "mysqld.sock"}, "must begin with /"},
		{"a long socket", m{"socket": "/" + strings.Repeat("x", 120)}, "longer than the 107 bytes"},
		{"no unit", m{"unit": "mariadb"}, "not the whole name of a service unit"},
		{"TLS by the socket", m{"tls": m{"mode": "verify"}}, "a unix socket needs none"},
		{"half a certificate", m{"address": "h:1", "tls": m{"cert": "/c"}}, "cert and key go together"},
		{"an authority without TLS", m{"replication": m{"ca": "/c"}}, "is for tls = true"},
		{"no authority", m{"address": "h:1", "tls": m{"mode": "verify", "ca": "/nonexistent"}}, "read authority"},
		{"an option file for all to read", m{"defaults_file": write("public", "[client]\nuser=x\n", 0o644)}, "chmod 600"},
		{"no option file", m{"defaults_file": "/nonexistent"}, "no such file"},
		{"policy", m{"demote": m{"on_blockers": "wait"}}, "on_blockers"},
	} {
		err := h.Configure(t.Context(), wire.Setup{Service: "s", Node: "n", Part: "mysql", Config: c.config})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: got %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// README.md has each setting, with its default, as the schema has it.
func TestReadmeHasTheSettings(t *testing.T) {
	d, err := sdktest.Own(t).Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d.ForcedBound != forcedBound {
		t.Errorf("it promises to demote within %s, want %s", d.ForcedBound, forcedBound)
	}
	sdktest.Readme(t, readme, d.Schema)
}

func TestOptionFiles(t *testing.T) {
	dir := t.TempDir()
	text := `# comment
[client]
user = deputy
password = "a # b\"c"   # comment
socket=/run/x.sock # comment
[mysqld]
loose_read-only
!includedir ` + dir + `/conf.d
`
	if err := os.Mkdir(filepath.Join(dir, "conf.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "conf.d", "z.cnf"), []byte("[client]\nuser = other\n[mariadb]\nread_only = OFF\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "my.cnf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readOptions(file, true)
	if err != nil {
		t.Fatal(err)
	}
	if c := got["client"]; c["user"] != "other" || c["password"] != `a # b"c` || c["socket"] != "/run/x.sock" {
		t.Errorf("got %q", c)
	}
	for name, c := range map[string]struct {
		text            string
		readOnly, known bool
	}{
		"on":     {"[mysqld]\nread_only\n", true, true},
		"off":    {"[mysqld]\nread-only = 0\n", false, true},
		"absent": {"[mysqld]\nport = 1\n", false, true},
		"client": {"[client]\nport = 1\n", false, false},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, k := startsReadOnly([]string{file}); r != c.readOnly || k != c.known {
			t.Errorf("%s: read-only %t, known %t", name, r, k)
		}
	}
}
