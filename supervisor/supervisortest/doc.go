// Package supervisortest is what the tests of roles and elections stand on: a
// clock, elections in memory with faults, scripted plugins and a journal, and
// [TestElector], which every Elector has to pass.
//
// What it guarantees: inside a testing/synctest bubble everything here runs on
// virtual time and leaves nothing behind; the same test writes the same
// journal; and [Journal.NeverTwo] fails if two nodes ever acted as primary for
// one service, whatever the members believed.
//
// What it does not guarantee: that a frozen node stands still at once. It stops
// at its next use of the clock, the records, its plugins or its memory, which
// is all that a member uses.
package supervisortest
