package endpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

// MaxRead is how many bytes of an answer count, at most.
const MaxRead = 64 << 10

// Early returns a context that ends a little before ctx does, so that there is
// time to tell what came until then: a twentieth of what is left, from 5 ms to
// 100 ms.
func Early(ctx context.Context) (context.Context, context.CancelFunc) {
	at, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	left := time.Until(at)
	left -= min(max(left/20, 5*time.Millisecond), 100*time.Millisecond)
	return context.WithTimeoutCause(ctx, left, errors.New("its time is over"))
}

// Dial connects to a unix socket where one is given, else to a host and port.
func Dial(ctx context.Context, socket, address string) (net.Conn, error) {
	var d net.Dialer
	if socket != "" {
		return d.DialContext(ctx, "unix", socket)
	}
	return d.DialContext(ctx, "tcp", address)
}

// maxSocket is the most bytes that the path of a socket can have (unix(7)).
const maxSocket = 107

// CheckSocket tells what is wrong with the path of a unix socket.
func CheckSocket(path string) error {
	switch {
	case !filepath.IsAbs(path):
		return fmt.Errorf("%q is not an absolute path", path)
	case len(path) > maxSocket:
		return fmt.Errorf("has %d bytes; the path of a socket has at most %d", len(path), maxSocket)
	}
	return nil
}

// Why says what an error of the network is, without whom it was about: that is
// told already. Where the time is over, it says so.
func Why(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		return context.Cause(ctx).Error()
	}
	if outer, ok := errors.AsType[*url.Error](err); ok {
		err = outer.Err
	}
	if outer, ok := errors.AsType[*net.OpError](err); ok {
		err = outer.Err
	}
	switch inner, ok := errors.AsType[*os.SyscallError](err); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it has closed the connection"
	case ok && inner.Err == syscall.ENOENT: //nolint:errorlint // this very one
		return "there is no such socket"
	case ok:
		return inner.Err.Error()
	}
	return err.Error()
}

// Took writes how long something took.
func Took(d time.Duration) string {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// Excerpt quotes the beginning of what came.
func Excerpt(b []byte) string {
	const most = 100
	if len(b) <= most {
		return fmt.Sprintf("%q", b)
	}
	return fmt.Sprintf("%q and %d bytes more", b[:most], len(b)-most)
}

// FirstLine is the first line of a text that is not empty, as it may be shown.
func FirstLine(b []byte) string {
	const most = 200
	for line := range bytes.Lines(b) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			return strings.Map(func(r rune) rune {
				if r == utf8.RuneError || !unicode.IsPrint(r) {
					return '?'
				}
				return r
			}, string(line[:min(len(line), most)]))
		}
	}
	return ""
}
