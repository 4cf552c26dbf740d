package e2e

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/packaging/e2e/checker"
	"github.com/deputy-ha/deputy/packaging/e2e/ledger"
	"github.com/deputy-ha/deputy/packaging/e2e/nemesis"
)

// TestMySQL plays what happens to databases, while clients write without a pause
// by all ways: no two servers accept writes at once, and with semi-synchronous
// replication none that was acknowledged is lost.
func TestMySQL(t *testing.T) {
	if os.Getenv(mysqlEnv) == "" {
		t.Skip("hosts with databases are booted by `make mysql` alone")
	}
	f := &figures{}
	defer f.print(os.Stdout)
	for _, r := range needHosts(t) {
		for _, semiSync := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/semisync=%t", r.suite, semiSync), func(t *testing.T) {
				what, err := databaseLab(semiSync)
				if err != nil {
					t.Fatal(err)
				}
				inLab(t, r.withDatabase(), what, f, func(l *lab) {
					s := &databaseScene{scene: &scene{T: t, lab: l, ctx: t.Context(), began: now()}, semiSync: semiSync}
					defer func() {
						if err := s.close(); err != nil {
							t.Error(err)
						}
					}()
					since := time.Now()
					if err := s.prepare(); err != nil {
						s.tell(since)
						t.Fatal(err)
					}
					s.write()
					for _, f := range databaseFaults() {
						ok := t.Run(strings.ReplaceAll(f.name, " ", "-"), func(t *testing.T) {
							for i := range runs() {
								playIn(t, &s.T, &s.ctx, sceneFor(), func() { s.suffer(f, i) })
							}
						})
						if !ok {
							return // what failed may have left anything behind
						}
					}
					t.Run("by-hand", func(t *testing.T) { playIn(t, &s.T, &s.ctx, sceneFor(), s.byHand) })
				})
			})
		}
	}
}

// A databaseFault is what happens to the primary's host.
type databaseFault struct {
	name   string
	effect effect
	asked  bool // an operator wanted it: nothing may be lost, whatever the replication
	hold   time.Duration
	do     func(s *databaseScene, h *host, b nemesis.Blow) (mend, error)
	within time.Duration // nobody writes for so long in the median; zero for any
}

func databaseFaults() []databaseFault {
	plain := func(d deed) func(*databaseScene, *host, nemesis.Blow) (mend, error) {
		return func(s *databaseScene, h *host, b nemesis.Blow) (mend, error) { return d(s.ctx, s.lab, h, b) }
	}
	const long = 5 * time.Second
	return []databaseFault{
		{name: "switchover", effect: moves, asked: true, do: plain(hitSwitchover)},
		{name: "switchover, a long transaction", effect: moves, asked: true, do: blocked("START TRANSACTION", "INSERT INTO writes (way, n) VALUES ('open', CONNECTION_ID())")},
		{name: "switchover, LOCK TABLES", effect: moves, asked: true, do: blocked("LOCK TABLES writes WRITE")},
		{name: "switchover, ALTER", effect: moves, asked: true, do: blocked("LOCK TABLES writes READ", "!ALTER TABLE writes COMMENT = 'altered'")},
		{name: "systemctl stop", effect: moves, asked: true, do: stopSupervisor},
		// The check comes each second and sees at once that nobody listens.
		{name: "server killed", effect: moves, hold: long, do: plain(signalTo(serverOf, unix.SIGKILL)), within: 2 * time.Second},
		{name: "server stopped", effect: moves, hold: 8 * time.Second, do: plain(signalTo(serverOf, unix.SIGSTOP))},
		{name: "supervisor killed", effect: keeps, hold: 2 * time.Second, do: plain(signalTo(supervisorOf, unix.SIGKILL))},
		{name: "supervisor and plugins stopped", effect: either, hold: long, do: plain(signalTo(allOf, unix.SIGSTOP))},
		{name: "partition", effect: moves, hold: long, do: plain(hitCut(cut{toEtcd: true, fromEtcd: true, hosts: true}))},
		{name: "host frozen", effect: moves, hold: long, do: plain(hitFreeze)},
		{name: "power loss", effect: moves, hold: long, do: plain(hitPower)},
	}
}

