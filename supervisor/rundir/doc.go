// Package rundir is what a node keeps on its own disk.
//
// What it guarantees: one directory below /run for each service admits one
// supervisor at a time ([Open]). Whatever a member notes there survives the
// death of its process by any signal, is either whole or known to be damaged,
// and is rewritten in place, in room that was taken at the start: a full disk
// keeps [Dir.Save] from nothing once Open has found the room, and keeps a
// service from being promoted, never from being demoted, where it has not.
// What a node has seen of an election ([Witness]) survives power loss. The
// definition in force ([Dir.SaveDefinition]) is kept beside the note, whole or not
// at all; there is no room taken for it, and nothing waits for it.
//
// What it does not guarantee: that a note survives a reboot. It need not, as
// nothing is promoted then. Room taken in advance is kept on tmpfs and on file
// systems that write in place; one that always writes elsewhere (btrfs, zfs)
// may still refuse, and is not what /run is on.
package rundir
