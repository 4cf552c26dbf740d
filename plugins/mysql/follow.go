package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// Follow points replication to the primary, unless this server has transactions
// that the primary lacks.
func (m *mysql) Follow(ctx context.Context, t *sdk.Transition) error {
	if m.Replication.User == "" {
		sdk.Note(ctx, "replication is left alone: replication.user is not given")
		return nil
	}
	if t.Primary.Address == "" {
		return sdk.Refuse(fmt.Errorf("follow %s: it has published no address", t.Primary.Node))
	}
	primary := m.call(ctx, t.Primary) // while there is something else to do
	defer primary.hangUp()
	l, err := m.begin(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	f, err := l.look(ctx, l)
	if err != nil {
		return err
	}
	if !f.readOnly {
		return errors.New("follow: the server is writable")
	}
	if err := m.granted(ctx, l); err != nil {
		return refusal(err)
	}
	channels, err := l.channels(ctx)
	if err != nil {
		return err
	}
	if err := m.unsuited(ctx, l, f, channels); err != nil {
		return sdk.Refuse(err)
	}
	source := net.JoinHostPort(t.Primary.Address, strconv.Itoa(m.Replication.Port))
	if len(channels) == 1 && channels[0].source() == t.Primary.Address+":"+strconv.Itoa(m.Replication.Port) && channels[0].gtid && channels[0].healthy() && !f.offline {
		return fmt.Errorf("it follows %s: %w", source, sdk.ErrAlready)
	}
	if len(channels) > 0 {
		if err := errors.Join(l.stopReceiving(ctx, f), l.set(ctx, statementBound, l.apply(false))); err != nil {
			return fmt.Errorf("stop replication: %w", err)
		}
		if f, err = l.look(ctx, l); err != nil {
			return err
		}
	}
	extra, err := primary.lacks(ctx, f)
	if err != nil {
		return fmt.Errorf("ask %s what it has: %w", source, err)
	}
	if extra != "" {
		why := fmt.Errorf("needs_rebuild: this server has transactions that %s lacks: %s; it stays read-only and follows nobody until it is made anew from a copy of the primary", t.Primary.Node, brief(extra))
		m.diverge(why.Error())
		return sdk.Refuse(why)
	}
	m.diverge("")
	statement, args := l.follow(t.Primary.Address, m.Replication)
	if err := l.exec(ctx, statementBound, statement, args...); err != nil {
		return fmt.Errorf("follow %s: %w", source, err)
	}
	if err := m.sides(ctx, l, f, false); err != nil {
		return err
	}
	if offline := l.offline(false); offline != "" && f.offline {
		if err := l.set(ctx, statementBound, offline); err != nil {
			return err
		}
	}
	if err := l.set(ctx, statementBound, l.flavour.begin(m.Replication.Heartbeat)...); err != nil {
		return fmt.Errorf("follow %s: %w", source, err)
	}
	if err := l.awaitHealthy(ctx); err != nil {
		return fmt.Errorf("follow %s: %w", source, err)
	}
	sdk.Note(ctx, "it follows %s from %s", source, brief(f.position))
	return nil
}

// lacks are the transactions of this server that the one called lacks. It asks
// after this one has stopped, so that only what is really too much is.
func (c *call) lacks(ctx context.Context, f facts) (string, error) {
	if <-c.made; c.err != nil {
		return "", c.err
	}
	theirs, err := c.link.look(ctx, c.link)
	if err != nil {
		return "", err
	}
	if theirs.serverID == f.serverID {
		return "", fmt.Errorf("it has this server's own id %s: is it this server, or a copy whose server_id (MySQL: server_uuid in auto.cnf) is still the same", f.serverID)
	}
	return f.applied.without(theirs.applied), nil
}

// healthyBound is how long replication may take to begin.
const healthyBound = 10 * time.Second

// awaitHealthy waits until both halves of replication work.
func (l *link) awaitHealthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, healthyBound, fmt.Errorf("not within %s", healthyBound))
	defer cancel()
	for {
		channels, err := l.channels(ctx)
		if err != nil {
			return err
		}
		state := "no replication"
		if len(channels) == 1 {
			c := channels[0]
			if c.healthy() {
				return nil
			}
			state = fmt.Sprintf("receives: %s %s, applies: %s %s", c.receives, c.receiveFault, c.applies, c.applyFault)
			if c.applies == "No" && c.applyFault != "" {
				return errors.New(state)
			}
		}
		if err := sleep(ctx, pollEvery); err != nil {
			return fmt.Errorf("%w (%s)", err, state)
		}
	}
}
