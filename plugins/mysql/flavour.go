package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A flavour is what differs between the kinds of servers: their statements,
// their variables, and the algebra of their histories.
type flavour interface {
	// kind is the server's name, for people.
	kind() string
	// look reads what the server says of itself.
	look(ctx context.Context, l *link) (facts, error)
	// begins reports whether the server says that it starts read-only; known is
	// false once somebody has changed that in the running one.
	begins(ctx context.Context, l *link) (readOnly, known bool, err error)
	// listThreads lists threads: id, user, command, state, statement.
	listThreads() string
	// listWriters lists the threads with open transactions that have written.
	listWriters() string

	// listPrepared lists XA transactions that are prepared and that could still be
	// committed while the server is read-only; empty where none could.
	listPrepared() string

	// shut makes the server read-only, openUp makes it writable.
	shut() string
	openUp() []string
	// offline cuts all connections but those of administrators, and keeps them
	// out while it is on; empty where there is no such thing.
	offline(on bool) string

	// receive and apply start and stop the two halves of replication.
	receive(on bool) string
	aroundStop(f facts) (before, after []string) // what stopping to receive takes besides
	apply(on bool) string
	// forget ends replication and its configuration.
	forget() []string
	// follow points replication to an address, with settings.
	follow(host string, r replicationSettings) (statement string, args []any)
	// begin starts replication from a primary that is heard of so often.
	begin(heartbeat time.Duration) []string
	// awaitApplied is a statement that returns when transactions are applied, or
	// after some seconds.
	awaitApplied(h history, within time.Duration) string
	// semiSync sets the sides of semi-synchronous replication, as far as the
	// server has them.
	semiSync(f facts, source, replica bool) []string

	// privileges are what the account needs on *.*, each with what for.
	privileges() []privilege
}

// flavourOf knows a server by its version, if it is one that is known here.
func flavourOf(version string) (flavour, error) {
	found := versionPattern.FindStringSubmatch(version)
	if found == nil {
		return nil, fmt.Errorf("version %q is of no server that is known here", version)
	}
	var n [3]int
	for i := range n {
		n[i], _ = strconv.Atoi(found[i+1])
	}
	least, f := [3]int{8, 0, 22}, flavour(mysql8{})
	if strings.Contains(version, "MariaDB") {
		least, f = [3]int{10, 11, 0}, mariadb{}
	}
	if slices.Compare(n[:], least[:]) < 0 {
		return nil, fmt.Errorf("%s %s is too old: %d.%d.%d is the first that this plugin knows", f.kind(), found[0], least[0], least[1], least[2])
	}
	return f, nil
}

var versionPattern = regexp.MustCompile(`(\d+)\.(\d+)\.(\d+)`)

// facts are what a server says of itself.
type facts struct {
	readOnly bool // as far as the server can be; MySQL: super_read_only too
	some     bool // read_only alone, which lets administrators write
	offline  bool

	serverID string // unique among the servers of a service
	binlog   bool
	relays   bool   // what it applies goes into its own binary log
	gtid     string // what is wrong with it; empty when nothing is
	cluster  string // that decides by itself who is primary; empty when none
	events   string // ON, OFF, DISABLED
	variable map[string]string

	applied  history
	position string // of what is applied, as awaitApplied of another server takes it
}

// received is the history of all that the server has, applied or not.
func (f *facts) received(channels []channel) history {
	h := f.applied
	for _, c := range channels {
		if c.received != nil {
			h = h.plus(c.received)
		}
	}
	return h
}

// A channel is one source that the server replicates from.
type channel struct {
	name, host, port  string
	receives, applies string // Yes, No, Connecting, Preparing
	receiveFault      string
	applyFault        string
	filters           string
	gtid              bool // it asks its source by GTID
	delay             string
	behind            string // seconds; empty when not known
	received          history
}

// healthy reports whether both halves of replication work.
func (c *channel) healthy() bool { return c.receives == "Yes" && c.applies == "Yes" }

func (c *channel) source() string { return c.host + ":" + c.port }

// channels reads what the server replicates from.
func (l *link) channels(ctx context.Context) ([]channel, error) {
	query, get := "SHOW ALL SLAVES STATUS", newNames
	if _, ok := l.flavour.(mysql8); ok {
		query = "SHOW REPLICA STATUS"
	}
	rows, err := l.rows(ctx, query)
	if err != nil {
		return nil, err
	}
	var all []channel
	for _, r := range rows {
		c := channel{
			name: get(r, "Channel_Name", "Connection_name"),
			host: get(r, "Source_Host", "Master_Host"), port: get(r, "Source_Port", "Master_Port"),
			receives: get(r, "Replica_IO_Running", "Slave_IO_Running"), applies: get(r, "Replica_SQL_Running", "Slave_SQL_Running"),
			receiveFault: r["Last_IO_Error"], applyFault: r["Last_SQL_Error"],
			delay: r["SQL_Delay"], behind: get(r, "Seconds_Behind_Source", "Seconds_Behind_Master"),
			gtid: r["Auto_Position"] == "1" || r["Using_Gtid"] == "Slave_Pos" || r["Using_Gtid"] == "Current_Pos",
		}
		for _, key := range slices.Sorted(maps.Keys(r)) {
			if strings.HasPrefix(key, "Replicate_") && r[key] != "" && r[key] != "0" && key != "Replicate_Rewrite_DB" {
				c.filters = key
			}
		}
		if _, ok := l.flavour.(mysql8); ok {
			c.received, err = readSet(r["Retrieved_Gtid_Set"])
		} else {
			c.received, err = readState(r["Gtid_IO_Pos"], false)
		}
		if err != nil {
			return nil, err
		}
		if c.host != "" {
			all = append(all, c)
		}
	}
	return all, nil
}

