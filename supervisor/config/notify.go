package config

import (
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// DefaultNotifyTimeout is how long one delivery may take when nothing is said.
const DefaultNotifyTimeout = 10 * time.Second

// A Notify is somebody who is told of events, by a program or by a webhook.
type Notify struct {
	Name     string                 // the same on all nodes
	Exec     []string               // a program's absolute path and its arguments; or
	Webhook  Text                   // an address, http or https
	Headers  map[string]Text        // of the webhook
	CAFile   string                 // of the webhook; empty: the system's
	Events   []supervisor.EventKind // empty: all
	Services []string               // patterns as of path.Match; empty: all
	Timeout  time.Duration
}

// Wants reports whether events of a kind and a service are told.
func (n Notify) Wants(service string, kind supervisor.EventKind) bool {
	matches := func(pattern string) bool {
		ok, err := path.Match(pattern, service)
		return ok && err == nil
	}
	return (len(n.Events) == 0 || slices.Contains(n.Events, kind)) && (len(n.Services) == 0 || slices.ContainsFunc(n.Services, matches))
}

// A Text is written out, or a secret that is somewhere else.
type Text struct {
	Plain  string
	Secret Secret
}

// Read returns the text, or what Reveal says.
func (n Node) Read(t Text) (string, error) {
	if t.Secret.IsZero() {
		return t.Plain, nil
	}
	return n.Reveal(t.Secret)
}

// IsAddress reports whether a text is one that a webhook can have.
func IsAddress(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil && u.Fragment == ""
}

func readNotifies(tables []*table) []Notify {
	var all []Notify
	for _, t := range tables {
		n := readNotify(t)
		switch known := slices.IndexFunc(all, func(o Notify) bool { return o.Name == n.Name }); {
		case !t.has("name"):
			t.mistake("name", "is missing; give each [[notify]] a name, the same on all nodes")
		case !namePattern.MatchString(n.Name):
			t.mistake("name", "%q cannot be a name; %s", n.Name, nameRule)
		case known >= 0:
			t.mistake("name", "%q is there twice; all nodes tell each name once", n.Name)
		}
		all = append(all, n)
	}
	return all
}

func readNotify(t *table) Notify {
	n := Notify{Timeout: DefaultNotifyTimeout}
	t.text("name", &n.Name)
	argv, at := t.texts("exec")
	n.Exec = argv
	switch v := t.keys["exec"]; {
	case v != nil && isEmptyArray(v):
		t.mistake("exec", `is empty; write a program and its arguments, like ["/etc/deputy/hooks/mail", "ops@example.com"]`)
	case len(argv) > 0:
		if err := absolute(argv[0]); err != nil {
			t.wrong.add(at[0], t.path+"exec", "%v", err)
		}
	}
	n.Webhook = readText(t, "webhook")
	if p := n.Webhook.Plain; p != "" && !IsAddress(p) {
		t.mistake("webhook", `is no address; write one like "https://chat.example.com/hooks/ops", or { credential = "NAME" } where it is a secret`)
	}
	switch {
	case t.has("exec") && t.has("webhook"):
		t.mistake("webhook", "stands beside exec; write two [[notify]], one for each")
	case !t.has("exec") && !t.has("webhook"):
		t.mistake("exec", "is missing, and so is webhook; write one of the two")
	}
	h := t.sub("headers")
	for _, key := range slices.Sorted(maps.Keys(h.keys)) {
		value := readText(h, key)
		switch {
		case !isToken(key):
			h.mistake(quoteKey(key), "is no name of an HTTP header")
		case slices.Contains([]string{"Content-Type", "Content-Length", "Idempotency-Key", "User-Agent", "Host", "Connection"}, http.CanonicalHeaderKey(key)):
			h.mistake(key, "is set by deputy itself; remove it")
		case slices.Contains([]string{"Authorization", "Cookie", "Proxy-Authorization"}, http.CanonicalHeaderKey(key)) && value.Secret.IsZero():
			h.mistake(key, `must not stand in this file; put it into a file of its own (chmod 600) in the directory credentials beside this one and write { credential = "NAME" }`)
		case strings.ContainsFunc(value.Plain, func(r rune) bool { return r < ' ' || r == 0x7f }):
			h.mistake(key, "has characters that a header cannot have")
		}
		if n.Headers == nil {
			n.Headers = map[string]Text{}
		}
		n.Headers[key] = value
	}
	if t.text("ca_file", &n.CAFile) {
		if err := absolute(n.CAFile); err != nil {
			t.mistake("ca_file", "%v", err)
		}
	}
	for _, key := range []string{"headers", "ca_file"} {
		if t.has(key) && t.has("exec") {
			t.mistake(key, "has no effect beside exec; it is for a webhook")
		}
	}
	kinds, at := t.texts("events")
	var known []string
	for _, kind := range supervisor.EventKinds() {
		known = append(known, string(kind))
	}
	for i, kind := range kinds {
		if !slices.Contains(known, kind) {
			t.wrong.add(at[i], t.path+"events", "%q is not one of its values; %s", kind, suggest(kind, known))
		}
		n.Events = append(n.Events, supervisor.EventKind(kind))
	}
	patterns, at := t.texts("services")
	for i, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			t.wrong.add(at[i], t.path+"services", "%q is no pattern; write names, in which * stands for anything", p)
		}
	}
	n.Services = patterns
	for _, key := range []string{"events", "services"} {
		if v := t.keys[key]; v != nil && isEmptyArray(v) {
			t.mistake(key, "is empty, so nothing is told; remove it for all")
		}
	}
	t.duration("timeout", &n.Timeout, time.Second, 5*time.Minute)
	t.close()
	return n
}

// readText reads a text or where a secret is.
func readText(t *table, key string) Text {
	if v := t.keys[key]; v != nil {
		if _, ok := v.is.(map[string]*value); ok {
			return Text{Secret: readSecret(t, key)}
		}
	}
	var s Text
	if t.text(key, &s.Plain) && s.Plain == "" {
		t.mistake(key, `is empty; write a text, or { credential = "NAME" } where it is a secret`)
	}
	return s
}

// isToken reports whether s is a token as of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}
