// Package http serves over HTTP what the services of a node are: health for load
// balancers, reports for programs, and a page for people. It only reads.
//
// What it guarantees: an answer of health is of a question that was put to the
// service's own supervisor less than [Age] before the answer is sent, and
// nothing is remembered from one such question to the next. 200 for primary is sent
// only while the role is primary, which it is no more once a demotion has begun,
// and only before the lease's local deadline, that is before another node can be
// primary. Both are compared with CLOCK_BOOTTIME where the bytes are handed to
// the kernel, so that neither a process that was stopped in between, nor a
// suspended machine, nor a step of the wall clock makes an old answer. A
// supervisor that is silent is 503 within [Age], and delays no other service.
// The page says how old it is, and loads and runs nothing but its own files.
// Connections, their number, headers and times are bounded.
//
// What it does not guarantee: that an answer is still true when it is read. A
// planned demotion may begin right after the supervisor has answered, a process
// can be stopped between its last look at the clock and the kernel, and the
// network can hold a packet back: who asks has to bound the time of the whole
// question, as load balancers do. Nor is it a fence: what keeps two nodes from
// acting as primary is the lease, and nothing here. It serves plain HTTP to
// whoever can reach its address.
package http
