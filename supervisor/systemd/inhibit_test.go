package systemd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// privateBusDaemon starts a bus of the test's own, and returns its address.
func privateBusDaemon(t *testing.T) string {
	t.Helper()
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("dbus-daemon is missing: apt-get install dbus")
		}
		t.Skip("needs dbus-daemon")
	}
	dir, err := os.MkdirTemp("", "b") // paths of sockets have to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	conf := filepath.Join(dir, "conf")
	err = os.WriteFile(conf, []byte(`<busconfig><type>session</type><listen>unix:path=`+dir+`/s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/><allow user="*"/></policy></busconfig>`), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(daemon, "--nofork", "--nosyslog", "--nopidfile", "--config-file="+conf, "--print-address=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("dbus-daemon does not say where it is: %v", err)
	}
	return strings.TrimSpace(line)
}

// A logind is a fake one, with the locks that it has given away.
type logind struct {
	t    *testing.T
	conn *dbus.Conn

	mu    sync.Mutex
	locks []*os.File // this side of each pipe: at its end when the other side is closed
	asked []string
}

func newLogind(t *testing.T, address string) *logind {
	t.Helper()
	conn, err := connectForFiles(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	l := &logind{t: t, conn: conn}
	t.Cleanup(l.close)
	if err := conn.ExportMethodTable(map[string]any{"Inhibit": l.inhibit}, loginPath, loginInterface); err != nil {
		t.Fatal(err)
	}
	if reply, err := conn.RequestName(loginName, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("name not taken: %v, %v", reply, err)
	}
	return l
}

func (l *logind) close() {
	l.conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.locks {
		f.Close()
	}
}

func (l *logind) inhibit(what, who, why, mode string) (dbus.UnixFD, *dbus.Error) {
	if strings.Contains(what, ":") { // as systemd 252 does
		return 0, dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{"Permission denied"})
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 0, dbus.MakeFailedError(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.locks = append(l.locks, r)
	l.asked = append(l.asked, strings.Join([]string{what, who, why, mode}, "|"))
	fd, err := unix.Dup(int(w.Fd()))
	w.Close()
	if err != nil {
		return 0, dbus.MakeFailedError(err)
	}
	time.AfterFunc(200*time.Millisecond, func() { unix.Close(fd) }) // once it is sent
	return dbus.UnixFD(fd), nil
}

// held is how many locks are held now.
func (l *logind) held() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, f := range l.locks {
		poll := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
		got, err := unix.Poll(poll, 0)
		for errors.Is(err, unix.EINTR) {
			got, err = unix.Poll(poll, 0)
		}
		if err == nil && got == 0 {
			n++
		}
	}
	return n
}

func (l *logind) says(signal string, begins bool) {
	l.t.Helper()
	if err := l.conn.Emit(loginPath, loginInterface+"."+signal, begins); err != nil {
		l.t.Fatal(err)
	}
}

// comes fails the test unless a condition is met soon.
func comes(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// A roles is what an inhibitor does to the roles here.
type roles struct {
	mu   sync.Mutex
	said []string
	led  chan struct{} // closed when nothing is led any more
}

func (r *roles) away(ctx context.Context, why error) {
	r.mu.Lock()
	r.said = append(r.said, "away: "+why.Error())
	r.mu.Unlock()
	select {
	case <-r.led:
	case <-ctx.Done():
	}
}

func (r *roles) back() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, "back")
}

func (r *roles) story() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.said, ", ")
}

