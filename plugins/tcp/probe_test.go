package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/plugins/endpoint"
	"github.com/deputy-ha/deputy/plugins/endpoint/endpointtest"
	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/sdktest"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// TestMain is the plugin's own main when a host starts this program, the server
// of a test when a test does, and else the tests.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv("PLUGIN_UNIX_SOCKET_DIR") != "":
		main()
	case os.Getenv("TCP_TEST_SERVER") != "":
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		fmt.Println(l.Addr())
		go func() { // it ends with the test
			io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
		serve(l, pong)
	}
	os.Exit(m.Run())
}

// serve has each connection answered, until the listener is closed.
func serve(l net.Listener, answer func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			answer(c)
		}()
	}
}

// pong answers each line PING.
func pong(c net.Conn) {
	for lines := bufio.NewScanner(c); lines.Scan() && lines.Text() == "PING"; {
		fmt.Fprint(c, "+PONG\r\n")
	}
}

func listen(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go serve(l, answer)
	return l.Addr().String()
}

// check asks once.
func check(t *testing.T, within time.Duration, s settings) sdk.Health {
	t.Helper()
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	p, err := newProbe(t.Context(), s, sdk.Host{})
	if err != nil {
		t.Fatal(err)
	}
	return endpointtest.Check(t, p, within)
}

func TestCheck(t *testing.T) {
	const long, brief = 20 * time.Second, 300 * time.Millisecond
	ping := payload("PING\r\n")
	for _, c := range []struct {
		name         string
		answer       func(net.Conn)
		within       time.Duration
		send         payload
		expect, want string // behind the address
		fit          bool
	}{
		{"nothing is asked", pong, long, nil, "", "connected after D", true},
		{"ping", pong, long, ping, `^\+PONG`, `connected after D, sent "PING\r\n", came "+PONG\r\n" after D`, true},
		{"another answer", pong, brief, ping, `^\+PING`, `connected after D, sent "PING\r\n", and came "+PONG\r\n", which does not match "^\\+PING": its time is over, after D`, false},
		{"another question", pong, long, payload("PONG\r\n"), `PONG`, `connected after D, sent "PONG\r\n", and nothing came: it has closed the connection, after D`, false},
		{"a greeting", func(c net.Conn) { fmt.Fprint(c, "220 ready\r\n") }, long, nil, `^220 `, `connected after D, came "220 ready\r\n" after D`, true},
		{"a greeting in pieces", func(c net.Conn) {
			for _, b := range []byte("220 ready") {
				c.Write([]byte{b})
				time.Sleep(time.Millisecond)
			}
			io.Copy(io.Discard, c)
		}, long, nil, `^220 ready$`, `connected after D, came "220 ready" after D`, true},
		{"a refusal", func(c net.Conn) { fmt.Fprint(c, "421 too many") }, long, nil, `^220 `, `connected after D, and came "421 too many", which does not match "^220 ": it has closed the connection, after D`, false},
		{"nobody speaks", func(c net.Conn) { io.Copy(io.Discard, c) }, brief, nil, `^220 `, `connected after D, and nothing came: its time is over, after D`, false},
		{"binary", func(c net.Conn) { c.Write([]byte("\x4a\xff\xfe\x00\x0a8.0")) }, long, payload("\x00\xff"), `(?s)^...\x00\x0a`, `connected after D, sent "\x00\xff", came "J\xff\xfe\x00\n8.0" after D`, true},
		{
			"too much", func(c net.Conn) {
				for {
					if _, err := c.Write(bytes.Repeat([]byte("x"), 4<<10)); err != nil {
						return
					}
				}
			}, long, nil, `y`,
			`connected after D, and came "` + strings.Repeat("x", 100) + `" and 65436 bytes more, which does not match "y": more than 64 KiB have come, after D`, false,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := settings{Address: listen(t, c.answer), Send: c.send}
			if c.expect != "" {
				s.Expect = regexp.MustCompile(c.expect)
			}
			endpointtest.Says(t, check(t, c.within, s), c.fit, s.Address+": "+c.want)
		})
	}
}

func TestWhoIsNotThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	address := l.Addr().String()
	endpointtest.Says(t, check(t, 20*time.Second, settings{Address: address}), false, address+": not connected after D: connection refused")
	endpointtest.Says(t, check(t, 20*time.Second, settings{Socket: "/nonexistent/s"}), false, "/nonexistent/s: not connected after D: there is no such socket")
}

func TestSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "tcp")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go serve(l, pong)
	endpointtest.Says(t, check(t, 20*time.Second, settings{Socket: socket, Send: payload("PING\n"), Expect: regexp.MustCompile("PONG")}), true,
		socket+`: connected after D, sent "PING\n", came "+PONG\r\n" after D`)
}

