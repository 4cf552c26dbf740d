// Package plugin runs the plugins of a service: it starts their processes,
// bounds them, reads what they say and ends them.
//
// What it guarantees: every call returns soon after its deadline, whatever the
// process does, be it deaf to signals, stopped, or stuck in the kernel. An act
// that was cut short, was ended by a signal, or answered outside its contract
// is Unknown; only the process's own word makes it anything better. A program
// that others than root and the supervisor's user could change is not run. An
// act is ended with its whole process group when the supervisor dies.
//
// What it does not guarantee: that nothing of an ended act is left. A process
// that began a session of its own and whose parents have all ended cannot be
// told from any other, and one stuck in the kernel, or of another user, cannot
// be killed; the last two are named in the result. The supervisor's unit, whose
// control group reaches all of them, is what does. See [Exec] for what hooks
// get and answer.
package plugin
