package etcd

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// A pulseRecord is the value of pulses/ID. Count grows with every attempt to
// write it, so that no two values of one pulse are the same.
type pulseRecord struct {
	Node  string `json:"node"`
	Boot  string `json:"boot"`
	TTL   int64  `json:"ttl_ms"`
	Count uint64 `json:"count"`
}

func (p pulseRecord) ttl() time.Duration { return time.Duration(p.TTL) * time.Millisecond }

// A primaryRecord is the value of services/NAME/primary.
type primaryRecord struct {
	supervisor.Primary
	// TTL is that of the pulse, for those who find the pulse gone without
	// ever having seen it.
	TTL int64 `json:"ttl_ms,omitempty"`
	// Write tells two writes of one tenure apart.
	Write   string                 `json:"write,omitempty"`
	Follows *supervisor.TermRecord `json:"follows,omitempty"` // the tenure before
	// Given is the reservation by which the primary before has written this
	// record for its target, who has not taken it up yet.
	Given *supervisor.Reservation `json:"given,omitempty"`
}

func (p primaryRecord) ttl() time.Duration { return time.Duration(p.TTL) * time.Millisecond }

// A termRecord is the value of services/NAME/term.
type termRecord struct {
	supervisor.TermRecord
	TTL int64 `json:"ttl_ms,omitempty"` // that of the pulse
}

func (t termRecord) ttl() time.Duration { return time.Duration(t.TTL) * time.Millisecond }

// A reservationRecord is the value of services/NAME/reservation.
type reservationRecord struct {
	supervisor.Reservation
	Target *target `json:"target,omitempty"` // once it has accepted
}

// A target is what the primary has to know of the one who has accepted a
// reservation, to give it the role in one write.
type target struct {
	Address string   `json:"address,omitempty"`
	Pulse   string   `json:"pulse"`
	Birth   int64    `json:"birth"`             // revision of the pulse's creation
	TTL     int64    `json:"ttl_ms"`            // that of the pulse
	Highest sdk.Term `json:"highest,omitempty"` // that it has ever seen
}

func (t target) ttl() time.Duration { return time.Duration(t.TTL) * time.Millisecond }

// records are those of a tenure that begins.
func records(t sdk.Term, who sdk.Peer, pulse string, ttl time.Duration, follows supervisor.TermRecord) (primaryRecord, termRecord) {
	prim := primaryRecord{
		Primary: supervisor.Primary{
			Node: who.Node, Address: who.Address, Term: t, Pulse: pulse,
			State: sdk.RolePromoting, Since: time.Now().UTC(),
		},
		TTL:     ttl.Milliseconds(),
		Write:   rand.Text(),
		Follows: &follows,
	}
	term := termRecord{
		TermRecord: supervisor.TermRecord{Term: t, Node: who.Node, Address: who.Address, Pulse: pulse, Victims: follows.Lost()},
		TTL:        ttl.Milliseconds(),
	}
	return prim, term
}

// encode never fails for the types of this package: they hold nothing that
// JSON cannot say.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return b
}

// decode returns the zero T for a record that does not exist.
func decode[T any](r record) (T, error) {
	var v T
	if !r.exists() {
		return v, nil
	}
	if err := json.Unmarshal(r.Value, &v); err != nil {
		return v, fmt.Errorf("read record %s: %w", r.Key, err)
	}
	return v, nil
}
