package etcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
)

// A guarded etcd wants certificates, and has the users of testdata/roles.sh
// and one that may nothing.
type guarded struct {
	*etcdtest.Cluster
	ca  *etcdtest.CA
	dir string
}

func startGuarded(t *testing.T, edit ...func(*etcdtest.Options)) *guarded {
	t.Helper()
	g := &guarded{dir: t.TempDir()}
	var err error
	if g.ca, err = etcdtest.NewCA(g.dir, "ca"); err != nil {
		t.Fatal(err)
	}
	opts := quick
	opts.Members = 1
	for _, e := range edit {
		e(&opts)
	}
	opts.TLS = &etcdtest.TLS{CA: g.ca.File, Mutual: true}
	opts.TLS.Cert, opts.TLS.Key = issue(t, g.ca, "member", "member", time.Hour)
	g.Cluster = etcdtest.StartT(t, opts)

	root := g.admin(t)
	script, err := os.ReadFile("testdata/roles.sh")
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for line := range strings.Lines(string(script)) {
		if args, ok := strings.CutPrefix(strings.TrimSpace(line), "etcdctl "); ok {
			if args == "auth enable" {
				etcdctl(t, root, "user", "add", "nobody", "--no-password")
				if _, err := root.UserAdd(ctx, "clerk", "secret"); err != nil {
					t.Fatal(err)
				}
				etcdctl(t, root, "user", "grant-role", "clerk", "deputy")
			}
			etcdctl(t, root, strings.Fields(args)...)
		}
	}
	return g
}

// etcdctl does what the program of that name would.
func etcdctl(t *testing.T, c *clientv3.Client, args ...string) {
	t.Helper()
	prefix := slices.Contains(args, "--prefix=true")
	noPassword := slices.Contains(args, "--no-password")
	args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return strings.HasPrefix(a, "--") })
	ctx := t.Context()
	var err error
	switch verb := strings.Join(args[:2], " "); verb {
	case "role add":
		_, err = c.RoleAdd(ctx, args[2])
	case "role grant-permission":
		kind, ok := map[string]clientv3.PermissionType{"read": clientv3.PermissionType(clientv3.PermRead), "readwrite": clientv3.PermissionType(clientv3.PermReadWrite)}[args[3]]
		if !ok || !prefix {
			t.Fatalf("etcdctl %q: not known to this test", args)
		}
		_, err = c.RoleGrantPermission(ctx, args[2], args[4], clientv3.GetPrefixRangeEnd(args[4]), kind)
	case "user add":
		if !noPassword {
			t.Fatalf("etcdctl %q: asks for a password", args)
		}
		_, err = c.UserAddWithOptions(ctx, args[2], "", &clientv3.UserAddOptions{NoPassword: true})
	case "user grant-role":
		_, err = c.UserGrantRole(ctx, args[2], args[3])
	case "user revoke-role":
		_, err = c.UserRevokeRole(ctx, args[2], args[3])
	case "auth enable":
		_, err = c.AuthEnable(ctx)
	default:
		t.Fatalf("etcdctl %q: not known to this test", args)
	}
	if err != nil {
		t.Fatalf("etcdctl %q: %v", args, err)
	}
}

