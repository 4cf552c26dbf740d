package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/sdktest"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// The zone of the tests, its keys, and what the key deputy may change: db, www,
// _db._tcp and their owner records. The key other may change nothing.
const (
	zone        = "example.test"
	secret      = "sZAAGmqdB9NpVn7S3QZIYlGZKwnkgUINhKpVxcB2Hiw="
	otherSecret = "AAAAGmqdB9NpVn7S3QZIYlGZKwnkgUINhKpVxcB2Hiw="
	node4       = "192.0.2.11"
	node6       = "2001:db8::11"
)

// A brand is a kind of name server.
type brand struct {
	name    string
	program string
	args    func(config string) []string
	config  func(l *lab, primary bool) string
}

func brands() []brand {
	return []brand{
		{"bind", "/usr/sbin/named", func(c string) []string { return []string{"-g", "-n", "1", "-c", c} }, bindConfig},
		{"knot", "/usr/sbin/knotd", func(c string) []string { return []string{"-c", c} }, knotConfig},
	}
}

// forBrands runs a test for each kind of name server, each with servers of its
// own.
func forBrands(t *testing.T, f func(t *testing.T, l *lab)) {
	for _, b := range brands() {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			f(t, newLab(t, b))
		})
	}
}

// A lab is a zone with a primary and a secondary name server on the loopback.
type lab struct {
	t                  *testing.T
	brand              brand
	primary, secondary string // address:port
	running            map[string]*exec.Cmd
}

func newLab(t *testing.T, b brand) *lab {
	t.Helper()
	if _, err := os.Stat(b.program); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("the tests need %s: %v", b.name, err)
		}
		t.Skipf("needs %s: %v", b.name, err)
	}
	l := &lab{t: t, brand: b, running: map[string]*exec.Cmd{}}
	l.primary, l.secondary = l.places()
	t.Cleanup(func() {
		l.stop(l.primary)
		l.stop(l.secondary)
	})
	l.start(l.primary)
	l.start(l.secondary)
	return l
}

// places are where the servers listen. BIND only takes addresses that an
// interface has; elsewhere the two have one port, as name servers do.
func (l *lab) places() (string, string) {
	one, two := "127.0.0.1:0", "127.0.0.1:0"
	if l.brand.name == "knot" {
		net3 := fmt.Sprintf("127.%d.%d.", 1+rand.IntN(250), 1+rand.IntN(250))
		one, two = net3+"1:0", net3+"2:"
	}
	free := func(at string) string {
		x, err := net.Listen("tcp", at)
		if err != nil {
			l.t.Fatal(err)
		}
		defer x.Close()
		return x.Addr().String()
	}
	one = free(one)
	if strings.HasSuffix(two, ":") {
		two += portOf(one)
	}
	return one, free(two)
}

func hostOf(at string) string { h, _, _ := net.SplitHostPort(at); return h }
func portOf(at string) string { _, p, _ := net.SplitHostPort(at); return p }

// start has the server at an address serve the zone.
func (l *lab) start(at string) {
	l.t.Helper()
	dir := filepath.Join(l.t.TempDir(), at)
	write := func(name, content string) {
		l.t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		l.t.Fatal(err)
	}
	if at == l.primary {
		write("zone", fmt.Sprintf(`$ORIGIN %s.
$TTL 10
@ SOA ns1 root 1 3600 600 86400 10
@ NS ns1
@ NS ns2
ns1 A %s
ns2 A %s
alias CNAME ns1
_deputy.foreign TXT "v=spf1 -all"
`, zone, hostOf(l.primary), hostOf(l.secondary)))
	}
	write("config", strings.ReplaceAll(l.brand.config(l, at == l.primary), "DIR", dir))
	cmd := exec.Command(l.brand.program, l.brand.args(filepath.Join(dir, "config"))...)
	said := &buffer{}
	cmd.Stdout, cmd.Stderr, cmd.Dir = said, said, dir
	if err := cmd.Start(); err != nil {
		l.t.Fatalf("start %s: %v", l.brand.name, err)
	}
	l.running[at] = cmd
	l.t.Cleanup(func() {
		if l.t.Failed() {
			l.t.Logf("%s at %s said:\n%s", l.brand.name, at, said)
		}
	})
	eventually(l.t, l.brand.name+" serves the zone", func() bool {
		x, err := l.look(at, zone, dns.TypeSOA)
		return err == nil && len(x.records) == 1
	})
}

func (l *lab) stop(at string) {
	if cmd := l.running[at]; cmd != nil {
		cmd.Process.Signal(syscall.SIGKILL)
		cmd.Wait()
		delete(l.running, at)
	}
}

func (l *lab) freeze(at string)   { l.running[at].Process.Signal(syscall.SIGSTOP) }
func (l *lab) unfreeze(at string) { l.running[at].Process.Signal(syscall.SIGCONT) }

