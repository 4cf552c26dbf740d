// Package plugin runs the plugins of a service: it starts their processes,
// bounds them, reads what they say and ends them.
//
// What it guarantees: every call returns soon after its deadline, whatever the
// process does, be it deaf to signals, stopped, or stuck in the kernel. An act
// that was cut short, was ended by a signal, or answered outside its contract
// is Unknown; only the process's own word makes it anything better. A program
// that others than root and the supervisor's user could change is not run.
// Nothing that a plugin writes, on whichever of its outputs, ends or holds up
// the supervisor, and of the supervisor's environment it gets five variables.
// What runs ends with the supervisor: an act of [Exec] is killed with its whole
// process group, a [Process] built with deputy's SDK ends within a second. The
// next supervisor does not rely on that where there is a RunDir: Open first
// kills what is left of the part's earlier processes, frozen or not, with their
// sessions, and fails while any of that cannot be killed.
//
// A [Process] that dies or freezes costs an act that runs its outcome, and
// nothing else: it is started again and has its settings back. One that is
// frozen is told from one that is slow by its heartbeats during an act, and by
// pings while any other call has no answer. See TestRule01 to TestRule11 for
// what hosting takes that go-plugin leaves to its users.
//
// A secret that a setting only refers to is read when the part is opened, and
// again when it is configured; each process in between gets the same. It is in no
// log and no error.
//
// What it does not guarantee: that nothing of an ended act is left. A process
// that began a session of its own and whose parents have all ended cannot be
// told from any other, and one stuck in the kernel, or of another user, cannot
// be killed; the last two are named in the result. The supervisor's unit, whose
// control group reaches all of them, is what does. Nor that a plugin made
// without the SDK ends with a supervisor that is killed, before the next one
// opens the part: it has to watch its standard input.
package plugin
