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
	maxLine    = 4 << 10  // bytes of one line; the rest of it is dropped
	maxRecord  = 64 << 10 // bytes of one line where it may be a record, with a stack in it
	maxLogged  = 1000     // lines of one run, in one minute
	maxKept    = 300      // bytes of a line in a result
	keptLines  = 3        // in a result
	leftInPipe = 1 << 20  // bytes; the most that a pipe holds for an unprivileged process (pipe(7))
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
// limit bytes. The line is the callee's only until it returns.
func lines(r io.Reader, limit int, each func([]byte)) {
	c := cutter{limit: limit, each: each}
	buf := make([]byte, 8<<10)
	for {
		n, err := r.Read(buf)
		_, _ = c.Write(buf[:n])
		if err != nil {
			c.end()
			return
		}
	}
}

// A cutter cuts what is written to it into lines.
type cutter struct {
	limit int
	each  func([]byte)
	line  []byte
	began bool
}

func (c *cutter) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		part, after, whole := bytes.Cut(rest, []byte{'\n'})
		c.line = append(c.line, part[:min(len(part), c.limit-len(c.line))]...)
		c.began, rest = true, after
		if whole {
			c.end()
		}
	}
	return len(b), nil
}

// end hands on a line that has no end of its own.
func (c *cutter) end() {
	if c.began {
		c.each(c.line)
		c.line, c.began = c.line[:0], false
	}
}

// A transcript logs what a run says and keeps what its result needs of it.
type transcript struct {
	log     *slog.Logger
	level   slog.Level // of a line that does not tell its own
	records bool       // lines of the standard error may be a log's records

	mu       sync.Mutex
	progress func(string)
	answer   []string // the first lines of the standard output, as many as maxAnswer bytes hold
	answered int      // bytes of them
	tail     []string // the last lines of both outputs
	panicked string   // how it said that it crashes
	logged   int      // lines, since the time below
	since    time.Time
}

// room is how much of a line counts, in bytes.
func (s *transcript) room() int {
	if s.records {
		return maxRecord
	}
	return maxLine
}

// out takes a line of the standard output.
func (s *transcript) out(line []byte) {
	level, text := priority(line, s.level)
	s.say(level, clean(text, maxLine), nil, true)
}

// err takes a line of the standard error.
func (s *transcript) err(line []byte) {
	if s.records {
		if r, ok := parseRecord(line); ok {
			s.mu.Lock()
			s.panicked = "" // it lives on: that was somebody else's
			s.mu.Unlock()
			s.say(r.level, r.text, r.attrs, false)
			return
		}
	}
	level, text := priority(line, s.level)
	said := clean(text, maxLine)
	s.mu.Lock()
	if s.records && (strings.HasPrefix(said, "panic: ") || strings.HasPrefix(said, "fatal error: ")) {
		s.panicked = clean([]byte(said), maxKept)
	}
	if s.panicked != "" {
		level = slog.LevelError // with all that follows: the traces
	}
	s.mu.Unlock()
	s.say(level, said, nil, false)
}

func (s *transcript) say(level slog.Level, line string, attrs []slog.Attr, out bool) {
	if line == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if out && s.answered+len(line) <= maxAnswer {
		s.answer = append(s.answer, line)
	}
	if out {
		s.answered += len(line) + 1 // also of one that is dropped: nothing follows a gap
	}
	if len(s.tail) == keptLines {
		s.tail = append(s.tail[:0], s.tail[1:]...)
	}
	s.tail = append(s.tail, clean([]byte(line), maxKept))
	if now := time.Now(); now.Sub(s.since) >= time.Minute {
		s.logged, s.since = 0, now
	}
	switch s.logged++; {
	case s.logged <= maxLogged:
		s.log.LogAttrs(context.Background(), level, "plugin says", append([]slog.Attr{slog.String("line", line)}, attrs...)...)
	case s.logged == maxLogged+1:
		s.log.Warn("plugin says too much", "cause", fmt.Sprintf("more than %d lines in a minute; the rest of it is not logged", maxLogged))
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

// told returns what a check has answered. What has nothing on its standard
// output has answered by the first of its last lines.
func (s *transcript) told() answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.answer) == 0 && len(s.tail) > 0 {
		return parseAnswer(s.tail[:1])
	}
	return parseAnswer(s.answer)
}

// last returns up to n of the last lines, as one, or how it panicked.
func (s *transcript) last(n int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.panicked != "" {
		return s.panicked
	}
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
	return cleanText(strings.ReplaceAll(string(line), "\n", "?"), limit)
}

// oneLine is clean for text whose lines are to be told as one.
func oneLine(text string, limit int) string {
	return clean([]byte(strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")), limit)
}

// cleanText is clean for text of several lines.
func cleanText(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r == '\t':
			return ' '
		case r == utf8.RuneError, !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, strings.TrimSpace(text))
	if len(text) <= limit {
		return text
	}
	cut := limit - len("…")
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
