package systemd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// journalSocket is where journald listens for its native protocol,
// systemd-journald.service(8).
const journalSocket = "/run/systemd/journal/socket"

// IsJournal reports whether a file is the connection to the journal that PID 1
// gave this process, of which env is asked (JOURNAL_STREAM, systemd.exec(5)).
func IsJournal(env func(string) string, f *os.File) bool {
	device, inode, found := strings.Cut(env("JOURNAL_STREAM"), ":")
	if !found {
		return false
	}
	var s unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &s); err != nil {
		return false
	}
	return device == strconv.FormatUint(s.Dev, 10) && inode == strconv.FormatUint(s.Ino, 10)
}

// A Journal is a log that goes to journald with a field for each attribute:
// DEPUTY_SERVICE for service, DEPUTY_DUR_USEC for a duration dur. MESSAGE can be
// read without them. It never waits: what journald does not take is counted, and
// told of later.
type Journal struct {
	*outlet
	level  slog.Leveler
	attrs  []slog.Attr // with the names of their groups
	groups string
}

// An outlet is the way to journald.
type outlet struct {
	fd    int
	to    unix.Sockaddr
	lost  atomic.Int64
	spare io.Writer // takes what journald's socket refuses
}

// NewJournal returns a handler that logs to journald. What that refuses is
// written to spare as a line of text.
func NewJournal(level slog.Leveler, spare io.Writer) (*Journal, error) {
	return newJournal(journalSocket, level, spare)
}

func newJournal(socket string, level slog.Leveler, spare io.Writer) (*Journal, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("log to the journal: %w", err)
	}
	// Room for a burst, as sd_journal_send(3) makes it. With less it works, too.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 8<<20)
	return &Journal{outlet: &outlet{fd: fd, to: &unix.SockaddrUnix{Name: socket}, spare: spare}, level: level}, nil
}

// Close ends the log.
func (j *Journal) Close() error { return unix.Close(j.fd) }

// Enabled reports whether the level is logged.
func (j *Journal) Enabled(_ context.Context, l slog.Level) bool { return l >= j.level.Level() }

// WithAttrs returns a handler with attributes for every record.
func (j *Journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *j
	next.attrs = slices.Clone(j.attrs)
	for _, a := range attrs {
		next.attrs = flatten(next.attrs, j.groups, a)
	}
	return &next
}

// WithGroup returns a handler that puts a name before those of attributes.
func (j *Journal) WithGroup(name string) slog.Handler {
	if name == "" {
		return j
	}
	next := *j
	next.groups += name + "."
	return &next
}

// flatten appends an attribute, or those of a group.
func flatten(all []slog.Attr, groups string, a slog.Attr) []slog.Attr {
	a.Value = a.Value.Resolve()
	if a.Value.Kind() == slog.KindGroup {
		if a.Key != "" {
			groups += a.Key + "."
		}
		for _, inner := range a.Value.Group() {
			all = flatten(all, groups, inner)
		}
		return all
	}
	if a.Key == "" {
		return all
	}
	a.Key = groups + a.Key
	return append(all, a)
}

// Handle sends one record. An attribute replaces an earlier one of its name.
func (j *Journal) Handle(_ context.Context, r slog.Record) error {
	all := slices.Clone(j.attrs)
	r.Attrs(func(a slog.Attr) bool {
		all = flatten(all, j.groups, a)
		return true
	})
	var attrs []slog.Attr
	for i, a := range all {
		if !slices.ContainsFunc(all[i+1:], func(later slog.Attr) bool { return later.Key == a.Key }) {
			attrs = append(attrs, a)
		}
	}
	e := eventOf(r.Message, attrs)
	var b bytes.Buffer
	message := messageOf(r.Message, attrs)
	field(&b, "MESSAGE", message)
	field(&b, "PRIORITY", strconv.Itoa(priority(r.Level, e)))
	field(&b, "SYSLOG_IDENTIFIER", "deputy")
	if e.ID != "" {
		field(&b, "MESSAGE_ID", e.ID)
	}
	for _, a := range attrs {
		name, value := fieldOf(a)
		field(&b, name, value)
	}
	if err := j.send(b.Bytes(), message); err != nil {
		return err
	}
	return j.tellLost()
}

// tellLost tells of messages that did not arrive, if any.
func (o *outlet) tellLost() error {
	n := o.lost.Swap(0)
	if n == 0 {
		return nil
	}
	var b bytes.Buffer
	message := fmt.Sprintf("%d messages did not get into the journal: it was busy", n)
	field(&b, "MESSAGE", message)
	field(&b, "PRIORITY", "4")
	field(&b, "SYSLOG_IDENTIFIER", "deputy")
	err := o.send(b.Bytes(), message)
	if errors.Is(err, ErrFull) {
		o.lost.Add(n - 1) // this message itself has been counted
	}
	return err
}

// send sends the fields of one message, and never waits.
func (o *outlet) send(fields []byte, message string) error {
	err := unix.Sendto(o.fd, fields, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, o.to)
	if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS) {
		err = o.sendLarge(fields)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EAGAIN):
		o.lost.Add(1)
		return ErrFull
	}
	fmt.Fprintln(o.spare, message)
	return fmt.Errorf("log to the journal: %w", err)
}

// sendLarge hands over a sealed file with the fields, as journald wants what is
// too large for a datagram.
func (o *outlet) sendLarge(fields []byte) error {
	fd, err := unix.MemfdCreate("deputy-journal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "journal")
	defer f.Close()
	if _, err := f.Write(fields); err != nil {
		return err
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return err
	}
	return unix.Sendmsg(o.fd, nil, unix.UnixRights(int(f.Fd())), o.to, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
}

// field writes one field in the journal's native protocol.
func field(b *bytes.Buffer, name, value string) {
	b.WriteString(name)
	if !strings.Contains(value, "\n") {
		b.WriteString("=" + value + "\n")
		return
	}
	b.WriteByte('\n')
	_ = binary.Write(b, binary.LittleEndian, uint64(len(value))) // a buffer takes everything
	b.WriteString(value + "\n")
}

// fieldOf is an attribute as a field. Names of fields are of capitals, digits
// and underscores, systemd.journal-fields(7).
func fieldOf(a slog.Attr) (name, value string) {
	name = "DEPUTY_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, a.Key)
	if a.Value.Kind() == slog.KindDuration {
		return name + "_USEC", strconv.FormatInt(a.Value.Duration().Microseconds(), 10)
	}
	return name, text(a.Value)
}

// text is a value for people.
func text(v slog.Value) string {
	if v.Kind() == slog.KindTime {
		return v.Time().Format(time.RFC3339Nano)
	}
	return v.String()
}

// priority is that of syslog(3).
func priority(l slog.Level, e Event) int {
	switch {
	case l >= slog.LevelError, e.Grave:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l >= slog.LevelInfo && e.ID != "":
		return 5
	case l >= slog.LevelInfo:
		return 6
	}
	return 7
}
