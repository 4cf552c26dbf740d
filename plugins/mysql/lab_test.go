package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/deputy-ha/deputy/sdk"
)

// A kind is a server's program and what differs in how a test starts it.
type kind struct {
	name    string
	program string
	flavour flavour
	options []string
}

// kinds are the servers that there are on this machine: MariaDB, which CI has
// to have, and MySQL where DEPUTY_TEST_MYSQLD names its program.
func kinds(t *testing.T) []kind {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real servers")
	}
	path, err := exec.LookPath("mariadbd")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no mariadbd, which package mariadb-server brings: %v", err)
		}
		t.Skipf("no mariadbd, which package mariadb-server brings: %v", err)
	}
	all := []kind{{"MariaDB", path, mariadb{}, []string{"--gtid-strict-mode=1", "--log-slave-updates", "--slave-net-timeout=4"}}}
	if path := os.Getenv("DEPUTY_TEST_MYSQLD"); path != "" {
		all = append(all, kind{"MySQL", path, mysql8{}, []string{
			"--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--super-read-only=1",
			"--mysqlx=OFF", "--secure-file-priv=NULL", "--replica-net-timeout=4", "--lc-messages-dir=" + os.Getenv("DEPUTY_TEST_MYSQL_MESSAGES"),
		}})
	}
	return all
}

// each runs a test with each kind of server.
func each(t *testing.T, f func(t *testing.T, k kind)) {
	t.Helper()
	for _, k := range kinds(t) {
		t.Run(k.name, func(t *testing.T) { f(t, k) })
	}
}

// A host is a node with a server, at an address of its own.
type host struct {
	t       *testing.T
	kind    kind
	name    string
	address string
	port    int
	dir     string
	cmd     *exec.Cmd
	ended   chan struct{}
	root    *sql.DB
	cgroups string
}

// newHosts starts servers that know one another's accounts and nothing else.
func newHosts(t *testing.T, k kind, n int) []*host {
	t.Helper()
	base, err := os.MkdirTemp("", "my") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	template := k.template(t)
	port := freePort(t)
	var all []*host
	for i := range n {
		h := &host{t: t, kind: k, name: fmt.Sprintf("db%d", i+1), address: fmt.Sprintf("127.0.0.%d", i+11), port: port, dir: filepath.Join(base, fmt.Sprint(i+1))}
		if out, err := exec.CommandContext(t.Context(), "cp", "-a", template, h.dir).CombinedOutput(); err != nil {
			t.Fatalf("copy the template: %v\n%s", err, out)
		}
		_ = os.Remove(filepath.Join(h.dir, "auto.cnf")) // MySQL's server_uuid
		h.start()
		all = append(all, h)
	}
	return all
}

// The accounts of the tests. Deputy's has just what the README grants.
func (k kind) accounts() []string {
	all := []string{
		"CREATE DATABASE app",
		"CREATE TABLE app.t (id BIGINT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(200)) ENGINE=InnoDB",
		"CREATE USER app@'%' IDENTIFIED BY 'app'",
		"GRANT ALL ON app.* TO app@'%'",
		"CREATE USER report@'%' IDENTIFIED BY 'report'",
		"GRANT ALL ON app.* TO report@'%'",
		"CREATE USER repl@'%' IDENTIFIED BY 'repl'",
		"GRANT REPLICATION SLAVE ON *.* TO repl@'%'",
		"CREATE USER deputy@localhost IDENTIFIED BY 'deputy'",
	}
	if k.name == "MySQL" {
		all = append(all, "GRANT XA_RECOVER_ADMIN ON *.* TO app@'%'")
	}
	return append(all, grants(k.flavour)...)
}

// grants are the lines of the README.
func grants(f flavour) []string {
	var all []string
	for _, p := range f.privileges() {
		name, on, found := strings.Cut(p.name, " ON ")
		if !found {
			on = "*.*"
		}
		all = append(all, fmt.Sprintf("GRANT %s ON %s TO deputy@localhost", name, on))
	}
	return all
}

// installing is held by the one test of those that run at once that installs.
var installing sync.Mutex