func issue(t *testing.T, ca *etcdtest.CA, name, commonName string, life time.Duration) (cert, key string) {
	t.Helper()
	cert, key, err := ca.Issue(name, commonName, time.Now().Add(life))
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (g *guarded) admin(t *testing.T) *clientv3.Client {
	t.Helper()
	cert, key := issue(t, g.ca, "root", "root", time.Hour)
	conf, err := transport.TLSInfo{TrustedCAFile: g.ca.File, CertFile: cert, KeyFile: key}.ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	cli, err := clientv3.New(clientv3.Config{Endpoints: g.Endpoints(), TLS: conf, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cli.Close() })
	return cli
}

// as has a client show a certificate with this common name.
func (g *guarded) as(t *testing.T, user string) func(*Config) {
	cert, key := issue(t, g.ca, user, user, time.Hour)
	return func(cfg *Config) {
		cfg.Prefix = "/deputy"
		cfg.CAFile, cfg.CertFile, cfg.KeyFile = g.ca.File, cert, key
	}
}

func (g *guarded) password(user, password string) func(*Config) {
	return func(cfg *Config) { cfg.Username, cfg.Password = user, password }
}

func TestAccess(t *testing.T) {
	t.Parallel()
	g := startGuarded(t)
	t.Run("NodeByCertificate", func(t *testing.T) { testNodeMay(t, g, g.as(t, "deputy")) })
	t.Run("NodeByPassword", func(t *testing.T) { testNodeMay(t, g, g.as(t, "nobody"), g.password("clerk", "secret")) })
	t.Run("Viewer", func(t *testing.T) { testViewerMay(t, g) })
	t.Run("Denials", func(t *testing.T) { testDenials(t, g) })
	t.Run("TokenLost", func(t *testing.T) { testTokenLost(t, g) })
	t.Run("OtherPrefix", func(t *testing.T) {
		other := realClient(t, g.Cluster, "x", g.as(t, "deputy"), func(cfg *Config) { cfg.Prefix = "/other" })
		_, err := other.Services(t.Context())
		wantExplained(t, err, g.Endpoints()[0], "permission denied", "grant-permission")
	})
}

// testNodeMay does whatever a node does, with exactly the grants of a node.
func testNodeMay(t *testing.T, g *guarded, edit ...func(*Config)) {
	ctx := t.Context()
	var log lines
	n := startReal(t, g.Cluster, "a", append(edit, func(cfg *Config) {
		cfg.Compact = 300 * time.Millisecond
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	})...)
	const ttl = 4 * time.Second
	e := n.Elector("db", ttl)
	if err := e.Publish(ctx, supervisor.Candidate{Node: supervisor.Node{Name: "a"}}); err != nil {
		t.Fatal(err)
	}
	l := takeReal(t, n, "db", ttl)
	for what, err := range map[string]error{
		"announce": l.Announce(ctx, sdk.RolePrimary),
		"record":   e.Record(ctx, supervisor.Change{Term: l.Term()}),
		"request":  n.Request(ctx, "db", supervisor.Reservation{ID: "1", To: "b", State: supervisor.Declined}),
		"pause":    n.Pause(ctx, "db", supervisor.Pause{}),
		"resume":   n.Resume(ctx, "db"),
		"drain":    n.Drain(ctx, supervisor.Drain{Node: "z"}),
		"undrain":  n.Undrain(ctx, "z"),
		"ban":      n.Ban(ctx, "db", supervisor.Ban{Node: "z"}),
		"unban":    n.Unban(ctx, "db", "z"),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	in := n.Inspect(ctx)
	if in.Endpoints[0].Problem != "" || !slices.Equal(in.Endpoints[0].Complaints, []string{compactDenied}) {
		t.Errorf("inspect: %+v", in.Endpoints[0])
	}

	// With turns to renew and to compact.
	time.Sleep(1500 * time.Millisecond)
	select {
	case <-l.Lost():
		t.Errorf("lost the lease: %v", l.Cause())
	default:
	}
	if err := l.Resign(ctx); err != nil {
		t.Error(err)
	}
	n.stop()
	if said := strings.Count(log.String(), "cannot compact etcd"); said != 1 || strings.Contains(log.String(), "permission denied") {
		t.Errorf("said %d times that it may not compact:\n%s", said, &log)
	}
	if err := realClient(t, g.Cluster, "desk", edit...).Remove(ctx, "db"); err != nil {
		t.Error(err)
	}
}

// testTokenLost restarts etcd, which then knows no token any more: whoever
// signed in with a password has to do so again, by itself, for calls and for
// watches.
func testTokenLost(t *testing.T, g *guarded) {
	const ttl = 6 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	a := startReal(t, g.Cluster, "a", g.as(t, "nobody"), g.password("clerk", "secret"))
	b := startReal(t, g.Cluster, "b", g.as(t, "nobody"), g.password("clerk", "secret"))
	l := takeReal(t, a, "token", ttl)
	states := observe(ctx, b.Elector("token", ttl))
	until(t, states, "of a as primary", func(st supervisor.State) bool { return st.Primary != nil })

	if err := g.Member(0).Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.Renew(ctx); err != nil {
		t.Errorf("renew after etcd forgot the token: %v", err)
	}
	select {
	case <-l.Lost():
		t.Errorf("lost the lease: %v", l.Cause())
	default:
	}
	if err := l.Resign(ctx); err != nil {
		t.Fatal(err)
	}
	resigned := time.Now()
	until(t, states, "vacant", isVacant)
	if took := time.Since(resigned); took > ttl {
		t.Errorf("b learned of the resignation after %v", took)
	}
}

func testViewerMay(t *testing.T, g *guarded) {
	ctx := t.Context()
	n := startReal(t, g.Cluster, "a", g.as(t, "deputy"))
	takeReal(t, n, "db", 4*time.Second)
	viewer := realClient(t, g.Cluster, "desk", g.as(t, "deputy-viewer"))
	if got, err := viewer.Services(ctx); err != nil || len(got) != 1 {
		t.Errorf("services: %q, %v", got, err)
	}
	if st, err := viewer.State(ctx, "db"); err != nil || st.Primary == nil || st.Primary.Node != "a" {
		t.Errorf("state: %+v, %v", st, err)
	}
	if _, err := viewer.History(ctx, "db"); err != nil {
		t.Errorf("history: %v", err)
	}
	for st := range viewer.Watch(ctx, "db") {
		if st.Primary == nil || st.Unreachable != "" {
			t.Errorf("watch: %+v", st)
		}
		break
	}
	for what, err := range map[string]error{
		"request": viewer.Request(ctx, "db", supervisor.Reservation{ID: "1", To: "b", State: supervisor.Asked}),
		"pause":   viewer.Pause(ctx, "db", supervisor.Pause{}),
		"drain":   viewer.Drain(ctx, supervisor.Drain{Node: "a"}),
	} {
		if !wantExplained(t, err, g.Endpoints()[0], "permission denied", "grant-permission") {
			t.Errorf("of %s", what)
		}
	}
	if st, err := viewer.State(ctx, "db"); err != nil || st.Pause != nil || st.Reservation != nil || len(st.Drained) != 0 {
		t.Errorf("state after what was denied: %+v, %v", st, err)
	}
	in := viewer.Inspect(ctx)
	if e := in.Endpoints[0]; e.Version == "" || !strings.Contains(e.Problem, "permission denied") {
		t.Errorf("inspect: %+v", e)
	}
}

// testDenials holds that who is turned away learns by whom, why, and what to
// do.
func testDenials(t *testing.T, g *guarded) {
	endpoint := g.Endpoints()[0]
	foreign, err := etcdtest.NewCA(t.TempDir(), "foreign")
	if err != nil {
		t.Fatal(err)
	}
	foreignCert, foreignKey := issue(t, foreign, "foreign-client", "deputy", time.Hour)
	oldCert, oldKey := issue(t, g.ca, "old", "deputy", -time.Minute)
	for _, c := range []struct {
		name string
		edit func(*Config)
		want []string // besides the endpoint: cause and cure
	}{
		{"user without a role", g.as(t, "nobody"), []string{
			"permission denied", "nobody needs a role with readwrite on /deputy/v1/",
			"etcdctl role grant-permission deputy --prefix=true readwrite /deputy/v1/, then etcdctl user grant-role nobody deputy",
		}},
		{"unknown user", g.as(t, "stranger"), []string{"permission denied", "grant-permission"}},
		{"wrong password", g.password("clerk", "wrong"), []string{"authentication failed", "username and password in [etcd]"}},
		{"unknown user with password", g.password("stranger", "secret"), []string{"authentication failed", "username and password in [etcd]"}},
		{"authority of the endpoint unknown", func(cfg *Config) { cfg.CAFile = foreign.File }, []string{"unknown authority", "ca_file in [etcd]"}},
		{"no certificate", func(cfg *Config) { cfg.CertFile, cfg.KeyFile = "", "" }, []string{"certificate required", "set cert_file and key_file"}},
		{"certificate of another authority", func(cfg *Config) { cfg.CertFile, cfg.KeyFile = foreignCert, foreignKey }, []string{"unknown certificate authority", "cert_file of [etcd]"}},
		{"certificate expired", func(cfg *Config) { cfg.CertFile, cfg.KeyFile = oldCert, oldKey }, []string{"expired", "cert_file of [etcd]", "renew it"}},
		{"no TLS", func(cfg *Config) {
			cfg.CAFile, cfg.CertFile, cfg.KeyFile = "", "", ""
			cfg.Endpoints = []string{strings.Replace(endpoint, "https", "http", 1)}
		}, []string{"https://"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := realClient(t, g.Cluster, "a", g.as(t, "deputy"), c.edit)
			want := append(c.want, strings.TrimPrefix(endpoint, "https://"))
			// What is said depends on how far the last attempt got, and on a busy
			// machine that may not be far.
			eventuallySays(t, "services", want, func() string {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := n.Services(ctx)
				return fmt.Sprint(err)
			})
			eventuallySays(t, "inspect", want, func() string { return n.Inspect(t.Context()).Endpoints[0].Problem })
		})
	}
	t.Run("endpoint's certificate expired", func(t *testing.T) {
		opts := quick
		opts.Members = 1
		opts.TLS = &etcdtest.TLS{CA: g.ca.File}
		opts.TLS.Cert, opts.TLS.Key = issue(t, g.ca, "old-member", "member", -time.Minute)
		old := etcdtest.StartT(t, opts)
		n := realClient(t, old, "a", g.as(t, "deputy"))
		eventuallySays(t, "inspect", []string{old.Endpoints()[0], "certificate has expired", "renew"}, func() string {
			return n.Inspect(t.Context()).Endpoints[0].Problem
		})
	})
	for _, c := range []struct {
		name         string
		begins, ends time.Duration // from now
		host         string
		want         []string
	}{
		{"endpoint's certificate not valid yet", time.Hour, 2 * time.Hour, "127.0.0.1", []string{"certificate has expired or is not yet valid", "set the clock here right"}},
		{"endpoint's certificate for another host", -time.Hour, time.Hour, "192.0.2.7", []string{"certificate is valid for", "does not name it"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			opts := quick
			opts.Members = 1
			opts.TLS = &etcdtest.TLS{CA: g.ca.File}
			var err error
			opts.TLS.Cert, opts.TLS.Key, err = g.ca.IssueFor("odd-member", "member", time.Now().Add(c.begins), time.Now().Add(c.ends), c.host)
			if err != nil {
				t.Fatal(err)
			}
			odd := etcdtest.StartT(t, opts)
			n := realClient(t, odd, "a", g.as(t, "deputy"))
			eventuallySays(t, "inspect", append(c.want, odd.Endpoints()[0]), func() string {
				return n.Inspect(t.Context()).Endpoints[0].Problem
			})
		})
	}
	t.Run("endpoint without TLS", func(t *testing.T) {
		opts := quick
		opts.Members = 1
		plain := etcdtest.StartT(t, opts)
		n := realClient(t, plain, "a", g.as(t, "deputy"), func(cfg *Config) {
			cfg.Endpoints = []string{strings.Replace(plain.Endpoints()[0], "http", "https", 1)}
		})
		eventuallySays(t, "inspect", []string{"speaks no TLS"}, func() string {
			return n.Inspect(t.Context()).Endpoints[0].Problem
		})
	})
	t.Run("files that are no certificates", func(t *testing.T) {
		_, err := Open(Config{Endpoints: g.Endpoints(), CAFile: oldKey})
		if err == nil || !strings.Contains(err.Error(), oldKey) {
			t.Errorf("open with a ca_file that holds a key: %v", err)
		}
		_, err = Open(Config{Endpoints: g.Endpoints(), CertFile: "/nowhere", KeyFile: "/nowhere"})
		if err == nil || !strings.Contains(err.Error(), "/nowhere") {
			t.Errorf("open with a cert_file that is not there: %v", err)
		}
	})
}

// eventuallySays asks until the answer says all of this.
func eventuallySays(t *testing.T, what string, want []string, ask func() string) {
	t.Helper()
	var answer string
	for begin := time.Now(); time.Since(begin) < 20*time.Second; {
		answer = ask()
		if !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(answer, w) }) {
			return
		}
	}
	t.Errorf("%s: %q, want %q", what, answer, want)
}

