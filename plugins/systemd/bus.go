package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// Where systemd is on a bus, see org.freedesktop.systemd1(5).
const (
	pid1Name   = "org.freedesktop.systemd1"
	pid1Path   = dbus.ObjectPath("/org/freedesktop/systemd1")
	pid1       = "org.freedesktop.systemd1.Manager"
	unitObject = "org.freedesktop.systemd1.Unit"
	properties = "org.freedesktop.DBus.Properties"

	// privateBus is systemd's own socket, for root alone, which needs no
	// dbus-daemon: as in a rescue system, or while that restarts.
	privateBus = "unix:path=/run/systemd/private"
)

// The bounds of a connection.
const (
	dialTime  = 2 * time.Second
	warmEvery = 30 * time.Second

	viewAge = 5 * time.Second // what was read is read again then, whatever was told
)

// errLost is a connection that was lost in the middle of something.
var errLost = errors.New("the connection to systemd is lost")

// errGoingDown is a host that shuts down: what is started in the place of what
// the shutdown stops would cancel the shutdown.
var errGoingDown = errors.New("this host is shutting down")

// A bus is the connection to systemd: made when it is first needed, kept, and
// made again after it was lost, as when dbus-daemon restarts.
type bus struct {
	at      place
	service string
	log     *slog.Logger
	dialing chan struct{} // held by who connects
	readers sync.WaitGroup

	mu      sync.Mutex
	now     *link         // nil: none
	news    chan struct{} // closed, and replaced, when anything is heard
	changes int           // of what is known of units: what was read before may be old
}

func newBus(at place, service string, log *slog.Logger) *bus {
	return &bus{at: at, service: service, log: log, dialing: make(chan struct{}, 1), news: make(chan struct{})}
}

// A link is one connection, for as long as it lasts.
type link struct {
	*bus
	conn    *dbus.Conn
	private bool // to systemd itself

	// guarded by the bus's mu
	paths   map[string]dbus.ObjectPath // of units
	views   map[dbus.ObjectPath]view   // what was read and has not changed since
	results map[dbus.ObjectPath]string // of jobs, while some are waited for
	waiting int
	permits map[string]bool // units that this user was seen to be allowed to manage
}

// link returns a connection, and makes one where there is none.
func (b *bus) link(ctx context.Context) (*link, error) {
	select {
	case b.dialing <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("connect to systemd: %w", context.Cause(ctx))
	}
	defer func() { <-b.dialing }()
	b.mu.Lock()
	l := b.now
	b.mu.Unlock()
	if l != nil {
		return l, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, dialTime, fmt.Errorf("no answer within %s", dialTime))
	defer cancel()
	var wrong []error
	for _, address := range b.at.buses {
		if address == privateBus && os.Geteuid() != 0 {
			continue
		}
		l, err := b.dial(ctx, address)
		if err == nil {
			return l, nil
		}
		wrong = append(wrong, fmt.Errorf("%s: %w", strings.TrimPrefix(address, "unix:path="), err))
	}
	return nil, fmt.Errorf("connect to systemd: %w (is dbus installed, and dbus.service running?)", errors.Join(wrong...))
}

