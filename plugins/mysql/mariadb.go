package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// mariadb is MariaDB 10.11 and newer.
type mariadb struct{}

func (mariadb) kind() string { return "MariaDB" }

// mariadbFacts reads all at once: SHOW VARIABLES would make a table of all that
// the server has first, and it cuts long values.
const mariadbFacts = `SELECT @@GLOBAL.read_only AS read_only, @@GLOBAL.server_id AS server_id, @@GLOBAL.log_bin AS log_bin,
	@@GLOBAL.log_slave_updates AS log_slave_updates, @@GLOBAL.gtid_strict_mode AS gtid_strict_mode, @@GLOBAL.wsrep_on AS wsrep_on,
	@@GLOBAL.event_scheduler AS event_scheduler, @@GLOBAL.rpl_semi_sync_master_enabled AS rpl_semi_sync_master_enabled,
	@@GLOBAL.rpl_semi_sync_slave_enabled AS rpl_semi_sync_slave_enabled,
	@@GLOBAL.rpl_semi_sync_slave_kill_conn_timeout AS rpl_semi_sync_slave_kill_conn_timeout,
	CONCAT(@@GLOBAL.gtid_binlog_state, ',', @@GLOBAL.gtid_slave_pos) AS gtids`

func (m mariadb) look(ctx context.Context, l *link) (facts, error) {
	rows, err := l.rows(ctx, mariadbFacts)
	if err != nil {
		return facts{}, err
	}
	if len(rows) != 1 {
		return facts{}, errors.New("read variables: no answer")
	}
	v := rows[0]
	// Version 12 has more values than OFF, all of which are read-only.
	f := facts{
		readOnly: v["read_only"] != "OFF" && v["read_only"] != "0" && v["read_only"] != "",
		serverID: v["server_id"], binlog: isOn(v["log_bin"]), relays: isOn(v["log_slave_updates"]),
		events: v["event_scheduler"], variable: v,
	}
	if isOn(v["wsrep_on"]) {
		f.cluster = "Galera"
	}
	if !isOn(v["gtid_strict_mode"]) {
		f.gtid = "gtid_strict_mode is off, so that GTIDs do not tell what another server has: set gtid_strict_mode = 1 in the server's option file"
	}
	state, err := readState(v["gtids"], f.gtid == "")
	if err != nil {
		return facts{}, err
	}
	f.applied, f.position = state, state.position()
	return f, nil
}

// position is the last transaction of each domain.
func (s gtidState) position() string {
	domains := map[uint32]bool{}
	for o := range s.numbers {
		domains[o.domain] = true
	}
	var parts []string
	for _, d := range slices.Sorted(maps.Keys(domains)) {
		o, n := s.last(d)
		parts = append(parts, fmt.Sprintf("%d-%d-%d", o.domain, o.server, n))
	}
	return strings.Join(parts, ",")
}

func (mariadb) begins(ctx context.Context, l *link) (readOnly, known bool, err error) {
	rows, err := l.rows(ctx, "SELECT GLOBAL_VALUE AS v, GLOBAL_VALUE_ORIGIN AS origin FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_NAME = 'READ_ONLY'")
	if err != nil || len(rows) != 1 {
		return false, false, err
	}
	return rows[0]["v"] != "OFF", rows[0]["origin"] != "SQL", nil
}

// The table information_schema.PROCESSLIST is first written, to disk.
func (mariadb) listThreads() string { return "SHOW PROCESSLIST" }

func (mariadb) listWriters() string {
	return "SELECT trx_mysql_thread_id AS id FROM information_schema.INNODB_TRX WHERE trx_rows_modified > 0"
}

func (mariadb) listPrepared() string { return "" } // XA COMMIT is refused while it is read-only

func (mariadb) shut() string     { return "SET GLOBAL read_only = 1" }
func (mariadb) openUp() []string { return []string{"SET GLOBAL read_only = 0"} }

func (mariadb) offline(bool) string { return "" }

func (mariadb) receive(on bool) string { return startOrStop(on, "SLAVE IO_THREAD") }

// aroundStop: a semi-synchronous replica that stops to receive connects to the
// primary, to end its connection there, and waits for one that is gone: measured
// two seconds by default, a second with the shortest time that there is.
func (mariadb) aroundStop(f facts) (before, after []string) {
	const timeout = "rpl_semi_sync_slave_kill_conn_timeout"
	if is := f.variable[timeout]; is != "" && is != "1" {
		return []string{"SET GLOBAL " + timeout + " = 1"}, []string{"SET GLOBAL " + timeout + " = " + is}
	}
	return nil, nil
}

func (mariadb) apply(on bool) string { return startOrStop(on, "SLAVE SQL_THREAD") }

func startOrStop(on bool, what string) string {
	if on {
		return "START " + what
	}
	return "STOP " + what
}

func (mariadb) forget() []string { return []string{"STOP ALL SLAVES", "RESET SLAVE ALL"} }

// begin: a replica that connects to a host without power is not to be stopped
// before its attempt has timed out, by default after a minute. Measured in 11.8.
func (mariadb) begin(heartbeat time.Duration) []string {
	return []string{
		fmt.Sprintf("SET GLOBAL slave_net_timeout = LEAST(@@GLOBAL.slave_net_timeout, %d)", int((2 * heartbeat).Seconds())),
		"START SLAVE",
	}
}

func (mariadb) follow(host string, r replicationSettings) (string, []any) {
	text := "CHANGE MASTER TO MASTER_HOST = ?, MASTER_PORT = ?, MASTER_USER = ?, MASTER_PASSWORD = ?, MASTER_CONNECT_RETRY = ?, MASTER_HEARTBEAT_PERIOD = ?, MASTER_USE_GTID = slave_pos, MASTER_DEMOTE_TO_SLAVE = 1"
	args := []any{host, r.Port, r.User, r.Password, int(r.Retry.Seconds()), int(r.Heartbeat.Seconds())}
	if !r.TLS {
		return text + ", MASTER_SSL = 0", args
	}
	text += ", MASTER_SSL = 1"
	if r.CA != "" {
		text += ", MASTER_SSL_CA = ?, MASTER_SSL_VERIFY_SERVER_CERT = 1"
		args = append(args, r.CA)
	}
	return text, args
}

func (mariadb) awaitApplied(h history, within time.Duration) string {
	s, _ := h.(gtidState)
	return fmt.Sprintf("MASTER_GTID_WAIT('%s', %.3f)", s.position(), within.Seconds())
}

func (mariadb) semiSync(f facts, source, replica bool) []string {
	return semiSync(f, "rpl_semi_sync_master_enabled", "rpl_semi_sync_slave_enabled", source, replica)
}

// semiSync is the statements for the sides that are not yet as wanted.
func semiSync(f facts, sourceVariable, replicaVariable string, source, replica bool) []string {
	var all []string
	for _, side := range []struct {
		variable string
		on       bool
	}{{replicaVariable, replica}, {sourceVariable, source}} {
		is, has := f.variable[side.variable]
		if has && isOn(is) != side.on {
			all = append(all, fmt.Sprintf("SET GLOBAL %s = %s", side.variable, onOff(side.on)))
		}
	}
	return all
}

func onOff(on bool) string {
	if on {
		return "ON"
	}
	return "OFF"
}

func (mariadb) privileges() []privilege {
	return []privilege{
		{"PROCESS", "to see other connections"},
		{"RELOAD", "to forget replication"},
		{"READ_ONLY ADMIN", "to set read_only"},
		{"CONNECTION ADMIN", "to end connections, and to get in where the server is full"},
		{"REPLICATION SLAVE ADMIN", "to start, stop and point replication"},
		{"SLAVE MONITOR", "to see how replication is"},
		{"REPLICATION MASTER ADMIN", "to set semi-synchronous replication"},
	}
}