// template is a folder of data that servers start from: all of it, or none.
func (k kind) template(t *testing.T) string {
	t.Helper()
	installing.Lock()
	defer installing.Unlock()
	dir := filepath.Join(templates(), k.name)
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	half := dir + ".new"
	if err := os.RemoveAll(half); err != nil {
		t.Fatal(err)
	}
	k.install(t, half)
	if err := os.Rename(half, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// install makes a folder of data with the accounts, without a binary log.
func (k kind) install(t *testing.T, dir string) {
	t.Helper()
	run := func(stdin, name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("install %s: %v\n%s", k.name, err, out)
		}
	}
	if err := os.MkdirAll(templates(), 0o755); err != nil {
		t.Fatal(err)
	}
	if k.name == "MySQL" {
		file := dir + ".sql"
		text := "SET sql_log_bin = 0;\n" + strings.Join(k.accounts(), ";\n") + ";\n"
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		run("", k.program, "--no-defaults", "--initialize-insecure", "--user=root", "--datadir="+dir, "--init-file="+file, "--lc-messages-dir="+os.Getenv("DEPUTY_TEST_MYSQL_MESSAGES"))
		return
	}
	run("", "mariadb-install-db", "--no-defaults", "--user=root", "--datadir="+dir, "--auth-root-authentication-method=normal", "--skip-test-db", "--innodb-log-file-size=8M")
	run("FLUSH PRIVILEGES;\n"+strings.Join(k.accounts(), ";\n")+";\n", k.program, "--no-defaults", "--bootstrap", "--user=root", "--datadir="+dir, "--innodb-log-file-size=8M")
}

// templates is where folders of data are that servers of this process start
// from; TestMain removes it.
func templates() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("deputy-mysql-test-%d", os.Getpid()))
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.11:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (h *host) socket() string { return filepath.Join(h.dir, "s") }

