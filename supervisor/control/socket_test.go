package control

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A killed supervisor leaves its socket behind; the next one replaces it.
func TestStaleSocketIsReplaced(t *testing.T) {
	s, _, _ := newServer(filepath.Join(t.TempDir(), SocketName))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.Socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := start(t, s).Status(t.Context()); err != nil {
		t.Errorf("Status: %v", err)
	}
}

func TestLivingSocketIsLeftAlone(t *testing.T) {
	s, _, _ := newServer(filepath.Join(t.TempDir(), SocketName))
	c := start(t, s)
	err := s.Serve(t.Context())
	if err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second server: got %v, want an error", err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("the first server: %v", err)
	}
}

func TestSocketIsRemovedAtTheEnd(t *testing.T) {
	socket := filepath.Join(t.TempDir(), SocketName)
	t.Run("serve", func(t *testing.T) {
		s, _, _ := newServer(socket)
		start(t, s)
	})
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("after the end: %v, want that it does not exist", err)
	}
}

// A path may be longer than what fits in an address of a socket.
func TestLongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 100), strings.Repeat("e", 100))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s, _, _ := newServer(filepath.Join(dir, SocketName))
	if _, err := start(t, s).Status(t.Context()); err != nil {
		t.Errorf("Status: %v", err)
	}
}

// Somebody who connects and asks nothing does not keep the server from ending.
func TestSilentClientDoesNotHoldTheEnd(t *testing.T) {
	s, _, _ := newServer(filepath.Join(t.TempDir(), SocketName))
	start(t, s) // fails at clean-up when Serve does not end
	c, err := dial(context.Background(), s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
}
