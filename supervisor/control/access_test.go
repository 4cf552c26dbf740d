package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// The groups' numbers in these tests; no system uses them.
const (
	readersID  = 54321
	steerersID = 54322
)

func testGroups(name string) (uint32, bool) {
	gid, ok := map[string]uint32{Readers: readersID, Steerers: steerersID}[name]
	return gid, ok
}

func TestRights(t *testing.T) {
	const daemon = 990
	for _, c := range []struct {
		who  string
		peer peer
		want right
	}{
		{"root", peer{uid: 0}, steer},
		{"the daemon's own user", peer{uid: daemon, groups: []uint32{daemon}}, steer},
		{"a member of deputy-admin", peer{uid: 1000, groups: []uint32{100, steerersID}}, steer},
		{"a member of deputy", peer{uid: 1000, groups: []uint32{100, readersID}}, read},
		{"a member of both", peer{uid: 1000, groups: []uint32{readersID, steerersID}}, steer},
		{"somebody else", peer{uid: 1000, groups: []uint32{0, 100}}, none},
	} {
		if got := rightOf(c.peer, daemon, testGroups); got != c.want {
			t.Errorf("%s: got right %d, want %d", c.who, got, c.want)
		}
	}
	missing := func(string) (uint32, bool) { return 0, false }
	if got := rightOf(peer{uid: 1000, groups: []uint32{0}}, daemon, missing); got != none {
		t.Errorf("a member of the group 0 where no group deputy exists: got right %d, want none", got)
	}
}

// The kernel says who connects: three users try to read and to steer.
func TestOtherUsers(t *testing.T) {
	asRoot(t)
	dir := shared(t)
	s, _, cluster := newServer(filepath.Join(dir, SocketName))
	s.lookup = testGroups
	start(t, s)

	for _, c := range []struct {
		groups []uint32
		want   string
	}{
		{[]uint32{steerersID}, "read: ok\nsteer: ok\n"},
		{[]uint32{readersID}, "read: ok\nsteer: denied, needs group deputy-admin\n"},
		{nil, "read: denied, needs group deputy\nsteer: denied, needs group deputy-admin\n"},
	} {
		if got := tryAs(t, dir, c.groups); got != c.want {
			t.Errorf("a user in groups %v:\n%swant:\n%s", c.groups, got, c.want)
		}
	}
	if got := len(cluster.noted()); got != 1 {
		t.Errorf("%d orders were carried out, want the one that was allowed", got)
	}
}

// Whoever has no right holds a few connections at most, and the others still
// get through.
func TestStrangersDoNotUseUpTheServer(t *testing.T) {
	l, done, err := listen(t.Context(), filepath.Join(t.TempDir(), SocketName))
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	d := &door{UnixListener: l, rightOf: func(peer) right { return none }}
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			c, err := d.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	connect := func() net.Conn {
		c, err := dial(t.Context(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	var in []net.Conn
	for range maxStrangers {
		connect()
		in = append(in, <-accepted)
	}
	extra := connect()
	extra.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := extra.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one too many: got %v, want a closed connection", err)
	}
	in[0].Close()
	in[0].Close() // gives back one place, not two
	connect()
	if c := <-accepted; c == nil {
		t.Error("the place of one that left is not given to the next")
	}
	if got := d.strangers.Load(); got != maxStrangers {
		t.Errorf("%d strangers are counted, want %d", got, maxStrangers)
	}
	done()
	for range accepted {
	}
}

// shared returns a directory that every user may enter.
func shared(t *testing.T) string {
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func asRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		return
	}
	const why = "other users can be tried by root alone"
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// tryAs runs this test binary as a user with the given groups; see TestMain.
func tryAs(t *testing.T, dir string, groups []uint32) string {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "try") // the original may be where others cannot enter
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = []string{"CONTROL_TEST_TRY=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, Groups: groups}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("try as another user: %v", err)
	}
	return string(out)
}

func TestMain(m *testing.M) {
	if dir := os.Getenv("CONTROL_TEST_TRY"); dir != "" {
		try(dir)
		return
	}
	os.Exit(m.Run())
}

func try(dir string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c := NewClient(dir)
	_, err := c.Status(ctx)
	fmt.Println("read:", verdict(err, Readers+" "))
	fmt.Println("steer:", verdict(c.Pause(ctx, "orders", supervisor.Pause{}), Steerers+" "))
}

func verdict(err error, group string) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrDenied) && strings.Contains(err.Error(), group):
		return "denied, needs group " + strings.TrimSpace(group)
	}
	return err.Error()
}
