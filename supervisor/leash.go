package supervisor

import (
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A Leash is how long a process may be silent before something outside of it
// has to assume that it is frozen, kill it and demote behind it.
type Leash struct {
	// Silence is the longest time between two signs of life; zero where there
	// is nothing to lose by more.
	Silence time.Duration
	// Until is the instant beyond which no sign of life counts; zero where there
	// is none.
	Until sdk.Instant
}

// Shorter returns what is left of two leashes for a process that is on both.
func (l Leash) Shorter(other Leash) Leash {
	if l.Silence == 0 || other.Silence != 0 && other.Silence < l.Silence {
		l.Silence = other.Silence
	}
	if l.Until == 0 || other.Until != 0 && other.Until < l.Until {
		l.Until = other.Until
	}
	return l
}

// Notice is how long after s + Lost a process may take to begin the forced
// demotion, before not having begun it counts as frozen.
func (t Timing) Notice() time.Duration { return t.Forced() / 8 }

// Held is the leash of a process that holds a lease, or may adopt one, which
// ends at until: s + Until.
func (t Timing) Held(until sdk.Instant) Leash {
	return Leash{Silence: t.Watchdog, Until: until.Add(t.Lost - t.Until + t.Notice())}
}

// Forcing is the leash of a process that demotes by force: to s + Trigger, when
// the member asks for its own end.
func (t Timing) Forcing(until sdk.Instant) Leash {
	return Leash{Silence: t.Watchdog, Until: until.Add(t.Trigger - t.Until)}
}

// Leash tells how long the member's process may be silent now. It is reckoned
// from the lease itself, and does not rely on the goroutine that ends it in
// time: one that hangs is what it is for.
func (m *Member) Leash() Leash {
	m.mu.Lock()
	defer m.mu.Unlock()
	promoted := false
	for _, p := range m.parts {
		promoted = promoted || p.promoted
	}
	loose := Leash{Silence: m.timing.Watchdog}
	switch {
	case m.lease == nil && !promoted:
		return Leash{}
	case m.lease == nil, m.role == sdk.RoleFailed, m.role == sdk.RoleDemoting && !promoted:
		// There is no instant to keep; but whoever stands still in this should
		// be replaced by a process that does not.
		return loose
	case m.role == sdk.RoleBlocked && isClosed(m.lease.Lost()):
		return loose // it has been demoted by force, to no avail
	}
	until := m.lease.Until()
	if until == 0 { // the role proved not ours: the forced demotion counts from when that was seen
		if m.forfeited == 0 {
			m.forfeited = m.clock.Now()
		}
		until = m.forfeited.Add(m.timing.Until - m.timing.Lost)
	}
	if m.role == sdk.RoleDemoting {
		return m.timing.Forcing(until)
	}
	return m.timing.Held(until)
}
