package supervisortest

import (
	"testing"
)

// TestElector proves that an Elector keeps its contract, whatever happens to
// nodes, network and records: of two nodes that might act for one service,
// judged by their Until, never two at one time; terms that grow; and a role
// that does not stay vacant. Bounds on time are wide.
func TestElector(t *testing.T, h Harness) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			for _, f := range c.needs {
				if why := h.Lacks(f); why != "" {
					t.Skipf("needs that %s: %s", f, why)
				}
			}
			h.Run(t, c.needs, func(t *testing.T, lab Lab) {
				s, end := newStage(t, lab, h.TTL())
				defer end()
				c.play(s)
			})
		})
	}
}

// A testCase is one story of the suite.
type testCase struct {
	name  string
	needs []Fault
	play  func(*stage)
}

func cases() []testCase {
	return []testCase{
		{"first election", nil, firstElection},
		{"second waits", nil, secondWaits},
		{"clean resign hands over at once", nil, cleanResign},
		{"renewal on demand", nil, renewal},
		{"role is announced", nil, announced},
		{"stale state is refused", nil, staleState},
		{"reservation keeps others away", nil, reserved},
		{"reservation ends", nil, reservationEnds},
		{"answer compares", nil, answers},
		{"request is busy", nil, busy},
		{"candidates are visible", nil, candidates},
		{"orders and history are visible", nil, orders},
		{"kept role is adopted", nil, keptRole},
		{"role let go of comes back", nil, abandoned},
		{"holder killed", []Fault{Killed}, holderKilled},
		{"presence ends", []Fault{Killed}, presenceEnds},
		{"adoption in time", []Fault{Killed}, adoption},
		{"adoption too late", []Fault{Killed}, adoptionLate},
		{"two processes adopt", []Fault{Killed}, adoptionTwice},
		{"many services on one pulse", []Fault{Killed}, manyServices},
		{"holder frozen and thawed", []Fault{Frozen}, interrupted(Frozen)},
		{"holder cut off and healed", []Fault{CutOff}, interrupted(CutOff)},
		{"candidate cut off", []Fault{CutOff}, candidateCut},
		{"late writes", []Fault{WritesLate}, lateWrites},
		{"late writes of a node cut off", []Fault{WritesLate, CutOff}, lateWritesCut},
		{"unknown outcome of take", []Fault{ReplyLost}, unknownTake},
		{"unknown outcome of resign", []Fault{ReplyLost}, unknownResign},
		{"primary deleted by hand", []Fault{PrimaryDeleted}, primaryDeleted},
		{"pulse deleted by hand", []Fault{PulseDeleted}, pulseDeleted},
		{"primary deleted under a holder cut off", []Fault{PrimaryDeleted, CutOff}, deletedUnderHolder(primaryGone)},
		{"pulse deleted under a holder cut off", []Fault{PulseDeleted, CutOff}, deletedUnderHolder(pulseGone)},
		{"primary deleted under an adopter cut off", []Fault{PrimaryDeleted, CutOff, Killed}, deletedUnderAdopter(primaryGone)},
		{"pulse deleted under an adopter cut off", []Fault{PulseDeleted, CutOff, Killed}, deletedUnderAdopter(pulseGone)},
		{"deciding server killed", []Fault{ServerKilled}, server(ServerKilled, 4)},
		{"deciding server stopped and continued", []Fault{ServerStopped}, server(ServerStopped, 3)},
		{"one server cut off", []Fault{ServerCut}, server(ServerCut, 3)},
		{"quorum lost and back", []Fault{QuorumLost}, quorumLost},
		{"restored snapshot", []Fault{Restored}, restored},
	}
}
