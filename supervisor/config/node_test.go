package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDropInsWinKeyByKey(t *testing.T) {
	n, err := LoadNode("testdata/node/merged.toml")
	if err != nil {
		t.Fatal(err)
	}
	n.credentials = nil
	want := Node{
		Name: "db1", PluginDirs: []string{"/c"}, Listen: ":7421", File: "testdata/node/merged.toml",
		Etcd: Etcd{Endpoints: []string{"http://192.0.2.21:2379", "http://192.0.2.22:2379"}, Prefix: "/three"},
	}
	if diff := cmp.Diff(want, n, cmp.AllowUnexported(Node{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if n.Etcd.TLS() {
		t.Error("http endpoints are TLS")
	}
}

func TestNodeNameDefaultsToHostName(t *testing.T) {
	const etcd = "[etcd]\nendpoints = ['127.0.0.1:2379']\n"
	read := func(src, host string) (Node, error) {
		doc, wrong := parseDocument("deputy.toml", src)
		if doc == nil {
			t.Fatal(wrong)
		}
		n := readNode(top(doc, &wrong), host)
		return n, wrong.err()
	}
	if n, err := read(etcd, "db1.example.net"); err != nil || n.Name != "db1.example.net" {
		t.Errorf("got %q, %v", n.Name, err)
	}
	if n, err := read("node = 'db2'\n"+etcd, "localhost"); err != nil || n.Name != "db2" {
		t.Errorf("got %q, %v", n.Name, err)
	}
	for host, want := range map[string]string{
		"localhost":             `deputy.toml:1:1: node: is missing, and the host name "localhost" is one that other machines have too; set node`,
		"localhost.localdomain": `deputy.toml:1:1: node: is missing, and the host name "localhost.localdomain" is one that other machines have too; set node`,
		"":                      `deputy.toml:1:1: node: is missing, and the host name "" cannot stand in for it; set node`,
		"-db1":                  `deputy.toml:1:1: node: is missing, and the host name "-db1" cannot stand in for it; set node`,
	} {
		if _, err := read(etcd, host); err == nil || err.Error() != want {
			t.Errorf("host %q: got %v, want %s", host, err, want)
		}
	}
}

func TestHosts(t *testing.T) {
	for host, want := range map[string]bool{
		"192.0.2.1": true, "2001:db8::1": true, "db1": true, "db1.example.net.": true, "fe80::1%eth0": true, "3com.example": true,
		"": false, "192.0.2.256": false, "192.0.2": false, "db1:3306": false, "-a": false, "a..b": false, "a b": false, "[::1]": false,
	} {
		if got := isHost(host); got != want {
			t.Errorf("isHost(%q) = %v, want %v", host, got, want)
		}
	}
}

func TestEndpoints(t *testing.T) {
	for endpoint, want := range map[string]string{
		"http://127.0.0.1:2379": "http", "https://etcd1:2379": "https", "etcd1:2379": "http", "[::1]:2379": "http",
		"etcd1": "", "ftp://etcd1:2379": "", "http://etcd1:2379/": "", "http://etcd1:0": "", "http://:2379": "", "etcd1:99999": "",
		"unix:///run/etcd": "", "http://a b:2379": "", "https://u:p@h:2379": "",
	} {
		got, ok := endpointScheme(endpoint)
		if ok != (want != "") || ok && got != want {
			t.Errorf("endpointScheme(%q) = %q, %v, want %q", endpoint, got, ok, want)
		}
	}
}

func TestReveal(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	write("deputy.toml", "node='a'\netcd.endpoints=['127.0.0.1:2379']\n", 0o644)
	write("credentials/etcd", "of the site\n", 0o600)
	write("credentials/own", "own\r\n", 0o640)
	write("handed/deputy_etcd", "of systemd", 0o440)
	write("credentials/loose", "hunter2", 0o604)
	write("credentials/empty", "\n", 0o600)
	file := write("elsewhere/token", "in a file\n\n", 0o400)

	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Join(dir, "handed"))
	n, err := LoadNode(filepath.Join(dir, "deputy.toml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		secret Secret
		want   string
		err    string
	}{
		{Secret{Credential: "etcd"}, "of systemd", ""},
		{Secret{Credential: "own"}, "own", ""},
		{Secret{File: file}, "in a file\n", ""},
		{Secret{Credential: "loose"}, "", "chmod 600 " + dir + "/credentials/loose"},
		{Secret{Credential: "empty"}, "", "is empty"},
		{Secret{File: dir}, "", "is not a regular file"},
		{Secret{Credential: "none"}, "", "reveal credential none"},
	} {
		got, err := n.Reveal(test.secret)
		if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: got %q, %v, want %q, %q", test.secret, got, err, test.want, test.err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Error("the secret is in the message")
		}
	}
	for _, test := range []struct {
		where map[string]any
		want  Secret
		err   string
	}{
		{map[string]any{"credential": "own"}, Secret{Credential: "own"}, ""},
		{map[string]any{"file": "/x"}, Secret{File: "/x"}, ""},
		{map[string]any{"file": "x"}, Secret{}, "is not absolute"},
		{map[string]any{"credential": "../deputy"}, Secret{}, "is not the name of a credential"},
		{map[string]any{"credential": "own", "file": "/x"}, Secret{}, "must be either"},
		{map[string]any{"credential": int64(1)}, Secret{}, "must be either"},
		{map[string]any{"value": "hunter2"}, Secret{}, "must be either"},
		{map[string]any{}, Secret{}, "must be either"},
	} {
		got, err := SecretOf(test.where)
		if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) || strings.Contains(fmt.Sprint(err), "hunter2") {
			t.Errorf("%v: got %v, %v, want %v, %q", test.where, got, err, test.want, test.err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "deputy.toml"), []byte("node=1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if n, err = LoadNode(filepath.Join(dir, "deputy.toml")); err == nil {
		t.Error("a node that is wrong is not told")
	}
	if got, err := n.Reveal(Secret{Credential: "own"}); got != "own" {
		t.Errorf("with a node that is wrong: got %q, %v", got, err)
	}
	if _, err := n.Reveal(Secret{Credential: "none"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing credential is %v, want not-exist", err)
	}
}
