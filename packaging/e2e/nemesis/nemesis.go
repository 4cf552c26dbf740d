// Package nemesis plans what goes wrong, and when.
//
// What it guarantees: a seed gives the same plan for ever, as long as the faults
// to choose from are the same, in the same order. Each step is a function of the
// seed and its number alone, so one can be played without those before it.
//
// What it does not guarantee: that the same plan meets the same moments again.
// Hosts are chosen by the role that they have when a step is played.
package nemesis

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// A Victim is which host a fault hits.
type Victim string

// The hosts that can be hit. What hits none of them is hit as a whole.
const (
	Primary Victim = "primary"
	Standby Victim = "standby"
	Nobody  Victim = ""
)

// A Fault is a kind of thing that can go wrong.
type Fault struct {
	Name    string
	Victims []Victim         // one of them is hit; empty for what hits no host
	Hold    [2]time.Duration // it lasts from the first to the second
	Often   int              // how often it is chosen, compared with others; 0 is 1
	Alone   bool             // never together with another
}

// A Blow is a fault that is to be played.
type Blow struct {
	Fault string
	On    Victim
	At    time.Duration // since the step began
	Hold  time.Duration
	Dice  uint64 // for what the fault itself leaves open
}

func (b Blow) String() string {
	at := ""
	if b.At > 0 {
		at = fmt.Sprintf(" after %s", b.At)
	}
	if b.On != Nobody {
		at += " on the " + string(b.On)
	}
	return fmt.Sprintf("%s%s for %s", b.Fault, at, b.Hold)
}

// A Step is one fault, or two at once. Before the next one all is mended.
type Step struct {
	Number int
	Rest   time.Duration // before it begins
	Blows  []Blow
}

func (s Step) String() string {
	var all []string
	for _, b := range s.Blows {
		all = append(all, b.String())
	}
	return fmt.Sprintf("step %d, rested for %s: %s", s.Number, s.Rest, strings.Join(all, ", and "))
}

// together is how many of a hundred steps have two faults.
const together = 30

// Plan returns one step of the plan of a seed.
func Plan(seed uint64, number int, faults []Fault) Step {
	dice := rand.New(rand.NewPCG(seed, uint64(number)))
	s := Step{Number: number, Rest: between(dice, 0, 3*time.Second)}
	first := choose(dice, faults)
	s.Blows = append(s.Blows, blow(dice, first))
	if dice.IntN(100) < together && !first.Alone {
		if second := choose(dice, faults); !second.Alone {
			b := blow(dice, second)
			b.At = between(dice, 0, 4*time.Second)
			s.Blows = append(s.Blows, b)
		}
	}
	return s
}

func choose(dice *rand.Rand, faults []Fault) Fault {
	sum := 0
	for _, f := range faults {
		sum += max(f.Often, 1)
	}
	n := dice.IntN(sum)
	for _, f := range faults {
		if n -= max(f.Often, 1); n < 0 {
			return f
		}
	}
	panic("no fault to choose") // n is below the sum
}

func blow(dice *rand.Rand, f Fault) Blow {
	b := Blow{Fault: f.Name, Hold: between(dice, f.Hold[0], f.Hold[1]), Dice: dice.Uint64()}
	if len(f.Victims) > 0 {
		b.On = f.Victims[dice.IntN(len(f.Victims))]
	}
	return b
}

// between is one of the milliseconds from a to b.
func between(dice *rand.Rand, a, b time.Duration) time.Duration {
	return a + time.Duration(dice.Int64N((b-a).Milliseconds()+1))*time.Millisecond
}
