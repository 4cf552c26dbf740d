package e2e

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/deputy-ha/deputy/packaging/e2e/ledger"
	"github.com/deputy-ha/deputy/packaging/e2e/prober"
)

// mysqlEnv has hosts with databases booted, for TestMySQL, and no others.
const mysqlEnv = "DEPUTY_E2E_MYSQL"

// withDatabase is the release with what examples/mysql needs.
func (r release) withDatabase() release {
	r.more = "mariadb-server,haproxy,bind9"
	return r
}

// Whatever lies in examples/mysql is used as it is there, but for the name of the
// interface.
func example(file string) (string, error) {
	text, err := os.ReadFile(filepath.Join("../../examples/mysql", file))
	return string(text), err
}

// databaseName is the service's name.
const databaseName = "orders-db"

const (
	ledgerAccount, ledgerPassword = "ledger", "ledger"
	databasePort                  = 3306
)

// databaseService is a database behind an address.
func databaseService(text string) func(time.Duration) *watched {
	at := netip.AddrPortFrom(serviceAddr(), answersPort)
	return func(time.Duration) *watched {
		return &watched{
			name: databaseName, client: at, at: func(*host) netip.AddrPort { return at },
			text: strings.ReplaceAll(text, "%", "%%") + "\n%s",
		}
	}
}

// A databaseScene is three hosts with databases, a fourth by which clients
// connect, and clients.
type databaseScene struct {
	*scene
	edge     *host
	ledger   *ledger.Ledger
	semiSync bool
	writers  errgroup.Group
	quit     context.CancelFunc
}

// databaseLab is a lab as the example describes it, with semi-synchronous
// replication or without.
func databaseLab(semiSync bool) (setup, error) {
	text, err := example("services.d/" + databaseName + ".toml")
	if err != nil {
		return setup{}, err
	}
	options, err := example("mariadb.cnf")
	if err != nil {
		return setup{}, err
	}
	text = strings.ReplaceAll(text, `"eth0"`, `"host0"`)
	if !semiSync {
		text = strings.ReplaceAll(text, `semisync = "manage"`, `semisync = "keep"`)
		options = strings.NewReplacer("rpl_semi_sync_slave_enabled = 1", "rpl_semi_sync_slave_enabled = 0", "init_rpl_role               = SLAVE\n", "").Replace(options)
	}
	return setup{
		ttl: 3 * time.Second, first: databaseService(text),
		dress: func(h *host) error {
			mine := strings.ReplaceAll(options, "server_id         = 1", fmt.Sprintf("server_id         = %d", 1+h.index))
			return errors.Join(mask(h, "haproxy.service", "named.service", "mariadb.socket", "mariadb-extra.socket"),
				h.write("/etc/mysql/mariadb.conf.d/90-deputy.cnf", mine))
		},
	}, nil
}

// mask keeps a host from starting units.
func mask(h *host, units ...string) error {
	for _, u := range units {
		at := filepath.Join(h.disk(), "etc/systemd/system", u)
		if err := os.Symlink("/dev/null", at); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes the cluster as the example's README tells, and the node by which
// clients connect.
func (s *databaseScene) prepare() error {
	for _, step := range []func() error{s.openEdge, s.openServers, s.openService, s.openSchema} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// openEdge turns on the name server and the load balancer.
func (s *databaseScene) openEdge() error {
	s.edge = newHost(hostsDir(s.dir), s.release, "edge", size)
	if err := s.edge.format(answerFile(s.dir)); err != nil {
		return err
	}
	if err := mask(s.edge, "mariadb.service", "mariadb.socket", "mariadb-extra.socket"); err != nil {
		return err
	}
	for file, at := range map[string]string{
		"edge/haproxy.cfg": "/etc/haproxy/haproxy.cfg", "edge/named.conf.local": "/etc/bind/named.conf.local",
		"edge/example.com.zone": "/var/lib/bind/example.com",
	} {
		text, err := example(file)
		if err != nil {
			return err
		}
		if err := s.edge.write(at, text); err != nil {
			return err
		}
	}
	if err := s.edge.boot(s.ctx); err != nil {
		return err
	}
	_, err := s.edge.run(s.ctx, "sh", "-c", "chown bind: /var/lib/bind/example.com && systemctl restart named haproxy")
	return err
}

// openServers makes the accounts.
func (s *databaseScene) openServers() error {
	accounts, err := example("accounts.sql")
	if err != nil {
		return err
	}
	rebuild, err := example("rebuild")
	if err != nil {
		return err
	}
	return s.each(func(h *host) error {
		for file, text := range map[string]string{
			"/root/accounts.sql":      accounts,
			"/etc/mysql/rebuild.cnf":  "[client]\nuser = rebuild\npassword = change-me-too\n",
			"/usr/local/sbin/rebuild": rebuild,
		} {
			if err := h.write(file, text); err != nil {
				return err
			}
		}
		_, err := h.run(s.ctx, "sh", "-c", "chmod 600 /etc/mysql/rebuild.cnf && chmod 755 /usr/local/sbin/rebuild && mariadb </root/accounts.sql")
		return err
	})
}

// openService installs deputy, and enables it after a check.
func (s *databaseScene) openService() error {
	secret := ""
	text, err := example("edge/named.conf.local")
	if err != nil {
		return err
	}
	if _, rest, ok := strings.Cut(text, `secret "`); ok {
		secret, _, _ = strings.Cut(rest, `"`)
	}
	err = s.each(func(h *host) error {
		if err := errors.Join(s.install(s.ctx, h, oldVersion), s.configure(h)); err != nil {
			return err
		}
		for name, text := range map[string]string{"repl": "change-me", "dns": secret} {
			if err := h.write("/etc/deputy/credentials/"+name, text+"\n"); err != nil {
				return err
			}
		}
		_, err := h.run(s.ctx, "sh", "-c", "chmod 600 /etc/deputy/credentials/*")
		return err
	})
	if err != nil {
		return err
	}
	out, err := s.hosts[0].run(s.ctx, "deputy", "check", databaseName, "--deep")
	s.Logf("deputy check --deep:\n%s", out)
	if err != nil {
		return err
	}
	if err := s.each(func(h *host) error { return s.enable(s.ctx, h) }); err != nil {
		return err
	}
	_, err = s.orders.settled(s.ctx, 0)
	return err
}

// openSchema has the primary's administrator make what clients need.
func (s *databaseScene) openSchema() error {
	p, _ := s.primary()
	_, err := p.run(s.ctx, "mariadb", "--execute", "CREATE DATABASE ledger; "+ledger.Table+
		fmt.Sprintf("; CREATE USER %s@'%%' IDENTIFIED BY '%s'; GRANT SELECT, INSERT, ALTER, LOCK TABLES ON ledger.* TO %[1]s@'%%'", ledgerAccount, ledgerPassword))
	return err
}

// The ways by which clients connect; each host itself is one, too.
const (
	byAddress, byBalancer, byName = "address", "balancer", "name"
)

// databaseAt connects to the server at an address.
func databaseAt(a netip.Addr) ledger.Dial {
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", netip.AddrPortFrom(a, databasePort).String())
	}
}

// patientFor is longer than a statement takes that reads all, or waits for others.
const patientFor = 20 * time.Second

// on returns connections to a host's server, as clients have them.
func (s *databaseScene) on(h *host) (*sql.DB, error) {
	return s.ledger.Open(patientFor, databaseAt(h.addr))
}

// write has clients write by all ways.
func (s *databaseScene) write() {
	ctx, cancel := context.WithCancel(s.ctx)
	s.quit = cancel
	s.ledger = ledger.New(ledgerAccount, ledgerPassword)
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, netip.AddrPortFrom(s.edge.addr, 53).String())
	}}
	ways := map[string]ledger.Dial{
		byAddress: databaseAt(serviceAddr()), byBalancer: databaseAt(s.edge.addr),
		byName: func(ctx context.Context) (net.Conn, error) {
			all, err := resolver.LookupNetIP(ctx, "ip4", databaseName+".example.com.")
			if err != nil {
				return nil, err
			}
			return databaseAt(all[0].Unmap())(ctx)
		},
	}
	for _, h := range s.hosts {
		ways[h.name] = databaseAt(h.addr)
	}
	for way, dial := range ways {
		s.writers.Go(func() error { return s.ledger.Write(ctx, way, dial) })
	}
}

