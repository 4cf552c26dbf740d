package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A scene is one way of taking the primary away.
type scene struct {
	name  string
	say   string
	act   func(ctx context.Context, s *story, primary *node) error
	moves bool          // the role goes to another node, in the next term
	bound time.Duration // how long nobody may answer; generous, for machines that are busy
	then  func(ctx context.Context, s *story, before *node) error
}

// ttl is that of the demo's service.
const ttl = 3 * time.Second

func scenes() []scene {
	return []scene{
		{
			name:  "switchover",
			say:   "An operator asks for a switchover to %[2]s: deputy switchover binlog --to %[2]s",
			moves: true, bound: 3 * time.Second,
			act: func(ctx context.Context, s *story, primary *node) error {
				out, err := s.lab.deputy(ctx, primary, "switchover", s.lab.service(), "--to", s.other(primary).name)
				for line := range strings.Lines(out) {
					s.screen.say("      %s", fit(strings.TrimRight(line, "\n"), 94))
				}
				return err
			},
		},
		{
			name:  "supervisor killed",
			say:   "SIGKILL for deputy on %[1]s. What it has promoted goes on; started again, it adopts the role.",
			bound: 0,
			act:   func(ctx context.Context, _ *story, primary *node) error { return primary.kill(ctx) },
			// Longer than the lease: the role was renewed, not just not yet lost.
			then: func(ctx context.Context, _ *story, _ *node) error { return rest(ctx, ttl+time.Second) },
		},
		{
			name:  "node lost",
			say:   "%[1]s loses power and network: SIGKILL for everything on it, and the link is down.",
			moves: true, bound: ttl + 3*time.Second,
			act: func(_ context.Context, _ *story, primary *node) error { return primary.lose() },
			then: func(ctx context.Context, s *story, before *node) error {
				if err := s.pause(ctx); err != nil {
					return err
				}
				s.screen.say("      %s comes back, as a standby.", before.name)
				if err := before.on(ctx); err != nil {
					return err
				}
				return s.lab.await(ctx, before.name+" is a candidate", func() bool { return s.lab.settled(0) })
			},
		},
	}
}

// A story is a run of the demo.
type story struct {
	lab    *lab
	screen *screen
	began  time.Time
	rows   []row
	wrong  []string
}

// A row is what one scene came to.
type row struct {
	name       string
	outage     time.Duration
	together   []overlap
	from, to   string
	term, next sdk.Term
}

// limits of the parts of the demo, so that it ends within two minutes whatever
// happens.
const (
	openFor  = 30 * time.Second
	sceneFor = 20 * time.Second
	quiet    = 1500 * time.Millisecond // between two scenes, to look at
)

// show tells the story, and with stay waits to be told to stop.
func show(ctx context.Context, o options, stay bool) (err error) {
	began := time.Now()
	fmt.Println("deputy demo: a binlog parser that must run on exactly one of three nodes")
	fmt.Println()
	opening, cancel := context.WithTimeoutCause(ctx, openFor, errors.New("the lab did not come up in time"))
	defer cancel()
	l, err := openLab(opening, o)
	if err != nil {
		return err
	}
	s := &story{lab: l, began: began}
	s.screen = newScreen(os.Stdout, func() []string { return l.table(began) })
	ctx, stop := context.WithCancelCause(ctx)
	drawn := make(chan struct{})
	go func() { // joined below
		defer close(drawn)
		s.follow(ctx)
	}()
	defer func() {
		stop(errClosed)
		<-drawn
		s.screen.end()
		err = errors.Join(err, l.close())
	}()

	if err := s.open(opening); err != nil {
		return fmt.Errorf("%w\n%s", err, l.logs())
	}
	for _, scene := range scenes() {
		if err := s.play(ctx, scene); err != nil {
			return fmt.Errorf("%s: %w\n%s", scene.name, err, l.logs())
		}
	}
	if stay {
		if err := s.stay(ctx); err != nil {
			return err
		}
		ctx = context.WithoutCancel(ctx)
	}
	if err := s.end(ctx); err != nil {
		return err
	}
	return s.summary()
}

// open turns the nodes on and waits for the first primary.
func (s *story) open(ctx context.Context) error {
	s.screen.say("  etcd runs: three members, %s", since(s.began))
	for _, n := range s.lab.nodes {
		if err := n.on(ctx); err != nil {
			return err
		}
	}
	if err := s.lab.await(ctx, "the first primary answers", func() bool { return s.lab.settled(1) }); err != nil {
		return err
	}
	primary := s.lab.records.now().primary
	s.screen.say("  deputy runs on three nodes, %s is primary in term %d, %s", primary.Node, primary.Term, since(s.began))
	return s.pause(ctx)
}

func (s *story) play(ctx context.Context, sc scene) error {
	ctx, cancel := context.WithTimeoutCause(ctx, sceneFor, errors.New("not in time"))
	defer cancel()
	before := s.lab.records.now().primary
	primary := s.lab.node(before.Node)
	s.screen.say("")
	s.screen.say("  "+sc.say, primary.name, s.other(primary).name)
	began := now()
	if err := sc.act(ctx, s, primary); err != nil {
		return err
	}
	want := before.Term
	if sc.moves {
		want++
	}
	if err := s.lab.await(ctx, fmt.Sprintf("a primary of term %d answers", want), func() bool { return s.lab.settled(want) }); err != nil {
		return err
	}
	if sc.then != nil {
		if err := sc.then(ctx, s, primary); err != nil {
			return err
		}
	}
	after := s.lab.records.now().primary
	r := row{sc.name, s.lab.rec.outage(began), s.lab.rec.overlaps(began), before.Node, after.Node, before.Term, after.Term}
	s.rows = append(s.rows, r)
	s.screen.say("      nobody answered for %s, two at once: %s", ms(r.outage), never(r.together))
	switch {
	case sc.moves && (r.to == r.from || r.next <= r.term):
		s.fault("%s: the role did not move on: %s in term %d, then %s in term %d", sc.name, r.from, r.term, r.to, r.next)
	case !sc.moves && (r.to != r.from || r.next != r.term):
		s.fault("%s: the role moved from %s in term %d to %s in term %d", sc.name, r.from, r.term, r.to, r.next)
	}
	if r.outage > sc.bound {
		s.fault("%s: nobody answered for %s, more than %s", sc.name, ms(r.outage), sc.bound)
	}
	return s.pause(ctx)
}

