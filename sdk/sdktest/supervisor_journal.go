package sdktest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A Call is one call of the plugin by the fake supervisor.
type Call struct {
	At   time.Duration  // when, since the story began
	Took time.Duration  // until it had ended, or was given up; zero while it runs
	What sdk.Capability // what was called: sdk.CanPromote is Promote, and so on

	Act      sdk.Transition // of an act: as it was asked for
	Result   sdk.Result     // of an act: what it came to; zero while it runs
	Progress []string       // of an act: what it said of its progress

	Until  sdk.Instant          // of a renewal: as it was told
	Role   sdk.Role             // of a check: what to be fit for
	Health sdk.Health           // of a check: the answer
	Orders map[string]sdk.Order // of a ranking: the answer
	Err    error                // of a renewal, check or ranking
}

// String tells of the call in one line.
func (c Call) String() string {
	var b strings.Builder
	b.WriteString(string(c.What))
	switch c.What {
	case sdk.CanRenew:
		fmt.Fprintf(&b, " until %.2fs", time.Duration(c.Until-epoch).Seconds())
		if c.Err != nil {
			fmt.Fprintf(&b, ": %v", c.Err)
		}
	case sdk.CanCheck:
		switch {
		case c.Err != nil:
			fmt.Fprintf(&b, " for %s: no answer: %v", c.Role, c.Err)
		case c.Health.Fit:
			fmt.Fprintf(&b, " for %s: fit", c.Role)
		default:
			fmt.Fprintf(&b, " for %s: not fit", c.Role)
		}
		if c.Err == nil && c.Health.Detail != "" {
			b.WriteString(": " + c.Health.Detail)
		}
	case sdk.CanRank:
		for _, node := range slices.Sorted(maps.Keys(c.Orders)) {
			fmt.Fprintf(&b, " %s:%s", node, c.Orders[node])
		}
		if c.Err != nil {
			fmt.Fprintf(&b, ": %v", c.Err)
		}
	default:
		if c.Act.Mode == sdk.Forced {
			b.WriteString(" forced")
		}
		fmt.Fprintf(&b, " term %d (%s)", c.Act.Term, c.Act.Reason)
		switch c.Act.Action {
		case sdk.Follow, sdk.Fence:
			b.WriteString(" " + c.Act.Primary.Node)
		}
		if c.Act.Attempt > 1 {
			fmt.Fprintf(&b, " attempt %d", c.Act.Attempt)
		}
		if c.Result.Outcome == "" {
			b.WriteString(": runs")
			break
		}
		b.WriteString(": " + tell(c.Result))
		if c.Took > 0 {
			fmt.Fprintf(&b, " after %s", short(c.Took))
		}
	}
	return b.String()
}

// epoch is where the clock of a story begins.
const epoch = sdk.Instant(1000 * time.Second)

// A record is one thing that happened: a call, a role, or a word.
type record struct {
	at   time.Duration
	call *Call
	role sdk.Role
	term sdk.Term
	why  string // of the role, or the word
}

func (s *Supervisor) record(c Call) *record {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.At = time.Since(s.began)
	r := &record{at: c.At, call: &c}
	s.records = append(s.records, r)
	return r
}

// finish tells more of a call, and until when it ran so far.
func (s *Supervisor) finish(r *record, more func(*Call)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	more(r.call)
	r.call.Took = time.Since(s.began) - r.at
}

// tell notes what befalls the node.
func (s *Supervisor) tell(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = append(s.records, &record{at: time.Since(s.began), why: what})
}

// Calls are the calls of the plugin so far, in the order in which they were made;
// of those kinds alone, where some are given. Describe and Configure are not
// among them.
func (s *Supervisor) Calls(of ...sdk.Capability) []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Call
	for _, r := range s.records {
		if r.call != nil && (len(of) == 0 || slices.Contains(of, r.call.What)) {
			c := *r.call
			c.Progress = slices.Clone(c.Progress)
			all = append(all, c)
		}
	}
	return all
}

// Story tells what has happened, for people and for comparison with a text: a
// line for each act and each change of role, by its time. Of renewals and checks
// it tells only those that went otherwise than the one before.
func (s *Supervisor) Story() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	said := map[sdk.Capability]string{sdk.CanRenew: "", sdk.CanCheck: "fit"}
	for _, r := range s.records {
		text := r.why
		switch {
		case r.call != nil:
			text = r.call.String()
			if before, often := said[r.call.What]; often {
				now := r.call.verdict()
				if said[r.call.What] = now; now == before {
					continue
				}
			}
		case r.role != "":
			text = "-> " + string(r.role)
			if r.role == sdk.RolePromoting {
				text += fmt.Sprintf(" term %d", r.term)
			}
			text += ": " + r.why
		}
		fmt.Fprintf(&b, "%8.2fs  %s\n", r.at.Seconds(), text)
	}
	return b.String()
}

// verdict is what is to be compared of a renewal or a check.
func (c *Call) verdict() string {
	switch {
	case c.Err != nil:
		return c.Err.Error()
	case c.What == sdk.CanCheck && c.Health.Fit:
		return "fit"
	}
	return c.Health.Detail
}