// close ends the clients and turns the fourth host off.
func (s *databaseScene) close() error {
	var wrong error
	if s.quit != nil {
		s.quit()
		wrong = s.writers.Wait()
	}
	if s.edge != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		wrong = errors.Join(wrong, s.edge.lose(ctx), s.edge.wipe())
	}
	return wrong
}

// reached waits until clients write by all ways since an instant; each host but
// the primary refuses them.
func (s *databaseScene) reached(from prober.Instant) error {
	for deadline := now() + settleFor; ; time.Sleep(20 * time.Millisecond) {
		r, err := s.orders.records(s.ctx)
		var silent []string
		for _, way := range []string{byAddress, byBalancer, byName, r.primary.Node} {
			if !s.ledger.Served(way, r.primary.Node, from) {
				silent = append(silent, way)
			}
		}
		if err == nil && len(silent) == 0 {
			return nil
		}
		if now() > deadline {
			return fmt.Errorf("not within %s: clients write on %s by %s: %w", settleFor, r.primary.Node, strings.Join(silent, ", "), err)
		}
	}
}

// follows reports whether a host's server receives from another's.
func (s *databaseScene) follows(h *host, primary string) bool {
	at := s.host(primary)
	if at == nil {
		return false
	}
	out, err := h.run(s.ctx, "mariadb", "--execute", "SHOW SLAVE STATUS\\G")
	return err == nil && strings.Contains(out, "Master_Host: "+at.addr.String()+"\n") && strings.Contains(out, "Slave_IO_Running: Yes\n")
}

// whole waits until all take part and could lead. A server that says that it has
// to be made anew is; it returns how many were.
func (s *databaseScene) whole() (rebuilt int, err error) {
	for deadline := now() + 2*time.Minute; ; time.Sleep(50 * time.Millisecond) {
		r, err := s.orders.records(s.ctx)
		ok := err == nil && s.orders.isSettled(r, 0)
		for _, h := range s.hosts {
			c := r.candidates[h.name]
			if c.Fit && (h.name == r.primary.Node || s.follows(h, r.primary.Node)) {
				continue
			}
			ok = false
			if !strings.Contains(c.Health+c.Verdict, "needs_rebuild") || r.primary.Node == "" || r.primary.Node == h.name {
				continue
			}
			s.Logf("%s is made anew: %s", h.name, c.Health)
			out, err := h.run(s.ctx, "/usr/local/sbin/rebuild", s.host(r.primary.Node).addr.String())
			if err != nil {
				return rebuilt, err
			}
			s.Logf("%s", out)
			rebuilt++
		}
		if ok {
			return rebuilt, nil
		}
		if now() > deadline {
			var told []string
			for _, h := range s.hosts {
				told = append(told, fmt.Sprintf("%s: %+v", h.name, r.candidates[h.name]))
			}
			slices.Sort(told)
			return rebuilt, fmt.Errorf("not whole within two minutes: primary is %+v\n%s", r.primary, strings.Join(told, "\n"))
		}
	}
}
