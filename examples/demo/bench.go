package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// A part of the benchmark measures one thing in a lab of its own.
type part struct {
	name    string
	about   string
	run     func(b *bench, ctx context.Context) error
	address bool // it is about an address that moves, which needs namespaces
}

func parts() []part {
	return []part{
		{"switchover", "planned, at ttl 3s", (*bench).switchover, false},
		{"address", "planned, of an address alone, at ttl 3s", (*bench).address, true},
		{"frozen-3s", "SIGSTOP where an address is, at ttl 3s, etcd at its defaults (100/1000 ms)", frozen(3*time.Second, 0, 0), true},
		{"frozen-1s", "SIGSTOP where an address is, at ttl 1s, etcd at 50/250 ms", frozen(time.Second, 50*time.Millisecond, 250*time.Millisecond), true},
		{"lost-vip", "node lost at ttl 3s, etcd at its defaults; vip looks 60 ms for another holder", lostAddress(3*time.Second, 0, 0), true},
		{"lost-3s", "node lost at ttl 3s, etcd at its defaults (100/1000 ms), hooks alone", lost(3*time.Second, 0, 0), false},
		{"lost-1s", "node lost at ttl 1s, etcd at 50/250 ms, hooks alone", lost(time.Second, 50*time.Millisecond, 250*time.Millisecond), false},
		{"lost-500ms", "node lost at ttl 500ms, etcd at 50/250 ms, hooks alone", lost(500*time.Millisecond, 50*time.Millisecond, 250*time.Millisecond), false},
		{"etcd-killed", "etcd's leader killed, at the default ttl of 4s and etcd's defaults", upset((*bench).killLeader), false},
		{"etcd-stopped", "etcd's leader stopped, at the default ttl of 4s and etcd's defaults", upset((*bench).stopLeader), false},
		{"idle", "deputy run with one service, at ttl 3s", (*bench).idle, false},
		{"thousand", "many services in one process, on one pulse, at ttl 3s", (*bench).thousand, false},
	}
}

// benchFlags say which parts to run, and how long.
type benchFlags struct {
	only     string
	times    int
	services int
	watch    time.Duration
	ttl      time.Duration
	short    bool
}

func (b *benchFlags) register(f *flag.FlagSet) {
	f.StringVar(&b.only, "run", "", "only the parts that match `REGEXP`")
	f.IntVar(&b.times, "n", 20, "how often each change of role is repeated")
	f.IntVar(&b.services, "services", 1000, "services of the part thousand")
	f.DurationVar(&b.watch, "watch", time.Minute, "how long the parts idle and thousand measure")
	f.DurationVar(&b.ttl, "ttl", 0, "another ttl for the parts switchover, address, etcd-killed, etcd-stopped and idle")
	f.BoolVar(&b.short, "short", false, "as -n 3 -services 100 -watch 10s, and times are shown but not judged")
}

func (b *benchFlags) run(ctx context.Context, o options, out io.Writer) error {
	if b.short {
		b.times, b.services, b.watch = 3, 100, 10*time.Second
	}
	only, err := regexp.Compile(b.only)
	if err != nil {
		return err
	}
	var all []figure
	began := time.Now()
	for _, p := range parts() {
		if !only.MatchString(p.name) {
			continue
		}
		fmt.Fprintf(out, "%s: %s\n", p.name, p.about)
		if p.address && !o.namespaces {
			fmt.Fprintln(out, "  left out: it needs namespaces, in which an address moves")
			continue
		}
		run := &bench{benchFlags: *b, options: o, part: p.name, out: out}
		run.dir = filepath.Join(o.dir, p.name)
		run.options.ttl = b.ttl
		if err := os.Mkdir(run.dir, 0o755); err != nil {
			return err
		}
		load := loadAverage()
		if err := run.within(ctx, p); err != nil {
			err = fmt.Errorf("%s: %w", p.name, err)
			if len(all) > 0 { // what was measured before is not lost
				err = errors.Join(report(out, all, time.Since(began)), err)
			}
			return err
		}
		fmt.Fprintf(out, "  load before %s, after %s\n", load, loadAverage())
		if err := os.RemoveAll(run.dir); err != nil {
			return err
		}
		all = append(all, run.figures...)
	}
	if len(all) == 0 {
		return fmt.Errorf("no part that matches %q was run", b.only)
	}
	return report(out, all, time.Since(began))
}

