package supervisor

import (
	"maps"
	"slices"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// Figures are what a service's supervisor has counted and timed since its
// process began, and how things stand, all in numbers: what metrics are made of.
// How many there are is bounded by the definition. Durations are nanoseconds.
type Figures struct {
	Service string    `json:"service"`
	Node    string    `json:"node"`
	Version string    `json:"version"` // of deputy
	Process string    `json:"process"` // that counts: services of one process have the same; empty where nobody says
	Began   time.Time `json:"began"`   // the counting; wall time

	Role  sdk.Role      `json:"role"`
	Since time.Time     `json:"since"` // in this role; wall time
	Term  sdk.Term      `json:"term"`  // of the tenure here, else the last one known
	TTL   time.Duration `json:"ttl_ns"`
	Held  bool          `json:"held"` // the lease
	// LeaseUntil is the lease's local deadline, on this machine's CLOCK_BOOTTIME.
	LeaseUntil  sdk.Instant `json:"lease_until_ns,omitempty"`
	Fit         bool        `json:"fit"`
	Paused      bool        `json:"paused"`
	Drained     bool        `json:"drained"`     // this node leads nothing for now
	Reserved    bool        `json:"reserved"`    // the role is to go to a node that was named
	Seen        bool        `json:"seen"`        // some node is primary, by the records as last read
	Members     int         `json:"members"`     // present
	Fits        int         `json:"fits"`        // of them, those that are fit
	Definitions int         `json:"definitions"` // different ones that they have

	// Leaderless is how long the records showed no primary. While they cannot be
	// read nobody here knows, and nothing is added.
	Leaderless time.Duration         `json:"leaderless_ns"`
	Tenures    map[sdk.Reason]uint64 `json:"tenures"`    // begun here, by why
	Promotions map[Result]uint64     `json:"promotions"` // success or failure
	Demotions  map[Result]uint64     `json:"demotions"`  // success, failure or undone
	Parts      []PartFigures         `json:"parts"`
	HookBounds []time.Duration       `json:"hook_bounds_ns"` // of the histograms in Parts

	Renewals *Renewals `json:"renewals,omitempty"` // nil where the elector has no figures
	Contact  *Contact  `json:"contact,omitempty"`  // likewise
}

// A Result is what a promotion, a demotion or a check came to.
type Result string

// The results.
const (
	ResultSuccess Result = "success"
	ResultFailure Result = "failure"
	ResultUndone  Result = "undone"    // a demotion: it could not finish in time, and the role was kept
	ResultSilence Result = "no-answer" // a check
)

// PartFigures are the figures of one plugin of a service.
type PartFigures struct {
	Name     string         `json:"name"`
	Use      string         `json:"use"`
	Promoted bool           `json:"promoted"` // may act as primary here
	Checked  bool           `json:"checked"`  // a check has answered in this role
	Fit      bool           `json:"fit"`
	Hooks    []HookFigures  `json:"hooks,omitempty"`
	Checks   []CheckFigures `json:"checks,omitempty"`
	Restarts *Restarts      `json:"restarts,omitempty"` // nil where there is no process to restart
}

// HookFigures are the attempts at one act that had one outcome.
type HookFigures struct {
	Act     sdk.Action  `json:"act"`
	Outcome sdk.Outcome `json:"outcome"`
	Took    Histogram   `json:"took"`
}

// CheckFigures are the checks that had one result.
type CheckFigures struct {
	Result Result        `json:"result"`
	Count  uint64        `json:"count"`
	Sum    time.Duration `json:"sum_ns"` // what they took together
}

// Restarts are how often a plugin's process was started in place of another, by
// how that ended; and how often such a start came to nothing.
type Restarts struct {
	Crashes uint64 `json:"crashes"` // it ended by itself
	Freezes uint64 `json:"freezes"` // it was killed because it gave no sign of life
	Kills   uint64 `json:"kills"`   // it was killed to end an act
	Starts  uint64 `json:"starts"`  // came to nothing
}

// A Restarter is a Plugin in a process that is started again when it has ended.
type Restarter interface {
	Restarts() Restarts
}

// Renewals are the pulses by which this process renews its leases of one TTL.
// There are as many whether or not it holds one.
type Renewals struct {
	Bounds   []time.Duration `json:"bounds_ns"` // of Took
	Took     Histogram       `json:"took"`      // those that were acknowledged
	Failures uint64          `json:"failures"`  // those that were not
}

// A Contact is whether the records answer and do what is asked.
type Contact struct {
	Reachable   bool          `json:"reachable"`
	Unreachable time.Duration `json:"unreachable_ns"` // how long they were not, all in all
	Last        time.Time     `json:"last,omitzero"`  // answer; wall time
}

// A Meter is an Elector that has figures of its own.
type Meter interface {
	Renewals() Renewals
	Contact() Contact
}

// A Histogram counts durations by bounds that whoever has it knows. It is not safe
// for use by several goroutines.
type Histogram struct {
	Counts []uint64      `json:"n"` // up to each bound and above the one before; the last is above all
	Sum    time.Duration `json:"sum_ns"`
}

// RenewalBounds suit what etcd takes for a write: the time that a pulse has is
// a sixth of a TTL.
func RenewalBounds() []time.Duration {
	const ms = time.Millisecond
	return []time.Duration{ms, 2500 * time.Microsecond, 5 * ms, 10 * ms, 25 * ms, 50 * ms, 100 * ms, 250 * ms, 500 * ms, 2500 * ms}
}

// HookBounds suit what hooks take.
func HookBounds() []time.Duration {
	const ms = time.Millisecond
	return []time.Duration{5 * ms, 10 * ms, 25 * ms, 50 * ms, 100 * ms, 250 * ms, 500 * ms, 1000 * ms, 5000 * ms, 30000 * ms}
}

// Add counts one duration by bounds, which ascend and are the same each time.
func (h *Histogram) Add(bounds []time.Duration, d time.Duration) {
	if h.Counts == nil {
		h.Counts = make([]uint64, len(bounds)+1)
	}
	i, _ := slices.BinarySearch(bounds, d)
	h.Counts[i]++
	h.Sum += d
}

// Clone returns a Histogram that later Adds do not change.
func (h Histogram) Clone() Histogram {
	h.Counts = slices.Clone(h.Counts)
	return h
}

// A tally is what a member has counted, guarded by its mu: nothing of it waits
// for anything.
type tally struct {
	began      time.Time
	tenures    map[sdk.Reason]uint64
	promotions map[Result]uint64
	demotions  map[Result]uint64
	leaderless time.Duration
	vacantAt   sdk.Instant // since when the records show no primary, as far as is counted; zero while they show one
}

// newTally begins with what can come at zero, so that a first time is seen as
// an increase.
func newTally() tally {
	return tally{
		began:      time.Now(),
		tenures:    map[sdk.Reason]uint64{sdk.ReasonElection: 0, sdk.ReasonFailover: 0, sdk.ReasonSwitchover: 0, sdk.ReasonPreempt: 0, sdk.ReasonDrain: 0, sdk.ReasonStart: 0},
		promotions: map[Result]uint64{ResultSuccess: 0, ResultFailure: 0},
		demotions:  map[Result]uint64{ResultSuccess: 0, ResultFailure: 0, ResultUndone: 0},
	}
}

// move counts a change of role; why is that of the tenure.
func (t *tally) move(from, to sdk.Role, why sdk.Reason) {
	switch {
	case to == sdk.RolePromoting, from == sdk.RoleUnknown && to == sdk.RolePrimary: // adopted
		t.tenures[why]++
	case from == sdk.RolePromoting && to == sdk.RolePrimary:
		t.promotions[ResultSuccess]++
	case from == sdk.RolePromoting:
		t.promotions[ResultFailure]++
	case from != sdk.RoleDemoting:
	case to == sdk.RolePrimary:
		t.demotions[ResultUndone]++
	case to == sdk.RoleStandby:
		t.demotions[ResultSuccess]++
	default:
		t.demotions[ResultFailure]++
	}
}

// see takes note of what the records show at a time.
func (t *tally) see(s State, now sdk.Instant) {
	if t.vacantAt != 0 {
		t.leaderless += now.Sub(t.vacantAt)
	}
	if t.vacantAt = now; s.Unreachable != "" || led(s) {
		t.vacantAt = 0
	}
}

// led reports whether the records show a primary.
func led(s State) bool {
	return s.Primary != nil && !s.Vacant && s.Primary.State == sdk.RolePrimary
}

// A partTally is what a member has counted of one part, guarded as a tally is.
type partTally struct {
	hooks  []HookFigures // of what there was
	checks []CheckFigures
}

// act counts one attempt at an act.
func (t *partTally) act(a sdk.Action, o sdk.Outcome, took time.Duration) {
	i := slices.IndexFunc(t.hooks, func(h HookFigures) bool { return h.Act == a && h.Outcome == o })
	if i < 0 {
		i = len(t.hooks)
		t.hooks = append(t.hooks, HookFigures{Act: a, Outcome: o})
	}
	t.hooks[i].Took.Add(HookBounds(), took)
}

// check counts one check.
func (t *partTally) check(h sdk.Health, err error, took time.Duration) {
	r := ResultFailure
	switch {
	case err != nil:
		r = ResultSilence
	case h.Fit:
		r = ResultSuccess
	}
	i := slices.IndexFunc(t.checks, func(c CheckFigures) bool { return c.Result == r })
	if i < 0 {
		i = len(t.checks)
		t.checks = append(t.checks, CheckFigures{Result: r})
	}
	t.checks[i].Count++
	t.checks[i].Sum += took
}

// Figures returns what the member has counted so far.
func (m *Member) Figures() Figures {
	f, plugins := m.figures()
	// Neither is asked with mu held: how soon they answer is not this package's.
	for i, p := range plugins {
		if r, ok := p.(Restarter); ok {
			f.Parts[i].Restarts = new(r.Restarts())
		}
	}
	if e, ok := m.elector.(Meter); ok {
		f.Renewals, f.Contact = new(e.Renewals()), new(e.Contact())
	}
	return f
}

func (m *Member) figures() (f Figures, plugins []Plugin) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, now := m.state, m.clock.Now()
	if m.seen {
		m.tally.see(s, now)
	}
	f = Figures{
		Service: m.service.Name, Node: m.node.Name, Version: m.node.Version, Began: m.tally.began,
		Role: m.role, Since: m.since, Term: s.Term.Term, TTL: m.service.TTL,
		Paused: s.Pause.active(time.Now()), Drained: m.away != nil || s.IsDrained(m.node.Name), Reserved: s.Reservation.Binds(),
		Seen: led(s), Members: len(s.Candidates), Leaderless: m.tally.leaderless, HookBounds: HookBounds(),
		Tenures: maps.Clone(m.tally.tenures), Promotions: maps.Clone(m.tally.promotions), Demotions: maps.Clone(m.tally.demotions),
	}
	f.Fit, _ = m.fitness()
	if m.lease != nil {
		f.Term, f.Held, f.LeaseUntil = m.lease.Term(), true, m.lease.Until()
	}
	hashes := map[string]bool{}
	for _, c := range s.Candidates {
		hashes[c.Hash] = true
		if c.Fit {
			f.Fits++
		}
	}
	f.Definitions = len(hashes)
	for _, p := range m.parts {
		plugins = append(plugins, p.def().plugin)
		f.Parts = append(f.Parts, p.figures())
	}
	return f, plugins
}

// figures returns the part's figures but for its restarts. The caller holds mu.
func (p *part) figures() PartFigures {
	f := PartFigures{
		Name: p.Name, Use: p.def().Use, Promoted: p.promoted, Checked: p.health.answered, Fit: !p.health.unfit(),
		Hooks: slices.Clone(p.tally.hooks), Checks: slices.Clone(p.tally.checks),
	}
	for i := range f.Hooks {
		f.Hooks[i].Took = f.Hooks[i].Took.Clone()
	}
	return f
}
