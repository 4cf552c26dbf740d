package main

import (
	"context"
	"fmt"
	"time"
)

// mysql8 is MySQL 8.0.22 and newer: the statements of 8.4, which 8.0.22 has,
// too.
type mysql8 struct{}

func (mysql8) kind() string { return "MySQL" }

func (mysql8) look(ctx context.Context, l *link) (facts, error) {
	v, err := l.variables(ctx, "read_only", "super_read_only", "offline_mode", "server_uuid", "log_bin", "log_replica_updates", "log_slave_updates",
		"gtid_mode", "event_scheduler", "group_replication_group_name", "rpl_semi_sync_source_enabled", "rpl_semi_sync_replica_enabled",
		"rpl_semi_sync_master_enabled", "rpl_semi_sync_slave_enabled")
	if err != nil {
		return facts{}, err
	}
	f := facts{
		readOnly: v["read_only"] == "ON" && v["super_read_only"] == "ON", some: v["read_only"] == "ON", offline: v["offline_mode"] == "ON",
		serverID: v["server_uuid"], binlog: v["log_bin"] == "ON",
		relays: v["log_replica_updates"] == "ON" || v["log_slave_updates"] == "ON",
		events: v["event_scheduler"], variable: v,
	}
	if v["group_replication_group_name"] != "" {
		f.cluster = "Group Replication"
	}
	if v["gtid_mode"] != "ON" {
		f.gtid = "gtid_mode is " + v["gtid_mode"] + ": set gtid_mode = ON and enforce_gtid_consistency = ON in the server's option file"
	}
	text, err := l.one(ctx, "@@GLOBAL.gtid_executed")
	if err != nil {
		return facts{}, err
	}
	applied, err := readSet(text)
	if err != nil {
		return facts{}, err
	}
	f.applied, f.position = applied, applied.list()
	return f, nil
}

func (mysql8) begins(ctx context.Context, l *link) (readOnly, known bool, err error) {
	rows, err := l.rows(ctx, "SELECT VARIABLE_SOURCE AS origin FROM performance_schema.variables_info WHERE VARIABLE_NAME IN ('read_only', 'super_read_only')")
	if err != nil {
		return false, false, err
	}
	for _, r := range rows {
		if r["origin"] == "DYNAMIC" {
			return false, false, nil
		}
	}
	v, err := l.variables(ctx, "read_only")
	return v["read_only"] == "ON", err == nil && len(rows) > 0, err
}

func (mysql8) listThreads() string {
	return "SELECT ID AS id, USER AS user, COMMAND AS command, STATE AS state, LEFT(INFO, 120) AS statement FROM performance_schema.processlist"
}

func (mysql8) listWriters() string {
	return "SELECT trx_mysql_thread_id AS id FROM information_schema.INNODB_TRX WHERE trx_rows_modified > 0"
}

// Those whose connection is gone; super_read_only does not keep anybody from
// XA COMMIT (measured: 9.7).
func (mysql8) listPrepared() string {
	return "SELECT trx_id AS id FROM information_schema.INNODB_TRX WHERE trx_mysql_thread_id = 0 AND trx_rows_modified > 0"
}

func (mysql8) shut() string { return "SET GLOBAL super_read_only = ON" } // and read_only with it

func (mysql8) openUp() []string {
	return []string{"SET GLOBAL read_only = OFF", "SET GLOBAL offline_mode = OFF"} // and super_read_only with the first
}

func (mysql8) offline(on bool) string { return "SET GLOBAL offline_mode = " + onOff(on) }

func (mysql8) aroundStop(facts) (before, after []string) { return nil, nil }

func (mysql8) receive(on bool) string { return startOrStop(on, "REPLICA IO_THREAD") }
func (mysql8) apply(on bool) string   { return startOrStop(on, "REPLICA SQL_THREAD") }
func (mysql8) forget() []string       { return []string{"STOP REPLICA", "RESET REPLICA ALL"} }

func (mysql8) begin(time.Duration) []string { return []string{"START REPLICA"} }

func (mysql8) follow(host string, r replicationSettings) (string, []any) {
	text := "CHANGE REPLICATION SOURCE TO SOURCE_HOST = ?, SOURCE_PORT = ?, SOURCE_USER = ?, SOURCE_PASSWORD = ?, SOURCE_CONNECT_RETRY = ?, SOURCE_HEARTBEAT_PERIOD = ?, SOURCE_AUTO_POSITION = 1"
	args := []any{host, r.Port, r.User, r.Password, int(r.Retry.Seconds()), int(r.Heartbeat.Seconds())}
	if !r.TLS {
		return text + ", SOURCE_SSL = 0, GET_SOURCE_PUBLIC_KEY = 1", args // what caching_sha2_password needs then
	}
	text += ", SOURCE_SSL = 1"
	if r.CA != "" {
		text += ", SOURCE_SSL_CA = ?, SOURCE_SSL_VERIFY_SERVER_CERT = 1"
		args = append(args, r.CA)
	}
	return text, args
}

func (mysql8) awaitApplied(h history, within time.Duration) string {
	s, _ := h.(set)
	return fmt.Sprintf("WAIT_FOR_EXECUTED_GTID_SET('%s', %.3f)", s.list(), within.Seconds())
}

func (mysql8) semiSync(f facts, source, replica bool) []string {
	// One of the two pairs is there, as the plugin is that was installed.
	return append(semiSync(f, "rpl_semi_sync_source_enabled", "rpl_semi_sync_replica_enabled", source, replica),
		semiSync(f, "rpl_semi_sync_master_enabled", "rpl_semi_sync_slave_enabled", source, replica)...)
}

func (mysql8) privileges() []privilege {
	return []privilege{
		{"PROCESS", "to see other connections"},
		{"RELOAD", "to forget replication"},
		{"REPLICATION CLIENT", "to see how replication is"},
		{"SYSTEM_VARIABLES_ADMIN", "to set super_read_only"},
		{"CONNECTION_ADMIN", "to end connections, and to get in where the server is full or offline"},
		{"REPLICATION_SLAVE_ADMIN", "to start, stop and point replication"},
		{"SELECT ON performance_schema.*", "to see other connections, and how the server starts"},
	}
}
