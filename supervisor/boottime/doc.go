// Package boottime is the machine's own clock: CLOCK_BOOTTIME, which goes on
// during suspend and which nobody can set, and who the machine is.
//
// What it guarantees: a timer fires at its instant or later, never earlier,
// and the time that the machine is suspended counts, so that what ran out
// meanwhile fires on waking.
//
// What it does not guarantee: how much later. On an idle machine it is well
// below a millisecond; a process that gets no CPU, is stopped or is frozen
// fires nothing. That is what watchdogs and fences in the kernel are for.
package boottime