// A frozen server passes where nothing is asked of it: its kernel accepts.
func TestFrozenServer(t *testing.T) {
	server := exec.Command("/proc/self/exe")
	server.Env = append(os.Environ(), "TCP_TEST_SERVER=1")
	in, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { server.Process.Kill(); server.Wait() }()
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	mute := settings{Address: strings.TrimSpace(address)}
	asks := mute
	asks.Send, asks.Expect = payload("PING\r\n"), regexp.MustCompile(`^\+PONG`)
	for _, s := range []settings{mute, asks} {
		if h := check(t, 20*time.Second, s); !h.Fit {
			t.Fatalf("a server that is well: got %+v", h)
		}
	}
	if err := server.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	awaitStopped(t, server.Process.Pid)
	if h := check(t, 500*time.Millisecond, mute); !h.Fit {
		t.Errorf("a frozen server of which nothing is asked: got %+v; README.md says otherwise", h)
	}
	endpointtest.Says(t, check(t, 500*time.Millisecond, asks), false, mute.Address+`: connected after D, sent "PING\r\n", and nothing came: its time is over, after D`)
}

// awaitStopped returns once no thread of a process runs any more: the signal
// itself does not wait for that.
func awaitStopped(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		running := len(stats) == 0
		for _, file := range stats {
			b, err := os.ReadFile(file)
			_, state, _ := strings.Cut(string(b), ") ") // proc_pid_stat(5)
			running = running || err != nil || !strings.HasPrefix(state, "T")
		}
		if !running {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d is not stopped", pid)
		}
		runtime.Gosched()
	}
}

func TestTLS(t *testing.T) {
	server := httptest.NewTLSServer(nil) // for its certificate, and to speak TLS
	defer server.Close()
	s := settings{Address: server.Listener.Addr().String(), TLS: &endpoint.TLS{Verify: true}, Send: payload("GET / HTTP/1.0\r\n\r\n"), Expect: regexp.MustCompile("^HTTP/1")}
	if h := check(t, 20*time.Second, s); h.Fit || !strings.Contains(h.Detail, "and then TLS: tls: failed to verify certificate: x509: ") {
		t.Errorf("an authority that nobody knows: got %+v", h)
	}
	s.TLS.Verify = false
	if h := check(t, 20*time.Second, s); !h.Fit || !strings.Contains(h.Detail, "; its certificate was not verified, sent ") {
		t.Errorf("got %+v", h)
	}
	s.Address = listen(t, pong)
	if h := check(t, 20*time.Second, s); h.Fit || !strings.Contains(h.Detail, "and then TLS: ") {
		t.Errorf("a server without TLS: got %+v", h)
	}
	s.Address = listen(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	if h := check(t, 300*time.Millisecond, s); h.Fit || !strings.Contains(h.Detail, "and then TLS: its time is over") {
		t.Errorf("a server that says nothing: got %+v", h)
	}
}

func setup(config map[string]any) wire.Setup {
	return wire.Setup{Service: "s", Node: "db1", Part: "tcp", Config: config}
}

func TestSettings(t *testing.T) {
	h := sdktest.Own(t)
	type m = map[string]any
	const address = "127.0.0.1:6379"
	for _, c := range []struct {
		name   string
		config m
		want   string // empty when it is right; else part of what is wrong
	}{
		{"an address", m{"address": address}, ""},
		{"a socket", m{"socket": "/run/app.sock"}, ""},
		{"everything", m{"address": "[::1]:25", "tls": m{"server_name": "x"}, "send": `a\r\n\t\0\x7f\\`, "expect": `^\+PONG`}, ""},
		{"a name", m{"address": "db.example:5432"}, ""},
		{"plain tls", m{"address": address, "tls": m{}}, ""},

		{"nothing", m{}, "address: is missing"},
		{"both", m{"address": address, "socket": "/s"}, "socket: is there beside address"},
		{"no port", m{"address": "127.0.0.1"}, "is not a host and a port"},
		{"no host", m{"address": ":80"}, "is not a host and a port"},
		{"a port that is none", m{"address": "h:65536"}, "is not a host and a port"},
		{"a relative socket", m{"socket": "s"}, "is not an absolute path"},
		{"no pattern", m{"address": address, "expect": "("}, "expect: "},
		{"an escape that is none", m{"address": address, "send": `\q`, "expect": "x"}, `\q is no escape`},
		{"an escape without an end", m{"address": address, "send": `a\`, "expect": "x"}, `is no escape`},
		{"no hexadecimal digits", m{"address": address, "send": `\xzz`, "expect": "x"}, `\xzz is not a byte`},
		{"sent for nothing", m{"address": address, "send": "x"}, "send: needs expect"},
		{"a socket's certificate", m{"socket": "/s", "tls": m{}}, "tls.server_name: is missing"},
		{"no such authority", m{"address": address, "tls": m{"ca_file": "/nonexistent"}}, "tls.ca_file: open /nonexistent"},
	} {
		err := h.Validate(t.Context(), setup(c.config))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: got %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestEscapes(t *testing.T) {
	var p payload
	if err := p.UnmarshalText([]byte(`a\r\n\t\0\xfF\\n`)); err != nil || string(p) != "a\r\n\t\x00\xff\\n" {
		t.Errorf("got %q, %v", p, err)
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

// The contract of all plugins.
func TestConformance(t *testing.T) {
	t.Parallel()
	sdktest.Run(t, sdktest.Binary(sdktest.Build(t, ".")), sdktest.Config{
		Settings: map[string]any{"address": listen(t, pong), "send": `PING\n`, "expect": "PONG"},
	})
}
