package notify

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// A book is a Ledger in memory.
type book struct {
	mu      sync.Mutex
	changes []supervisor.Change
	claims  map[string]claim
	told    map[string]bool
	deaf    bool // does not answer
}

type claim struct {
	token string
	until time.Time
}

func newBook() *book { return &book{claims: map[string]claim{}, told: map[string]bool{}} }

func keyOf(n supervisor.Notice) string { return n.Event.ID + " " + n.Receiver }

func (b *book) call(ctx context.Context, f func() error) error {
	b.mu.Lock()
	if b.deaf {
		b.mu.Unlock()
		<-ctx.Done()
		return supervisor.ErrUnreachable
	}
	defer b.mu.Unlock()
	return f()
}

func (b *book) News(ctx context.Context, _ string) (n supervisor.News, err error) {
	err = b.call(ctx, func() error { n.Changes = slices.Clone(b.changes); return nil })
	return n, err
}

func (b *book) Claim(ctx context.Context, n supervisor.Notice, d time.Duration) (token string, err error) {
	return token, b.call(ctx, func() error {
		switch c := b.claims[keyOf(n)]; {
		case b.told[keyOf(n)]:
			return supervisor.ErrTold
		case time.Now().Before(c.until):
			return supervisor.ErrBusy
		}
		token = fmt.Sprint(time.Now().UnixNano())
		b.claims[keyOf(n)] = claim{token, time.Now().Add(d)}
		return nil
	})
}

func (b *book) Release(ctx context.Context, n supervisor.Notice, token string) error {
	return b.call(ctx, func() error {
		if b.claims[keyOf(n)].token == token {
			delete(b.claims, keyOf(n))
		}
		return nil
	})
}

func (b *book) Told(ctx context.Context, n supervisor.Notice) error {
	return b.call(ctx, func() error { b.told[keyOf(n)] = true; return nil })
}

func (b *book) silence(deaf bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deaf = deaf
}

// A hall is three nodes that watch one service and tell one receiver.
type hall struct {
	t    *testing.T
	book *book
	end  map[string]func()

	mu      sync.Mutex
	states  map[string]supervisor.Status
	changed chan struct{}
	got     []string // "NODE ID"
	answer  func(node string, m Message) error
}

func newHall(t *testing.T, nodes ...string) *hall {
	h := &hall{t: t, book: newBook(), end: map[string]func(){}, changed: make(chan struct{})}
	for _, node := range nodes {
		h.start(node)
	}
	h.primary("db1", 1) // which all saw before
	h.wait(time.Minute)
	h.told("db1 db/1/primary pager")
	return h
}

func (h *hall) start(node string) {
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	all := func(string, supervisor.EventKind) bool { return true }
	s := Service{
		Name: "db", Node: node, Member: member{h, node}, Ledger: h.book, Lanes: NewLanes(), Log: slog.New(slog.DiscardHandler),
		Receivers: []Receiver{
			{Name: "pager", Timeout: 10 * time.Second, Wants: all, Send: func(ctx context.Context, m Message) error { return h.take(ctx, node, "pager", m) }},
			{Name: "nobody", Timeout: time.Second, Wants: func(string, supervisor.EventKind) bool { return false }},
		},
	}
	go func() { defer close(done); s.Run(ctx) }()
	h.end[node] = func() { cancel(errors.New("the test ends")); <-done }
}

func (h *hall) close() {
	for _, end := range h.end {
		end()
	}
}

