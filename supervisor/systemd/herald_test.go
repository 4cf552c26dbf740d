package systemd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/supervisortest"
)

// An ear is a notification socket. It never waits, so that time may be virtual.
type ear struct {
	t    *testing.T
	fd   int
	path string
}

func newEar(t *testing.T, path string) *ear {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	return &ear{t, fd, path}
}

// hears returns all messages that have arrived, each as its assignments.
func (e *ear) hears() (all [][]string) {
	b := make([]byte, 4096)
	for {
		n, _, err := unix.Recvfrom(e.fd, b, 0)
		if errors.Is(err, unix.EAGAIN) {
			return all
		} else if err != nil {
			e.t.Fatal(err)
		}
		all = append(all, strings.Split(string(b[:n]), "\n"))
	}
}

func (e *ear) notifier() *Notifier {
	e.t.Helper()
	n, err := NewNotifier(func(string) string { return e.path })
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { n.Close() })
	return n
}

func TestNotifier(t *testing.T) {
	for name, path := range map[string]string{
		"a path": filepath.Join(t.TempDir(), "n"), "an abstract name": fmt.Sprintf("@deputy-test-%d-%d", os.Getpid(), time.Now().UnixNano()),
	} {
		e := newEar(t, path)
		if err := e.notifier().Send("READY=1", "STATUS=well"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := e.hears(); len(got) != 1 || !slices.Equal(got[0], []string{"READY=1", "STATUS=well"}) {
			t.Errorf("%s: heard %q", name, got)
		}
	}
	n, err := NewNotifier(func(string) string { return "" })
	if n != nil || err != nil || n.Send("READY=1") != nil || n.Close() != nil {
		t.Errorf("without a socket: %v, %v", n, err)
	}
	if _, err := NewNotifier(func(string) string { return "vsock:2:1234" }); err == nil {
		t.Error("a socket of another kind is none, and not told")
	}
	gone, err := NewNotifier(func(string) string { return filepath.Join(t.TempDir(), "gone") })
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	if err := gone.Send("READY=1"); err == nil || errors.Is(err, ErrFull) {
		t.Errorf("nobody listens: got %v", err)
	}
}

// A socket that nobody reads fills up. Whoever sends is told, and never waits.
func TestNotifierDoesNotWait(t *testing.T) {
	e := newEar(t, filepath.Join(t.TempDir(), "n"))
	n := e.notifier()
	began := time.Now()
	full := false
	for range 100_000 {
		if err := n.Send("WATCHDOG=1"); errors.Is(err, ErrFull) {
			full = true
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if !full {
		t.Error("a socket that nobody reads is never full")
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s to find out", took)
	}
	e.hears()
	if err := n.Send("WATCHDOG=1"); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func TestWatched(t *testing.T) {
	env := func(pairs ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == name {
					return pairs[i+1]
				}
			}
			return ""
		}
	}
	own := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		env  func(string) string
		want bool
	}{
		{env(), false},
		{env("NOTIFY_SOCKET", "/n"), false},
		{env("WATCHDOG_USEC", "30000000"), false},
		{env("NOTIFY_SOCKET", "/n", "WATCHDOG_USEC", "30000000"), true},
		{env("NOTIFY_SOCKET", "/n", "WATCHDOG_USEC", "30000000", "WATCHDOG_PID", own), true},
		{env("NOTIFY_SOCKET", "/n", "WATCHDOG_USEC", "30000000", "WATCHDOG_PID", "1"), false},
		{env("NOTIFY_SOCKET", "/n", "WATCHDOG_USEC", "0"), false},
	} {
		if got := Watched(c.env); got != c.want {
			t.Errorf("got %v, want %v", got, c.want)
		}
	}
}

// A watch is PID 1 as it watches one herald: until when, as far as it was told.
type watch struct {
	*ear
	h      *Herald
	clock  *supervisortest.Clock
	mu     sync.Mutex // of what the herald asks for
	leash  supervisor.Leash
	hang   chan struct{} // where the leash is asked of; nil when nothing hangs
	status string
	until  sdk.Instant // of the watchdog; zero: not told yet
	extend sdk.Instant
	said   []string // all but signs of life
	pings  int
	worst  sdk.Instant // the latest until
}

// is sets what the herald is told when it asks.
func (w *watch) is(set func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	set()
}

// herald runs a herald on virtual time, and play beside it.
func herald(t *testing.T, play func(w *watch)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "n")
	synctest.Test(t, func(t *testing.T) {
		w := &watch{ear: newEar(t, path), clock: supervisortest.NewClock(), status: "as always"}
		w.h = NewHerald(w.notifier(), true, w.clock, slog.New(slog.DiscardHandler))
		w.h.Leash = func() supervisor.Leash {
			w.mu.Lock()
			leash, hang := w.leash, w.hang
			w.mu.Unlock()
			if hang != nil {
				<-hang
			}
			return leash
		}
		w.h.Status = func() string {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.status
		}
		ended := make(chan struct{})
		ctx, stop := context.WithCancelCause(context.Background())
		go func() {
			defer close(ended)
			w.h.Run(ctx)
		}()
		defer func() {
			stop(errors.New("the test is over"))
			<-ended
		}()
		synctest.Wait()
		play(w)
	})
}

