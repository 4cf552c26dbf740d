package systemd

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Variables by which PID 1 tells a process of itself, sd_notify(3) and
// sd_watchdog_enabled(3).
const (
	notifySocket = "NOTIFY_SOCKET"
	watchdogUsec = "WATCHDOG_USEC"
	watchdogPID  = "WATCHDOG_PID"
)

// Unheard are the variables that are between PID 1 and one process: whoever it
// starts must not have them.
func Unheard() []string {
	return []string{
		notifySocket, watchdogUsec, watchdogPID, "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "FDSTORE",
		"CREDENTIALS_DIRECTORY", "JOURNAL_STREAM", "INVOCATION_ID", "MAINPID", "SYSTEMD_EXEC_PID",
	}
}

// ErrFull tells that PID 1 has not yet taken what was sent before: what is sent
// now is lost, and has to be sent again.
var ErrFull = errors.New("systemd is busy: its notification socket is full")

// A Notifier sends to the notification socket of PID 1. It never waits. Its
// methods may be called at the same time.
type Notifier struct {
	fd int
	to unix.Sockaddr
}

// NewNotifier returns a notifier to the socket in NOTIFY_SOCKET, of which env is
// asked; nil, with which every method does nothing, where there is none.
func NewNotifier(env func(string) string) (*Notifier, error) {
	address := env(notifySocket)
	switch {
	case address == "":
		return nil, nil //nolint:nilnil // nobody listens, which is no error
	case address[0] != '/' && address[0] != '@':
		return nil, fmt.Errorf("notify systemd: %s=%q is neither a path nor an abstract socket", notifySocket, address)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("notify systemd: %w", err)
	}
	return &Notifier{fd: fd, to: &unix.SockaddrUnix{Name: address}}, nil // a leading @ is abstract there, too
}

// Send sends assignments in one message. The error is ErrFull, or that nobody
// listens.
func (n *Notifier) Send(assignments ...string) error {
	if n == nil {
		return nil
	}
	// By name each time: whoever makes the socket anew is still reached.
	err := unix.Sendto(n.fd, []byte(strings.Join(assignments, "\n")), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, n.to)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS):
		return ErrFull
	}
	return fmt.Errorf("notify systemd: %w", os.NewSyscallError("sendto", err))
}

// Close ends the notifier.
func (n *Notifier) Close() error {
	if n == nil {
		return nil
	}
	return unix.Close(n.fd)
}

// Watched reports whether PID 1 watches this process, of which env is asked.
func Watched(env func(string) string) bool {
	usec, err := strconv.ParseUint(env(watchdogUsec), 10, 64)
	pid := env(watchdogPID)
	return err == nil && usec > 0 && env(notifySocket) != "" && (pid == "" || pid == strconv.Itoa(os.Getpid()))
}

// oneLine makes one line of a text: a newline would begin another assignment.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' || r == 0 }), " ")
}

func usec(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }
