// Package netlab makes hosts on one Ethernet out of network namespaces, for
// tests.
//
// What it guarantees: all of it is gone with the test, or at the latest with
// the process, and nothing of it touches the machine's own network. What it
// does not: a time that is not the machine's. Every host has the same clock,
// which is what makes their packets comparable.
package netlab