// start starts the server, read-only, and waits until it answers.
func (h *host) start() {
	h.t.Helper()
	h.cmd = exec.Command(h.kind.program, append([]string{
		"--no-defaults", "--user=root", "--datadir=" + h.dir, "--socket=" + h.socket(), "--bind-address=" + h.address, fmt.Sprintf("--port=%d", h.port),
		"--server-id=" + h.name[2:], "--log-bin=bin", "--relay-log=relay", "--read-only=1", "--pid-file=" + filepath.Join(h.dir, "pid"),
		"--innodb-buffer-pool-size=16M", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=2",
	}, h.kind.options...)...)
	h.cmd.Args = append(h.cmd.Args, map[string][]string{"MariaDB": {"--innodb-log-file-size=8M"}}[h.kind.name]...)
	log, err := os.Create(filepath.Join(h.dir, "log"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.cmd.Stdout, h.cmd.Stderr = log, log
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	h.ended = make(chan struct{})
	started := make(chan error)
	go func(cmd *exec.Cmd, ended chan struct{}) {
		runtime.LockOSThread() // the server dies with the thread that has started it
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}(h.cmd, h.ended)
	if err := <-started; err != nil {
		h.t.Fatal(err)
	}
	log.Close()
	h.t.Cleanup(h.kill)
	h.t.Cleanup(func() {
		if h.t.Failed() {
			text, _ := os.ReadFile(filepath.Join(h.dir, "log"))
			h.t.Logf("%s said at the end: %s", h.name, text[max(0, len(text)-2000):])
		}
	})
	if h.root == nil {
		h.root = h.login("root", "")
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if err = h.root.PingContext(h.t.Context()); err == nil {
			return
		}
		select {
		case <-h.ended:
		default:
			if time.Now().Before(end) {
				continue
			}
		}
		text, _ := os.ReadFile(filepath.Join(h.dir, "log"))
		h.t.Fatalf("%s does not start: %v\n%s", h.name, err, text)
	}
}

// kill ends the server, frozen or not.
func (h *host) kill() {
	_ = h.cmd.Process.Signal(syscall.SIGKILL)
	<-h.ended
}

// login is a pool of connections of an account, by the socket.
func (h *host) login(user, password string) *sql.DB {
	h.t.Helper()
	c := driver.NewConfig()
	c.Net, c.Addr, c.User, c.Passwd, c.DBName = "unix", h.socket(), user, password, ""
	c.Logger = quiet{}
	connector, err := driver.NewConnector(c)
	if err != nil {
		h.t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	h.t.Cleanup(func() { db.Close() })
	return db
}

// do has root do something.
func (h *host) do(query string, args ...any) {
	h.t.Helper()
	if _, err := h.root.ExecContext(h.t.Context(), query, args...); err != nil {
		h.t.Fatalf("%s: %s: %v", h.name, query, err)
	}
}

// ask is a value that root sees.
func (h *host) ask(query string) string {
	h.t.Helper()
	var v sql.NullString
	if err := h.root.QueryRowContext(h.t.Context(), query).Scan(&v); err != nil {
		h.t.Fatalf("%s: %s: %v", h.name, query, err)
	}
	return v.String
}

func (h *host) readOnly() bool {
	h.t.Helper()
	return h.ask("SELECT @@GLOBAL.read_only") != "0"
}

// settings are the defaults, for this host.
func (h *host) settings() settings {
	return settings{
		Socket: h.socket(), User: "deputy", Password: "deputy", ConnectTimeout: 10 * time.Second,
		OnStuck: "kill", ReadOnly: "refuse", ServerConfig: []string{"/nonexistent"}, MaxLag: 30 * time.Second, TLS: tlsSettings{Mode: "off"},
		Replication: replicationSettings{User: "repl", Password: "repl", Port: h.port, Retry: time.Second, Heartbeat: 2 * time.Second},
		Promotion:   promoteSettings{ApplyTimeout: 20 * time.Second, StallTimeout: 10 * time.Second, OnUnapplied: "refuse", SemiSync: "keep", EventScheduler: "keep"},
		Demotion:    demoteSettings{LockWait: time.Second, OnBlockers: "kill", Disconnect: "all", WaitReplicas: 10 * time.Second},
	}
}

// plugin is the plugin for this host.
func (h *host) plugin(change ...func(*settings)) *mysql {
	h.t.Helper()
	s := h.settings()
	for _, c := range change {
		c(&s)
	}
	if err := s.Validate(); err != nil {
		h.t.Fatal(err)
	}
	m, err := newMySQL(h.t.Context(), s, sdk.Host{Service: "s", Node: h.name, Part: "mysql", Log: slog.New(slog.NewTextHandler(logTo{h.t}, nil))})
	if err != nil {
		h.t.Fatal(err)
	}
	if h.cgroups != "" {
		m.cgroups = h.cgroups
	}
	return m
}

type logTo struct{ t *testing.T }

func (l logTo) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func (h *host) peer() sdk.Peer { return sdk.Peer{Node: h.name, Address: h.address} }

// transition is one of this host.
func (h *host) transition(a sdk.Action, primary *host) *sdk.Transition {
	t := &sdk.Transition{ID: "x", Action: a, Mode: sdk.Planned, Node: h.name, Term: 1, Reason: sdk.ReasonSwitchover, Attempt: 1, Timeout: 30 * time.Second, LeaseUntil: sdk.Now().Add(time.Minute)}
	if primary != nil {
		t.Primary = primary.peer()
	}
	return t
}

// act has the plugin do something, and fails the test if it cannot. What is
// forced has two seconds, which a machine that is busy with others may not have:
// it is asked three times, as deputy does, and the last time is what counts.
func (h *host) act(m *mysql, t *sdk.Transition) time.Duration {
	h.t.Helper()
	for attempt := 1; ; attempt++ {
		began := time.Now()
		err := h.try(m, t)
		switch {
		case err == nil, errors.Is(err, sdk.ErrAlready):
			return time.Since(began)
		case attempt == 3 || t.Mode != sdk.Forced:
			h.t.Fatalf("%s %s: %v", t.Action, h.name, err)
		}
		h.t.Logf("attempt %d: %v", attempt, err)
	}
}

func (h *host) try(m *mysql, t *sdk.Transition) error {
	ctx, cancel := context.WithTimeoutCause(h.t.Context(), t.Timeout, errors.New("the deadline"))
	defer cancel()
	switch t.Action {
	case sdk.Promote:
		return m.Promote(ctx, t)
	case sdk.Demote:
		return m.Demote(ctx, t)
	default:
		return m.Follow(ctx, t)
	}
}

// pair is a primary and a standby that follows it.
func pair(t *testing.T, k kind) (primary, standby *host, p, s *mysql) {
	t.Helper()
	all := newHosts(t, k, 2)
	primary, standby = all[0], all[1]
	p, s = primary.plugin(), standby.plugin()
	primary.act(p, primary.transition(sdk.Promote, nil))
	standby.act(s, standby.transition(sdk.Follow, primary))
	return primary, standby, p, s
}

// caughtUp waits until a host has as many rows as another.
func (h *host) caughtUp(other *host) {
	h.t.Helper()
	await(h.t, "the same rows at both", func() bool {
		const count = "SELECT CONCAT(COUNT(*), ' ', COALESCE(MAX(id), 0)) FROM app.t"
		return h.ask(count) == other.ask(count)
	})
}

func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after 30 s there is not: %s", what)
		}
	}
}

