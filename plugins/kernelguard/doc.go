// Package kernelguard lets the kernel itself close what a primary has open:
// addresses or ports are passed only while an element of an nftables set
// lives, and that element has a timeout.
//
// What it guarantees: Arm and Renew let the element live no longer than until
// an instant, and prove it by the clock afterwards. From then on the guard is
// closed whatever happens to this process: it may be frozen or dead. Renew
// compares and refreshes in one step, so an element that has expired does not
// come back by it. A closed guard drops everything that is to or from what it
// guards, ARP and neighbour traffic included; what merely passes through this
// host, or comes here from another host that has the address, is left alone.
// All tables of a guard change in one step.
//
// What it does not: an element counts jiffies. It closes up to two of them
// early (8 ms at HZ=250), but a machine whose time stops, asleep or paused as a
// whole, finds it alive when it wakes, with what it had left. A process that is
// frozen between reading the clock and the one system call that follows may
// extend a living element by as long as it was frozen, at most by what the
// element had left; it shortens it as soon as it goes on. The kernel makes one
// change of nftables at a time: others that take longer than what is left of a
// lease keep a renewal waiting, and the guard closes. Packet sockets, XDP
// and flows that hardware forwards pass by every table. Whoever may change
// nftables may remove a guard: State, Renew and Check of its users tell.
package kernelguard
