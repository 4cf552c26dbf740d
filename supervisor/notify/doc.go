// Package notify tells people what a Lookout decides: it hands each event to
// every receiver that wants it.
//
// What it guarantees: an event that a running supervisor has seen is delivered
// to each of its receivers at least once, by whichever node can, unless all of
// them fail for an hour; also when the node that delivers it dies at it. As long
// as etcd answers and nobody dies in the middle it is delivered exactly once.
// Whatever a receiver does, and whatever etcd does, nothing waits for it but
// other notices to the same receiver; Run returns soon after its context ends.
//
// What it does not guarantee: order between nodes; that no event comes twice,
// which its ID tells; and that each of many changes of one service in a short
// time gets a message of its own: a later one then stands for them.
package notify
