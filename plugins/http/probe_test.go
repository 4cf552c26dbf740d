package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/plugins/endpoint/endpointtest"
	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/sdktest"
)

// TestMain is the plugin's own main when a host starts this program, and else
// the tests.
func TestMain(m *testing.M) {
	if os.Getenv("PLUGIN_UNIX_SOCKET_DIR") != "" {
		main()
	}
	os.Exit(m.Run())
}

// health is a server whose paths answer in their own ways.
func health(hits *atomic.Int32) http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "state: running") })
	m.HandleFunc("/late", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, "\nlag of 300 s\nand more")
	})
	m.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	m.HandleFunc("/round", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/round", http.StatusFound) })
	m.HandleFunc("/plain", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://192.0.2.1/ok", http.StatusFound)
	})
	m.HandleFunc("/frozen", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	m.HandleFunc("/stuck", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "state: ")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	m.HandleFunc("/endless", func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(bytes.Repeat([]byte("x"), 4<<10)); err != nil {
				return
			}
		}
	})
	m.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) {
		for {
			w.Header().Add("X-Long", strings.Repeat("x", 1<<10))
			if len(w.Header()["X-Long"]) > 100 {
				break
			}
		}
	})
	m.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s %q", r.Method, r.Host, r.Header.Get("Authorization"), r.UserAgent())
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		m.ServeHTTP(w, r)
	})
}

// quiet keeps a server's words about clients that go away to itself.
func quiet(s *httptest.Server) { s.Config.ErrorLog = log.New(io.Discard, "", 0) }

// check asks once with settings over those of a plain check.
func check(t *testing.T, url string, within time.Duration, change func(*settings)) sdk.Health {
	t.Helper()
	s := settings{URL: url, Method: "GET", Status: []statuses{{200, 399}}}
	s.TLS.Verify = true
	if change != nil {
		change(&s)
	}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	p, err := newProbe(t.Context(), s, sdk.Host{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	return endpointtest.Check(t, p, within)
}

func matching(pattern string) func(*settings) {
	return func(s *settings) { s.Body = regexp.MustCompile(pattern) }
}

func TestCheck(t *testing.T) {
	var hits atomic.Int32
	server := httptest.NewUnstartedServer(health(&hits))
	quiet(server)
	server.Start()
	defer server.Close()
	const long, brief = 20 * time.Second, 300 * time.Millisecond
	for _, c := range []struct {
		path   string
		within time.Duration
		change func(*settings)
		fit    bool
		want   string // behind the method and the URL
	}{
		{"/ok", long, nil, true, "200 OK after D"},
		{"/ok", long, matching("^state: (running|standby)"), true, `200 OK after D, and its body matches "^state: (running|standby)"`},
		{"/ok", long, matching("primary"), false, `200 OK after D, and its body does not match "primary": "state: running\n"`},
		{"/late", long, nil, false, "503 Service Unavailable after D, want 200-399: lag of 300 s"},
		{"/late", long, func(s *settings) { s.Status = []statuses{{200, 200}, {503, 503}} }, true, "503 Service Unavailable after D"},
		{"/moved", long, nil, true, "302 Found after D"},
		{"/moved", long, func(s *settings) { s.Status = []statuses{{200, 299}} }, false, `302 Found after D, want 200-299: it redirects to "/ok"`},
		{"/moved", long, func(s *settings) { s.FollowRedirects = true }, true, "redirected to " + server.URL + "/ok: 200 OK after D"},
		{"/round", long, func(s *settings) { s.FollowRedirects = true }, false, "connected, and no answer after D: it redirects more than 10 times"},
		{"/frozen", brief, nil, false, "connected, and no answer after D: its time is over"},
		{"/stuck", brief, nil, true, "200 OK after D"},
		{"/stuck", brief, matching("running"), false, `200 OK after D, and then its time is over; of its body came "state: ", which does not match "running"`},
		{"/endless", long, matching("y"), false, `200 OK after D, and its body does not match "y": "` + strings.Repeat("x", 100) + `" and 65436 bytes more`},
		{"/headers", long, nil, false, "connected, and no answer after D: net/http: HTTP/1.x transport connection broken: net/http: server response headers exceeded 65536 bytes; aborted"},
	} {
		h := check(t, server.URL+c.path, c.within, c.change)
		endpointtest.Says(t, h, c.fit, "GET "+server.URL+c.path+": "+c.want)
	}
}

func TestWhoIsNotThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String() + "/"
	l.Close()
	endpointtest.Says(t, check(t, url, 20*time.Second, nil), false, "GET "+url+": not connected after D: connection refused")
	endpointtest.Says(t, check(t, "http://nobody.invalid/", 20*time.Second, func(s *settings) { s.Socket = "/nonexistent/socket" }), false,
		"GET http://nobody.invalid/ by /nonexistent/socket: not connected after D: there is no such socket")
}

// What goes into the request, by a unix socket.
func TestRequest(t *testing.T) {
	dir, err := os.MkdirTemp("", "http")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var hits atomic.Int32
	server := &http.Server{Handler: health(&hits), ReadHeaderTimeout: time.Minute}
	go server.Serve(l)
	defer server.Close()
	h := check(t, "http://app/echo", 20*time.Second, func(s *settings) {
		s.Socket, s.Method, s.Host, s.Headers = socket, "OPTIONS", "db.example", map[string]string{"Authorization": "Bearer s3cr3t"}
		s.Body = regexp.MustCompile(`^OPTIONS db.example Bearer s3cr3t "deputy/"$`)
	})
	if !h.Fit || strings.Contains(strings.SplitN(h.Detail, "matches", 2)[0], "s3cr3t") {
		t.Errorf("got %+v", h)
	}
}

// By default each check has a connection of its own.
func TestKeepAlive(t *testing.T) {
	for _, keep := range []bool{false, true} {
		var hits, connections atomic.Int32
		server := httptest.NewUnstartedServer(health(&hits))
		server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				connections.Add(1)
			}
		}
		server.Start()
		s := settings{URL: server.URL + "/ok", Method: "GET", Status: []statuses{{200, 200}}, KeepAlive: keep}
		p, err := newProbe(t.Context(), s, sdk.Host{})
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if h, err := p.Check(t.Context(), sdk.RolePrimary); err != nil || !h.Fit {
				t.Fatal(h, err)
			}
		}
		want := int32(5)
		if keep {
			want = 1
		}
		if got := connections.Load(); got != want || hits.Load() != 5 {
			t.Errorf("keep_alive %t: %d checks by %d connections, want %d", keep, hits.Load(), got, want)
		}
		p.Close()
		server.Close()
	}
}