// pass lets time pass and listens each millisecond, as PID 1 does.
func (w *watch) pass(d time.Duration) {
	w.t.Helper()
	for range d / time.Millisecond {
		time.Sleep(time.Millisecond)
		synctest.Wait()
		w.listen()
	}
}

func (w *watch) listen() {
	w.t.Helper()
	now := w.clock.Now()
	for _, message := range w.hears() {
		for _, a := range message {
			name, value, _ := strings.Cut(a, "=")
			n, _ := strconv.ParseInt(value, 10, 64)
			switch name {
			case "WATCHDOG_USEC":
				if n <= 0 {
					w.t.Fatalf("the watch is ended: %q", message)
				}
				w.until = now.Add(time.Duration(n) * time.Microsecond)
				w.worst = max(w.worst, w.until)
			case "EXTEND_TIMEOUT_USEC":
				w.extend = max(w.extend, now.Add(time.Duration(n)*time.Microsecond))
			default:
				if a != "WATCHDOG=1" {
					w.said = append(w.said, a)
				} else {
					w.pings++
				}
			}
		}
	}
	if w.until != 0 && now > w.until && !slices.Contains(w.said, "WATCHDOG=trigger") && (w.leash.Until == 0 || now < w.leash.Until) {
		w.t.Fatalf("PID 1 kills a process that lives, %s late", now.Sub(w.until))
	}
}

func TestHeraldOfAStandby(t *testing.T) {
	herald(t, func(w *watch) {
		w.pass(time.Minute)
		if got := w.extend.Sub(w.clock.Now()); got < 3*time.Second || got > startSilence {
			t.Errorf("not ready, it may be silent for %s", got)
		}
		w.h.Ready()
		w.pass(time.Second)
		if got := w.until.Sub(w.clock.Now()); got < 28*time.Second || got > 30*time.Second {
			t.Errorf("a standby may be silent for %s", got)
		}
		w.pings = 0
		w.pass(5 * time.Minute)
		if w.pings < 35 || w.pings > 45 {
			t.Errorf("%d pings in 5 minutes, want one each 7.5 s", w.pings)
		}
		if want := []string{"STATUS=as always", "READY=1"}; !slices.Equal(w.said, want) {
			t.Errorf("said %q, want %q", w.said, want)
		}
	})
}

// At T = 3 s: pings each W/4 = 150 ms, good for W, and never beyond s + 0.75 T.
func TestHeraldOfAPrimary(t *testing.T) {
	herald(t, func(w *watch) {
		timing := supervisor.NewTiming(3 * time.Second)
		w.h.Ready()
		w.pass(10 * time.Second)
		sent := w.clock.Now()
		renew := func() {
			sent = w.clock.Now()
			w.is(func() { w.leash = timing.Held(sent.Add(timing.Until)) })
		}
		renew()
		w.h.Arm()
		w.listen()
		if got := w.until.Sub(w.clock.Now()); got != timing.Watchdog {
			t.Errorf("armed for %s, want %s", got, timing.Watchdog)
		}
		for range 10 {
			w.pings = 0
			w.pass(timing.Renew)
			renew()
			if w.pings < 3 || w.pings > 5 {
				t.Errorf("%d pings in %s", w.pings, timing.Renew)
			}
		}
		// etcd is gone. Signs of life end at s + 0.75 T, whatever else lives.
		w.worst = 0
		w.pass(timing.TTL)
		if by := w.worst.Sub(w.leash.Until); by > 2*time.Millisecond || by < -5*time.Millisecond {
			t.Errorf("the last sign of life is good until %s after the leash's end", by)
		}
		last := w.pings
		w.pass(time.Second)
		if w.pings != last {
			t.Error("a sign of life comes after the leash's end")
		}
		// The forced demotion begins after all, and may take its time.
		w.is(func() { w.leash = timing.Forcing(w.clock.Now().Add(timing.Forced())) })
		w.h.Poke()
		w.pass(100 * time.Millisecond)
		if w.until < w.clock.Now() {
			t.Error("no sign of life though there is time")
		}
		w.h.Trigger()
		w.pass(time.Second)
		if got := w.said[len(w.said)-1]; got != "WATCHDOG=trigger" {
			t.Errorf("the last word is %q", got)
		}
		last = w.pings
		w.pass(time.Minute)
		if w.pings != last {
			t.Error("a sign of life comes after the trigger")
		}
	})
}

