package config

import (
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DefaultListen is where `deputy http` serves when nothing is said.
const DefaultListen = "127.0.0.1:7420"

// A Node is what a machine is told about itself.
type Node struct {
	Name       string   // the host name where not given
	Address    string   // empty: the source address towards etcd
	PluginDirs []string // absolute; searched after the built-in ones
	Etcd       Etcd
	Listen     string // of `deputy http`: host:port
	Notify     []Notify
	File       string

	credentials []string // directories
}

// Etcd is how the records are reached.
type Etcd struct {
	Endpoints []string      // http://, https:// or host:port; at least one
	Prefix    string        // begins with a slash and does not end in one
	Compact   time.Duration // drop revisions older than this; zero: etcd does it itself
	CAFile    string
	CertFile  string // with KeyFile, or neither
	KeyFile   string
	Username  string // with Password, or neither
	Password  Secret
}

// TLS reports whether any endpoint is reached by TLS.
func (e Etcd) TLS() bool {
	return slices.ContainsFunc(e.Endpoints, func(s string) bool { return strings.HasPrefix(s, "https://") })
}

// LoadNode reads a node's file and, where there are any, its drop-ins: for
// /etc/deputy/deputy.toml those in /etc/deputy/deputy.d/*.toml, in the order
// of their names; what comes later wins key by key. The error is [Mistakes]; of
// the Node only where its secrets are is then known.
func LoadNode(file string) (Node, error) {
	var wrong Mistakes
	unknown := Node{File: file, credentials: credentialDirs(file)}
	doc, mistakes := readDocument(file)
	wrong = append(wrong, mistakes...)

	// Glob's only error is a bad pattern; a directory of such a name has no drop-ins.
	dropins, _ := filepath.Glob(filepath.Join(strings.TrimSuffix(file, ".toml")+".d", "*.toml"))
	for _, dropin := range dropins {
		if strings.HasPrefix(filepath.Base(dropin), ".") {
			continue
		}
		more, mistakes := readDocument(dropin)
		wrong = append(wrong, mistakes...)
		if doc != nil && more != nil {
			doc.merge(more)
		}
	}
	// What a file that cannot be read says may be what another seems to lack.
	if err := wrong.err(); err != nil {
		return unknown, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	n := readNode(top(doc, &wrong), host)
	n.File, n.credentials = file, unknown.credentials
	if err := wrong.err(); err != nil {
		return unknown, err
	}
	return n, nil
}

func readNode(t *table, host string) Node {
	n := Node{Name: host, PluginDirs: []string{}, Listen: DefaultListen}
	switch given := t.text("node", &n.Name); {
	case given && !namePattern.MatchString(n.Name):
		t.mistake("node", "%q cannot be a node's name; %s", n.Name, nameRule)
	case given || t.has("node"):
	case host == "localhost" || strings.HasPrefix(host, "localhost."):
		// Two nodes of one name would take each other for themselves.
		t.mistake("node", "is missing, and the host name %q is one that other machines have too; set node", host)
	case !namePattern.MatchString(host):
		t.mistake("node", "is missing, and the host name %q cannot stand in for it; set node", host)
	}
	if t.text("address", &n.Address) && !isHost(n.Address) {
		t.mistake("address", `%q is not an address; write an IP address or a host name, without a port`, n.Address)
	}
	dirs, at := t.texts("plugin_dirs")
	for i, dir := range dirs {
		if err := absolute(dir); err != nil {
			t.wrong.add(at[i], t.path+"plugin_dirs", "%v", err)
		}
		n.PluginDirs = append(n.PluginDirs, filepath.Clean(dir))
	}
	n.Etcd = readEtcd(t.sub("etcd"))
	h := t.sub("http")
	if h.text("listen", &n.Listen) && !isListen(n.Listen) {
		h.mistake("listen", "%q is not an address to listen at; write host:port, like %q", n.Listen, DefaultListen)
	}
	h.close()
	n.Notify = readNotifies(t.subs("notify"))
	t.close()
	return n
}

func readEtcd(t *table) Etcd {
	e := Etcd{Prefix: "/deputy", Compact: 5 * time.Minute}
	endpoints, at := t.texts("endpoints")
	e.Endpoints = endpoints
	// There is no default: a node that asks another etcd than the others do
	// would be primary beside them.
	if v := t.keys["endpoints"]; v == nil || isEmptyArray(v) {
		t.mistake("endpoints", `is missing; name every member of etcd, like endpoints = ["https://192.0.2.21:2379"]`)
	}
	secure, open := 0, 0
	for i, s := range endpoints {
		scheme, ok := endpointScheme(s)
		switch {
		case !ok:
			t.wrong.add(at[i], t.path+"endpoints", "%q is not an endpoint; write scheme, host and port, like \"https://192.0.2.21:2379\"", s)
		case slices.Contains(endpoints[:i], s):
			t.wrong.add(at[i], t.path+"endpoints", "%q is there twice; name each member of etcd once", s)
		case scheme == "https":
			secure++
		default:
			open++
		}
	}
	if secure > 0 && open > 0 {
		t.mistake("endpoints", "mixes https with plain http; write https:// at all of them")
	}
	if t.text("prefix", &e.Prefix) {
		checkPrefix(t, e.Prefix)
	}
	if v := t.keys["compact"]; v != nil && v.is == "off" {
		t.get("compact")
		e.Compact = 0
	} else {
		t.duration("compact", &e.Compact, time.Second, 30*24*time.Hour)
	}
	files := []struct {
		key  string
		into *string
	}{{"ca_file", &e.CAFile}, {"cert_file", &e.CertFile}, {"key_file", &e.KeyFile}}
	for _, f := range files {
		if !t.text(f.key, f.into) {
			continue
		}
		if err := absolute(*f.into); err != nil {
			t.mistake(f.key, "%v", err)
		} else if secure == 0 && open > 0 {
			t.mistake(f.key, "has no effect, as no endpoint is https; write https:// at the endpoints")
		}
	}
	together(t, "cert_file", "key_file")
	if t.text("username", &e.Username) && e.Username == "" {
		t.mistake("username", "is empty; leave it out where etcd asks for none")
	}
	e.Password = readSecret(t, "password")
	together(t, "username", "password")
	t.close()
	return e
}

func isEmptyArray(v *value) bool {
	elems, ok := v.is.([]*value)
	return ok && len(elems) == 0
}

// together reports a key whose companion is missing.
func together(t *table, a, b string) {
	switch {
	case t.has(a) && !t.has(b):
		t.mistake(a, "needs %s beside it", b)
	case t.has(b) && !t.has(a):
		t.mistake(b, "needs %s beside it", a)
	}
}

func checkPrefix(t *table, prefix string) {
	harmless := !strings.ContainsFunc(prefix, func(r rune) bool { return r <= ' ' || r > '~' })
	switch {
	case prefix == "" || prefix == "/":
		t.mistake("prefix", `is empty; write a path of its own within etcd, like "/deputy"`)
	case !harmless:
		t.mistake("prefix", `%q has characters that are hard to type; use letters, digits, dashes and slashes, like "/deputy"`, prefix)
	case prefix[0] != '/':
		t.mistake("prefix", "must begin with a slash: %q", "/"+strings.Trim(prefix, "/"))
	case strings.HasSuffix(prefix, "/") || strings.Contains(prefix, "//"):
		// It is not put right silently: all nodes must use the same text.
		t.mistake("prefix", "must not end in a slash nor have two in a row: %q", "/"+strings.Join(strings.FieldsFunc(prefix, func(r rune) bool { return r == '/' }), "/"))
	}
}

// endpointScheme splits an endpoint; one without a scheme is http, as etcd has it.
func endpointScheme(s string) (string, bool) {
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", false
	}
	return u.Scheme, isHost(u.Hostname()) && isPort(u.Port(), 1)
}

func isListen(s string) bool {
	host, port, err := net.SplitHostPort(s)
	return err == nil && (host == "" || isHost(host)) && isPort(port, 0)
}

func isPort(s string, least uint64) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n >= least
}

// isHost reports whether s is an IP address or looks like a host name.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		bad := strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		})
		if label == "" || len(label) > 63 || bad || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	// What is all digits and dots was meant as an address, and is none.
	return strings.Trim(s, "0123456789.") != ""
}