// wantExplained checks that an error says all of this.
func wantExplained(t *testing.T, err error, want ...string) bool {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want %q", want)
		return false
	}
	ok := true
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q, want %q", err, w)
			ok = false
		}
	}
	return ok
}

// lines are a log that may be read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func TestCertificatesAreRenewedOnDisk(t *testing.T) {
	t.Parallel()
	g := startGuarded(t)
	const life = 3 * time.Second
	ends := time.Now().Add(life)
	issue(t, g.ca, "node", "deputy", life)
	n := realClient(t, g.Cluster, "a", func(cfg *Config) {
		cfg.Prefix = "/deputy"
		cfg.CAFile, cfg.CertFile, cfg.KeyFile = g.ca.File, g.dir+"/node.pem", g.dir+"/node.key"
	})
	if _, err := n.Services(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A new connection after the end of the old certificate.
	issue(t, g.ca, "node", "deputy", time.Hour)
	time.Sleep(time.Until(ends) + 100*time.Millisecond)
	if err := g.Member(0).Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Services(t.Context()); err != nil {
		t.Errorf("with the certificate renewed on disk: %v", err)
	}
	// The same for the member: etcd reads its own anew for each connection.
	if cert, err := tls.LoadX509KeyPair(g.dir+"/node.pem", g.dir+"/node.key"); err != nil || cert.Leaf.NotAfter.Before(ends.Add(time.Minute)) {
		t.Errorf("the certificate on disk is not the new one: %v", err)
	}
}

