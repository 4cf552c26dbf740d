// Package sdk is what a plugin of deputy is written with, and what deputy and
// its plugins agree on: roles, terms, acts and their outcomes. README.md beside
// it is the guide.
//
// What it guarantees to an author:
//   - Settings are right when New's function gets them, as the tags of their
//     struct say; every mistake in them is told, by its key.
//   - One act runs at a time. A demotion ends everything that was asked before,
//     waits until it has ended, and begins then. The same act asked twice at once
//     runs once.
//   - A promote, follow or fence of a term older than one ever seen by the process
//     does not reach the author's code. A demote always does.
//   - An act's context ends at its deadline, and when nobody waits for its result
//     any more; its cause says why. Heartbeats go out while it runs, whatever it
//     does.
//   - A panic is the failure of the call that it happened in. What is printed
//     goes to the supervisor's log, and never between the plugin and its host.
//   - When the supervisor is gone, acts have half a second to end; after a second
//     the process is gone, with its socket. SIGTERM, SIGINT and SIGHUP do not end
//     it: its host does.
//
// To everybody: a term only grows and names one tenure of one service for ever,
// so whoever remembers the highest term it has seen can refuse an older primary;
// and an outcome says what was observed, never what was asked for.
//
// What it does not guarantee: that an act whose outcome is OutcomeUnknown had no
// effect; it means "may be primary". That an act ends when its context does: that
// is its author's to do. That the highest term outlives the process: the host
// tells it anew with the settings. That acts of two processes of one plugin do
// not meet: the host kills the one before it starts the other.
//
// This is the only package of the project that promises compatibility. It needs
// go-plugin, gRPC and protobuf, and nothing else.
package sdk