func (h *hall) take(ctx context.Context, node, to string, m Message) error {
	h.mu.Lock()
	answer := h.answer
	h.mu.Unlock()
	if answer != nil {
		if err := answer(node, m); err != nil {
			if errors.Is(err, errHangs) {
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	text := fmt.Sprintf("%s %s %s", node, m.ID, to)
	if m.Folded > 0 {
		text += fmt.Sprintf(" and %d", m.Folded)
	}
	h.got = append(h.got, text)
	return nil
}

var errHangs = errors.New("hangs")

func (h *hall) answers(f func(node string, m Message) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer = f
}

// primary has the records say that a node is primary, on all nodes.
func (h *hall) primary(node string, term sdk.Term) {
	h.book.mu.Lock()
	h.book.changes = append(h.book.changes, supervisor.Change{Term: term, Node: node, At: time.Now()})
	h.book.mu.Unlock()
	h.set(supervisor.Status{Service: "db", TTL: 3 * time.Second, State: supervisor.State{
		Service: "db", Term: supervisor.TermRecord{Term: term, Node: node},
		Primary: &supervisor.Primary{Node: node, Term: term, State: sdk.RolePrimary, Since: time.Now()},
	}})
}

func (h *hall) set(st supervisor.Status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.states = map[string]supervisor.Status{}
	for _, node := range []string{"db1", "db2", "db3"} {
		st.Node = node
		h.states[node] = st
	}
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *hall) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// told compares what the receiver got since it was asked last.
func (h *hall) told(want ...string) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Equal(h.got, want) {
		h.t.Errorf("told %q, want %q", h.got, want)
	}
	h.got = nil
}

type member struct {
	h    *hall
	node string
}

func (m member) Watch(ctx context.Context) iter.Seq[supervisor.Status] {
	return func(yield func(supervisor.Status) bool) {
		for {
			m.h.mu.Lock()
			st, ok := m.h.states[m.node]
			changed := m.h.changed
			m.h.mu.Unlock()
			if ok && !yield(st) {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

func story(t *testing.T, tell func(t *testing.T, h *hall)) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, "db1", "db2", "db3")
		defer h.close()
		tell(t, h)
	})
}

func TestTheNodeThatItIsAboutTellsIt(t *testing.T) {
	story(t, func(_ *testing.T, h *hall) {
		h.primary("db2", 2)
		h.wait(2 * time.Second)
		h.told("db2 db/2/primary pager")
		h.wait(2 * time.Hour)
		h.told()
	})
}

func TestAnotherTellsWhatADeadNodeCannot(t *testing.T) {
	story(t, func(t *testing.T, h *hall) {
		h.end["db2"]()
		delete(h.end, "db2")
		h.primary("db2", 2)
		h.wait(time.Hour)
		h.mu.Lock()
		got := slices.Clone(h.got)
		h.mu.Unlock()
		if len(got) != 1 || got[0] != "db1 db/2/primary pager" && got[0] != "db3 db/2/primary pager" {
			t.Errorf("told %q", got)
		}
	})
}

// A node that dies between the delivery and keeping it has another deliver it
// again, with the same ID.
func TestWhatIsNotKeptIsToldAgain(t *testing.T) {
	story(t, func(t *testing.T, h *hall) {
		delivered := make(chan struct{})
		h.answers(func(node string, _ Message) error {
			if node == "db2" {
				close(delivered)
				return errHangs // it was delivered, and the node never comes to keep it
			}
			return nil
		})
		h.primary("db2", 2)
		<-delivered
		h.end["db2"]()
		delete(h.end, "db2")
		h.wait(10 * time.Second)
		h.told() // the claim holds
		h.wait(10 * time.Second)
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.got) != 1 || h.got[0][3:] != " db/2/primary pager" {
			t.Errorf("told %q", h.got)
		}
	})
}

func TestANodeThatCannotReachTheReceiverLetsAnotherTry(t *testing.T) {
	story(t, func(t *testing.T, h *hall) {
		h.answers(func(node string, _ Message) error {
			if node != "db3" {
				return errors.New("no route")
			}
			return nil
		})
		h.primary("db2", 2)
		h.wait(5 * time.Minute)
		h.told("db3 db/2/primary pager")
	})
}

func TestARefusedMessageIsNotTriedAgain(t *testing.T) {
	story(t, func(t *testing.T, h *hall) {
		tries := 0
		h.answers(func(string, Message) error {
			tries++
			return fmt.Errorf("%w: 400 Bad Request", ErrRefused)
		})
		h.primary("db2", 2)
		h.wait(2 * time.Hour)
		if h.told(); tries != 1 {
			t.Errorf("%d tries", tries)
		}
	})
}

func TestWithoutTheLedgerItIsToldAllTheSame(t *testing.T) {
	story(t, func(t *testing.T, h *hall) {
		h.primary("db2", 2)
		h.wait(time.Second / 2)
		h.book.silence(true)
		h.wait(2 * time.Minute)
		h.mu.Lock()
		if len(h.got) == 0 || slices.ContainsFunc(h.got, func(s string) bool { return s[3:] != " db/2/primary pager" }) {
			t.Errorf("told %q", h.got)
		}
		h.got = nil
		h.mu.Unlock()
		h.book.silence(false)
		h.wait(2 * time.Minute)
		h.told()
		h.book.mu.Lock()
		defer h.book.mu.Unlock()
		if !h.book.told["db/2/primary pager"] {
			t.Error("not kept once the ledger answers")
		}
	})
}

func TestAReceiverThatHangsHoldsUpNoEnd(t *testing.T) {
	story(t, func(t *testing.T, h *hall) {
		h.answers(func(string, Message) error { return errHangs })
		h.primary("db2", 2)
		h.wait(3 * time.Second) // db2 is at it
		began := time.Now()
		h.end["db2"]()
		delete(h.end, "db2")
		if d := time.Since(began); d > time.Millisecond {
			t.Errorf("the end took %s", d)
		}
		h.answers(nil)
		h.wait(time.Minute)
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.got) != 1 {
			t.Errorf("told %q", h.got)
		}
	})
}