func inhibitor(t *testing.T, address string) (*roles, *strings.Builder, func()) {
	t.Helper()
	r := &roles{led: make(chan struct{})}
	var log strings.Builder
	i := &Inhibitor{
		Who: "deputy of orders", Away: r.away, Back: r.back, address: address,
		Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	ctx, stop := context.WithCancelCause(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		i.Run(ctx)
	}()
	end := func() {
		stop(errors.New("the test is over"))
		<-ended
	}
	t.Cleanup(end)
	return r, &log, end
}

func TestInhibitor(t *testing.T) {
	address := privateBusDaemon(t)
	l := newLogind(t, address)
	r, _, end := inhibitor(t, address)
	settled := func() bool { time.Sleep(250 * time.Millisecond); return l.held() == 2 } // the fake's own end is closed by then
	comes(t, "a lock is held", settled)
	want := []string{"shutdown|deputy of orders|hands over its roles|delay", "sleep|deputy of orders|hands over its roles|delay"}
	if !slices.Equal(l.asked, want) {
		t.Errorf("asked for %q, want %q", l.asked, want)
	}

	l.says("PrepareForSleep", true)
	comes(t, "roles are left", func() bool { return r.story() == "away: this machine goes to sleep" })
	if l.held() != 2 {
		t.Error("the lock is released before the roles are left")
	}
	close(r.led)
	comes(t, "the lock is released", func() bool { return l.held() == 0 })
	l.says("PrepareForSleep", false)
	comes(t, "back after waking", func() bool { return strings.HasSuffix(r.story(), "sleep, back") })
	comes(t, "a lock is held again", settled)

	l.says("PrepareForShutdown", true)
	comes(t, "roles are left", func() bool { return strings.HasSuffix(r.story(), "away: this machine shuts down") })
	comes(t, "the lock is released", func() bool { return l.held() == 0 })
	end()
}

// That the machine is awake again may be said while logind, or the bus, is gone.
func TestInhibitorIsBackWithoutBeingTold(t *testing.T) {
	address := privateBusDaemon(t)
	l := newLogind(t, address)
	r := &roles{led: make(chan struct{})}
	close(r.led)
	i := &Inhibitor{Away: r.away, Back: r.back, address: address, Log: slog.New(slog.DiscardHandler)}
	watch := func(ctx context.Context) <-chan error {
		ended := make(chan error, 1)
		go func() { ended <- i.watch(ctx) }()
		return ended
	}
	first := watch(t.Context())
	comes(t, "a lock is held", func() bool { time.Sleep(250 * time.Millisecond); return l.held() == 2 })
	l.says("PrepareForSleep", true)
	comes(t, "the lock is released", func() bool { return l.held() == 0 })
	l.close()
	if err := <-first; !errors.Is(err, errNoLogind) {
		t.Fatalf("logind is gone: %v", err)
	}

	l = newLogind(t, address)
	ctx, stop := context.WithCancelCause(t.Context())
	second := watch(ctx)
	comes(t, "back", func() bool { return r.story() == "away: this machine goes to sleep, back" })
	comes(t, "a lock is held again", func() bool { time.Sleep(250 * time.Millisecond); return l.held() == 2 })
	stop(errors.New("the test is over"))
	<-second
}

// A demotion that takes too long does not keep the machine from going down.
func TestInhibitorDoesNotWaitForEver(t *testing.T) {
	address := privateBusDaemon(t)
	l := newLogind(t, address)
	_, _, end := inhibitor(t, address)
	comes(t, "a lock is held", func() bool { time.Sleep(250 * time.Millisecond); return l.held() == 2 })
	began := time.Now()
	l.says("PrepareForShutdown", true)
	comes(t, "the lock is released", func() bool { return l.held() == 0 })
	if took := time.Since(began); took < delayTime-100*time.Millisecond || took > delayTime+3*time.Second {
		t.Errorf("released after %s, want %s", took, delayTime)
	}
	end()
}

func TestInhibitorEndsWhileItHoldsALock(t *testing.T) {
	address := privateBusDaemon(t)
	l := newLogind(t, address)
	_, _, end := inhibitor(t, address)
	comes(t, "a lock is held", func() bool { time.Sleep(250 * time.Millisecond); return l.held() == 2 })
	end()
	if l.held() != 0 {
		t.Error("a lock is left behind")
	}
}

// Without logind, or without a bus, it is silent: one line for those who look.
func TestInhibitorWithoutLogind(t *testing.T) {
	for name, address := range map[string]string{
		"no logind": privateBusDaemon(t), "no bus": "unix:path=" + filepath.Join(t.TempDir(), "none"),
	} {
		r, log, end := inhibitor(t, address)
		time.Sleep(300 * time.Millisecond)
		end()
		if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "level=DEBUG") {
			t.Errorf("%s: it says %s", name, fmt.Sprintf("%q", got))
		}
		if r.story() != "" {
			t.Errorf("%s: %s", name, r.story())
		}
	}
}
