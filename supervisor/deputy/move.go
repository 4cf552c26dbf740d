package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/config"
	"github.com/deputy-ha/deputy/supervisor/control"
)

// How long a move may take where this node does not have the definition that
// would tell.
const (
	handOverTime = time.Minute
	promoteTime  = 2 * time.Minute
)

// A moved is what a switchover or failover prints as JSON.
type moved struct {
	Format  string        `json:"format"`
	Service string        `json:"service"`
	From    string        `json:"from,omitempty"`
	To      string        `json:"to"`
	Term    sdk.Term      `json:"term"`
	Took    time.Duration `json:"took_ns"`
	Away    time.Duration `json:"away_ns,omitempty"` // nobody was primary for so long, as seen from here
	Steps   []event       `json:"steps"`
	Error   string        `json:"error,omitempty"`
}

const moveFormat = "deputy.move/1"

var errGoesOn = errors.New("goes on by itself")

func (a *app) switchoverCommand() *cobra.Command {
	var to string
	var timeout time.Duration
	var dry bool
	c := a.prints(&cobra.Command{
		Use:   "switchover SERVICE",
		Short: "Move the role in a planned way",
		Long: "Move the role in a planned way: the target says that it is ready, the old primary\n" +
			"demotes, then the target promotes. Waits for the end and shows each step, what a hook of\n" +
			"this node does while that takes longer than a second, and then how long each hook took.\n" +
			"When the old primary cannot leave in time, its demotion is undone and it stays.",
		Example: "  deputy switchover orders-db\n  deputy switchover orders-db --to db2 --dry-run",
		Args:    one("SERVICE"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.order(c, args[0], func(ctx context.Context, way *contact) error {
				s, err := way.state(ctx, args[0])
				if err != nil {
					return err
				}
				target, err := planSwitchover(s, to, time.Now())
				if errors.Is(err, errAlready) {
					return a.already(s)
				}
				if err != nil {
					return fmt.Errorf("switchover %s: %w", args[0], err)
				}
				r := supervisor.Reservation{To: target, Reason: sdk.ReasonSwitchover}
				if dry {
					return a.dryRun(s, r, timeout)
				}
				return a.move(ctx, way, s, r, timeout)
			})
		},
	})
	c.Flags().StringVar(&to, "to", "", "the node that takes the role; the best candidate if not given")
	c.Flags().BoolVar(&dry, "dry-run", false, "check all, tell what would happen, and change nothing")
	c.Flags().DurationVar(&timeout, "timeout", 0, "undo it when the old primary has not left after so long; the definition's timeouts if not given")
	return c
}

func (a *app) failoverCommand() *cobra.Command {
	var to string
	var fenced []string
	var timeout time.Duration
	var dry bool
	c := a.prints(&cobra.Command{
		Use:   "failover SERVICE --to NODE",
		Short: "Give the role to a node when the primary is gone and the rules refuse",
		Long: "Give the role to a node when the primary is gone and the automatic rules refuse, for\n" +
			"example because the node lacks data that another has: what it lacks is lost.\n" +
			"Refused while a primary is alive; that is what `deputy switchover` is for.\n\n" +
			"Where the service fences (on_unclean), a node that was lost is fenced all the same,\n" +
			"unless --fenced names it: with that you say that it is down for certain, because you\n" +
			"have seen to it yourself. If it is not, two nodes may be primary at once.",
		Example: "  deputy failover orders-db --to db2\n  deputy failover orders-db --to db2 --fenced db1",
		Args:    one("SERVICE"),
		RunE: func(c *cobra.Command, args []string) error {
			if to == "" {
				return mark(errors.New("failover needs --to NODE: an operator decides who takes the role"), errUsage)
			}
			return a.order(c, args[0], func(ctx context.Context, way *contact) error {
				s, err := way.settled(ctx, args[0], a.settleTime(args[0]))
				if err != nil {
					return err
				}
				if err := planFailover(s, to, fenced); err != nil {
					return fmt.Errorf("failover %s: %w", args[0], err)
				}
				r := supervisor.Reservation{To: to, Reason: sdk.ReasonFailover, Force: true, Fenced: fenced}
				if dry {
					return a.dryRun(s, r, timeout)
				}
				return a.move(ctx, way, s, r, timeout)
			})
		},
	})
	c.Flags().StringVar(&to, "to", "", "the node that takes the role")
	c.Flags().StringSliceVar(&fenced, "fenced", nil, "the `NODE` that was lost is down for certain: do not fence it; several with commas")
	c.Flags().BoolVar(&dry, "dry-run", false, "check all, tell what would happen, and change nothing")
	c.Flags().DurationVar(&timeout, "timeout", 0, "free the role for others when it is not taken after so long; the definition's timeouts if not given")
	return c
}

