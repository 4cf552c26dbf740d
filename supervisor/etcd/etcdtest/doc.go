// Package etcdtest runs a real etcd cluster on one machine, to be mistreated.
//
// What it guarantees: each member is a process of its own, so it can be killed
// and stopped without its consent; members are cut off without root, by
// holding back what they send and receive, and what was held back arrives
// later, as it does on a network that comes back; a cluster is gone when Close
// returns, and when the process that started it dies in any way.
//
// What it does not guarantee: lasting data, unless Options.Dir says where; and
// that connecting to a member that is cut off fails or hangs as it would
// without a route. The connection is accepted, and then nothing happens.
//
// The members are further processes of the calling binary, which therefore
// calls [Main] first thing in main or TestMain.
package etcdtest