// dial connects, and has systemd tell what becomes of units and jobs.
func (b *bus) dial(ctx context.Context, address string) (*link, error) {
	conn, err := dbus.Dial(address, dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	l := &link{
		bus: b, conn: conn, private: address == privateBus,
		paths: map[string]dbus.ObjectPath{}, views: map[dbus.ObjectPath]view{}, results: map[dbus.ObjectPath]string{},
		permits: map[string]bool{},
	}
	if err := l.begin(ctx); err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	b.mu.Lock()
	b.now = l
	b.mu.Unlock()
	signals := make(chan *dbus.Signal, 64)
	conn.Signal(signals)
	b.readers.Go(func() {
		for {
			select {
			case s, ok := <-signals:
				if ok {
					l.hear(s)
					continue
				}
			case <-conn.Context().Done():
			}
			l.lost()
			return
		}
	})
	return l, nil
}

// begin makes a new connection one that systemd tells things.
func (l *link) begin(ctx context.Context) error {
	if err := l.conn.Auth(nil); err != nil {
		return err
	}
	if l.private {
		if err := l.wake(ctx); err != nil {
			return err
		}
	} else if err := l.conn.Hello(); err != nil {
		return err
	}
	for _, member := range []string{"JobRemoved", "Reloading"} {
		if err := l.match(ctx, pid1Path, pid1, member); err != nil {
			return err
		}
	}
	return l.pid1().CallWithContext(ctx, pid1+".Subscribe", 0).Err
}

// wake makes systemd's own socket answer. What arrives there together with the
// end of the authentication is read only when more arrives (sd-bus of 252 and
// 257), so it is asked again and again until there is an answer to one.
func (l *link) wake(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	answers := make(chan *dbus.Call, 1000) // more than fit into dialTime
	for {
		l.pid1().GoWithContext(ctx, "org.freedesktop.DBus.Peer.Ping", 0, answers)
		select {
		case call := <-answers:
			return call.Err
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (l *link) pid1() dbus.BusObject { return l.conn.Object(pid1Name, pid1Path) }

// match has the bus pass a signal on. systemd's own socket passes all on.
func (l *link) match(ctx context.Context, path dbus.ObjectPath, iface, member string) error {
	if l.private {
		return nil
	}
	rule := fmt.Sprintf("type='signal',sender='%s',path='%s',interface='%s',member='%s'", pid1Name, path, iface, member)
	return l.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.AddMatch", 0, rule).Err
}

// hear takes a signal in.
func (l *link) hear(s *dbus.Signal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch s.Name {
	case pid1 + ".JobRemoved": // id, job, unit, result
		if len(s.Body) != 4 || l.waiting == 0 {
			return
		}
		job, _ := s.Body[1].(dbus.ObjectPath)
		l.results[job], _ = s.Body[3].(string)
	case pid1 + ".Reloading": // units may be defined otherwise now
		clear(l.views)
		l.changes++
	case properties + ".PropertiesChanged":
		delete(l.views, s.Path)
		l.changes++
	default:
		return
	}
	l.tell()
}

// lost forgets a connection that has ended.
func (l *link) lost() {
	_ = l.conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now == l {
		l.now = nil
	}
	l.changes++
	l.tell()
}

// tell wakes all who wait for news. The caller holds mu.
func (b *bus) tell() {
	close(b.news)
	b.news = make(chan struct{})
}

// listen returns what is closed at the next news, and how much has changed.
func (b *bus) listen() (news <-chan struct{}, changes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.news, b.changes
}

// close ends the connection.
func (b *bus) close() {
	b.dialing <- struct{}{} // for ever: there will be none
	b.mu.Lock()
	l := b.now
	b.mu.Unlock()
	if l != nil {
		_ = l.conn.Close()
	}
	b.readers.Wait()
}

// keepWarm holds a connection until ctx ends, and sees to it that polkitd is
// there when it is needed: started only then, it takes a tenth of a second.
func (b *bus) keepWarm(ctx context.Context) {
	tick := time.NewTicker(warmEvery)
	defer tick.Stop()
	for {
		b.touch(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (b *bus) touch(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(ctx, dialTime, errors.New("no answer"))
	defer cancel()
	l, err := b.link(ctx)
	if err != nil {
		return // Check tells
	}
	if err := l.pid1().CallWithContext(ctx, "org.freedesktop.DBus.Peer.Ping", 0).Err; errors.Is(err, context.DeadlineExceeded) {
		_ = l.conn.Close() // nothing comes through
	}
	if !l.private && os.Geteuid() != 0 {
		l.conn.Object("org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority").CallWithContext(ctx, "org.freedesktop.DBus.Peer.Ping", 0)
	}
}

// goingDown reports whether the host shuts down, as far as systemd tells.
func (l *link) goingDown(ctx context.Context) bool {
	var state dbus.Variant
	err := l.pid1().CallWithContext(ctx, properties+".Get", 0, pid1, "SystemState").Store(&state)
	return err == nil && state.Value() == "stopping"
}

// run has a job of a unit done, such as StartUnit, and returns its result:
// done, or failed, timeout, canceled, dependency, skipped and so on.
func (l *link) run(ctx context.Context, method, unit string) (string, error) {
	l.mu.Lock()
	l.waiting++
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		if l.waiting--; l.waiting == 0 {
			clear(l.results)
		}
		l.mu.Unlock()
	}()
	var job dbus.ObjectPath
	if err := l.pid1().CallWithContext(ctx, pid1+"."+method, 0, unit, "replace").Store(&job); err != nil {
		return "", l.told(ctx, unit, err)
	}
	for {
		l.mu.Lock()
		result, over := l.results[job]
		news := l.news
		l.mu.Unlock()
		switch {
		case over:
			return result, nil
		case !l.conn.Connected():
			return "", errLost
		}
		select {
		case <-news:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// resetFailed has a unit's failures of before forgotten, which could keep it
// from starting.
func (l *link) resetFailed(ctx context.Context, unit string) error {
	err := l.pid1().CallWithContext(ctx, pid1+".ResetFailedUnit", 0, unit).Err
	return l.told(ctx, unit, unless(err, "NoSuchUnit"))
}

// kill sends a signal to all processes of a unit, of which there may be none. It
// goes to the unit's own object: KillUnit does not know units that are not
// loaded, and says so before it looks who asks.
func (l *link) kill(ctx context.Context, unit string, signal int32) error {
	at, err := l.find(ctx, unit)
	if err != nil {
		return err
	}
	err = l.conn.Object(pid1Name, at).CallWithContext(ctx, unitObject+".Kill", 0, "all", signal).Err
	return l.told(ctx, unit, unless(err, "NoSuchProcess"))
}

// unless is nil for errors of systemd that say that there is nothing to do.
func unless(err error, names ...string) error {
	var said dbus.Error
	if errors.As(err, &said) && slices.Contains(names, strings.TrimPrefix(said.Name, pid1Name+".")) {
		return nil
	}
	return err
}

// errDenied is a unit that this user may not start or stop.
var errDenied = errors.New("not permitted")

// told makes an error of a call one for people.
func (l *link) told(ctx context.Context, unit string, err error) error {
	var said dbus.Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, dbus.ErrClosed):
		return errLost
	case errors.As(err, &said) && (said.Name == "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired" || said.Name == "org.freedesktop.DBus.Error.AccessDenied"):
		return fmt.Errorf("%w: %w: `deputy enable %s` lets deputy manage %s (polkit has to be installed), and so does user = \"root\"", errDenied, err, l.service, unit)
	}
	return err
}
