-- The accounts, on each server by its own: mariadb <accounts.sql
SET SESSION sql_log_bin = 0;

-- deputy's, which the server knows by the system's user; nothing else may use it.
CREATE OR REPLACE USER deputy@localhost IDENTIFIED VIA unix_socket;
GRANT PROCESS, RELOAD, READ_ONLY ADMIN, CONNECTION ADMIN, REPLICATION SLAVE ADMIN, SLAVE MONITOR,
	REPLICATION MASTER ADMIN ON *.* TO deputy@localhost;

-- By which servers follow one another. The password is in the credential "repl".
CREATE OR REPLACE USER repl@'192.0.2.%' IDENTIFIED BY 'change-me';
GRANT REPLICATION SLAVE ON *.* TO repl@'192.0.2.%';

-- By which a node gets a copy of the primary; see rebuild.
CREATE OR REPLACE USER rebuild@'192.0.2.%' IDENTIFIED BY 'change-me-too';
GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES, RELOAD, PROCESS, BINLOG MONITOR ON *.* TO rebuild@'192.0.2.%';

-- By which HAProxy sees whether a server greets; it may do nothing.
CREATE OR REPLACE USER haproxy@'192.0.2.14';
