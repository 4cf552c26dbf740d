package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// holderEnv carries the contender to a process that is made to be killed.
const holderEnv = "DEPUTY_TEST_HOLDER"

// A contender is a node that takes one role whenever it can, in a process of
// its own.
type contender struct {
	Node      string
	Endpoints []string
	Prefix    string
	TTL       time.Duration
	Dir       string // what outlives the process: the tenure, what was seen
	Ledger    string
}

// holderMain is the process of a contender. It returns at once in any other.
func holderMain() {
	env, ok := os.LookupEnv(holderEnv)
	if !ok {
		return
	}
	var s contender
	if err := json.Unmarshal([]byte(env), &s); err != nil {
		panic(err)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the test
		os.Exit(0)
	}()
	if err := s.run(); err != nil {
		slog.New(slog.NewTextHandler(os.Stderr, nil)).Error("cannot go on", "node", s.Node, "cause", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// LoadSeen and SaveSeen make a contender a Witness.
func (s contender) LoadSeen(service string) (seen supervisor.Seen, err error) {
	return seen, s.load("seen-"+service, &seen)
}

func (s contender) SaveSeen(service string, seen supervisor.Seen) error {
	return s.save("seen-"+service, seen)
}

func (s contender) File(service string) string { return service }

func (s contender) load(name string, v any) error {
	data, err := os.ReadFile(filepath.Join(s.Dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

func (s contender) save(name string, v any) error {
	file := filepath.Join(s.Dir, name)
	if err := os.WriteFile(file+".new", encode(v), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// run takes the role again and again.
func (s contender) run() error {
	f, err := os.OpenFile(s.Ledger, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	book := &ledger{f: f}
	c, err := Open(Config{
		Endpoints: s.Endpoints,
		Prefix:    s.Prefix,
		Clock:     bootClock{},
		Node:      supervisor.Node{Name: s.Node, Boot: "boot", Machine: "machine-" + s.Node},
		Witness:   s,
		Log:       slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", s.Node, "pid", os.Getpid()),
	})
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithCancelCause(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() { _ = c.Run(ctx) })

	e := c.Elector("db", s.TTL)
	var left supervisor.Tenure
	if err := s.load("tenure", &left); err != nil {
		return err
	}
	for left.Pulse != "" {
		l, err := e.Adopt(ctx, left)
		if err == nil {
			if err := s.hold(ctx, book, l); err != nil {
				return err
			}
			break
		}
		if errors.Is(err, supervisor.ErrRefused) {
			break
		}
	}
	for st := range e.Observe(ctx) {
		if st.Frozen != "" || !st.Vacant && !st.Mine {
			continue
		}
		l, err := e.Take(ctx, st)
		if err != nil {
			continue // the next State tells
		}
		if err := s.hold(ctx, book, l); err != nil {
			return err
		}
	}
	return nil
}

// hold acts as primary until the lease is lost, or for some time.
func (s contender) hold(ctx context.Context, book *ledger, l supervisor.Lease) error {
	clock := bootClock{}
	until := l.Until()
	if until <= clock.Now() {
		return l.Resign(ctx)
	}
	entry, err := book.begin(l.Term(), clock.Now())
	if err != nil {
		return err
	}
	if err := s.save("tenure", l.Tenure()); err != nil {
		return err
	}
	enough := time.After(rand.N(20 * s.TTL))
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for holding := true; holding; {
		// Whatever renews by the lease, in the kernel or elsewhere, may act
		// until then, even if this process does not get to say so again.
		if now := l.Until(); now > until {
			until = now
			if err := book.extend(entry, until); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-l.Lost():
			holding = false
		case <-enough:
			holding = false
		}
	}
	time.Sleep(rand.N(s.TTL / 10)) // demoting
	if now := l.Until(); now > until {
		until = now
	}
	if err := book.extend(entry, min(until, clock.Now())); err != nil {
		return err
	}
	for {
		err := l.Resign(ctx)
		if err == nil {
			return s.save("tenure", supervisor.Tenure{})
		}
		if !errors.Is(err, supervisor.ErrUnreachable) {
			return err
		}
	}
}

// A holder is the process of a contender, as the test sees it.
type holder struct {
	contender
	runs []string // the ledgers of its processes
	cmd  *exec.Cmd
	in   io.Closer
}

func (h *holder) start(log io.Writer) error {
	h.Ledger = filepath.Join(h.Dir, fmt.Sprintf("ledger-%d", len(h.runs)))
	h.runs = append(h.runs, h.Ledger)
	h.cmd = exec.Command("/proc/self/exe")
	h.cmd.Args[0] = "holder-" + h.Node
	h.cmd.Env = append(os.Environ(), holderEnv+"="+string(encode(h.contender)))
	h.cmd.Stderr = log
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		return err
	}
	return h.cmd.Start()
}

func (h *holder) kill() {
	if h.cmd == nil {
		return
	}
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
	h.in.Close()
	h.cmd = nil
}

// acted tells when the contender's processes acted.
func (h *holder) acted(t testing.TB) (all []acting) {
	t.Helper()
	for _, file := range h.runs {
		some, err := readLedger(file, h.Node)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		all = append(all, some...)
	}
	return all
}

// actsAt reports whether one of the contender's processes may act at an instant.
func (h *holder) actsAt(t testing.TB, at sdk.Instant) bool {
	t.Helper()
	for _, a := range h.acted(t) {
		if a.begin <= at && at < a.end {
			return true
		}
	}
	return false
}
