package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
)

// run is the parser as a unit of systemd. There are no hooks then: the plugin
// systemd starts and stops the unit, the unit's EnvironmentFile= says for which
// term, and the lock only keeps a second one off that was started by hand.
func (p parser) run(ctx context.Context, a act) (int, error) {
	if a.term == 0 {
		return exitUsage, errors.New("no term given: DEPUTY_TERM comes with the unit's EnvironmentFile=")
	}
	lock, err := p.lock()
	if errors.Is(err, errHeld) {
		defer lock.Close()
		return exitUnchanged, fmt.Errorf("process %d runs already", readHolder(lock).PID)
	}
	if err != nil {
		return exitUnchanged, err
	}
	defer lock.Close()
	if err := errors.Join(lock.Truncate(0), writeHolder(lock, holder{PID: os.Getpid(), Term: a.term, Own: p.own})); err != nil {
		return exitUnchanged, err
	}
	return p.work(ctx, a, notifyReady)
}

// notifyReady tells systemd that the unit is up, see sd_notify(3).
func notifyReady() error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	c, err := net.Dial("unixgram", path)
	if err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("READY=1")); err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	return nil
}