func (s *story) fault(format string, args ...any) {
	s.wrong = append(s.wrong, fmt.Sprintf(format, args...))
}

// other is the node to which a role may go next.
func (s *story) other(n *node) *node {
	return s.lab.nodes[(n.index+1)%len(s.lab.nodes)]
}

// end shuts the nodes down and looks whether they have left the role.
func (s *story) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, closeFor, errors.New("the nodes did not shut down in time"))
	defer cancel()
	s.screen.say("")
	s.screen.say("  The nodes shut down.")
	return s.lab.off(ctx)
}

func (s *story) summary() error {
	for _, o := range s.lab.rec.overlaps(0) {
		s.fault("two at once: %s", o)
	}
	parsed, err := once(s.lab.positionsFile())
	if err != nil {
		s.fault("%v", err)
	}
	s.screen.end()
	fmt.Printf("\n  %-20s %16s   %-12s %-10s %s\n", "EVENT", "NOBODY ANSWERED", "TWO AT ONCE", "TERM", "PRIMARY")
	for _, r := range s.rows {
		fmt.Printf("  %-20s %16s   %-12s %-10s %s\n", r.name, ms(r.outage), never(r.together),
			fmt.Sprintf("%d -> %d", r.term, r.next), fmt.Sprintf("%s -> %s", r.from, r.to))
	}
	if err == nil {
		fmt.Printf("\n  The parser went through %d events, each exactly once.\n", parsed)
	}
	fmt.Printf("  Resolution: a question every %s; the recorder was held up for %s at the most.\n", s.lab.rec.every, ms(s.lab.rec.held(0)))
	fmt.Printf("  All this took %s.\n", since(s.began))
	if len(s.wrong) > 0 {
		return errors.New("not as promised:\n  " + strings.Join(s.wrong, "\n  "))
	}
	return nil
}

// stay keeps everything up until somebody wants it to end.
func (s *story) stay(ctx context.Context) error {
	s.screen.say("")
	s.screen.say("  STAY=1: everything stays up until ^C. In another terminal, for instance:")
	for _, n := range s.lab.nodes {
		if err := s.lab.door(n); err != nil {
			return err
		}
	}
	s.screen.say("      %s watch", s.lab.doorFile(s.lab.nodes[0]))
	s.screen.say("      %s switchover binlog", s.lab.doorFile(s.lab.nodes[0]))
	s.screen.say("      %s explain binlog", s.lab.doorFile(s.lab.nodes[1]))
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), errSignal) {
		return context.Cause(ctx)
	}
	return nil
}

func (l *lab) doorFile(n *node) string { return filepath.Join(l.dir, "deputy-"+n.name) }

// door writes a script that runs deputy's command line on a node, from outside
// of the lab.
func (l *lab) door(n *node) error {
	var b strings.Builder
	b.WriteString("#!/bin/sh\n")
	for _, v := range n.env()[1:] {
		name, value, _ := strings.Cut(v, "=")
		fmt.Fprintf(&b, "export %s='%s'\n", name, value)
	}
	enter := ""
	if l.namespaces {
		enter = fmt.Sprintf("nsenter --net=/proc/$(cat %s)/ns/net ", pidFile(l.dir))
	}
	fmt.Fprintf(&b, "exec %s%s \"$@\"\n", enter, l.deputyFile())
	return os.WriteFile(l.doorFile(n), []byte(b.String()), 0o755)
}

// follow redraws the table, or tells what has changed, until ctx ends.
func (s *story) follow(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	last := make(map[string]string)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.screen.live {
			s.screen.refresh()
			continue
		}
		snap := s.lab.records.now()
		for _, n := range s.lab.nodes {
			role := snap.role(n)
			if snap.primary.Node == n.name {
				role += fmt.Sprintf(", term %d", snap.primary.Term)
			}
			if last[n.name] != role {
				last[n.name] = role
				s.screen.say("      %6s  %s  %s", since(s.began), n.name, role)
			}
		}
	}
}

// pause gives people time to look.
func (s *story) pause(ctx context.Context) error {
	if s.lab.quick {
		return nil
	}
	return rest(ctx, quiet)
}

// once proves that each position was parsed exactly once, and returns how many.
func once(file string) (int, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	count := 0
	var before string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var position int
		var node string
		if _, err := fmt.Sscanf(lines.Text(), "%d %s", &position, &node); err != nil {
			return count, fmt.Errorf("read position %d: %w", count+1, err)
		}
		count++
		if position != count {
			return count, fmt.Errorf("%s parsed position %d where %d was due, after %s", node, position, count, before)
		}
		before = node
	}
	return count, nil
}

func since(t time.Time) string { return fmt.Sprintf("%.1f s", time.Since(t).Seconds()) }

// never says for how long two acted at once.
func never(found []overlap) string {
	if len(found) == 0 {
		return "never"
	}
	return "FOR " + slices.MaxFunc(found, func(a, b overlap) int { return cmp.Compare(a.dur, b.dur) }).long()
}
