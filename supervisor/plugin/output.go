package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// The bounds of what is kept of a process's output. All of it is read, so that
// a process never waits for room in its pipe.
const (
	maxLine    = 4 << 10 // bytes of one line; the rest of it is dropped
	maxLogged  = 1000    // lines of one run
	maxKept    = 300     // bytes of a line in a result
	keptLines  = 3       // in a result
	leftInPipe = 1 << 20 // bytes; the most that a pipe holds for an unprivileged process (pipe(7))
)

// An outlet is the reading end of a pipe that a process writes to.
type outlet struct {
	f    *os.File
	last bool // the process has ended: what is in the pipe now is all
	left int
	held bool // it was still open when the process had ended
}

func newOutlet() (*outlet, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("open pipe: %w", err)
	}
	return &outlet{f: r, left: leftInPipe}, w, nil
}

// finish makes what is in the pipe the last to be read, though some other
// process may keep the pipe open for ever.
func (o *outlet) finish() { _ = o.f.SetReadDeadline(time.Unix(1, 0)) }

func (o *outlet) Read(b []byte) (int, error) {
	if !o.last {
		n, err := o.f.Read(b)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		o.last = true
		_ = o.f.SetReadDeadline(time.Time{})
	}
	if o.left <= 0 {
		return 0, io.EOF
	}
	conn, err := o.f.SyscallConn()
	if err != nil {
		return 0, err
	}
	n := 0
	if err := conn.Read(func(fd uintptr) bool { n, _ = unix.Read(int(fd), b); return true }); err != nil {
		return 0, err
	}
	if n <= 0 { // closed, or nothing in it
		o.held = n < 0
		return 0, io.EOF
	}
	o.left -= n
	return n, nil
}

// lines reads r to its end and hands on each line, without its end and cut to
// maxLine bytes. The line is the callee's only until it returns.
func lines(r io.Reader, each func([]byte)) {
	buf := make([]byte, 8<<10)
	var line []byte
	began := false
	for {
		n, err := r.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			part, after, whole := bytes.Cut(rest, []byte{'\n'})
			line = append(line, part[:min(len(part), maxLine-len(line))]...)
			began, rest = true, after
			if whole {
				each(line)
				line, began = line[:0], false
			}
		}
		if err != nil {
			if began {
				each(line)
			}
			return
		}
	}
}

// A transcript logs what a run says and keeps what its result needs of it.
type transcript struct {
	log   *slog.Logger
	level slog.Level // of a line that does not tell its own

	mu       sync.Mutex
	progress func(string)
	first    string   // the first line of the standard output
	tail     []string // the last lines of both outputs
	logged   int
}

// out takes a line of the standard output.
func (s *transcript) out(line []byte) { s.say(line, true) }

// err takes a line of the standard error.
func (s *transcript) err(line []byte) { s.say(line, false) }

func (s *transcript) say(raw []byte, out bool) {
	level, text := priority(raw, s.level)
	line := clean(text, maxLine)
	if line == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if out && s.first == "" {
		s.first = line
	}
	if len(s.tail) == keptLines {
		s.tail = append(s.tail[:0], s.tail[1:]...)
	}
	s.tail = append(s.tail, clean([]byte(line), maxKept))
	switch s.logged++; {
	case s.logged <= maxLogged:
		s.log.Log(context.Background(), level, "plugin says", "line", line)
	case s.logged == maxLogged+1:
		s.log.Warn("plugin says too much", "cause", fmt.Sprintf("more than %d lines in one run; the rest is not logged", maxLogged))
	}
}

// step takes a line of progress: plain text, or an object with a percentage, a
// message, or both.
func (s *transcript) step(raw []byte) {
	var told struct {
		Progress *float64 `json:"progress"`
		Msg      string   `json:"msg"`
	}
	text := string(raw)
	if err := json.Unmarshal(raw, &told); err == nil {
		text = told.Msg
		if told.Progress != nil {
			text = strings.TrimSpace(fmt.Sprintf("%.0f%% %s", *told.Progress, told.Msg))
		}
	}
	text = clean([]byte(text), maxKept)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.progress != nil && text != "" {
		s.progress(text)
	}
}

// mute ends the calls of progress.
func (s *transcript) mute() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.progress = nil
}

// firstOut returns the first line of the standard output, else the first of
// the last lines of both.
func (s *transcript) firstOut() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first == "" && len(s.tail) > 0 {
		return s.tail[0]
	}
	return s.first
}

// last returns up to n of the last lines, as one.
func (s *transcript) last(n int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.tail[max(0, len(s.tail)-n):], "; ")
}

// priority takes a prefix like <3> off a line, the priority of syslog as
// sd-daemon(3) has it.
func priority(line []byte, other slog.Level) (slog.Level, []byte) {
	if len(line) < 3 || line[0] != '<' || line[2] != '>' || line[1] < '0' || line[1] > '7' {
		return other, line
	}
	switch n := line[1] - '0'; {
	case n <= 3:
		return slog.LevelError, line[3:]
	case n == 4:
		return slog.LevelWarn, line[3:]
	case n <= 6:
		return slog.LevelInfo, line[3:]
	default:
		return slog.LevelDebug, line[3:]
	}
}

// clean makes a line safe to show on a terminal, in at most limit bytes.
func clean(line []byte, limit int) string {
	text := strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r == utf8.RuneError, !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, strings.TrimSpace(string(line)))
	if len(text) <= limit {
		return text
	}
	cut := limit - len("…")
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
