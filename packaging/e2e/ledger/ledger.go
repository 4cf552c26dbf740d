// Package ledger writes to databases without a pause, as clients do, and
// remembers what was acknowledged.
//
// What it guarantees: a write counts once its commit was acknowledged, for the
// server that the connection is with; what it calls lost is such a write that is
// not there. A write whose answer did not come counts for nothing, whatever
// became of it.
//
// What it does not guarantee: to see what is shorter than the time between two
// writes.
package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/deputy-ha/deputy/packaging/e2e/prober"
)

// A Row is one row of the table that writes go to.
type Row struct {
	Way string // how its client connects
	N   int    // its number among those of this way
}

// An Entry is a write that was acknowledged, by the server of this name.
type Entry struct {
	Row
	Server      string
	Sent, Acked prober.Instant
}

// A Ledger is what was acknowledged, in the order in which it was.
type Ledger struct {
	account, password string

	mu      sync.Mutex
	entries []Entry
	lost    map[Row]bool // already told of
}

// New returns an empty one, for clients with an account.
func New(account, password string) *Ledger {
	return &Ledger{account: account, password: password, lost: make(map[Row]bool)}
}

// Table is what an administrator makes for it.
const Table = "CREATE TABLE IF NOT EXISTS ledger.writes (way VARCHAR(20) NOT NULL, n INT NOT NULL, PRIMARY KEY (way, n))"

// A client waits this long: for a connection, and for an answer.
const (
	connectFor = 300 * time.Millisecond
	answerFor  = 2 * time.Second
)

// restFor is the time between two writes of one client.
const restFor = 2 * time.Millisecond

// A Dial connects to a server.
type Dial func(context.Context) (net.Conn, error)

// Open returns connections of the account by dial, which wait so long for an
// answer.
func (l *Ledger) Open(answer time.Duration, dial Dial) (*sql.DB, error) {
	c := driver.NewConfig()
	c.Net, c.User, c.Passwd, c.DBName = "tcp", l.account, l.password, "ledger"
	c.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, connectFor)
		defer cancel()
		return dial(ctx)
	}
	c.Addr = "127.0.0.1:3306" // which dial knows better
	c.ReadTimeout, c.WriteTimeout, c.InterpolateParams, c.Logger = answer, answer, true, silent{}
	connector, err := driver.NewConnector(c)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// Write has a client write until ctx ends. It connects by dial, and anew after
// whatever failure.
func (l *Ledger) Write(ctx context.Context, way string, dial Dial) error {
	db, err := l.Open(answerFor, dial)
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxIdleConns(0)
	for n := 0; ctx.Err() == nil; {
		l.serve(ctx, db, way, &n) // how it ended does not matter: it begins anew
		rest(ctx, restFor)
	}
	return nil
}

// serve writes by one connection, as long as that lasts.
func (l *Ledger) serve(ctx context.Context, db *sql.DB, way string, n *int) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return
	}
	defer conn.Close()
	var server string
	if err := conn.QueryRowContext(ctx, "SELECT @@hostname").Scan(&server); err != nil {
		return
	}
	for ctx.Err() == nil {
		*n++ // also after a failure: the last one may be there
		e := Entry{Row: Row{way, *n}, Server: server, Sent: prober.Now()}
		if _, err := conn.ExecContext(ctx, "INSERT INTO writes (way, n) VALUES (?, ?)", way, *n); err != nil {
			return
		}
		e.Acked = prober.Now()
		l.add(e)
		rest(ctx, restFor)
	}
}

func (l *Ledger) add(e Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, e)
}

// since are the entries that were acknowledged after an instant, in order.
func (l *Ledger) since(from prober.Instant) []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(l.entries), func(e Entry) bool { return e.Acked <= from })
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Compare(a.Acked, b.Acked) })
	return all
}

// Spans returns, in order of time, when each server is proven to have accepted
// writes since an instant.
func (l *Ledger) Spans(from prober.Instant) []prober.Span {
	all := l.since(from)
	replies := make([]prober.Reply, 0, len(all))
	for _, e := range all {
		replies = append(replies, prober.Reply{Asked: e.Sent, Told: e.Acked, By: e.Server})
	}
	return prober.Proven(replies, from)
}

// Pause is the longest time since an instant in which no write was acknowledged,
// up to the last that was.
func (l *Ledger) Pause(from prober.Instant) (longest time.Duration) {
	last := from
	for _, e := range l.since(from) {
		longest = max(longest, e.Acked-last)
		last = e.Acked
	}
	return longest
}

// Served reports whether a server, or any where it is empty, has acknowledged a
// write of this way since an instant.
func (l *Ledger) Served(way, server string, from prober.Instant) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range slices.Backward(l.entries) {
		if e.Acked <= from {
			return false
		}
		if e.Way == way && (server == "" || e.Server == server) {
			return true
		}
	}
	return false
}

// Lost returns the writes acknowledged up to an instant that a server does not
// have, and that were not told of before.
func (l *Ledger) Lost(ctx context.Context, db *sql.DB, until prober.Instant) (lost []Entry, err error) {
	rows, err := db.QueryContext(ctx, "SELECT way, n FROM ledger.writes")
	if err != nil {
		return nil, fmt.Errorf("read what was written: %w", err)
	}
	has := make(map[Row]bool)
	for rows.Next() {
		var r Row
		if err := rows.Scan(&r.Way, &r.N); err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		has[r] = true
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read what was written: %w", err)
	}
	return l.missing(has, until), nil
}

func (l *Ledger) missing(has map[Row]bool, until prober.Instant) (lost []Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e.Acked <= until && !has[e.Row] && !l.lost[e.Row] {
			l.lost[e.Row] = true
			lost = append(lost, e)
		}
	}
	return lost
}

// Count is how many writes were acknowledged.
func (l *Ledger) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries)
}

// silent keeps the driver from printing what is expected here.
type silent struct{}

func (silent) Print(...any) {}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