func TestNoProxyOfTheEnvironment(t *testing.T) {
	p, err := newProbe(t.Context(), settings{}, sdk.Host{})
	if err != nil {
		t.Fatal(err)
	}
	if p.client.Transport.(*http.Transport).Proxy != nil {
		t.Error("a proxy is asked")
	}
}

// A house has a server that wants to see its clients' certificates.
type house struct {
	*httptest.Server
	dir string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	var hits atomic.Int32
	h := &house{Server: httptest.NewUnstartedServer(health(&hits)), dir: t.TempDir()}
	quiet(h.Server)
	caKey, ca := h.pair(t, "ca", nil, nil)
	h.pair(t, "server", caKey, ca)
	h.pair(t, "client", caKey, ca)
	pair, err := tls.LoadX509KeyPair(h.file("server.pem"), h.file("server.key"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	h.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven}
	h.StartTLS()
	t.Cleanup(h.Close)
	return h
}

func (h *house) file(name string) string { return filepath.Join(h.dir, name) }

// pair writes a key and its certificate.
func (h *house) pair(t *testing.T, name string, byKey *ecdsa.PrivateKey, by *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name + ".example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: by == nil, BasicConstraintsValid: true,
	}
	if by == nil {
		by, byKey = about, key
	}
	der, err := x509.CreateCertificate(rand.Reader, about, by, &key.PublicKey, byKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(h.file(file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, made
}

func TestTLS(t *testing.T) {
	h := newHouse(t)
	const long = 20 * time.Second
	url := h.URL + "/ok"
	known := func(s *settings) { s.TLS.CAFile, s.TLS.ServerName = h.file("ca.pem"), "server.example" }
	endpointtest.Says(t, check(t, url, long, known), true, "GET "+url+": 200 OK after D")
	if got := check(t, url, long, nil); got.Fit || !strings.Contains(got.Detail, "not connected after ") || !strings.Contains(got.Detail, ": TLS: tls: failed to verify certificate: x509: ") {
		t.Errorf("an authority that nobody knows: got %+v", got)
	}
	if got := check(t, url, long, func(s *settings) { known(s); s.TLS.ServerName = "other.example" }); got.Fit || !strings.Contains(got.Detail, "valid for server.example, not other.example") {
		t.Errorf("another server: got %+v", got)
	}
	endpointtest.Says(t, check(t, url, long, func(s *settings) { s.TLS.Verify = false }), true, "GET "+url+": 200 OK after D; its certificate was not verified")
	if got := check(t, h.URL+"/plain", long, func(s *settings) { known(s); s.FollowRedirects = true }); got.Fit || !strings.Contains(got.Detail, "it redirects from https to http://192.0.2.1") {
		t.Errorf("a redirect out of TLS: got %+v", got)
	}
}

// A client is asked for its certificate, and shows that which is there now.
func TestClientCertificate(t *testing.T) {
	h := newHouse(t)
	h.TLS.ClientAuth = tls.RequireAndVerifyClientCert
	known := func(s *settings) { s.TLS.CAFile, s.TLS.ServerName = h.file("ca.pem"), "server.example" }
	shows := func(s *settings) {
		known(s)
		s.TLS.CertFile, s.TLS.KeyFile = h.file("client.pem"), h.file("client.key")
	}
	if got := check(t, h.URL+"/ok", 20*time.Second, known); got.Fit || !strings.Contains(got.Detail, "certificate required") {
		t.Errorf("without a certificate: got %+v", got)
	}
	if got := check(t, h.URL+"/ok", 20*time.Second, shows); !got.Fit {
		t.Errorf("with a certificate: got %+v", got)
	}
	s := settings{URL: h.URL + "/ok", Method: "GET", Status: []statuses{{200, 200}}}
	s.TLS.Verify = true
	shows(&s)
	p, err := newProbe(t.Context(), s, sdk.Host{})
	if err != nil {
		t.Fatal(err)
	}
	h.pair(t, "client", nil, nil) // renewed, by an authority that is none
	if got, err := p.Check(t.Context(), sdk.RolePrimary); err != nil || got.Fit {
		t.Errorf("a certificate that was replaced: got %+v, %v", got, err)
	}
}

func TestSettings(t *testing.T) {
	h := sdktest.Own(t)
	type m = map[string]any
	file := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const url = "http://127.0.0.1:8080/health"
	for _, c := range []struct {
		name   string
		config m
		want   string // empty when it is right; else part of what is wrong
	}{
		{"a url", m{"url": url}, ""},
		{"everything", m{
			"url": "https://db.example/health?x=1", "socket": "/run/app.sock", "method": "OPTIONS", "host": "other:80", "headers": m{"X-A": "b"},
			"status": []string{"200", "300-399"}, "body": "(?i)ok", "follow_redirects": true, "keep_alive": true, "tls": m{"server_name": "x.example"},
		}, ""},
		{"unverified", m{"url": url, "tls": m{"verify": false}}, ""},

		{"nothing", m{}, "url: is missing"},
		{"no scheme", m{"url": "127.0.0.1:8080/x"}, "url: "},
		{"another scheme", m{"url": "ftp://x/"}, "url: must begin with http:// or https://"},
		{"no host", m{"url": "http:///x"}, "url: names no host"},
		{"a user", m{"url": "http://me:s3cr3t@x/"}, "url: has a user in it"},
		{"a bad url with a password", m{"url": "http://me:s3cr3t@x:port/"}, "url: invalid port"},
		{"a relative socket", m{"url": url, "socket": "app.sock"}, "socket: \"app.sock\" is not an absolute path"},
		{"a long socket", m{"url": url, "socket": "/" + strings.Repeat("x", 107)}, "socket: has 108 bytes; the path of a socket has at most 107"},
		{"a method", m{"url": url, "method": "DELETE"}, "method: "},
		{"no such status", m{"url": url, "status": []string{"600"}}, `status[0]: "600": must be a status code from 100 to 599`},
		{"a range backwards", m{"url": url, "status": []string{"399-200"}}, `status[0]: "399-200": must be`},
		{"no status", m{"url": url, "status": []string{}}, "status: is empty"},
		{"a body of HEAD", m{"url": url, "method": "HEAD", "body": "x"}, "body: an answer to HEAD has none"},
		{"no pattern", m{"url": url, "body": "("}, "body: "},
		{"a header's name", m{"url": url, "headers": m{"a b": "c"}}, `headers: "a b" cannot be the name of a header`},
		{"a header's value", m{"url": url, "headers": m{"A": "b\r\nHost: c"}}, "headers.A: has a line break"},
		{"the host among the headers", m{"url": url, "headers": m{"host": "x"}}, "headers.host: has a setting of its own"},
		{"no such authority", m{"url": url, "tls": m{"ca_file": "/nonexistent/ca.pem"}}, "tls.ca_file: open /nonexistent/ca.pem"},
		{"an empty authority", m{"url": url, "tls": m{"ca_file": file}}, "has no certificate in PEM"},
		{"a relative authority", m{"url": url, "tls": m{"ca_file": "ca.pem"}}, `tls.ca_file: "ca.pem" is not an absolute path`},
		{"half a pair", m{"url": url, "tls": m{"cert_file": file}}, "tls.cert_file: needs key_file"},
		{"the other half", m{"url": url, "tls": m{"key_file": file}}, "tls.key_file: needs cert_file"},
		{"a pair that is none", m{"url": url, "tls": m{"cert_file": file, "key_file": file}}, "tls.cert_file: "},
		{"unverified, by an authority", m{"url": url, "tls": m{"verify": false, "ca_file": file}}, "tls.verify: is false, so ca_file"},
	} {
		err := h.Validate(t.Context(), setup(c.config))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: got %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		case err != nil && strings.Contains(err.Error(), "s3cr3t"):
			t.Errorf("%s: a password is in the message: %v", c.name, err)
		}
	}
}

// README.md has each setting, with its default, as the schema has it.
func TestReadmeHasTheSettings(t *testing.T) {
	d, err := sdktest.Own(t).Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(d.Capabilities) != "[check]" {
		t.Errorf("it can %v", d.Capabilities)
	}
	sdktest.Readme(t, readme, d.Schema)
}