// PID 1 does not read for a while: what did not arrive is said again.
func TestHeraldSaysItAgain(t *testing.T) {
	herald(t, func(w *watch) {
		n := w.notifier()
		for n.Send("X=1") == nil {
		}
		w.h.Ready()
		w.is(func() { w.status = "another" })
		w.h.Trigger()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		w.hears()
		w.said = nil
		w.pass(100 * time.Millisecond)
		if want := []string{"WATCHDOG=trigger"}; !slices.Equal(w.said, want) {
			t.Errorf("said %q, want %q", w.said, want)
		}
	})
	herald(t, func(w *watch) {
		n := w.notifier()
		for n.Send("X=1") == nil {
		}
		w.h.Ready()
		w.is(func() { w.status = "another" })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		w.hears()
		w.said = nil
		w.pass(time.Second)
		if want := []string{"READY=1", "STATUS=another"}; !slices.Equal(w.said, want) {
			t.Errorf("said %q, want %q", w.said, want)
		}
	})
}

// A hang of what the leash is asked of is a hang of the process.
func TestHeraldIsSilentWhenTheRoleHangs(t *testing.T) {
	herald(t, func(w *watch) {
		w.is(func() { w.leash = supervisor.Leash{Silence: 600 * time.Millisecond} })
		w.h.Ready()
		w.pass(time.Second)
		hang := make(chan struct{})
		defer close(hang)
		w.is(func() { w.hang = hang })
		time.Sleep(500 * time.Millisecond) // one more may be under way
		w.hears()
		time.Sleep(time.Minute)
		synctest.Wait()
		if w.hears() != nil {
			t.Error("a sign of life comes from a process whose role hangs")
		}
	})
}

func TestHeraldsStatus(t *testing.T) {
	herald(t, func(w *watch) {
		w.h.Ready()
		w.pass(2 * time.Second)
		w.said = nil
		for i := range 1000 { // two seconds of changes
			w.is(func() { w.status = fmt.Sprintf("change\n%d", i) })
			w.h.Poke()
			w.pass(2 * time.Millisecond)
		}
		w.pass(2 * time.Second)
		if len(w.said) < 2 || len(w.said) > 4 || w.said[len(w.said)-1] != "STATUS=change 999" {
			t.Errorf("a status that changes all the time is told as %q", w.said)
		}
		w.h.Stopping()
		w.h.Leave(fmt.Errorf("open it: %w", syscall.ENOSPC))
		w.said = nil
		w.pass(time.Second)
		for _, want := range []string{"STATUS=open it: no space left on device", "ERRNO=28", "STOPPING=1"} {
			if !slices.Contains(w.said, want) {
				t.Errorf("said %q, want %s", w.said, want)
			}
		}
	})
}

// Another program takes the process over: it has what the leash leaves, and
// nothing is said until it says something itself.
func TestHeraldsHandover(t *testing.T) {
	herald(t, func(w *watch) {
		w.h.Ready()
		w.is(func() {
			w.leash = supervisor.Leash{Silence: 200 * time.Millisecond, Until: w.clock.Now().Add(700 * time.Millisecond)}
		})
		w.pass(100 * time.Millisecond)
		w.h.Handover()
		w.listen()
		if by := w.until.Sub(w.leash.Until); by.Abs() > 2*time.Millisecond {
			t.Errorf("it has %s more than the leash", by)
		}
		w.pings = 0
		w.pass(10 * time.Second)
		if w.pings != 0 {
			t.Error("a sign of life comes from a process that is no more")
		}
	})
}

// deadBus has nobody behind it.
func deadBus(t *testing.T) *Bus {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	address := "unix:path=" + l.Addr().String()
	l.Close()
	b := &Bus{addresses: []string{address}, opening: make(chan struct{}, 1)}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestEscalator(t *testing.T) {
	e := newEar(t, filepath.Join(t.TempDir(), "n"))
	var log strings.Builder
	h := NewHerald(e.notifier(), true, supervisortest.NewClock(), slog.New(slog.DiscardHandler))
	pid1 := newFakePID1(t)
	pid1.unit("deputy-escalate@orders.service", func(*fakeUnit) {})
	esc := &Escalator{Herald: h, Bus: pid1.bus(), Unit: Escalate("orders"), Log: slog.New(slog.NewTextHandler(&log, nil))}
	esc.Trigger(errors.New("not demoted"))
	if got := e.hears(); len(got) != 1 || !slices.Equal(got[0], []string{"WATCHDOG=trigger"}) {
		t.Errorf("heard %q", got)
	}
	esc.Reboot(errors.New("not demoted"))
	if got := pid1.called(); !slices.Contains(got, "StartUnit deputy-escalate@orders.service") {
		t.Errorf("PID 1 was called for %q", got)
	}
	esc.Bus = deadBus(t)
	esc.Reboot(errors.New("not demoted"))
	if !strings.Contains(log.String(), "turn it off") {
		t.Errorf("a node that is not forced down is not told of: %s", log.String())
	}
}
