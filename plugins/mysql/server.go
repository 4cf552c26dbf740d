package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	driver "github.com/go-sql-driver/mysql"
)

// A server is the database server of this node, as deputy's account reaches it.
type server struct {
	at   endpoint
	wait time.Duration // for a connection to be made, until the server has greeted

	mu  sync.Mutex
	own map[uint64]bool // threads of the server that serve this process
}

// An endpoint is where a server is and who asks.
type endpoint struct {
	network, address string
	user, password   string
	tls              *tls.Config // nil: none
}

// A link is one connection: what is set in it holds for one act alone, which no
// pool of connections would see to.
type link struct {
	*server
	flavour
	db   *sql.DB
	conn *sql.Conn
	id   uint64 // the thread of the server that serves it
	user string // as the server's list of threads has it

	bound string // that is set in it: see set
}

// errFrozen is a server that lets in and does not greet: the kernel accepts
// connections for it, whatever it does itself.
var errFrozen = errors.New("it accepts connections and does not greet: it is frozen, or has no time")

func newServer(at endpoint, wait time.Duration) *server {
	return &server{at: at, wait: wait, own: map[uint64]bool{}}
}

// connect makes a connection. An act that begins may end it before this process
// knows that it is its own; so one that is lost is made again, once.
func (s *server) connect(ctx context.Context) (*link, error) {
	l, err := s.dial(ctx)
	if err != nil && ctx.Err() == nil && (errors.Is(err, driver.ErrInvalidConn) || errors.Is(err, sqldriver.ErrBadConn) || errors.Is(err, io.EOF) || number(err) == errKilled) {
		return s.dial(ctx)
	}
	return l, err
}

func (s *server) dial(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.wait, fmt.Errorf("no answer within %s", s.wait))
	defer cancel()
	c := driver.NewConfig()
	c.User, c.Passwd = s.at.user, s.at.password
	c.Net, c.Addr = s.at.network, s.at.address
	c.TLS = s.at.tls
	c.InterpolateParams = true // statements of administration cannot be prepared
	c.Logger = quiet{}
	reached := false
	c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		reached = err == nil
		return conn, err
	}
	connector, err := driver.NewConnector(c)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", s, err)
	}
	l := &link{server: s, db: sql.OpenDB(connector)}
	if l.conn, err = l.db.Conn(ctx); err == nil {
		err = l.greet(ctx)
	}
	if err == nil {
		return l, nil
	}
	l.close()
	switch {
	case ctx.Err() != nil && reached:
		err = fmt.Errorf("%w (%w)", errFrozen, context.Cause(ctx))
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return nil, fmt.Errorf("connect to %s: %w", s, s.explain(err))
}

// greet finds out whom the connection is with.
func (l *link) greet(ctx context.Context) error {
	var version string
	if err := l.conn.QueryRowContext(ctx, "SELECT CONNECTION_ID(), VERSION(), SUBSTRING_INDEX(USER(), '@', 1)").Scan(&l.id, &version, &l.user); err != nil {
		return err
	}
	l.mu.Lock()
	l.own[l.id] = true
	l.mu.Unlock()
	var err error
	l.flavour, err = flavourOf(version)
	return err
}

// close ends the connection. What it has asked for may still be done: see
// endOthers.
func (l *link) close() {
	if l.conn != nil {
		_ = l.conn.Close()
	}
	_ = l.db.Close()
	l.mu.Lock()
	delete(l.own, l.id)
	l.mu.Unlock()
}

func (s *server) String() string { return s.at.address }

// exec has the server do something, bounded here. What bounds it on the
// server's side is set in its session, or is the end of its thread: see
// endOthers.
func (l *link) exec(ctx context.Context, within time.Duration, query string, args ...any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("no answer within %s", within))
	defer cancel()
	_, err := l.conn.ExecContext(ctx, query, args...)
	return l.failed(ctx, query, err)
}

// failed tells of a statement's failure, without its values.
func (l *link) failed(ctx context.Context, query string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	words := strings.Fields(query)
	return fmt.Errorf("%s: %w", strings.Join(words[:min(len(words), 4)], " "), l.explain(err))
}

// execAll is exec for several statements in order.
func (l *link) execAll(ctx context.Context, within time.Duration, statements []string) error {
	for _, s := range statements {
		if err := l.exec(ctx, within, s); err != nil {
			return err
		}
	}
	return nil
}

