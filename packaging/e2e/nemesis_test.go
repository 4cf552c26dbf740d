package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/deputy-ha/deputy/packaging/e2e/checker"
	"github.com/deputy-ha/deputy/packaging/e2e/nemesis"
	"github.com/deputy-ha/deputy/packaging/e2e/prober"
	"github.com/deputy-ha/deputy/supervisor"
)

// without is how long a service may lack a primary after everything is mended:
// what was blocked or failed is tried again, and hosts boot.
const without = 30 * time.Second

// eachLab plays on labs of all releases that were asked for, or of those of them
// that are named, with deputy installed and its services enabled.
func eachLab(t *testing.T, what setup, play func(s *scene), suites ...string) {
	wanted := needHosts(t)
	f := &figures{}
	defer f.print(os.Stdout)
	for _, r := range wanted {
		if len(suites) > 0 && !slices.Contains(suites, r.suite) {
			continue
		}
		t.Run(r.suite, func(t *testing.T) {
			inLab(t, r, what, f, func(l *lab) {
				if err := l.equip(t.Context()); err != nil {
					t.Fatal(err)
				}
				play(&scene{T: t, lab: l, ctx: t.Context(), began: now()})
			})
		})
	}
}

// TestFaults plays each fault alone, on the primary. Unless it is asked how often,
// each ttl is played on one release only.
func TestFaults(t *testing.T) {
	found := &results{of: make(map[result]*outcome)}
	defer found.print(os.Stdout)
	for _, what := range []struct {
		name, suite string
		setup
	}{
		{"ttl=3s", "bookworm", setup{ttl: 3 * time.Second, queue: true}},
		// Too short a ttl for units, which deputy refuses.
		{"ttl=1s", "trixie", quick(time.Second)},
	} {
		t.Run(what.name, func(t *testing.T) {
			var suites []string
			if os.Getenv(runsEnv) == "" {
				suites = []string{what.suite}
			}
			eachLab(t, what.setup, func(s *scene) {
				for _, f := range faults() {
					if !f.hits(s.lab) {
						continue
					}
					s.Run(strings.ReplaceAll(f.Name, " ", "-"), func(t *testing.T) {
						s := &scene{T: t, lab: s.lab, ctx: t.Context()}
						n := runs()
						switch {
						case len(suites) > 0: // nobody has asked how often
							n = 1
						case f.effect != moves: // those that move it are to be played more often
							n = max(n/5, 1)
						}
						for i := range n {
							s.playFault(f, i, found)
						}
					})
				}
			}, suites...)
		})
	}
}

// playFault has a fault hit the primary of orders once.
func (s *scene) playFault(f fault, i int, found *results) {
	s.Helper()
	s.settleAll()
	before, since := s.begin()
	on := before[s.orders].Node
	hold := f.Hold[0]
	if f.effect != moves { // which is waited for
		hold = (f.Hold[0] + f.Hold[1]) / 2
	}
	undo, err := f.hit(s.ctx, s.lab, s.host(on), onPrimary(f.Name, hold, i))
	if err != nil {
		s.Fatal(err)
	}
	hit := now()
	for _, w := range s.services {
		if f.effect != moves || before[w].Node != on {
			continue
		}
		if _, err := w.until(s.ctx, before[w].Term, w.isServed); err != nil {
			s.Error(err)
		}
	}
	rest(s.ctx, hold-(now()-hit))
	if undo != nil {
		if err := undo(s.ctx); err != nil {
			s.Error(err)
		}
	}
	mended := now()
	s.settleAll()
	for _, w := range s.services {
		after := s.primaryOf(w)
		moved := after.Term != before[w].Term
		if before[w].Node == on || f.Victims == nil {
			d, _ := w.Outage(s.began)
			found.add(result{s.systemd, s.ttl, f.Name, w.name}, d, moved)
			if f.effect == keeps && moved {
				s.Logf("%s: the role went from %s to %s", w.name, before[w].Node, after.Node)
			}
		} else if moved {
			s.Logf("%s: the role went from %s to %s, which nothing has hit", w.name, before[w].Node, after.Node)
		}
	}
	s.judge([]checker.Time{{From: mended, To: now()}}, f.Name)
	if s.Failed() {
		s.tell(since)
	}
}

// onPrimary is the i-th time that a fault is played alone.
func onPrimary(fault string, hold time.Duration, i int) nemesis.Blow {
	return nemesis.Blow{Fault: fault, On: nemesis.Primary, Hold: hold, Dice: uint64(i)*0x9e3779b97f4a7c15 + 17}
}

// A result is a line of what faults did to services.
type result struct {
	systemd        string
	ttl            time.Duration
	fault, service string
}

// results are what faults did to services, in order.
type results struct {
	order []result
	of    map[result]*outcome
}

type outcome struct {
	silent []time.Duration
	moved  int
}