// serverOf finds the database's process, as a host's shell does.
const serverOf = `[ -n %s ] && systemctl show -P MainPID mariadb.service`

// blocked is a switchover while a client does what is in the way; what begins
// with ! is not waited for, on a connection of its own.
func blocked(statements ...string) func(*databaseScene, *host, nemesis.Blow) (mend, error) {
	return func(s *databaseScene, h *host, b nemesis.Blow) (mend, error) {
		db, err := s.on(h)
		if err != nil {
			return nil, err
		}
		defer db.Close()
		conn, err := db.Conn(s.ctx)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		var waiting sync.WaitGroup
		defer waiting.Wait()
		for _, statement := range statements {
			if alone, ok := strings.CutPrefix(statement, "!"); ok {
				waiting.Go(func() { _, _ = db.ExecContext(s.ctx, alone) }) // it is ended
				rest(s.ctx, 200*time.Millisecond)
				continue
			}
			if _, err := conn.ExecContext(s.ctx, statement); err != nil {
				return nil, err
			}
		}
		s.began = now() // the trap itself is in the way of others
		return hitSwitchover(s.ctx, s.lab, h, b)
	}
}

// rested waits until nobody sits out any more who has left the role before.
func (s *databaseScene) rested() {
	s.Helper()
	await(s.T, time.Minute, "nobody sits out", func() bool {
		r, err := s.orders.records(s.ctx)
		for _, c := range r.candidates {
			if c.Held {
				return false
			}
		}
		return err == nil
	})
}

// stopSupervisor has the primary's supervisor leave for a while.
func stopSupervisor(s *databaseScene, h *host, _ nemesis.Blow) (mend, error) {
	_, err := h.run(s.ctx, "systemctl", "stop", s.orders.unit())
	return func(ctx context.Context) error {
		_, err := h.run(ctx, "systemctl", "start", s.orders.unit())
		return err
	}, err
}

// suffer plays a fault once, on the primary's host.
func (s *databaseScene) suffer(f databaseFault, i int) {
	s.Helper()
	if _, err := s.whole(); err != nil {
		s.Fatal(err)
	}
	if f.within != 0 {
		s.rested()
	}
	s.began = now()
	if err := s.reached(s.began); err != nil {
		s.Fatal(err)
	}
	if f.asked { // as before a switchover by hand: what the one before has begun is over
		rest(s.ctx, time.Second)
	}
	from, before := s.primary()
	since := time.Now()
	s.began = now()
	undo, err := f.do(s, from, onPrimary(f.name, f.hold, i))
	if err != nil {
		s.tell(since)
		s.Fatal(err)
	}
	hit := now()
	if f.effect == moves {
		if _, err := s.orders.until(s.ctx, before.Term, s.orders.isServed); err != nil {
			s.tell(since)
			s.tellPositions()
			s.Fatal(err)
		}
	}
	rest(s.ctx, f.hold-(now()-hit))
	if undo != nil {
		if err := undo(s.ctx); err != nil {
			s.Error(err)
		}
	}
	if err := s.reached(now()); err != nil {
		s.tell(since)
		s.Fatal(err)
	}
	pause := s.ledger.Pause(s.began)
	ended := now()
	rebuilt, err := s.whole()
	if err != nil {
		s.tell(since)
		s.Fatal(err)
	}
	_, after := s.primary()
	if f.effect == keeps && after.Term != before.Term {
		s.Logf("the role went from %s to %s", before.Node, after.Node)
	}
	what := s.line(f.name)
	s.figures.add(s.systemd, what+": no write for", pause)
	s.figures.count(s.systemd, what+": servers made anew", rebuilt)
	if f.within != 0 {
		s.bound(what+": no write for", f.within, 0)
	}
	lost := s.lost(s.host(after.Node), ended)
	s.figures.count(s.systemd, what+": acknowledged writes lost", len(lost))
	if len(lost) > 0 && (s.semiSync || f.asked) {
		s.Errorf("%d acknowledged writes are lost, such as %+v", len(lost), lost[0])
	}
	for _, v := range s.orders.history(s.began, nil, without).Check() {
		s.Errorf("address: %s", v)
	}
	h := checker.History{Service: databaseName, Acts: s.ledger.Spans(s.began), Records: s.notes.records(databaseName, s.began), Late: seenLate}
	for _, v := range h.Check() {
		s.Errorf("writes: %s", v)
	}
	s.Logf("%s: %s: no write for %s, %d lost, %d made anew, %d writes in all", f.name, from.name, ms(pause), len(lost), rebuilt, s.ledger.Count())
	if s.Failed() || os.Getenv("DEPUTY_E2E_TELL") != "" {
		s.tell(since)
	}
}

