// Package supervisor takes part in one election per service and keeps this
// node's role true to its lease.
//
// What it guarantees: a [Member] runs a promotion only while it holds the
// lease, starts to demote when a quarter of the lease is left at the latest,
// and gives the lease back only after every plugin has reported that it does
// not act as primary. At each start it takes down whatever this node should
// not hold. Every change of role has a cause.
//
// What it does not guarantee: that a plugin which says it has demoted has done
// so, nor that a frozen process demotes in time. The first is the plugin's
// contract, the second is what fences outside this process are for.
//
// The package does no I/O of its own: elections, plugins, the clock and the
// memory that outlives a crash are interfaces, implemented below.
package supervisor