func (r *results) add(line result, silent time.Duration, moved bool) {
	if r.of[line] == nil {
		r.of[line] = &outcome{}
		r.order = append(r.order, line)
	}
	r.of[line].silent = append(r.of[line].silent, silent)
	if moved {
		r.of[line].moved++
	}
}

func (r *results) print(w io.Writer) {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "\nsystemd\tttl\tfault\tservice\tn\trole moved\tnobody acts: median\tworst")
	for _, line := range r.order {
		o := r.of[line]
		median, worst := (&figure{values: o.silent}).summary()
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", line.systemd, line.ttl, line.fault, line.service, len(o.silent), o.moved, ms(median), ms(worst))
	}
	tab.Flush()
}

// judge holds against the services what was seen of them since the scene began,
// with these faults.
func (s *scene) judge(able []checker.Time, faults ...string) {
	s.Helper()
	for _, w := range s.services {
		if slices.ContainsFunc(faults, func(f string) bool { return !reaches(f, w) }) {
			continue
		}
		found := w.history(s.began, able, without).Check()
		s.figures.count(s.systemd, w.name+": violations", len(found))
		for _, v := range found {
			if w.name == "parser" && os.Getenv("CI") == "true" {
				s.Logf("%s", v) // PID 1 stops it, which comes late where others use the machine, too
				continue
			}
			s.Errorf("%s", v)
		}
	}
	found := s.healthHistory(s.began).Check()
	s.figures.count(s.systemd, s.health.service+" over HTTP: violations", len(found))
	for _, v := range found {
		s.Errorf("%s", v)
	}
}

// settleAll waits until all services are settled. What waits for an operator
// gets one.
func (s *scene) settleAll() {
	s.Helper()
	for deadline := now() + without; ; {
		var wrong []error
		for _, w := range s.services {
			short, cancel := context.WithTimeout(s.ctx, 2*time.Second)
			_, err := w.settled(short, 0)
			cancel()
			wrong = append(wrong, err)
		}
		err := errors.Join(wrong...)
		if err == nil {
			return
		}
		if now() > deadline {
			s.Fatalf("not settled: %v", err)
		}
		for _, h := range s.hosts {
			for _, w := range s.services {
				_, _ = h.run(s.ctx, "deputy", "clear", w.name) // there may be nothing to clear
			}
		}
	}
}

// TestNemesis plays faults at random, one or two at once.
//
//	DEPUTY_E2E_DURATION  for how long; a minute unless set
//	DEPUTY_E2E_SEED      of an earlier run, which is played again
//	DEPUTY_E2E_STEPS     such as 17-19: those alone
func TestNemesis(t *testing.T) {
	seed, err := seedOf()
	if err != nil {
		t.Fatal(err)
	}
	length, err := time.ParseDuration(cmp.Or(os.Getenv("DEPUTY_E2E_DURATION"), "1m"))
	if err != nil {
		t.Fatal(err)
	}
	first, last, err := steps(os.Getenv("DEPUTY_E2E_STEPS"))
	if err != nil {
		t.Fatal(err)
	}
	eachLab(t, setup{ttl: 3 * time.Second, queue: true}, func(s *scene) {
		s.Logf("seed %d, for %s", seed, length)
		var kinds []nemesis.Fault
		for _, f := range faults() {
			kinds = append(kinds, f.Fault)
		}
		played := 0
		for n, end := first, now()+length; n <= last && now() < end && s.ctx.Err() == nil && !s.Failed(); n++ {
			s.playStep(nemesis.Plan(seed, n, kinds))
			played++
		}
		s.figures.count(s.systemd, s.health.service+" over HTTP: answers of 200 to who asks for a primary", s.health.said())
		if s.health.said() == 0 {
			s.Error("nobody has told over HTTP that it is primary")
		}
		s.figures.note(s.systemd, "seed", fmt.Sprintf("%d, %d steps", seed, played))
		if s.Failed() {
			s.Logf("to play it again: make nemesis SEED=%d DEBIAN=%s, and STEPS=N-M for some of it", seed, s.suite)
		}
	})
}

// steps reads which steps of a plan are wanted.
func steps(text string) (first, last int, err error) {
	if text == "" {
		return 0, 1 << 30, nil
	}
	from, to, _ := strings.Cut(text, "-")
	first, err = strconv.Atoi(from)
	if err == nil {
		last, err = strconv.Atoi(cmp.Or(to, from))
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read DEPUTY_E2E_STEPS: %w", err)
	}
	return first, last, nil
}

// slow is a time without a primary of which the hosts are to tell, be it wrong or
// not.
const slow = 10 * time.Second