// newNames is a column by its new name or its old one.
func newNames(row map[string]string, now, before string) string {
	if v, ok := row[now]; ok {
		return v
	}
	return row[before]
}

// A thread is one that the server runs.
type thread struct {
	id                   uint64
	user, command, state string
	statement            string
}

// threads lists the server's threads.
func (l *link) threads(ctx context.Context) ([]thread, error) {
	rows, err := l.rows(ctx, l.listThreads())
	if err != nil {
		return nil, err
	}
	var all []thread
	for _, r := range rows {
		id, err := strconv.ParseUint(newNames(r, "id", "Id"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("read the list of threads: %w", err)
		}
		all = append(all, thread{
			id: id, user: newNames(r, "user", "User"), command: newNames(r, "command", "Command"),
			state: newNames(r, "state", "State"), statement: newNames(r, "statement", "Info"),
		})
	}
	return all, nil
}

// system reports whether a thread is the server's own, or sends its binary log.
func (t *thread) system() bool {
	return t.user == "system user" || t.user == "event_scheduler" || t.user == "unauthenticated user" ||
		t.command == "Daemon" || t.dumps()
}

// dumps reports whether a thread sends the binary log to a replica.
func (t *thread) dumps() bool { return strings.HasPrefix(t.command, "Binlog Dump") }

// String tells of a thread, for people.
func (t *thread) String() string {
	what := t.command
	if t.state != "" {
		what += ", " + strings.ToLower(t.state)
	}
	if t.statement != "" {
		what += ": " + strings.Join(strings.Fields(t.statement), " ")
	}
	return fmt.Sprintf("%d of %s (%s)", t.id, t.user, what)
}

// kill ends a thread's connection. One that has ended already is none.
func (l *link) kill(ctx context.Context, id uint64) error {
	err := l.exec(ctx, readBound, "KILL CONNECTION "+strconv.FormatUint(id, 10))
	if number(err) == errNoSuchThread {
		return nil
	}
	return err
}

// killBound is how long killed threads may take to be gone.
const killBound = 2 * time.Second

// endOthers ends the other connections of this plugin's own account, but those
// that this process has in use, and returns when they are gone: what an act of
// before has asked for must not happen after the proof. A server goes on with
// a statement whose client is gone, and reads what was sent before it stopped.
func (l *link) endOthers(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, killBound, fmt.Errorf("not within %s", killBound))
	defer cancel()
	for {
		all, err := l.threads(ctx)
		if err != nil {
			return fmt.Errorf("end connections of before: %w", err)
		}
		var left []string
		for _, t := range all {
			l.mu.Lock()
			inUse := l.server.own[t.id]
			l.mu.Unlock()
			if t.user != l.user || t.id == l.id || inUse || t.dumps() {
				continue
			}
			if err := l.kill(ctx, t.id); err != nil {
				return fmt.Errorf("end connections of before: %w", err)
			}
			left = append(left, t.String())
		}
		if len(left) == 0 {
			return nil
		}
		if err := sleep(ctx, pollEvery); err != nil {
			return fmt.Errorf("end connections of before: %w: there still is %s", err, strings.Join(left, "; "))
		}
	}
}

// pollEvery is how often is looked again for what nobody tells.
const pollEvery = 3 * time.Millisecond

// sleep waits, and returns why ctx has ended, if it has.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// variables reads variables of the server, those that it has.
func (l *link) variables(ctx context.Context, names ...string) (map[string]string, error) {
	marks := strings.TrimSuffix(strings.Repeat("?,", len(names)), ",")
	args := make([]any, len(names))
	for i, n := range names {
		args[i] = n
	}
	return l.pairs(ctx, "SHOW GLOBAL VARIABLES WHERE Variable_name IN ("+marks+")", args...)
}

// one reads a value of any length, which SHOW VARIABLES would cut.
func (l *link) one(ctx context.Context, expression string) (string, error) {
	rows, err := l.rows(ctx, "SELECT "+expression+" AS v")
	if err != nil {
		return "", err
	}
	if len(rows) != 1 {
		return "", errors.New("SELECT " + expression + ": no answer")
	}
	return rows[0]["v"], nil
}
