package supervisortest

import (
	"errors"
	"sync"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// ErrDiskFull is what a Memory says that has no room.
var ErrDiskFull = errors.New("no space left on device")

// A Memory keeps a member's Note in memory: the run directory of a node, which
// outlives its processes. The zero Memory is ready for use.
type Memory struct {
	mu    sync.Mutex
	full  bool
	note  supervisor.Note
	until sdk.Instant
}

// Load returns the Note saved last, with the end of its lease as saved last.
func (m *Memory) Load() (supervisor.Note, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.note
	if n.Tenure != nil && n.Tenure.Until < m.until {
		t := *n.Tenure
		t.Until = m.until
		n.Tenure = &t
	}
	return n, nil
}

// Save keeps the Note. On a full disk it keeps only what promotes nothing
// further: the room for that was taken beforehand.
func (m *Memory) Save(n supervisor.Note) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full && promotes(m.note, n) {
		return ErrDiskFull
	}
	m.note = n
	return nil
}

// promotes reports whether n says of more parts than before that they may act
// as primary, or begins a tenure.
func promotes(before, n supervisor.Note) bool {
	began := n.Tenure != nil && (before.Tenure == nil || before.Tenure.Term != n.Tenure.Term)
	return began || len(n.Promoted) > len(before.Promoted)
}

// SaveUntil keeps the end of the lease, also on a full disk.
func (m *Memory) SaveUntil(i sdk.Instant) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.until = i
	return nil
}

// Until returns what SaveUntil kept last.
func (m *Memory) Until() sdk.Instant {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.until
}

// Fill makes the disk full, or not.
func (m *Memory) Fill(full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.full = full
}

// An Escalator records what was asked of it.
type Escalator struct {
	Journal   *Journal
	Node      string
	OnTrigger func(cause error) // what happens then; nil: nothing
	OnReboot  func(cause error)

	mu       sync.Mutex
	triggers []error
	reboots  []error
}

// Trigger records the cause and calls OnTrigger.
func (e *Escalator) Trigger(cause error) {
	e.mu.Lock()
	e.triggers = append(e.triggers, cause)
	e.mu.Unlock()
	e.Journal.add(e.Node, "", "TRIGGER: %v", cause)
	if e.OnTrigger != nil {
		e.OnTrigger(cause)
	}
}

// Reboot records the cause and calls OnReboot.
func (e *Escalator) Reboot(cause error) {
	e.mu.Lock()
	e.reboots = append(e.reboots, cause)
	e.mu.Unlock()
	e.Journal.add(e.Node, "", "REBOOT: %v", cause)
	if e.OnReboot != nil {
		e.OnReboot(cause)
	}
}

// Triggers returns the cause of each Trigger so far.
func (e *Escalator) Triggers() []error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]error(nil), e.triggers...)
}

// Reboots returns the cause of each Reboot so far.
func (e *Escalator) Reboots() []error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]error(nil), e.reboots...)
}