// tellPositions prints what each node has published that its server has.
func (s *databaseScene) tellPositions() {
	s.Helper()
	r, err := s.orders.records(s.ctx)
	for _, h := range s.hosts {
		s.Logf("%s has %v, %v", h.name, r.candidates[h.name].Positions, err)
	}
}

// line begins a line of figures.
func (s *databaseScene) line(what string) string {
	if s.semiSync {
		return what + ", semi-sync"
	}
	return what
}

// lost are the writes acknowledged up to an instant that the primary does not
// have.
func (s *databaseScene) lost(primary *host, until time.Duration) []ledger.Entry {
	s.Helper()
	db, err := s.on(primary)
	if err != nil {
		s.Fatal(err)
	}
	defer db.Close()
	lost, err := s.ledger.Lost(s.ctx, db, until)
	if err != nil {
		s.Fatal(err)
	}
	return lost
}

//go:embed testdata/mysql/switchover
var switchoverByHand string

// byHand is a switchover by a script instead of deputy, which is disabled.
func (s *databaseScene) byHand() {
	s.Helper()
	if _, err := s.whole(); err != nil {
		s.Fatal(err)
	}
	old, _ := s.primary()
	for _, h := range append(s.others(old), old) {
		s.ok(h, "deputy", "disable", databaseName)
		s.ok(h, "nft", "delete", "table", "inet", "deputy/"+databaseName+"/guard") // it stays closed, as its README says
	}
	one := map[bool]string{true: "1", false: "0"}[s.semiSync]
	for _, h := range s.hosts {
		s.ok(h, "mariadb", "--execute", "SET SESSION sql_log_bin = 0; GRANT ALL ON *.* TO admin@'"+s.edge.addr.String()+"' IDENTIFIED BY 'admin'")
	}
	if err := s.edge.write("/root/switchover", switchoverByHand); err != nil {
		s.Fatal(err)
	}
	s.ok(old, "mariadb", "--execute", "SET GLOBAL rpl_semi_sync_slave_enabled = 0, rpl_semi_sync_master_enabled = "+one+", read_only = 0")
	for _, h := range s.others(old) { // they acknowledge what they have asked for anew
		s.ok(h, "mariadb", "--execute", "STOP SLAVE IO_THREAD; START SLAVE IO_THREAD")
	}
	for range max(runs(), 3) {
		others := s.others(old)
		await(s.T, settleFor, "clients write on "+old.name, func() bool { return s.ledger.Served(old.name, "", now()-100*time.Millisecond) })
		rest(s.ctx, time.Second)
		from := now()
		s.ok(s.edge, "env", "SEMISYNC="+one, "sh", "/root/switchover", old.addr.String(), others[0].addr.String(), others[1].addr.String())
		old = others[0]
		await(s.T, settleFor, "clients write on "+old.name, func() bool { return s.ledger.Served(old.name, "", from) })
		rest(s.ctx, time.Second)
		s.figures.add(s.systemd, s.line("switchover by hand")+": no write for", s.ledger.Pause(from))
	}
	deputy, _ := s.figures.of(s.systemd, s.line("switchover")+": no write for")
	script, _ := s.figures.of(s.systemd, s.line("switchover by hand")+": no write for")
	s.figures.note(s.systemd, s.line("switchover")+": deputy's pause, of the script's", fmt.Sprintf("%.2f", float64(deputy)/float64(script)))
}
