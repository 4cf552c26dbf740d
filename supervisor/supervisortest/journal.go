package supervisortest

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

// A Journal is what happened on all nodes, in an order that does not depend on
// the scheduler: by time, then by node, then as each node did it, and what the
// parts of one node did at one instant by their names.
type Journal struct {
	start time.Time

	mu    sync.Mutex
	lines []line
	acts  []act
}

type line struct {
	at    time.Duration
	node  string
	actor string // a part, or theLog or theLease; "" is the role, whose lines keep their place
	first bool   // before all else that happens on the node at that instant
	text  string
}

// Actors that are no parts and come before them.
const (
	theLog   = "\x00log"
	theLease = "\x01lease"
)

// An act is a time in which a part acted as primary.
type act struct {
	service, node, part string
	from, to            time.Duration
	open                bool
}

// NewJournal returns a journal whose time starts now.
func NewJournal() *Journal { return &Journal{start: time.Now()} }

// Add appends a line about a node.
func (j *Journal) Add(node, format string, args ...any) { j.add(node, "", format, args...) }

func (j *Journal) add(node, actor, format string, args ...any) {
	if j == nil {
		return
	}
	j.append(line{node: node, actor: actor, text: fmt.Sprintf(format, args...)})
}

// first is add for what is a cause, and never an effect: a check's answer.
func (j *Journal) first(node, actor, format string, args ...any) {
	j.append(line{node: node, actor: actor, first: true, text: fmt.Sprintf(format, args...)})
}

func (j *Journal) append(l line) {
	j.mu.Lock()
	defer j.mu.Unlock()
	l.at = time.Since(j.start)
	j.lines = append(j.lines, l)
}

// String returns the journal as columns: time, node, what happened. Times are
// told to 10 ms: what a scheduler shifts is less.
func (j *Journal) String() string {
	j.mu.Lock()
	lines := slices.Clone(j.lines)
	j.mu.Unlock()
	slices.SortStableFunc(lines, func(a, b line) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.node, b.node), compareBool(b.first, a.first))
	})
	// What goes on beside the role goes on at the same time; only changes of
	// role order it.
	for i := 0; i < len(lines); {
		n := i + 1
		for n < len(lines) && lines[n].at == lines[i].at && lines[n].node == lines[i].node &&
			lines[n].actor != "" && lines[i].actor != "" && lines[n].first == lines[i].first {
			n++
		}
		slices.SortStableFunc(lines[i:n], func(a, b line) int { return cmp.Compare(a.actor, b.actor) })
		i = n
	}
	width := 0
	for _, l := range lines {
		width = max(width, len(l.node))
	}
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%8.2fs  %-*s  %s\n", l.at.Seconds(), width, l.node, l.text)
	}
	return b.String()
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// Compare fails the test unless the journal reads as the file does. With
// DEPUTY_UPDATE=1 in the environment it writes the file instead.
func (j *Journal) Compare(t testing.TB, file string) {
	t.Helper()
	got := j.String()
	if os.Getenv("DEPUTY_UPDATE") != "" {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("read journal: %v (write it with DEPUTY_UPDATE=1)\n%s", err, got)
	}
	if d := gocmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

// acting notes that a part begins or ends to act as primary.
func (j *Journal) acting(service, node, part string, acts bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Since(j.start)
	for i := range j.acts {
		a := &j.acts[i]
		if a.open && a.service == service && a.node == node && a.part == part {
			if !acts {
				a.to, a.open = now, false
			}
			return
		}
	}
	if acts {
		j.acts = append(j.acts, act{service: service, node: node, part: part, from: now, open: true})
	}
}

// Overlaps tells each time in which parts of one service acted as primary on
// two nodes.
func (j *Journal) Overlaps() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var found []string
	now := time.Since(j.start)
	for i, a := range j.acts {
		for _, b := range j.acts[:i] {
			if a.service != b.service || a.node == b.node {
				continue
			}
			from, to := max(a.from, b.from), min(a.end(now), b.end(now))
			if from < to {
				found = append(found, fmt.Sprintf("%s: %s on %s and %s on %s both acted as primary from %.3fs to %.3fs",
					a.service, b.part, b.node, a.part, a.node, from.Seconds(), to.Seconds()))
			}
		}
	}
	return found
}

func (a act) end(now time.Duration) time.Duration {
	if a.open {
		return now
	}
	return a.to
}

// NeverTwo fails the test if two nodes ever acted as primary for one service.
func (j *Journal) NeverTwo(t testing.TB) {
	t.Helper()
	if o := j.Overlaps(); len(o) > 0 {
		t.Errorf("two nodes acted as primary:\n%s\n%s", strings.Join(o, "\n"), j)
	}
}

// Handler returns a handler that writes a node's log into the journal, from
// Info on: a record with a role as "-> role", any other with its message.
// Attributes that say what the columns say already are left out, and so are
// the outcomes of acts, which the parts tell, and what was warned of before.
func (j *Journal) Handler(node string) slog.Handler {
	return &logHandler{journal: j, node: node, said: &warnings{said: map[string]bool{}}}
}

type logHandler struct {
	journal *Journal
	node    string
	attrs   []slog.Attr
	muted   func() bool // the process is dead: what it says is not heard
	said    *warnings   // shared by all that was derived from one
}

// warnings are what was warned of in this role; once is enough for a story.
type warnings struct {
	mu   sync.Mutex
	said map[string]bool
}

func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	if h.muted != nil && h.muted() {
		return nil
	}
	attrs := slices.Clone(h.attrs)
	r.Attrs(func(a slog.Attr) bool { attrs = append(attrs, a); return true })
	text, rest := r.Message, ""
	if r.Level > slog.LevelInfo {
		text = strings.ToLower(r.Level.String()) + ": " + text
	}
	for _, a := range attrs {
		v := a.Value.Resolve().String()
		switch {
		case a.Key == "outcome":
			return nil
		case a.Key == "node" || a.Key == "service" || a.Key == "from" || v == "":
		case a.Key == "role" && r.Level == slog.LevelInfo:
			text = "-> " + v
		case a.Key == "cause":
			rest += " cause=" + v
		case strings.ContainsAny(v, " \t\n\""):
			rest += fmt.Sprintf(" %s=%q", a.Key, v)
		default:
			rest += " " + a.Key + "=" + v
		}
	}
	text += rest
	actor := ""
	if !strings.HasPrefix(text, "-> ") {
		actor = theLog
	}
	h.said.mu.Lock()
	repeated := h.said.said[text]
	if r.Level > slog.LevelInfo {
		h.said.said[text] = true
	} else {
		clear(h.said.said)
	}
	h.said.mu.Unlock()
	if repeated && r.Level > slog.LevelInfo {
		return nil
	}
	h.journal.add(h.node, actor, "%s", text)
	return nil
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = append(slices.Clone(h.attrs), attrs...)
	return &c
}

func (h *logHandler) WithGroup(string) slog.Handler { return h }
