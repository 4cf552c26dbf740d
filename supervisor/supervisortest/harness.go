package supervisortest

import (
	"testing"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// A Fault is something that TestElector does to what it tests.
type Fault string

// The faults of one process, or of the node that it runs on.
const (
	Killed     Fault = "a process is killed"
	Frozen     Fault = "a process is stopped and continued"
	CutOff     Fault = "a node cannot reach the records"
	WritesLate Fault = "what a node writes arrives late"
	ReplyLost  Fault = "the reply to the next write is lost" // ends by itself
)

// The faults of the records and of who keeps them.
const (
	ServerKilled   Fault = "the server that decides is killed"
	ServerStopped  Fault = "the server that decides is stopped and continued"
	ServerCut      Fault = "one server is cut off from the others"
	QuorumLost     Fault = "a majority of the servers is gone"
	Restored       Fault = "the records are restored from a snapshot"
	PrimaryDeleted Fault = "the record of a role is deleted by hand"
	PulseDeleted   Fault = "a pulse is deleted by hand"
)

// A Harness makes elections for TestElector.
type Harness interface {
	// TTL is what the cases use; all that they wait for is a multiple of it.
	TTL() time.Duration
	// Lacks tells why a fault cannot be done, in words for the skipped test;
	// empty when it can.
	Lacks(f Fault) string
	// Run runs one case with records of its own: in a synctest bubble, or in
	// parallel with others. Servers may be shared by cases whose needs name no
	// fault of the records.
	Run(t *testing.T, needs []Fault, play func(t *testing.T, lab Lab))
}

// A Lab is the records of one case and who keeps them.
type Lab interface {
	// Start starts one more process on the named machine, whether or not there
	// is one already. It ends with the test.
	Start(node string) Process
	Operator() supervisor.Cluster
	// Inflict begins a fault of the records and Relieve ends it. Both return
	// when it is so; nothing needs to have recovered.
	Inflict(f Fault)
	Relieve(f Fault)
	// DeletePrimary deletes the record services/NAME/primary.
	DeletePrimary(service string)
	// Snapshot copies the records; the function returned puts them back.
	Snapshot() (restore func())
}

// A Process is one process of deputy: an etcd client, or a simulated one.
type Process interface {
	Node() supervisor.Node
	Clock() supervisor.Clock
	// Elector returns the process's seat in an election. It is called once for
	// each service.
	Elector(service string, ttl time.Duration) supervisor.Elector
	// Inflict begins a fault of this process or its node, and Relieve ends it.
	// A killed process leaves its records as they are.
	Inflict(f Fault)
	Relieve(f Fault)
	// DeletePulse deletes the record of every pulse of this process.
	DeletePulse()
}
