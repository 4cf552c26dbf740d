package systemd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/godbus/dbus/v5"
)

// Where logind is on the bus, org.freedesktop.login1(5).
const (
	loginName      = "org.freedesktop.login1"
	loginPath      = dbus.ObjectPath("/org/freedesktop/login1")
	loginInterface = loginName + ".Manager"
	ownerChanged   = "org.freedesktop.DBus.NameOwnerChanged"
)

// The bounds of a delay. logind itself goes on after InhibitDelayMaxSec, which
// is 5 s where nobody has changed it (logind.conf(5)).
const (
	delayTime   = 4 * time.Second
	againTime   = 30 * time.Second // from a try to reach logind that came to nothing to the next
	inhibitTime = 5 * time.Second
)

// An Inhibitor delays shutdown, reboot and suspend of this machine until the
// roles here are handed over: at most for 4 s. It does nothing where there is no
// logind; the order of units then has to do.
type Inhibitor struct {
	Who string // for `systemd-inhibit --list`
	// Away has this node lead nothing. It returns once nothing is led, or ctx
	// ends.
	Away func(ctx context.Context, why error)
	// Back lets it lead again.
	Back func()
	Log  *slog.Logger

	address string // empty: the system bus
	left    bool   // Away was called, and Back was not yet
}

// What a machine is about to do.
var (
	errShutdown = errors.New("this machine shuts down")
	errSleep    = errors.New("this machine goes to sleep")
	errNoLogind = errors.New("logind is gone")
)

// Run holds the locks until ctx ends.
func (i *Inhibitor) Run(ctx context.Context) {
	if i.address == "" {
		i.address = systemBusAddress()
	}
	said := false
	for ctx.Err() == nil {
		if err := i.watch(ctx); err != nil && !said && ctx.Err() == nil {
			said = true
			i.Log.Debug("shutdown and suspend are not delayed: the order of units has to do", "cause", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(againTime):
		}
	}
}

// watch holds the locks on one connection, until that breaks or ctx ends.
func (i *Inhibitor) watch(ctx context.Context) error {
	dialling, cancel := context.WithTimeoutCause(ctx, dialTime, fmt.Errorf("no answer within %s", dialTime))
	conn, err := connectForFiles(dialling, i.address)
	cancel()
	if err != nil {
		return fmt.Errorf("connect to %s: %w", i.address, err)
	}
	defer conn.Close()
	for _, match := range [][]dbus.MatchOption{
		{dbus.WithMatchInterface(loginInterface), dbus.WithMatchObjectPath(loginPath)},
		{dbus.WithMatchInterface("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, loginName)},
	} {
		asking, cancel := context.WithTimeout(ctx, inhibitTime)
		err := conn.AddMatchSignalContext(asking, match...)
		cancel()
		if err != nil {
			return fmt.Errorf("listen to logind: %w", err)
		}
	}
	signals := make(chan *dbus.Signal, 16)
	conn.Signal(signals)
	held, err := i.lock(ctx, conn)
	if err != nil {
		return err
	}
	defer func() { release(held) }()
	for {
		select {
		case s, open := <-signals:
			if !open {
				return errors.New("the connection to the bus is broken")
			}
			if held, err = i.heed(ctx, conn, s, held); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// connectForFiles is connect for calls that are answered with a descriptor, which
// only the bus library's own sockets take.
func connectForFiles(ctx context.Context, address string) (*dbus.Conn, error) {
	conn, err := dbus.Dial(address)
	if err != nil {
		return nil, err
	}
	end := context.AfterFunc(ctx, func() { conn.Close() })
	if err = conn.Auth(nil); err == nil {
		err = conn.Hello()
	}
	if !end() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// heed does what a signal asks for, and returns the locks that are held then.
func (i *Inhibitor) heed(ctx context.Context, conn *dbus.Conn, s *dbus.Signal, held []*os.File) ([]*os.File, error) {
	why := map[string]error{loginInterface + ".PrepareForShutdown": errShutdown, loginInterface + ".PrepareForSleep": errSleep}[s.Name]
	switch {
	case s.Name == ownerChanged:
		release(held)
		if len(s.Body) == 3 && s.Body[2] == "" {
			return nil, errNoLogind // asked for again later, which may start it
		}
	case why == nil || len(s.Body) != 1:
		return held, nil
	case s.Body[0] == true:
		i.Log.Info("roles are handed over", "cause", why)
		leaving, cancel := context.WithTimeoutCause(ctx, delayTime, fmt.Errorf("not within %s", delayTime))
		defer cancel()
		i.left = true
		i.Away(leaving, why)
		release(held)
		return nil, nil
	default: // awake again, or the shutdown is cancelled
		release(held)
		i.comeBack()
	}
	return i.lock(ctx, conn)
}

// comeBack lets this node lead again.
func (i *Inhibitor) comeBack() {
	i.left = false
	i.Back()
}

// lock takes the delay locks. They are released by closing the files. logind gives
// none while the machine goes down or to sleep: what it was left for is over then,
// if that was said while nobody listened.
func (i *Inhibitor) lock(ctx context.Context, conn *dbus.Conn) (held []*os.File, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, inhibitTime, fmt.Errorf("no answer within %s", inhibitTime))
	defer cancel()
	// One for each: for a lock of both systemd 252 wants a permission that only
	// who sits at the machine has.
	for _, what := range []string{"shutdown", "sleep"} {
		var fd dbus.UnixFD
		err := conn.Object(loginName, loginPath).CallWithContext(ctx, loginInterface+".Inhibit", 0,
			what, i.Who, "hands over its roles", "delay").Store(&fd)
		if err != nil {
			release(held)
			return nil, fmt.Errorf("delay %s: %w", what, err)
		}
		held = append(held, os.NewFile(uintptr(fd), "inhibitor"))
	}
	if i.left {
		i.comeBack()
	}
	return held, nil
}

func release(held []*os.File) {
	for _, lock := range held {
		lock.Close()
	}
}
