// Package prober asks from outside who serves an address, and remembers every
// question and every answer.
//
// What it guarantees: an answer counts for the node that gave it, at some time
// between its question and its arrival; what it calls an overlap is proven by
// such times alone. Nodes are asked in two ways: as clients do, through the
// network, and each at its own door, by its hardware address, so that a second
// node that answers is heard although nobody's neighbour table points at it.
//
// What it does not guarantee: to see what is shorter than the time between two
// questions. How long it was itself held up is among its results.
package prober
