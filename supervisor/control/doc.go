// Package control serves a service's status and an operator's orders on a unix
// socket of this node, and is the client of that socket.
//
// What it guarantees: who asks is known from the kernel, not from what they
// say; reading needs the group deputy, steering the group deputy-admin, and
// root or the user that the supervisor runs as may do both. Whoever may do
// neither costs the supervisor a bounded number of descriptors and no time. A
// watch that is still open says something at least every [Beat], so that a
// silent supervisor is told from an idle one. Serve returns only when every
// request has ended.
//
// What it does not guarantee: that an order which got no answer was not
// carried out, nor that a supervisor which answers can reach the records; its
// statuses then say since when it cannot.
//
// Requests and answers are HTTP with JSON bodies, as package supervisor spells
// them; watches are one JSON value a line.
package control
