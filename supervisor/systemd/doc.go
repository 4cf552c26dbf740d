// Package systemd is how a supervisor and PID 1 work together where that is
// systemd, of version 252 or later.
//
// What it guarantees: nothing here blocks what renews a lease, and each call
// over D-Bus ends with its context. A unit that belongs to a role is reported
// down only once PID 1 says that it is inactive, that no job is about to start
// it, and that no process of its control group is left ([Targets]).
//
// What it does not guarantee: that PID 1 acts in time. It may be late by a
// quarter of a second, by seconds while it reloads thousands of units, and for
// as long as it hangs. What has to happen at an instant is done by the
// supervisor itself, and by the kernel.
package systemd