// Certificates are complained of before they end, and roles outlive the end of
// one that was renewed on disk, and tokens.
func TestEtcdCertificateRunsOut(t *testing.T) {
	t.Parallel()
	g := startGuarded(t)
	// An hour old, and with five minutes left.
	issue(t, g.ca, "node", "deputy", 5*time.Minute)
	p := admit(t, g.Cluster, "a", 8*time.Second, func(cfg *Config) {
		cfg.Prefix = "/deputy"
		cfg.CAFile, cfg.CertFile, cfg.KeyFile = g.ca.File, g.dir+"/node.pem", g.dir+"/node.key"
	})
	lease := p.primary()
	p.says(saidCare, "endpoint=all", "cert_file of [etcd] ends at ", cureRenew)
	in := p.Inspect(t.Context())
	if got := strings.Join(append(in.Complaints, in.Endpoints[0].Complaints...), "\n"); !strings.Contains(got, "cert_file of [etcd] ends at ") || strings.Contains(got, "the clock here is") {
		t.Errorf("inspect: %q", got)
	}
	if _, err := p.hedge.ways[0].(*endpoint).greet(t.Context()); err != nil {
		t.Errorf("a clock is not to be had: %v", err)
	}
	issue(t, g.ca, "node", "deputy", time.Hour)
	p.says(saidCured, "endpoint=all", "about=cert_file")
	p.keeps(lease, 100*time.Millisecond)
}

