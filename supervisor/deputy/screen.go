package main

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// plainWidth is how wide tables are where there is no terminal to ask.
const plainWidth = 100

// A screen is what is known about where output goes.
type screen struct {
	terminal bool
	colour   bool
	width    int
	height   int // of a terminal; zero when it is not known
}

// screenOf looks at w. Colour is for terminals alone, and not where NO_COLOR
// is set (no-color.org) or the terminal says that it has none.
func screenOf(w io.Writer, env func(string) string) screen {
	s := screen{width: plainWidth}
	f, ok := w.(*os.File)
	if !ok {
		return s
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return s
	}
	s.terminal = true
	s.colour = env("NO_COLOR") == "" && env("TERM") != "dumb"
	if size.Col >= 40 {
		s.width = int(size.Col)
	}
	s.height = int(size.Row)
	return s
}

// A style is how a cell stands out.
type style string

const (
	plain  style = ""
	bold   style = "1"
	good   style = "32"
	moving style = "33"
	bad    style = "31"
	faint  style = "2"
)

// paint returns s in a style, where there is colour.
func (s screen) paint(st style, text string) string {
	if !s.colour || st == plain || text == "" {
		return text
	}
	return "\x1b[" + string(st) + "m" + text + "\x1b[0m"
}

// painter paints in one style.
func (s screen) painter(st style) func(string) string {
	return func(text string) string { return s.paint(st, text) }
}
