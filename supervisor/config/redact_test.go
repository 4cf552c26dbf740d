package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Wherever somebody may have written a secret, it is not in what is shown to
// others; what is none stays.
func TestRedacted(t *testing.T) {
	const text = `# the old password was hush00
ttl = "3s"
[etcd]
endpoints = ["https://root:hush01@192.0.2.21:2379"]
password  = { credential = "etcd" }
key_file  = "/etc/deputy/tls/node.key"
[[plugin]]
use = "exec"
config = { promote = ["/hook", "--password", "hush02", "--token=hush03", "up"], check = ["sh", "-c", "PASSWORD='hush04' try; curl -H 'Authorization: Bearer hush05'"] }
[[plugin]]
use = "x"
config = { db_password = "hush06", nested = { api_key = "hush07", more = [{ secret = ["hush08", { deep = "hush09" }] }] }, passphrase = 4711, port = 3306 }
[[notify]]
webhook = "https://chat.example.com/hooks/hush10"
headers = { X-Key = "hush11", Authorization = { credential = "chat" } }
[[notify]]
webhook = { credential = "hook" }
`
	file := filepath.Join(t.TempDir(), "a.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, secrets, err := Redacted(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, not := range []string{"hush", "4711"} {
		if strings.Contains(got, not) {
			t.Errorf("%q is still there:\n%s", not, got)
		}
	}
	for _, want := range []string{`ttl = "3s"`, "192.0.2.21:2379", `credential = "etcd"`, "/etc/deputy/tls/node.key", `"up"`, "port = 3306", "https://chat.example.com/", `credential = "chat"`, `credential = "hook"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not there any more:\n%s", want, got)
		}
	}
	all := strings.Join(secrets, "\n")
	for _, want := range []string{"hush01", "hush02", "hush03", "hush04", "hush05", "hush06", "hush07", "hush08", "hush09", "hush10", "hush11", "4711"} {
		if !strings.Contains(all, want) {
			t.Errorf("%s is not among the secrets that were left out: %q", want, secrets)
		}
	}

	if err := os.WriteFile(file, []byte("password = hush12"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _, err := Redacted(file); err == nil || got != "" || strings.Contains(err.Error(), "hush") {
		t.Errorf("no TOML: got %q, %v, want an error that does not repeat it", got, err)
	}
}
