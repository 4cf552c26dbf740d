package config

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deputy-ha/deputy/supervisor"
)

func TestWhoIsNotified(t *testing.T) {
	doc, wrong := parseDocument("deputy.toml", `
[etcd]
endpoints = ["127.0.0.1:2379"]
[[notify]]
name = "mail"
exec = ["/etc/deputy/hooks/mail", "ops@example.com"]
events = ["no-primary", "blocked"]
services = ["orders-*", "cache"]
[[notify]]
name = "chat"
webhook = { credential = "chat" }
headers = { X-Team = "db", Authorization = { file = "/root/token" } }
ca_file = "/etc/deputy/tls/chat.pem"
timeout = "30s"
`)
	n := readNode(top(doc, &wrong), "db1")
	if err := wrong.err(); err != nil {
		t.Fatal(err)
	}
	want := []Notify{
		{
			Name: "mail", Exec: []string{"/etc/deputy/hooks/mail", "ops@example.com"}, Timeout: DefaultNotifyTimeout,
			Events: []supervisor.EventKind{supervisor.EventNoPrimary, supervisor.EventBlocked}, Services: []string{"orders-*", "cache"},
		},
		{
			Name: "chat", Webhook: Text{Secret: Secret{Credential: "chat"}}, Timeout: 30 * time.Second, CAFile: "/etc/deputy/tls/chat.pem",
			Headers: map[string]Text{"X-Team": {Plain: "db"}, "Authorization": {Secret: Secret{File: "/root/token"}}},
		},
	}
	if diff := cmp.Diff(want, n.Notify); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, c := range []struct {
		service string
		kind    supervisor.EventKind
		want    bool
	}{
		{"orders-db", supervisor.EventNoPrimary, true},
		{"cache", supervisor.EventBlocked, true},
		{"cache2", supervisor.EventBlocked, false},
		{"orders-db", supervisor.EventPrimary, false},
	} {
		if got := n.Notify[0].Wants(c.service, c.kind); got != c.want {
			t.Errorf("%s of %s: %v", c.kind, c.service, got)
		}
		if !n.Notify[1].Wants(c.service, c.kind) {
			t.Errorf("%s of %s is not for all", c.kind, c.service)
		}
	}
	if got, err := n.Read(n.Notify[1].Headers["X-Team"]); got != "db" || err != nil {
		t.Error(got, err)
	}
}