// playStep plays a step of a plan, and has everything mended after it.
func (s *scene) playStep(step nemesis.Step) {
	s.Helper()
	s.settleAll()
	rest(s.ctx, step.Rest)
	before, since := s.begin()
	s.Logf("%s %s", since.UTC().Format("15:04:05.000"), step)
	hit := s.strike(step)
	mended := now()
	s.settleAll()
	told := false
	for _, w := range s.services {
		after := s.primaryOf(w)
		if after.Term != before[w].Term {
			s.figures.count(s.systemd, w.name+": the role moved", 1)
		}
		d, _ := w.Outage(s.began)
		s.figures.add(s.systemd, w.name+", a step: nobody acts for", d)
		if d > slow {
			s.Logf("%s: nobody acts for %s", w.name, ms(d))
			told = true
		}
		if !hit[""] && !hit[before[w].Node] && after.Term != before[w].Term {
			// A check that is not answered in time, on a machine that is busy.
			s.Logf("%s: the role went from %s to %s, which nothing has hit", w.name, before[w].Node, after.Node)
			s.figures.count(s.systemd, w.name+": the role moved though nothing had hit its host", 1)
		}
	}
	var names []string
	for _, b := range step.Blows {
		names = append(names, b.Fault)
	}
	s.judge([]checker.Time{{From: mended, To: now()}}, names...)
	if told || s.Failed() {
		s.tell(since)
	}
}

// begin begins what is judged together, when all is settled: from then on, with
// these primaries.
func (s *scene) begin() (before map[*watched]supervisor.Primary, since time.Time) {
	s.Helper()
	before = make(map[*watched]supervisor.Primary)
	for _, w := range s.services {
		before[w] = s.primaryOf(w)
	}
	since, s.began = time.Now(), now()
	s.probe.Forget(s.began - time.Second)
	return before, since
}

func (s *scene) primaryOf(w *watched) supervisor.Primary {
	s.Helper()
	r, err := w.records(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	return r.primary
}

// The bounds of a blow, and of undoing it, which may boot a host.
const (
	blowFor = 15 * time.Second
	mendFor = bootFor + 15*time.Second
)

// A due is something to do at a time.
type due struct {
	at prober.Instant
	do func()
}

// strike plays the blows of a step, and undoes them, each in its time. It returns
// the hosts that were hit, and an empty name for what hits them all.
func (s *scene) strike(step nemesis.Step) (hit map[string]bool) {
	s.Helper()
	hit = make(map[string]bool)
	var agenda []due
	var late []func() bool // what could not be undone in its time
	for _, b := range step.Blows {
		agenda = append(agenda, due{s.began + b.At, func() {
			h := s.victim(b)
			if h != nil && !h.isOn() {
				return // the other blow has taken it
			}
			if h == nil {
				hit[""] = true
			} else {
				hit[h.name] = true
			}
			// What asks a host that is frozen waits for nothing.
			ctx, cancel := context.WithTimeout(s.ctx, blowFor)
			defer cancel()
			undo, err := faultNamed(b.Fault).hit(ctx, s.lab, h, b)
			if _, refused := errors.AsType[*hostError](err); err != nil && !refused {
				s.Errorf("%s: %v", b, err)
			} else if err != nil {
				s.Logf("%s: %v", b, err) // two at once are in each other's way
			}
			agenda = append(agenda, due{now() + b.Hold, func() {
				if undo == nil {
					return // its effects were waited for
				}
				if h != nil && !h.isOn() && b.Fault != "power loss" && b.Fault != "reboot" {
					return // its boot has undone it
				}
				mended := func() bool {
					ctx, cancel := context.WithTimeout(s.ctx, mendFor)
					defer cancel()
					err := undo(ctx)
					if err != nil {
						s.Logf("undo %s: %v", b, err) // what matters is whether all is well in the end
					}
					return err == nil
				}
				if !mended() {
					late = append(late, mended) // the other blow may have kept it from that
				}
			}})
		}})
	}
	for len(agenda) > 0 {
		slices.SortStableFunc(agenda, func(a, b due) int { return cmp.Compare(a.at, b.at) })
		next := agenda[0]
		agenda = agenda[1:]
		rest(s.ctx, next.at-now())
		next.do()
	}
	for _, h := range s.hosts {
		if !h.isOn() {
			if err := s.boot(s.ctx, h); err != nil {
				s.Error(err)
			}
		}
	}
	for _, mended := range late {
		mended()
	}
	return hit
}

// victim is the host that a blow hits; nil for none.
func (s *scene) victim(b nemesis.Blow) *host {
	s.Helper()
	if b.On == nemesis.Nobody {
		return nil
	}
	w := s.services[int(b.Dice>>8)%len(s.services)]
	r, err := w.records(s.ctx)
	if err != nil || r.primary.Node == "" {
		return s.hosts[int(b.Dice>>16)%len(s.hosts)] // nobody knows
	}
	if b.On == nemesis.Primary {
		return s.host(r.primary.Node)
	}
	others := s.others(s.host(r.primary.Node))
	return others[int(b.Dice>>16)%len(others)]
}