// partFor is how long a part may take in all, at 20 repetitions.
const partFor = 10 * time.Minute

// A bench is one run of a part.
type bench struct {
	benchFlags
	options
	part    string
	out     io.Writer
	figures []figure
}

func (b *bench) within(ctx context.Context, p part) error {
	ctx, cancel := context.WithTimeoutCause(ctx, partFor, errors.New("not in time"))
	defer cancel()
	return p.run(b, ctx)
}

// A figure is a line of the result.
type figure struct {
	part, what    string
	n             int
	median, worst string
	bound         string
	ok            bool
}

func (b *bench) add(what string, n int, median, worst, bound string, ok bool) {
	b.figures = append(b.figures, figure{b.part, what, n, median, worst, bound, ok})
}

// durations holds a list of durations against bounds; zero is none.
func (b *bench) durations(what string, all []time.Duration, median, worst time.Duration) {
	all = slices.Sorted(slices.Values(all))
	mid, most := all[len(all)/2], all[len(all)-1]
	if len(all)%2 == 0 {
		mid = (mid + all[len(all)/2-1]) / 2
	}
	var bounds []string
	ok := true
	if median != 0 {
		bounds = append(bounds, "median <= "+ms(median))
		ok = mid <= median || b.short
	}
	if worst != 0 {
		bounds = append(bounds, "worst <= "+ms(worst))
		ok = ok && (most <= worst || b.short)
	}
	b.add(what, len(all), ms(mid), ms(most), strings.Join(bounds, ", "), ok)
}

// safety adds the figure that ranks above all others.
func (b *bench) safety(l *lab, n int) {
	found := l.rec.overlaps(0)
	for _, o := range found {
		fmt.Fprintf(b.out, "  two at once: %s\n", o)
	}
	b.add("two at once", n, never(found), "", "never", len(found) == 0)
	if !l.alone {
		parsed, err := once(l.positionsFile())
		if err != nil {
			fmt.Fprintf(b.out, "  parsed: %v\n", err)
		}
		b.add("events parsed exactly once", parsed, "", "", "all", err == nil)
	}
	b.add("recorder held up at the most", n, "", ms(l.rec.held(0)), "", true)
}

