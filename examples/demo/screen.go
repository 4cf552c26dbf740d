package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
)

// A screen shows lines that stay, and below them, on a terminal, a block that
// is drawn again and again.
type screen struct {
	out  *os.File
	live bool
	draw func() []string // the block

	mu    sync.Mutex
	shown int // lines of the block that are on the screen
}

func newScreen(out *os.File, draw func() []string) *screen {
	_, err := unix.IoctlGetWinsize(int(out.Fd()), unix.TIOCGWINSZ) // only a terminal has a size
	live := err == nil && os.Getenv("TERM") != "dumb" && os.Getenv("TERM") != ""
	return &screen{out: out, live: live, draw: draw}
}

// say prints a line that stays.
func (s *screen) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	fmt.Fprintf(s.out, format+"\n", args...)
	s.paint()
}

// refresh draws the block as it is now.
func (s *screen) refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	s.paint()
}

// end leaves the block as it is drawn last, or takes it away.
func (s *screen) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	s.live = false
}

func (s *screen) clear() {
	if s.shown > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", s.shown)
		s.shown = 0
	}
}

func (s *screen) paint() {
	if !s.live || s.draw == nil {
		return
	}
	width := 100
	if w, err := unix.IoctlGetWinsize(int(s.out.Fd()), unix.TIOCGWINSZ); err == nil && w.Col > 0 {
		width = int(w.Col)
	}
	lines := s.draw()
	for _, line := range lines {
		fmt.Fprintln(s.out, fit(line, width))
	}
	s.shown = len(lines)
}

// fit cuts a line, so that it never takes two.
func fit(line string, width int) string {
	r := []rune(line)
	if len(r) > width {
		return string(r[:width])
	}
	return line
}

// table draws the roles as they are now.
func (l *lab) table(began time.Time) []string {
	const cells = 40
	s := l.records.now()
	lines := []string{
		"",
		fmt.Sprintf("  %-5s %-10s %5s  %-8s %-8s  %s", "NODE", "ROLE", "TERM", l.place(), "PARSER", "WHO ANSWERED, THE LAST 20 s"),
	}
	who, ago := l.rec.answering()
	for _, n := range l.nodes {
		role, t := s.role(n), "-"
		if s.primary.Node == n.name {
			t = fmt.Sprint(s.primary.Term)
		}
		place, parser := "-", "-"
		if l.rec.isPresent(n.name) {
			place = "here"
		}
		if who.node == n.name && ago < 100*time.Millisecond {
			parser = "answers"
		}
		var picture strings.Builder
		for _, answered := range l.rec.picture(n.name, cells) {
			if answered {
				picture.WriteRune('█')
			} else {
				picture.WriteRune('·')
			}
		}
		lines = append(lines, fmt.Sprintf("  %-5s %-10s %5s  %-8s %-8s  %s", n.name, role, t, place, parser, picture.String()))
	}
	together := "never"
	if found := l.rec.overlaps(0); len(found) > 0 {
		together = found[0].String()
	}
	return append(lines, "", fmt.Sprintf("  %4.0f s   two at once: %s", time.Since(began).Seconds(), together))
}

// role is that of a node, as far as the records and its runner tell.
func (s snapshot) role(n *node) string {
	c, ok := s.candidates[n.name]
	switch {
	case !n.isOn():
		return "off"
	case !n.isUp():
		return "dead" // deputy is, the node is not
	case !ok || s.primary.Node != n.name && (c.Role == sdk.RolePrimary || c.Role == sdk.RolePromoting):
		return "starting" // what is recorded is of the run before
	}
	return string(c.Role)
}

// place is what moves with the role here.
func (l *lab) place() string {
	if l.moves() {
		return "ADDRESS"
	}
	return "SHOWN"
}