// A buffer is what a program has printed so far.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func bindConfig(l *lab, primary bool) string {
	const common = `
options {
	directory "DIR"; pid-file "DIR/pid"; session-keyfile none; lock-file none;
	listen-on port OWNPORT { OWNHOST; }; listen-on-v6 { none; };
	recursion no; dnssec-validation no; notify explicit; notify-delay 0; notify-rate 1000; serial-query-rate 1000; minimal-responses yes;
	notify-source OWNHOST; transfer-source OWNHOST; allow-transfer { any; };
};
controls { };
key "deputy" { algorithm hmac-sha256; secret "SECRET"; };
key "other" { algorithm hmac-sha256; secret "SECRET"; };
`
	zones := `
zone "ZONE" {
	type primary; file "zone"; also-notify { SECONDARYHOST port SECONDARYPORT; };
	update-policy {
		grant deputy name db.ZONE A AAAA CNAME;
		grant deputy name www.ZONE A AAAA CNAME;
		grant deputy name alias.ZONE A AAAA;
		grant deputy name _db._tcp.ZONE SRV;
		grant deputy name _deputy.db.ZONE TXT;
		grant deputy name _deputy.www.ZONE TXT;
		grant deputy name _deputy.alias.ZONE TXT;
	};
};
`
	if !primary {
		zones = `zone "ZONE" { type secondary; file "zone"; primaries { PRIMARYHOST port PRIMARYPORT; }; allow-notify { key deputy; }; };`
	}
	return l.fill(common+zones, primary)
}

func knotConfig(l *lab, primary bool) string {
	const common = `
server:
    rundir: "DIR"
    listen: OWNHOST@OWNPORT
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "DIR"
log:
  - target: stderr
    any: info
key:
  - id: deputy
    algorithm: hmac-sha256
    secret: SECRET
  - id: other
    algorithm: hmac-sha256
    secret: SECRET
remote:
  - id: primary
    address: PRIMARYHOST@PRIMARYPORT
    via: SECONDARYHOST
  - id: secondary
    address: SECONDARYHOST@SECONDARYPORT
    via: PRIMARYHOST
acl:
  - id: deputy
    key: deputy
    action: update
    update-type: [A, AAAA, CNAME, SRV, TXT]
    update-owner: name
    update-owner-match: equal
    update-owner-name: [db, www, alias, _db._tcp, _deputy.db, _deputy.www, _deputy.alias]
  - id: notify
    key: deputy
    action: notify
  - id: secondary
    address: [127.0.0.0/8]
    action: [transfer, notify]
zone:
  - domain: ZONE
    storage: "DIR"
    file: zone
`
	zones := "    notify: secondary\n    acl: [deputy, secondary]\n"
	if !primary {
		zones = "    master: primary\n    acl: [secondary, notify]\n"
	}
	return l.fill(common+zones, primary)
}

func (l *lab) fill(config string, primary bool) string {
	at := l.secondary
	if primary {
		at = l.primary
	}
	return strings.NewReplacer(
		"OWNHOST", hostOf(at), "OWNPORT", portOf(at),
		"PRIMARYHOST", hostOf(l.primary), "PRIMARYPORT", portOf(l.primary),
		"SECONDARYHOST", hostOf(l.secondary), "SECONDARYPORT", portOf(l.secondary),
		"SECRET", secret, "ZONE", zone,
	).Replace(config)
}

// look asks a server for a set, as anybody may.
func (l *lab) look(at, name string, kind uint16) (set, error) {
	s := server{at: endpoint(at), zone: zone, timeout: 5 * time.Second, now: time.Now}
	line := s.line()
	defer line.hangUp()
	return line.set(context.Background(), dns.CanonicalName(name), kind)
}

