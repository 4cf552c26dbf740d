package config

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deputy-ha/deputy/supervisor"
)

// The examples of the interfaces page are copied to testdata as they are.

func TestDesignNode(t *testing.T) {
	n, err := LoadNode("testdata/design/deputy.toml")
	if err != nil {
		t.Fatal(err)
	}
	want := Node{
		Name: "db1", Address: "192.0.2.11", PluginDirs: []string{}, Listen: "127.0.0.1:7420",
		Etcd: Etcd{
			Endpoints: []string{"https://192.0.2.21:2379", "https://192.0.2.22:2379", "https://192.0.2.23:2379"},
			Prefix:    "/deputy", Compact: 5 * time.Minute,
			CAFile: "/etc/deputy/tls/ca.pem", CertFile: "/etc/deputy/tls/node.pem", KeyFile: "/etc/deputy/tls/node.key",
			Username: "deputy", Password: Secret{Credential: "etcd"},
		},
		File: "testdata/design/deputy.toml",
	}
	n.credentials = nil
	if diff := cmp.Diff(want, n, cmp.AllowUnexported(Node{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if !n.Etcd.TLS() {
		t.Error("https endpoints are not TLS")
	}
}

func TestDesignService(t *testing.T) {
	s, err := LoadService("testdata/design/orders-db.toml", []string{"mysql", "vip", "guard"})
	if err != nil {
		t.Fatal(err)
	}
	act := func(d time.Duration) supervisor.ActPolicy { return supervisor.ActPolicy{Timeout: d, Retries: 2} }
	check := func(on supervisor.On) supervisor.CheckPolicy {
		return supervisor.CheckPolicy{Interval: time.Second, Timeout: 500 * time.Millisecond, Fall: 3, Rise: 2, On: on, Severity: supervisor.Critical, StartGrace: 5 * time.Second}
	}
	part := func(use string, on supervisor.On, config map[string]any) supervisor.Part {
		return supervisor.Part{Use: use, Name: use, Promote: act(30 * time.Second), Demote: act(10 * time.Second), Fence: supervisor.ActPolicy{Timeout: time.Minute, Retries: 1}, Check: check(on), Config: config}
	}
	want := supervisor.Service{
		Name: "orders-db", Description: "Orders database: one writable MySQL behind one address",
		TTL: 3 * time.Second, Priority: 100, User: "deputy", File: "testdata/design/orders-db.toml",
		OnDemoteFailure: supervisor.Block, OnUnclean: supervisor.UncleanWait, OnBehind: supervisor.BehindRefuse,
		Parts: []supervisor.Part{
			part("mysql", supervisor.OnBoth, map[string]any{"socket": "/run/mysqld/mysqld.sock"}),
			part("vip", "", map[string]any{"address": "192.0.2.10/32", "interface": "eth0"}),
			part("guard", "", map[string]any{"ports": []any{"tcp/3306"}, "allow": []any{"192.0.2.12", "192.0.2.13"}}),
			part("exec", supervisor.OnPrimary, map[string]any{
				"promote": []any{"/etc/deputy/hooks/announce", "up"},
				"demote":  []any{"/etc/deputy/hooks/announce", "down"},
				"check":   []any{"/usr/lib/nagios/plugins/check_tcp", "-p", "3306"},
			}),
		},
	}
	if s.Hash == "" {
		t.Error("no hash")
	}
	s.Hash = ""
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A broken file, and what is no definition, keeps no other from being used.
func TestDesignServices(t *testing.T) {
	dir := t.TempDir()
	text, err := os.ReadFile("testdata/design/orders-db.toml")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"b.toml": string(text), "a.toml": string(text), "broken.toml": "ttl = 3", ".hidden.toml": "x", "notes.txt": "x"} {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := LoadServices(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Names(), []string{"a", "b"}; !slices.Equal(got, want) {
		t.Errorf("good services %q, want %q", got, want)
	}
	if got := len(s.Broken); got != 1 || s.Broken["broken"] == nil {
		t.Errorf("broken services %v, want the one", s.Broken)
	}
}

// The examples that people copy are valid.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../examples/*/services.d*/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		if _, err := LoadService(file, nil); err != nil {
			t.Errorf("%v", err)
		}
	}
}
