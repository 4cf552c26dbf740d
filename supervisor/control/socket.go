package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SocketName is the socket's name in a service's runtime directory.
const SocketName = "control.sock"

// ErrNoDaemon is the error of a socket behind which no supervisor answers.
var ErrNoDaemon = errors.New("no daemon answers")

// maxPath is the longest path that fits in a sockaddr_un (unix(7)).
const maxPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// reach returns a path by which socket can be named in a sockaddr_un, which
// holds fewer bytes than a path may have. It is good until the func is called.
func reach(socket string) (string, func(), error) {
	if len(socket) <= maxPath {
		return socket, func() {}, nil
	}
	dir, err := os.OpenFile(filepath.Dir(socket), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", nil, err
	}
	short := filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), filepath.Base(socket))
	return short, func() { dir.Close() }, nil
}

// listen makes the socket. What a dead process left there is replaced; a
// living one is not, though its lock should have kept this one from starting.
func listen(ctx context.Context, socket string) (*net.UnixListener, func(), error) {
	path, done, err := reach(socket)
	if err != nil {
		return nil, nil, fmt.Errorf("listen at %s: %w", socket, err)
	}
	l, err := listenAt(ctx, path)
	if err != nil {
		done()
		return nil, nil, fmt.Errorf("listen at %s: %w", socket, err)
	}
	return l, func() { l.Close(); done() }, nil
}

func listenAt(ctx context.Context, path string) (*net.UnixListener, error) {
	addr := &net.UnixAddr{Name: path, Net: "unix"}
	l, err := net.ListenUnix("unix", addr)
	if errors.Is(err, unix.EADDRINUSE) {
		d := net.Dialer{Timeout: time.Second}
		if c, err := d.DialContext(ctx, "unix", path); err == nil {
			c.Close()
			return nil, errors.New("another process serves it")
		} else if !errors.Is(err, unix.ECONNREFUSED) {
			return nil, err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		l, err = net.ListenUnix("unix", addr)
	}
	if err != nil {
		return nil, err
	}
	// Everybody may connect and is told who may do what: one socket can have
	// one group only, and the kernel says who connected.
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// dial connects to the socket.
func dial(ctx context.Context, socket string) (net.Conn, error) {
	path, done, err := reach(socket)
	if err != nil {
		return nil, absent(socket, err)
	}
	defer done()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, absent(socket, err)
	}
	return c, nil
}

func absent(socket string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("connect to %s: %w", socket, denied(read, peer{uid: uint32(os.Getuid())}.name()))
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("%w at %s", ErrNoDaemon, socket)
	}
	return fmt.Errorf("%w at %s: %w", ErrNoDaemon, socket, err)
}