// serves waits until a server has the values for a name; "nothing" is none.
func (l *lab) serves(at, name string, kind uint16, want string) {
	l.t.Helper()
	var got string
	end := time.Now().Add(10 * time.Second)
	for time.Now().Before(end) {
		x, err := l.look(at, name, kind)
		if got = fmt.Sprint(x.values(), " ", err); err == nil && x.values() == want {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	l.t.Fatalf("%s has %s %s: got %s, want %s", at, name, dns.TypeToString[kind], got, want)
}

// config are settings for db, with changes.
func (l *lab) config(change ...map[string]any) map[string]any {
	c := map[string]any{
		"zone": zone, "server": l.primary, "verify": []string{l.primary, l.secondary},
		"tsig":    map[string]any{"name": "deputy", "secret": secret},
		"records": []any{map[string]any{"name": "db." + zone}},
		// A busy machine is no reason to fail here.
		"timeout": "5s", "verify_timeout": "10s",
		"notify": l.brand.name == "knot", // it lets a second pass before it notifies
	}
	for _, more := range change {
		for key, value := range more {
			c[key] = value
		}
	}
	return c
}

// A node is one with the real plugin in a process of its own.
type node struct {
	t      *testing.T
	name   string
	addr   string
	hosted sdktest.Hosted
	acts   int
}

func (l *lab) node(name, addr string, config map[string]any) *node {
	l.t.Helper()
	n := &node{t: l.t, name: name, addr: addr, hosted: sdktest.Own(l.t)}
	l.t.Cleanup(func() {
		if l.t.Failed() {
			l.t.Logf("%s said: %s", name, n.hosted.Said())
		}
	})
	n.configure(config)
	return n
}

func setup(node string, config map[string]any) wire.Setup {
	return wire.Setup{Service: "orders", Node: node, Part: "dns", Config: config}
}

func (n *node) configure(config map[string]any) {
	n.t.Helper()
	if err := n.hosted.Configure(n.t.Context(), setup(n.name, config)); err != nil {
		n.t.Fatalf("configure: %v", err)
	}
}

func (n *node) transition(a sdk.Action, term sdk.Term) sdk.Transition {
	n.acts++
	t := sdk.Transition{
		ID: fmt.Sprint(a, n.acts), Action: a, Mode: sdk.Planned, Service: "orders", Node: n.name, Term: term,
		Reason: sdk.ReasonElection, Attempt: 1, Timeout: 20 * time.Second, LeaseUntil: sdk.Now().Add(time.Minute),
	}
	if a == sdk.Promote {
		t.Primary = sdk.Peer{Node: n.name, Address: n.addr}
	}
	return t
}

func (n *node) do(t sdk.Transition) sdk.Result {
	n.t.Helper()
	return n.hosted.Do(n.t.Context(), t, time.Second, func(string) {})
}

func (n *node) act(a sdk.Action, term sdk.Term) sdk.Result {
	n.t.Helper()
	return n.do(n.transition(a, term))
}

// comes has an act come to an outcome and say some words.
func (n *node) comes(a sdk.Action, term sdk.Term, want sdk.Outcome, words ...string) {
	n.t.Helper()
	says(n.t, n.act(a, term), want, words...)
}

func says(t *testing.T, r sdk.Result, want sdk.Outcome, words ...string) {
	t.Helper()
	if r.Outcome != want {
		t.Fatalf("got %+v, want %s", r, want)
	}
	for _, w := range words {
		if !strings.Contains(r.Detail, w) {
			t.Errorf("it says %q, want %q in it", r.Detail, w)
		}
	}
}

// check has a check find the node fit or not, and say some words.
func (n *node) check(role sdk.Role, fit bool, words string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 20*time.Second)
	defer cancel()
	h, err := n.hosted.Check(ctx, role, 0)
	if err != nil || h.Fit != fit || !strings.Contains(h.Detail, words) {
		n.t.Errorf("check as %s: got %+v, %v; want fit %t with %q", role, h, err, fit, words)
	}
}

// eventually waits for what has to become true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20s", what)
		}
	}
}

// A tap stands between a plugin and a name server, and may do with each update
// what a network can.
type tap struct {
	at string
	mu sync.Mutex
	on func(update bool) deed
}

// A deed is what becomes of one message.
type deed struct {
	before func() // before the server gets it
	lose   bool   // the server never gets it
	deaf   bool   // its answer is not passed on, and the connection closed
	answer []byte // is sent instead of the server's
	strip  bool   // the answer loses its signature
	rcode  int    // is answered, without a signature, instead of the server's
}

func newTap(t *testing.T, to string) *tap {
	t.Helper()
	in, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x := &tap{at: in.Addr().String(), on: func(bool) deed { return deed{} }}
	var serving sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	serving.Go(func() {
		for {
			c, err := in.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { x.serve(ctx, c, to) })
		}
	})
	t.Cleanup(func() {
		cancel()
		in.Close()
		serving.Wait()
	})
	return x
}

// does says what becomes of each message from now on.
func (x *tap) does(f func(update bool) deed) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.on = f
}

func (x *tap) serve(ctx context.Context, c net.Conn, to string) {
	defer context.AfterFunc(ctx, func() { c.Close() })()
	defer c.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	defer server.Close()
	in, out := &dns.Conn{Conn: c}, &dns.Conn{Conn: server}
	for {
		asked, err := in.ReadMsgHeader(nil)
		if err != nil {
			return
		}
		x.mu.Lock()
		on := x.on
		x.mu.Unlock()
		d := on(asked[2]>>3&15 == dns.OpcodeUpdate)
		if d.before != nil {
			d.before()
		}
		if d.lose {
			return
		}
		answer := d.answer
		if d.rcode != 0 {
			var m dns.Msg
			if m.Unpack(asked) == nil {
				answer, _ = new(dns.Msg).SetRcode(&m, d.rcode).Pack()
			}
		}
		if answer == nil {
			if _, err := out.Write(asked); err != nil {
				return
			}
			if answer, err = out.ReadMsgHeader(nil); err != nil {
				return
			}
		}
		if d.deaf {
			return
		}
		if d.strip {
			var m dns.Msg
			if m.Unpack(answer) == nil {
				m.Extra = nil
				answer, _ = m.Pack()
			}
		}
		if _, err := in.Write(answer); err != nil {
			return
		}
	}
}
