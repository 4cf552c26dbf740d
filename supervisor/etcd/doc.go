// Package etcd keeps the elections of deputy in etcd.
//
// What it guarantees, as long as etcd's transactions are linearizable and the
// clocks of the nodes run at the same rate within a percent: of all leases of
// one service no two hold at the same time, each until its own Until; terms
// only grow; a role whose holder is silent for its TTL, or has resigned, can be
// taken by any node that reaches a majority of etcd. It rests on records that
// are renewed by compare-and-swap and timed by those who watch them, never on
// etcd's leases, which can be taken away before their time: they serve
// presence alone.
//
// What it does not guarantee: that a holder has stopped when its lease ends.
// That is for those who read Lost and Until. Nor does it help against a clock
// that stands still while the machine's work goes on being seen by others, or
// against an etcd that is restored from a backup, beyond waiting once for the
// longest lease of the nodes that remember the time before. A node that knows
// the records by their mark takes no role in another etcd or under another
// prefix; one that has never been anywhere else cannot tell.
//
// Who may do what is a matter of etcd's roles: testdata/roles.sh grants them,
// and a test holds that a node needs no more. Client certificates and keys are
// read anew for each connection, so they may be renewed on disk; the authority
// in ca_file is read once.
package etcd
