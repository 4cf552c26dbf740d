package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// Where PID 1 is on the bus, org.freedesktop.systemd1(5).
const (
	busName       = "org.freedesktop.systemd1"
	busPath       = dbus.ObjectPath("/org/freedesktop/systemd1")
	rootInterface = busName + ".Manager"
	unitInterface = busName + ".Unit"

	propertiesInterface = "org.freedesktop.DBus.Properties"

	systemBus  = "unix:path=/run/dbus/system_bus_socket"
	privateBus = "unix:path=/run/systemd/private" // PID 1's own socket, for root alone
)

// What callers branch on.
var (
	// ErrDenied tells that PID 1 does not let this user do that.
	ErrDenied = errors.New("systemd does not permit it")
	// ErrNoBus tells that there is no way to PID 1 just now, so that nothing
	// is known of any unit.
	ErrNoBus = errors.New("systemd cannot be reached over D-Bus")
	// ErrNoUnit tells that there is no such unit.
	ErrNoUnit = errors.New("there is no such unit")
	// ErrGoingDown tells that PID 1 starts nothing any more.
	ErrGoingDown = errors.New("this machine goes down")
	// ErrTaken tells that PID 1 has been asked for what a start would undo.
	ErrTaken = errors.New("another job is in the way")
)

// The bounds of what PID 1 does in milliseconds. One that does not answer at
// all is asked over another connection next time.
const (
	dialTime   = 2 * time.Second
	callTime   = 5 * time.Second
	reloadTime = time.Minute // of thousands of units
)

// A Bus is a lasting connection to PID 1 over D-Bus: the system bus or, where
// there is none and for root alone, PID 1's own socket. It is opened when it is
// first used, and again after it broke. Its methods may be called at the same
// time; each ends with its context.
type Bus struct {
	addresses []string // tried in this order

	opening chan struct{} // has a token while somebody opens the connection

	mu     sync.Mutex
	line   *line
	closed bool
}

// NewBus returns a Bus that is not open yet. Close ends it.
func NewBus() *Bus {
	addresses := []string{systemBusAddress()}
	if os.Geteuid() == 0 {
		addresses = append(addresses, privateBus)
	}
	return &Bus{addresses: addresses, opening: make(chan struct{}, 1)}
}

// systemBusAddress is where the system bus is, dbus-daemon(1).
func systemBusAddress() string {
	if given := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"); given != "" {
		return given
	}
	return systemBus
}

// Close ends the connection, and returns when nothing of it runs any more.
func (b *Bus) Close() error {
	b.opening <- struct{}{} // from now on nobody opens it
	defer func() { <-b.opening }()
	b.mu.Lock()
	l := b.line
	b.line, b.closed = nil, true
	b.mu.Unlock()
	if l == nil {
		return nil
	}
	return l.close()
}

// open returns the connection, and opens it where there is none or the last one
// is broken. The error is ErrNoBus.
func (b *Bus) open(ctx context.Context) (*line, error) {
	select {
	case b.opening <- struct{}{}:
		defer func() { <-b.opening }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrNoBus, context.Cause(ctx))
	}
	b.mu.Lock()
	l, closed := b.line, b.closed
	b.mu.Unlock()
	switch {
	case closed:
		return nil, fmt.Errorf("%w: the connection is closed", ErrNoBus)
	case l != nil && l.works():
		return l, nil
	case l != nil:
		l.close()
	}
	var errs []error
	for _, address := range b.addresses {
		l, err := dial(ctx, address)
		if err == nil {
			b.mu.Lock()
			b.line = l
			b.mu.Unlock()
			return l, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("%w: %w", ErrNoBus, errors.Join(errs...))
}

// A line is one connection, with those who wait for jobs on it.
type line struct {
	conn    *dbus.Conn
	signals chan *dbus.Signal
	over    chan struct{} // closed when nothing comes any more

	mu      sync.Mutex
	waiting map[dbus.ObjectPath][]chan string
	watched map[dbus.ObjectPath][]*func() // what to call when that unit has changed
	asking  int                           // callers that do not know the name of their job yet
	early   map[dbus.ObjectPath]string    // jobs that ended meanwhile
}

// dial connects to one address.
func dial(ctx context.Context, address string) (*line, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, dialTime, fmt.Errorf("no answer within %s", dialTime))
	defer cancel()
	conn, err := connect(ctx, address)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	l := &line{
		conn: conn, signals: make(chan *dbus.Signal, 64), over: make(chan struct{}),
		waiting: map[dbus.ObjectPath][]chan string{}, watched: map[dbus.ObjectPath][]*func(){}, early: map[dbus.ObjectPath]string{},
	}
	conn.Signal(l.signals)
	go l.read() // close waits for it
	return l, nil
}