// lab opens a lab with its nodes on, and runs do in it.
func (b *bench) lab(ctx context.Context, o options, do func(l *lab) error) (err error) {
	opening, cancel := context.WithTimeoutCause(ctx, openFor, errors.New("the lab did not come up in time"))
	defer cancel()
	l, err := openLab(opening, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	for _, n := range l.nodes {
		if err := n.on(opening); err != nil {
			return err
		}
	}
	if err := l.await(opening, "the first primary answers", func() bool { return l.settled(1) }); err != nil {
		return fmt.Errorf("%w\n%s", err, l.logs())
	}
	return do(l)
}

// each repeats an act and what must be true after it. Between two, it waits at
// random, so that no act always falls on the same moment between two pulses.
func (b *bench) each(ctx context.Context, l *lab, random time.Duration, act func(ctx context.Context, i int) error) error {
	for i := range b.times {
		acting, cancel := context.WithTimeoutCause(ctx, sceneFor, errors.New("not in time"))
		err := act(acting, i)
		cancel()
		if err != nil {
			return fmt.Errorf("%d of %d: %w\n%s", i+1, b.times, err, l.logs())
		}
		if len(l.rec.overlaps(0)) > 0 {
			break // nothing is worth measuring any more
		}
		if err := rest(ctx, 200*time.Millisecond+rand.N(random)); err != nil {
			return err
		}
	}
	return nil
}

func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (b *bench) switchover(ctx context.Context) error {
	o := b.options
	o.trace = true
	return b.lab(ctx, o, func(l *lab) error {
		var outages, hooks, beyond []time.Duration
		command, err := b.switches(ctx, l, func(i int, began instant) error {
			outage := l.rec.outage(began)
			own, err := hookTime(l.traceFile(), l.rec.outages(began))
			if err != nil {
				return err
			}
			fmt.Fprintf(b.out, "  %2d: nobody answered for %s, of which hooks %s\n", i+1, ms(outage), ms(own))
			outages, hooks, beyond = append(outages, outage), append(hooks, own), append(beyond, outage-own)
			return nil
		})
		if err != nil {
			return err
		}
		b.durations("nobody answered", outages, 0, 0)
		b.durations("hooks' own time in it", hooks, 0, 0)
		what := "beyond the hooks"
		if l.namespaces {
			what += ", vip's time in it"
		}
		b.durations(what, beyond, 20*time.Millisecond, 0)
		if l.namespaces {
			if err := b.vip(ctx, l); err != nil {
				return err
			}
		}
		b.durations("deputy switchover, to its end", command, 0, 0)
		b.safety(l, len(outages))
		return nil
	})
}

// switches asks for one switchover after the other, and returns how long the
// command took each time. After each, measure is told when it began.
func (b *bench) switches(ctx context.Context, l *lab, measure func(i int, began instant) error) (command []time.Duration, err error) {
	err = b.each(ctx, l, 500*time.Millisecond, func(ctx context.Context, i int) error {
		before := l.records.now().primary
		from := l.node(before.Node)
		to := l.nodes[(from.index+1)%size]
		began := now()
		if _, err := l.deputy(ctx, from, "switchover", l.service(), "--to", to.name); err != nil {
			return err
		}
		command = append(command, now()-began)
		if err := l.await(ctx, to.name+" answers", func() bool {
			return l.settled(before.Term+1) && l.records.now().primary.Node == to.name
		}); err != nil {
			return err
		}
		return measure(i, began)
	})
	return command, err
}

// address measures what is left of an outage when the address is all that
// moves.
func (b *bench) address(ctx context.Context) error {
	o := b.options
	o.alone, o.every = true, quickly
	return b.lab(ctx, o, func(l *lab) error {
		var outages []time.Duration
		command, err := b.switches(ctx, l, func(i int, began instant) error {
			outage := l.rec.outage(began)
			fmt.Fprintf(b.out, "  %2d: nobody answered for %s\n", i+1, ms(outage))
			outages = append(outages, outage)
			return nil
		})
		if err != nil {
			return err
		}
		b.durations(fmt.Sprintf("nobody answered (asked every %s)", l.rec.every), outages, 10*time.Millisecond, 0)
		if err := b.vip(ctx, l); err != nil {
			return err
		}
		b.durations("deputy switchover, to its end", command, 0, 0)
		b.safety(l, len(outages))
		return nil
	})
}

// quickly is between two questions where an outage is shorter than a few of
// the usual ones.
const quickly = time.Millisecond

// vip adds how long the acts of vip took, as deputy's history has it. Answers
// cease early in its demotion and come back before the end of its promotion,
// so how much of an outage is vip's cannot be told from outside: no figure has
// it taken off.
func (b *bench) vip(ctx context.Context, l *lab) error {
	out, err := l.deputy(ctx, l.nodes[0], "history", l.service(), "-n", "0", "-o", "json")
	if err != nil {
		return err
	}
	var changes []supervisor.Change
	if err := json.Unmarshal([]byte(out), &changes); err != nil {
		return fmt.Errorf("read the history: %w", err)
	}
	demoted, promoted := stepsOf("vip", changes)
	if len(demoted) == 0 || len(promoted) == 0 {
		return errors.New("the history tells of no act of vip")
	}
	b.durations("vip demotes", demoted, 0, 0)
	b.durations("vip promotes", promoted, 0, 0)
	return nil
}

// stepsOf returns how long a plugin took in the switchovers among changes.
func stepsOf(plugin string, changes []supervisor.Change) (demoted, promoted []time.Duration) {
	of := func(steps []supervisor.Step, reason sdk.Reason) (all []time.Duration) {
		for _, s := range steps {
			if s.Plugin == plugin && reason == sdk.ReasonSwitchover {
				all = append(all, s.Dur)
			}
		}
		return all
	}
	for _, c := range changes {
		demoted = append(demoted, of(c.EndSteps, c.EndReason)...)
		promoted = append(promoted, of(c.Steps, c.Reason)...)
	}
	return demoted, promoted
}

// hookTime returns for how long of the outages a hook ran, by the hooks' own
// account.
func hookTime(file string, outages []gap) (time.Duration, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	type run struct{ from, to instant }
	var runs []run
	for line := range strings.Lines(string(data)) {
		var node, command string
		var from, to int64
		if _, err := fmt.Sscan(line, &node, &command, &from, &to); err != nil {
			return 0, fmt.Errorf("read %s: %w", file, err)
		}
		if command != "check" {
			runs = append(runs, run{instant(from), instant(to)})
		}
	}
	slices.SortFunc(runs, func(a, b run) int { return int(a.from - b.from) })
	var sum time.Duration
	for _, g := range outages {
		at := g.from
		for _, r := range runs {
			from, to := max(r.from, at), min(r.to, g.to)
			if to > from {
				sum += to - from
				at = to
			}
		}
	}
	return sum, nil
}

// lost measures the loss of the primary's node where nothing has to be asked
// first: by hooks alone.
func lost(ttl, heartbeat, election time.Duration) func(*bench, context.Context) error {
	return func(b *bench, ctx context.Context) error {
		o := b.options
		o.still, o.ttl, o.heartbeat, o.election = true, ttl, heartbeat, election
		return b.lose(ctx, o, ttl, ttl+200*time.Millisecond)
	}
}

// probes is for how long vip looks for another holder of the address, unless
// the primary before has resigned: three times 20 ms.
const probes = 60 * time.Millisecond

// lostAddress measures it where an address moves.
func lostAddress(ttl, heartbeat, election time.Duration) func(*bench, context.Context) error {
	return func(b *bench, ctx context.Context) error {
		o := b.options
		o.ttl, o.heartbeat, o.election = ttl, heartbeat, election
		return b.lose(ctx, o, ttl+probes, ttl+probes+200*time.Millisecond)
	}
}

func (b *bench) lose(ctx context.Context, o options, median, worst time.Duration) error {
	return b.lab(ctx, o, func(l *lab) error {
		var outages []time.Duration
		err := b.each(ctx, l, o.ttl/3, func(ctx context.Context, i int) error {
			before := l.records.now().primary
			n := l.node(before.Node)
			began := now()
			if err := n.lose(); err != nil {
				return err
			}
			if err := l.await(ctx, "another node answers", func() bool { return l.settled(before.Term + 1) }); err != nil {
				return err
			}
			outage := l.rec.outage(began)
			outages = append(outages, outage)
			fmt.Fprintf(b.out, "  %2d: nobody answered for %s\n", i+1, ms(outage))
			if err := n.on(ctx); err != nil {
				return err
			}
			return l.await(ctx, n.name+" is back", func() bool { return l.settled(0) })
		})
		if err != nil {
			return err
		}
		b.durations("nobody answered", outages, median, worst)
		b.safety(l, len(outages))
		return nil
	})
}

// upset measures what a fault of etcd does to a role.
func upset(fault func(*bench, context.Context, *lab) error) func(*bench, context.Context) error {
	return func(b *bench, ctx context.Context) error {
		if b.benchFlags.ttl == 0 {
			b.benchFlags.ttl, b.options.ttl = defaultTTL, defaultTTL
		}
		return b.lab(ctx, b.options, func(l *lab) error {
			before := l.records.now().primary
			changes := 0
			var outages []time.Duration
			err := b.each(ctx, l, ttl/3, func(ctx context.Context, i int) error {
				began := now()
				if err := fault(b, ctx, l); err != nil {
					return err
				}
				if err := l.await(ctx, "a primary answers", func() bool { return l.settled(before.Term) }); err != nil {
					return err
				}
				outages = append(outages, l.rec.outage(began))
				if after := l.records.now().primary; after.Term != before.Term {
					fmt.Fprintf(b.out, "  %2d: the role went from %s in term %d to %s in term %d\n%s", i+1, before.Node, before.Term, after.Node, after.Term, l.logs())
					changes++
					before = after
				}
				return nil
			})
			if err != nil {
				return err
			}
			b.add("changes of the role", len(outages), fmt.Sprint(changes), "", "0", changes == 0)
			b.durations("nobody answered", outages, 0, 0)
			b.safety(l, len(outages))
			return nil
		})
	}
}

// defaultTTL is that of a service which states none: the least at which the
// loss of etcd's leader costs no role.
const defaultTTL = 4 * time.Second

// faultFor is longer than the lease of the demo and than etcd takes at its
// defaults to elect another.
const faultFor = 4 * time.Second

func (b *bench) killLeader(ctx context.Context, l *lab) error {
	m := l.etcd.Member(max(0, l.etcd.Leader(ctx)))
	m.Kill()
	if err := rest(ctx, max(faultFor, b.benchFlags.ttl+time.Second)); err != nil {
		return err
	}
	return m.Restart(ctx)
}

func (b *bench) stopLeader(ctx context.Context, l *lab) error {
	m := l.etcd.Member(max(0, l.etcd.Leader(ctx)))
	if err := m.Stop(); err != nil {
		return err
	}
	if err := rest(ctx, max(faultFor, b.benchFlags.ttl+time.Second)); err != nil {
		return err
	}
	if err := m.Continue(); err != nil {
		return err
	}
	return rest(ctx, time.Second) // for what comes late
}

func (b *bench) idle(ctx context.Context) error {
	return b.lab(ctx, b.options, func(l *lab) error {
		if err := rest(ctx, 3*time.Second); err != nil {
			return err
		}
		before, err := l.consumption()
		if err != nil {
			return err
		}
		if err := rest(ctx, b.watch); err != nil {
			return err
		}
		after, err := l.consumption()
		if err != nil {
			return err
		}
		primary := l.records.now().primary.Node
		for _, who := range []string{"primary", "standby"} {
			var most consumption
			var cpu, hooks float64
			for _, n := range l.nodes {
				if (n.name == primary) != (who == "primary") {
					continue
				}
				a, z := before[n.name], after[n.name]
				most.rss = max(most.rss, z.rss)
				cpu = max(cpu, share(z.own-a.own, z.at-a.at))
				hooks = max(hooks, share(z.hooks-a.hooks, z.at-a.at))
			}
			b.add("memory of the "+who, 1, mib(most.rss), "", "<= 30 MiB", most.rss <= 30<<20)
			b.add("CPU of the "+who, 1, percent(cpu), "", "< 1 % of a core", cpu < 1)
			b.add("CPU of its hooks (a check a second)", 1, percent(hooks), "", "", true)
		}
		if l.namespaces {
			most, err := l.vipMemory()
			if err != nil {
				return err
			}
			b.add("memory of vip", len(l.nodes), "", mib(most.resident), "<= 20 MiB", most.resident <= 20<<20)
			// A program in Go that collects its garbage has 2.9 MiB by itself.
			b.add("memory of vip, not shared", len(l.nodes), "", mib(most.private), "<= 6 MiB", most.private <= 6<<20)
		}
		return nil
	})
}

// vipMemory returns the memory of the largest process of vip.
func (l *lab) vipMemory() (most memory, err error) {
	for _, n := range l.nodes {
		pid, err := n.vipPID()
		if err != nil {
			return most, err
		}
		m, err := weigh(pid)
		if err != nil {
			return most, err
		}
		most = memory{max(most.resident, m.resident), max(most.private, m.private)}
	}
	return most, nil
}

// A consumption is what a deputy has used so far.
type consumption struct {
	at, own, hooks time.Duration
	rss            int64
}

// consumption returns what each deputy uses, by node.
func (l *lab) consumption() (map[string]consumption, error) {
	all := make(map[string]consumption)
	for _, n := range l.nodes {
		if !n.isUp() {
			continue
		}
		pid, err := n.deputyPID()
		if err != nil {
			return nil, err
		}
		s, err := readStat(pid)
		if err != nil {
			return nil, err
		}
		m, err := weigh(pid)
		if err != nil {
			return nil, err
		}
		all[n.name] = consumption{now(), s.own, s.waited, m.resident}
	}
	return all, nil
}

func share(used, of time.Duration) float64 { return 100 * float64(used) / float64(of) }
func percent(v float64) string             { return fmt.Sprintf("%.2f %%", v) }
func mib(v int64) string                   { return fmt.Sprintf("%.1f MiB", float64(v)/(1<<20)) }

func loadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(data), " ")
	return first
}

// report prints the table and returns an error when a bound is broken.
func report(out io.Writer, all []figure, took time.Duration) error {
	fmt.Fprintf(out, "\n%-13s %-36s %6s %11s %11s  %s\n", "PART", "WHAT", "N", "MEDIAN", "WORST", "BOUND")
	broken := 0
	last := ""
	for _, f := range all {
		name, verdict := f.part, ""
		if name == last {
			name = ""
		}
		last = f.part
		if !f.ok {
			broken++
			verdict = "  BROKEN"
		}
		line := fmt.Sprintf("%-13s %-36s %6d %11s %11s  %s%s", name, f.what, f.n, f.median, f.worst, f.bound, verdict)
		fmt.Fprintln(out, strings.TrimRight(line, " "))
	}
	fmt.Fprintf(out, "\n%d CPUs, %s %s/%s, in %s.\n", runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH, took.Round(time.Second))
	if broken > 0 {
		return fmt.Errorf("%d bounds are broken", broken)
	}
	return nil
}