func TestAStormIsFolded(t *testing.T) {
	story(t, func(t *testing.T, h *hall) {
		for term := sdk.Term(2); term < 42; term++ {
			h.primary("db2", term)
			h.wait(2 * time.Second)
		}
		h.wait(10 * time.Minute)
		h.mu.Lock()
		defer h.mu.Unlock()
		if n := len(h.got); n < burst || n > 12 || !slices.ContainsFunc(h.got, func(s string) bool { return strings.Contains(s, " and ") }) {
			t.Errorf("told %d times: %q", n, h.got)
		}
		if !strings.Contains(h.got[len(h.got)-1], " db/41/primary pager") {
			t.Errorf("the newest was not told: %q", h.got)
		}
	})
}

func TestItGivesUpAfterAnHour(t *testing.T) {
	story(t, func(t *testing.T, h *hall) {
		tries, last := 0, time.Time{}
		h.answers(func(string, Message) error {
			tries++
			last = time.Now()
			return errors.New("503 Service Unavailable")
		})
		began := time.Now()
		h.primary("db2", 2)
		h.wait(3 * time.Hour)
		if d := last.Sub(began); d < 55*time.Minute || d > 65*time.Minute || tries > 600 {
			t.Errorf("%d tries, the last after %s", tries, d)
		}
	})
}

// What many services have to tell at once takes few calls of the ledger at a time.
func TestAStormLeavesTheLedgerToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lanes, slow := NewLanes(), &slowBook{book: newBook()}
		var running sync.WaitGroup
		for i := range 100 {
			name := fmt.Sprintf("db%d", i)
			s := Service{Name: name, Node: "db1", Ledger: slow, Lanes: lanes, Log: slog.New(slog.DiscardHandler)}
			c := newCourier(s, Receiver{Name: "pager", Timeout: time.Second, Send: func(context.Context, Message) error { return nil }})
			c.add(supervisor.Event{ID: name + "/1/primary", Service: name, Kind: supervisor.EventPrimary})
			ctx, cancel := context.WithCancelCause(t.Context())
			running.Go(func() { c.run(ctx) })
			defer cancel(errors.New("the test ends"))
			defer time.AfterFunc(time.Minute, func() { cancel(errors.New("the test ends")) }).Stop()
		}
		running.Wait()
		if slow.most != cap(lanes) || len(slow.told) != 100 {
			t.Errorf("%d calls at once, %d told", slow.most, len(slow.told))
		}
	})
}

// A slowBook takes its time, and counts.
type slowBook struct {
	*book
	count     sync.Mutex
	now, most int
}

func (b *slowBook) Claim(ctx context.Context, n supervisor.Notice, d time.Duration) (string, error) {
	b.add(1)
	defer b.add(-1)
	time.Sleep(100 * time.Millisecond)
	return b.book.Claim(ctx, n, d)
}

func (b *slowBook) add(n int) {
	b.count.Lock()
	defer b.count.Unlock()
	b.now += n
	b.most = max(b.most, b.now)
}