// A load writes rows without pause, one a transaction, and notes when each was
// acknowledged.
type load struct {
	stop context.CancelFunc
	all  sync.WaitGroup

	mu    sync.Mutex
	acked []time.Time
	notes []string
}

// write starts writers at a host.
func (h *host) write(writers int) *load {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	l := &load{stop: cancel}
	for w := range writers {
		db := h.login("app", "app")
		db.SetMaxOpenConns(1)
		l.all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				note := fmt.Sprintf("%s-%d-%d", h.name, w, n)
				_, err := db.ExecContext(ctx, "INSERT INTO app.t (note) VALUES ('"+note+"')")
				if err != nil {
					select {
					case <-time.After(2 * time.Millisecond):
					case <-ctx.Done():
					}
					continue
				}
				l.mu.Lock()
				l.acked, l.notes = append(l.acked, time.Now()), append(l.notes, note)
				l.mu.Unlock()
			}
		})
	}
	h.t.Cleanup(l.end)
	await(h.t, "a write", func() bool { return len(l.rows()) > 3 })
	return l
}

func (l *load) end() { l.stop(); l.all.Wait() }

func (l *load) rows() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.notes)
}

// after counts the writes that were acknowledged after an instant.
func (l *load) after(at time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, a := range l.acked {
		if a.After(at) {
			n++
		}
	}
	return n
}

// last is when the last write was acknowledged.
func (l *load) last() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked[len(l.acked)-1]
}

// lacks are the acknowledged rows that a host does not have.
func (l *load) lacks(h *host) (missing []string) {
	h.t.Helper()
	rows, err := h.root.QueryContext(h.t.Context(), "SELECT note FROM app.t")
	if err != nil {
		h.t.Fatal(err)
	}
	defer rows.Close()
	has := map[string]bool{}
	for rows.Next() {
		var note sql.NullString
		if err := rows.Scan(&note); err != nil {
			h.t.Fatal(err)
		}
		has[note.String] = true
	}
	for _, n := range l.rows() {
		if !has[n] {
			missing = append(missing, n)
		}
	}
	return missing
}

// on keeps one connection of an account for as long as the test lasts.
func (h *host) on(user string) *sql.Conn {
	h.t.Helper()
	c, err := h.login(user, user).Conn(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// say has a connection do something.
func say(t *testing.T, c *sql.Conn, query string) {
	t.Helper()
	if _, err := c.ExecContext(t.Context(), query); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// begin has a connection do something that takes long, and waits until the
// server has it in the given state.
func (h *host) begin(c *sql.Conn, query string) {
	h.t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); _, _ = c.ExecContext(h.t.Context(), query) }()
	h.t.Cleanup(func() { <-done })
	await(h.t, query, func() bool {
		var n int
		if err := h.root.QueryRowContext(h.t.Context(), "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE ?", query[:min(len(query), 20)]+"%").Scan(&n); err != nil {
			h.t.Fatal(err)
		}
		return n > 0
	})
}