// Tokens end and are asked for anew by themselves: no role is lost by it, and
// nobody is told.
func TestEtcdTokenExpires(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := filepath.Join(dir, "jwt.key")
	if err := os.WriteFile(key, []byte("a secret of this test"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*etcdtest.Options){
		"simple": func(o *etcdtest.Options) { o.AuthTTL = 2 * time.Second },
		"jwt":    func(o *etcdtest.Options) { o.Auth = "jwt,sign-method=HS256,priv-key=" + key + ",ttl=2s" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGuarded(t, edit)
			var all []*patient
			for _, n := range []string{"a", "b"} {
				all = append(all, admit(t, g.Cluster, n, 8*time.Second, g.as(t, "nobody"), g.password("clerk", "secret")))
			}
			lease := all[0].primary()
			all[1].sees("held", isHeld)
			all[0].keeps(lease, 5*time.Second) // several lives of a token
			if err := lease.Resign(t.Context()); err != nil {
				t.Error(err)
			}
			resigned := time.Now()
			all[1].sees("vacant", isVacant)
			if took := time.Since(resigned); took > 10*time.Second {
				t.Errorf("b learned of the resignation after %v", took)
			}
			for _, p := range all {
				if said := p.log.String(); strings.Contains(said, "token") || strings.Contains(said, "denie") {
					t.Errorf("%s complains:\n%s", p.name, said)
				}
			}
		})
	}
}

// A user who loses its role loses the role of its node as well: by its deadline,
// with who lacks what, and by itself no more once it is granted.
func TestEtcdPermissionLost(t *testing.T) {
	t.Parallel()
	g := startGuarded(t)
	root := g.admin(t)
	p := admit(t, g.Cluster, "a", 2*time.Second, g.as(t, "deputy"))
	lease := p.primary()
	etcdctl(t, root, "user", "revoke-role", "deputy", "deputy")
	loses(t, lease)
	want := []string{"permission denied", "deputy needs a role with readwrite on /deputy/v1/", "etcdctl user grant-role deputy deputy"}
	if cause := lease.Cause().Error(); !hasAll(cause, want) {
		t.Errorf("lost because %q", cause)
	}
	p.sees("denied", func(st supervisor.State) bool { return hasAll(st.Unreachable, want) })
	etcdctl(t, root, "user", "grant-role", "deputy", "deputy")
	p.sees("reachable", isReachable)
	if err := lease.Resign(t.Context()); err != nil {
		t.Error(err)
	}
	if next := p.primary(); next.Term() != 2 {
		t.Errorf("term %d, want 2", next.Term())
	}
}