// already says that the wanted node has the role.
func (a *app) already(s supervisor.State) error {
	if a.json() {
		return a.printJSON(moved{Format: moveFormat, Service: s.Service, From: s.Primary.Node, To: s.Primary.Node, Term: s.Primary.Term, Steps: []event{}})
	}
	fmt.Fprintf(a.stdout, "%s: %s %v, term %d\n", s.Service, s.Primary.Node, errAlready, s.Primary.Term)
	return nil
}

// settled returns the state once it tells whether a recorded primary is alive:
// etcd itself does not know, only who has watched its pulse for a while.
func (c *contact) settled(ctx context.Context, service string, within time.Duration) (supervisor.State, error) {
	s, err := c.state(ctx, service)
	if err != nil || c.daemon != nil || s.Primary == nil || s.Vacant {
		return s, err
	}
	watch, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for s = range c.Watch(watch, service) {
		if s.Primary == nil || s.Vacant {
			return s, nil
		}
	}
	return s, context.Cause(ctx)
}

// settleTime is how long a primary is watched before it is called alive, by a
// command that found no daemon which has watched all along: one that is silent
// is lost after a ttl.
func (a *app) settleTime(service string) time.Duration {
	if d, ok := a.definition(service); ok {
		return d.TTL*3/2 + time.Second
	}
	return 10 * time.Second
}

// move writes the reservation and tells what happens until the end.
func (a *app) move(ctx context.Context, way *contact, s supervisor.State, r supervisor.Reservation, timeout time.Duration) error {
	r.For, timeout = a.patience(s.Service, timeout, r.Fenced != nil)
	r.ID, r.By, r.State = rand.Text(), a.operator(), supervisor.Asked
	r.From = movesFrom(s)
	m := moved{Format: moveFormat, Service: s.Service, From: r.From, To: r.To, Steps: []event{}}
	began := time.Now()
	var saying sync.Mutex
	say := func(text string) {
		saying.Lock()
		defer saying.Unlock()
		e := event{time.Since(began), text}
		m.Steps = append(m.Steps, e)
		if !a.json() {
			fmt.Fprintf(a.stdout, "  %6.2fs  %s\n", e.After.Seconds(), tidy(text))
		}
	}
	if !a.json() {
		from := ""
		if r.From != "" {
			from = " from " + r.From
		}
		fmt.Fprintf(a.stdout, "%s: %s%s to %s\n", s.Service, r.Reason, from, r.To)
	}
	err := way.Request(ctx, s.Service, r)
	if err == nil {
		say("asked " + r.To)
		err = a.follow(ctx, way, s, r, timeout, say, &m)
	}
	m.Took = time.Since(began)
	if err == nil {
		account(ctx, way, m, say)
	}
	return a.conclude(m, r, err)
}

// account tells what each hook took, once the records have it: nodes write that
// down after the role has moved. Where they do not soon, `deputy history` has it
// later.
func account(ctx context.Context, way *contact, m moved, say func(string)) {
	ctx, cancel := context.WithTimeout(ctx, accountTime)
	defer cancel()
	for {
		changes, err := way.History(ctx, m.Service)
		if err != nil {
			return
		}
		lines, whole := hooks(changes, m.From, m.Term)
		if whole || ctx.Err() != nil {
			for _, l := range lines {
				say(l)
			}
			return
		}
		select {
		case <-time.After(accountTime / 10):
		case <-ctx.Done():
		}
	}
}

const accountTime = 500 * time.Millisecond

