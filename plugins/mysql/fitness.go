package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// unsuited tells why a server is not for this plugin, however it is at the
// moment.
func (m *mysql) unsuited(ctx context.Context, l *link, f facts, channels []channel) error {
	var wrong []error
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if f.cluster != "" {
		complain("the server is in a cluster by %s, which decides by itself who may write: this plugin is for replication from one primary", f.cluster)
	}
	if len(channels) > 1 {
		complain("it replicates from %d sources, and this plugin knows only of one: RESET REPLICA ALL for the others", len(channels))
	}
	if !f.binlog {
		complain("log_bin is off, so that nobody could follow it: set log_bin in the server's option file")
	}
	if !f.relays {
		complain("what it replicates is not in its own binary log: set log_slave_updates = 1 (MySQL: log_replica_updates = 1) in the server's option file")
	}
	if f.gtid != "" {
		complain("%s", f.gtid)
	}
	for _, c := range channels {
		if c.filters != "" {
			complain("%s leaves transactions out, so that it never has all: remove the filter", c.filters)
		}
		if c.delay != "" && c.delay != "0" {
			complain("it follows with a delay of %s s on purpose: set that to 0", c.delay)
		}
	}
	if m.ReadOnly == "refuse" {
		if err := m.startsWritable(ctx, l); err != nil {
			wrong = append(wrong, err)
		}
	}
	return errors.Join(wrong...)
}

// soundFor is for how long a server that was seen to start read-only is not looked
// at for that: a promotion need not wait for what a check has just found.
const soundFor = 5 * time.Second

// startsWritable tells where a server is seen to start writable, which one that
// crashed must not.
func (m *mysql) startsWritable(ctx context.Context, l *link) error {
	m.mu.Lock()
	sound := time.Since(m.sound) < soundFor
	m.mu.Unlock()
	if sound {
		return nil
	}
	readOnly, known, err := l.begins(ctx, l)
	if err != nil {
		return err
	}
	if !known { // it was changed in the running server
		readOnly, known = startsReadOnly(m.ServerConfig)
	}
	if known && !readOnly {
		return errors.New("the server starts writable, so that one that crashed comes back as a second primary: set read_only = 1 in its option file (MySQL: super_read_only = 1, too)")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sound = time.Now()
	return nil
}