// rows returns all of a statement's rows, as texts by the names of their
// columns; NULL is empty, and absent from none.
func (l *link) rows(ctx context.Context, query string, args ...any) ([]map[string]string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, readBound, fmt.Errorf("no answer within %s", readBound))
	defer cancel()
	rows, err := l.conn.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, l.failed(ctx, query, err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return nil, l.failed(ctx, query, err)
	}
	var all []map[string]string
	for rows.Next() {
		values, into := make([]sql.RawBytes, len(names)), make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, l.failed(ctx, query, err)
		}
		row := make(map[string]string, len(names))
		for i, n := range names {
			row[n] = string(values[i])
		}
		all = append(all, row)
	}
	return all, l.failed(ctx, query, rows.Err())
}

// readBound is how long the server may take to tell something of itself.
const readBound = 5 * time.Second

// pairs returns a statement's rows of a name and a value, the names in small
// letters.
func (l *link) pairs(ctx context.Context, query string, args ...any) (map[string]string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, readBound, fmt.Errorf("no answer within %s", readBound))
	defer cancel()
	rows, err := l.conn.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, l.failed(ctx, query, err)
	}
	defer rows.Close()
	all := map[string]string{}
	for rows.Next() {
		var name string
		var value sql.NullString
		if err := rows.Scan(&name, &value); err != nil {
			return nil, l.failed(ctx, query, err)
		}
		all[strings.ToLower(name)] = value.String
	}
	return all, l.failed(ctx, query, rows.Err())
}

// quiet keeps the driver from writing beside the log.
type quiet struct{}

func (quiet) Print(...any) {}

// Numbers of errors of servers, the same in MySQL and MariaDB.
const (
	errTooManyConnections = 1040
	errAccessDenied       = 1045
	errNoSuchThread       = 1094
	errNotOwner           = 1095
	errSelectDenied       = 1142
	errLockWait           = 1205
	errSpecificAccess     = 1227
	errUserLimit          = 1203
	errNoLogin            = 1698
	errKilled             = 1927
	errInterrupted        = 1317
)

// number is the server's own number of an error; zero is none.
func number(err error) uint16 {
	var of *driver.MySQLError
	if errors.As(err, &of) {
		return of.Number
	}
	return 0
}

// saturated reports whether a server is alive and full.
func saturated(err error) bool {
	n := number(err)
	return n == errTooManyConnections || n == errUserLimit
}

// tlsOf makes TLS of files; an empty ca trusts what the system does.
func tlsOf(ca, cert, key, name string, verify bool) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: name, InsecureSkipVerify: !verify}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("read authority: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read authority %s: it holds no certificate", ca)
		}
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("read certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// endpoint is where the settings say that this node's server is.
func (s *settings) endpoint() (endpoint, error) {
	e := endpoint{network: "unix", address: s.Socket, user: s.User, password: s.Password}
	t := s.TLS
	if s.DefaultsFile != "" {
		file, err := readOptions(s.DefaultsFile, true)
		if err != nil {
			return e, err
		}
		client := file["client"]
		fill(&e.user, client["user"])
		fill(&e.password, client["password"])
		fill(&t.CA, client["ssl-ca"])
		fill(&t.Cert, client["ssl-cert"])
		fill(&t.Key, client["ssl-key"])
		if said := client["socket"]; said != "" {
			e.address = said
		}
		if host := client["host"]; host != "" && client["socket"] == "" && s.Address == "" && host != "localhost" {
			port := client["port"]
			fill(&port, "3306")
			e.network, e.address = "tcp", net.JoinHostPort(host, port)
		}
	}
	fill(&e.user, "deputy")
	if s.Address != "" {
		e.network, e.address = "tcp", s.Address
	}
	if t.Mode == "off" {
		return e, nil
	}
	host, _, _ := net.SplitHostPort(e.address)
	fill(&t.ServerName, host)
	var err error
	e.tls, err = tlsOf(t.CA, t.Cert, t.Key, t.ServerName, t.Mode == "verify")
	return e, err
}

// fill gives an empty text a value.
func fill(into *string, value string) {
	if *into == "" {
		*into = value
	}
}

// other is the server of another node, as the account of replication reaches it.
func (s *settings) other(host string) (endpoint, error) {
	r := s.Replication
	e := endpoint{network: "tcp", address: net.JoinHostPort(host, strconv.Itoa(r.Port)), user: r.User, password: r.Password}
	if !r.TLS {
		return e, nil
	}
	var err error
	e.tls, err = tlsOf(r.CA, "", "", host, r.CA != "")
	return e, err
}
