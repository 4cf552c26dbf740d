// Command demo shows deputy at work on one machine, and measures it: three
// etcd members, three nodes that run deputy, and the service of
// examples/binlog, whose primary is taken away in three ways.
//
// What it guarantees: the verdicts come from a recorder that knows nothing of
// deputy. Every few milliseconds it asks the service's address as a client
// does, each node for that address past the network, and each node's parser.
// That two nodes acted at once is reported only when it is proven: one of them
// answered a question that was asked after the other had already answered.
// When the demo ends, by itself, by a signal or by SIGKILL, no process and no
// namespace of it remains; its directory goes at the end, or with the next
// demo.
//
// What it does not guarantee: that two nodes did not act at once for less time
// than passes between two probes. The summary states how long that was.
//
// As root it makes namespaces of its own, in which a real address moves; no
// packet leaves them. Otherwise the nodes are processes on 127.0.0.11 to
// 127.0.0.13 and a file shows where the role is.
package main