// hooks tells what the hooks have done that ended one tenure, on a node that was
// there to hand it over if it has a name, and began the next, of this term; whole
// is whether all of that is on record.
func hooks(changes []supervisor.Change, from string, term sdk.Term) (lines []string, whole bool) {
	begun, ended := false, from == ""
	for _, c := range changes {
		switch c.Term {
		case term - 1:
			ended = ended || !c.Ended.IsZero()
			if len(c.EndSteps) > 0 {
				lines = append(lines, fmt.Sprintf("%s demoted: %s", c.Node, steps(c.EndSteps)))
			}
		case term:
			fences, promotions := apart(c.Steps)
			begun = len(promotions) > 0
			if len(fences) > 0 {
				lines = append(lines, "fenced: "+steps(fences))
			}
			if begun {
				lines = append(lines, fmt.Sprintf("%s promoted: %s", c.Node, steps(promotions)))
			}
		}
	}
	return lines, ended && begun
}

// follow tells the story until it ends.
func (a *app) follow(ctx context.Context, way *contact, s supervisor.State, r supervisor.Reservation, timeout time.Duration, say func(string), m *moved) error {
	watch, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done within %s", timeout))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { a.meanwhile(watch, s.Service, say) })
	y := story{to: r.To, id: r.ID, term: s.Term.Term, last: s}
	for now := range way.Watch(watch, s.Service) {
		lines, done, err := y.tell(now, time.Now())
		for _, l := range lines {
			say(l)
		}
		if done {
			if now.Primary != nil {
				m.Term = now.Primary.Term
			}
			if !y.left.IsZero() && !y.back.IsZero() {
				m.Away = y.back.Sub(y.left)
			}
			return err
		}
	}
	cause := context.Cause(watch)
	if errors.Is(cause, errInterrupted) {
		return fmt.Errorf("%w: the %s %w; see `deputy status %s`", cause, r.Reason, errGoesOn, s.Service)
	}
	// Nobody waits any more, so nobody shall be kept from campaigning.
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), askTime)
	defer stop()
	return errors.Join(fmt.Errorf("%w%s", cause, whereItStands(y.last)), way.Cancel(last, s.Service, r.ID))
}

// meanwhile tells until ctx ends what this node's daemon does for the service,
// and what the hook says of it, where that takes longer than a quietTime and not
// more often. What the hooks of other nodes do is known there.
func (a *app) meanwhile(ctx context.Context, service string, say func(string)) {
	var act, said string
	var next time.Time // to say something
	for st := range a.statuses(ctx, service) {
		if now, _, _ := strings.Cut(st.Doing, ": "); now != act {
			act, said, next = now, "", time.Now().Add(quietTime)
		}
		if st.Doing != said && time.Now().After(next) {
			said, next = st.Doing, time.Now().Add(quietTime)
			say(st.Node + ": " + said)
		}
	}
}

// quietTime is longer than most hooks take, and shorter than a Beat: at least once
// in that the daemon says what it does.
const quietTime = control.Beat - control.Beat/10

// conclude prints how it ended.
func (a *app) conclude(m moved, r supervisor.Reservation, err error) error {
	if err != nil {
		err = fmt.Errorf("%s %s: %w", r.Reason, m.Service, err)
		m.Error = err.Error()
	}
	if a.json() {
		return orPrint(err, a.printJSON(m))
	}
	if err == nil {
		away := ""
		if m.Away > 0 {
			away = fmt.Sprintf("; nobody was primary for %s", short(m.Away))
		}
		fmt.Fprintf(a.stdout, "%s: %s is primary, term %d, after %s%s\n", m.Service, m.To, m.Term, short(m.Took), away)
	}
	return err
}

// patience is how long a reservation is kept for, which is the operator's to
// say, and how long to wait for the end: a hand-over that is undone at the
// last moment has to promote again.
// With fenced, who has the role now may try to fence for as long as it takes.
func (a *app) patience(service string, timeout time.Duration, fenced bool) (handOver, all time.Duration) {
	handOver, promote := handOverTime, promoteTime
	if d, ok := a.definition(service); ok {
		handOver, promote = d.Patience(), d.TTL
		for _, p := range d.Parts {
			promote += p.Promote.Longest()
		}
		switch {
		case fenced:
			handOver += config.Fencing(d)
		case d.OnUnclean == supervisor.UncleanFence:
			promote += config.Fencing(d)
		}
	}
	if timeout > 0 {
		handOver = timeout
	}
	return handOver, handOver + promote + askTime
}
