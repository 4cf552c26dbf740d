// Command binlog is a worked example of a service and its hooks: a binlog
// parser that must run on exactly one node. The address that its clients know
// is for the plugin vip.
//
// What the hooks guarantee: start returns when the parser answers, and stop
// when none can run, by a lock that is held from before a parser is started
// until its process is gone. All are bounded by the timeout they are given and
// may be repeated.
//
// What they do not guarantee: that only one node runs a parser. That is what
// deputy is for, and the parser takes no other precaution.
package main