func connect(ctx context.Context, address string) (*dbus.Conn, error) {
	path, ok := strings.CutPrefix(address, "unix:path=")
	if !ok {
		return nil, errors.New("not the address of a unix socket (unix:path=…)")
	}
	path, _, _ = strings.Cut(path, ",") // a guid may follow
	socket, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	// One that takes the connection and then says nothing must not hold us.
	end := context.AfterFunc(ctx, func() { socket.Close() })
	conn, err := dbus.NewConn(socket)
	if err == nil {
		err = conn.Auth(nil)
	}
	if err == nil && address != privateBus {
		err = listen(conn)
	}
	if !end() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		socket.Close()
		return nil, err
	}
	return conn, nil
}

// listen begins a connection to a bus, where PID 1 tells the end of jobs to all
// who want to hear it, if one of them has asked for the job.
func listen(conn *dbus.Conn) error {
	if err := conn.Hello(); err != nil {
		return err
	}
	return conn.AddMatchSignal(dbus.WithMatchInterface(rootInterface), dbus.WithMatchMember("JobRemoved"), dbus.WithMatchObjectPath(busPath))
}

func (l *line) works() bool { return l.conn.Connected() }

func (l *line) close() error {
	err := l.conn.Close()
	<-l.over
	return err
}

// read hands the results of jobs to those who wait for them, and tells who watches
// a unit.
func (l *line) read() {
	defer close(l.over)
	defer l.conn.Close()       // what ends the signals may be half done, and calls taken until it is
	for s := range l.signals { // closed with the connection
		if s.Name == propertiesInterface+".PropertiesChanged" {
			l.mu.Lock()
			for _, changed := range l.watched[s.Path] {
				(*changed)()
			}
			l.mu.Unlock()
		}
		if s.Name != rootInterface+".JobRemoved" || len(s.Body) < 4 {
			continue
		}
		job, _ := s.Body[1].(dbus.ObjectPath)
		result, _ := s.Body[3].(string)
		l.mu.Lock()
		for _, c := range l.waiting[job] {
			c <- result
		}
		delete(l.waiting, job)
		if l.asking > 0 {
			l.early[job] = result
		}
		l.mu.Unlock()
	}
}

// call calls a method of PID 1, and closes a connection that does not answer.
func (l *line) call(ctx context.Context, path dbus.ObjectPath, method string, args ...any) *dbus.Call {
	return l.callWithin(ctx, callTime, path, method, args...)
}

func (l *line) callWithin(ctx context.Context, bound time.Duration, path dbus.ObjectPath, method string, args ...any) *dbus.Call {
	bounded, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("no answer within %s", bound))
	defer cancel()
	c := l.conn.Object(busName, path).CallWithContext(bounded, method, 0, args...)
	switch {
	case c.Err == nil:
	case bounded.Err() != nil && ctx.Err() == nil:
		l.conn.Close()
		c.Err = fmt.Errorf("%w: %w", ErrNoBus, context.Cause(bounded))
	case ctx.Err() != nil:
		c.Err = context.Cause(ctx)
	default:
		if !errors.As(c.Err, new(dbus.Error)) { // broken, not answered: whoever comes next opens another
			l.conn.Close()
		}
		c.Err = meaning(c.Err)
	}
	return c
}

// property asks for one property of an object.
func (l *line) property(ctx context.Context, path dbus.ObjectPath, owner, name string) (value any, err error) {
	var v dbus.Variant
	call := l.call(ctx, path, propertiesInterface+".Get", owner, name)
	if err = call.Err; err == nil {
		err = call.Store(&v)
	}
	return v.Value(), err
}

// meaning tells errors of the bus apart.
func meaning(err error) error {
	var answer dbus.Error
	if !errors.As(err, &answer) {
		return fmt.Errorf("%w: %w", ErrNoBus, err)
	}
	if strings.Contains(answer.Error(), "polkit") { // which is asked, and cannot be started
		return fmt.Errorf("%w: %w", ErrDenied, answer)
	}
	switch answer.Name {
	case "org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
		"org.freedesktop.DBus.Error.AuthFailed":
		return fmt.Errorf("%w: %w", ErrDenied, answer)
	case busName + ".TransactionIsDestructive":
		return fmt.Errorf("%w: %w", ErrTaken, answer)
	case busName + ".NoSuchUnit", busName + ".LoadFailed":
		return fmt.Errorf("%w: %w", ErrNoUnit, answer)
	case "org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Disconnected",
		"org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner":
		return fmt.Errorf("%w: %w", ErrNoBus, answer)
	}
	return answer
}
