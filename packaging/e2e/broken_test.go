package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/deputy-ha/deputy/packaging/e2e/broken"
	"github.com/deputy-ha/deputy/packaging/e2e/checker"
	"github.com/deputy-ha/deputy/packaging/e2e/nemesis"
	"github.com/deputy-ha/deputy/packaging/e2e/prober"
)

// A layer is one thing that keeps two from acting at once, and a fault in which
// nothing else does: what would cover it is taken away.
type layer struct {
	mutation string   // takes the layer away, which its fault shows
	covering []string // take away what else would hold
	services []string
	ttl      time.Duration
	slow     string // a part of orders that is promoted last, and demoted first
	stays    bool   // with the layer the role may stay where it is
	rule     checker.Rule
}

const (
	// brokenTTL is too short for the kernel to take addresses away by their
	// lifetime, which would end what is to be seen (2 s).
	brokenTTL = 2 * time.Second
	// lateTTL is for a supervisor that has to start and to open all plugins before
	// it comes to the rescue. That takes a second on a machine that is busy with
	// other things.
	lateTTL = 6 * time.Second
)

// slowly is a part that takes its time to promote and to demote.
const slowly = `[[plugin]]
use = "exec"
config = { promote = ["/bin/sleep", "0.7"], demote = ["/bin/sleep", "0.7"] }
`

func layers() []layer {
	orders, all := []string{"orders"}, []string{"orders", "queue"}
	without := func(names ...string) []string { return names }
	return []layer{
		{mutation: broken.Guard, services: all, ttl: brokenTTL, rule: checker.Overlap},
		{
			mutation: broken.Gate, covering: without(broken.Guard, broken.Lifetime),
			services: all, ttl: 2 * brokenTTL, rule: checker.Overlap,
		},
		{
			mutation: broken.Watchdog, covering: without(broken.Gate, broken.Guard, broken.Lifetime),
			services: all, ttl: lateTTL, stays: true, rule: checker.Overlap,
		},
		{
			mutation: broken.Deadline, covering: without(broken.Watchdog, broken.Gate, broken.Guard, broken.Lifetime),
			services: all, ttl: 2 * brokenTTL, rule: checker.Overlap,
		},
		{
			mutation: broken.PulseCompare, covering: without(broken.Late, broken.Blind),
			services: orders, ttl: brokenTTL, rule: checker.Overlap,
		},
		{
			mutation: broken.PrimaryCompare, covering: without(broken.TermCompare, broken.PulseCompare, broken.Blind, broken.Deaf),
			services: orders, ttl: brokenTTL, rule: checker.Growing,
		},
		{mutation: broken.ResignFirst, services: orders, ttl: brokenTTL, slow: slowly, rule: checker.Overlap},
		{mutation: broken.OldTerm, services: orders, ttl: brokenTTL, rule: checker.Growing},
		{mutation: broken.TooSoon, services: orders, ttl: brokenTTL, slow: slowly, rule: checker.HasTerm},
	}
}

// fault is the name of the one that shows that the layer is missing.
func (what layer) fault() string { return broken.Named(what.mutation)[0].Fault }

// hit has the fault hit the primary.
func (what layer) hit(ctx context.Context, l *lab, h *host) (mend, error) {
	switch name := what.fault(); name {
	case broken.Thawed:
		return hitThaw(ctx, l, h)
	case broken.Ended:
		return hitEnd(ctx, l, h)
	default:
		return faultNamed(name).hit(ctx, l, h, nemesis.Blow{Fault: name})
	}
}

// hitThaw freezes the standby whose turn it is next for longer than a lease. Just
// before it goes on the primary is cut off from etcd, as it may be for most of a
// lease.
func hitThaw(ctx context.Context, l *lab, h *host) (mend, error) {
	next := l.others(h)[0]
	if err := next.freeze(true); err != nil {
		return nil, err
	}
	rest(ctx, brokenTTL*5/4)
	err := l.cutOff(ctx, h, cut{toEtcd: true, fromEtcd: true})
	return func(ctx context.Context) error { return l.mend(ctx, h) }, errors.Join(err, next.freeze(false))
}

// hitEnd ends the supervisor of the primary, so that the others have to vote, of
// whom one is left.
func hitEnd(ctx context.Context, l *lab, h *host) (mend, error) {
	third := l.others(h)[1]
	_, err := third.run(ctx, "systemctl", "stop", l.orders.unit())
	if err == nil {
		_, err = h.run(ctx, "systemctl", "stop", l.orders.unit())
	}
	return func(ctx context.Context) error {
		for _, o := range []*host{h, third} {
			if _, err := o.run(ctx, "systemctl", "start", l.orders.unit()); err != nil {
				return err
			}
		}
		return nil
	}, err
}

// How often a fault is tried: where the layer holds, and where it is broken, at
// most, until that is caught.
const (
	holdTries  = 2
	breakTries = 4
)

// TestBroken takes the layers away, and wants the checker to see it.
func TestBroken(t *testing.T) {
	wanted := needHosts(t)
	b := &breaking{programs: make(map[string]string), dir: t.TempDir()}
	defer b.print(os.Stdout)
	t.Run("stories", b.story)
	for _, r := range wanted[:1] { // what is broken is so on any of them
		t.Run(r.suite, func(t *testing.T) {
			what := quick(brokenTTL)
			what.queue = true
			inLab(t, r, what, &figures{}, func(l *lab) {
				l.services = l.services[:2] // orders and queue: what has one fence more than its end
				if err := l.equip(t.Context()); err != nil {
					t.Fatal(err)
				}
				for _, what := range layers() {
					t.Run(strings.ReplaceAll(what.mutation, " ", "-"), func(t *testing.T) { b.prove(t, l, what) })
				}
			})
		})
	}
}

// A breaking is what is built for it, and what came of it.
type breaking struct {
	dir      string
	programs map[string]string // where they are, by what they are and the mutations in them
	proofs   []proof
}

// A proof is what came of one layer.
type proof struct {
	release string
	layer
	held, violated int // tries with the layer, and violations in them
	caught         int // at which try without it; 0: never
	saw            string
}

// prove strikes with the layer, where nothing may be found, and without it, where
// the checker has to find it.
func (b *breaking) prove(t *testing.T, l *lab, what layer) {
	r := proof{release: l.systemd, layer: what}
	defer func() { b.proofs = append(b.proofs, r) }()
	b.enter(t, l, what, what.covering)
	for range holdTries {
		found, since := b.strike(t, l, what, false)
		r.held++
		r.violated += len(found)
		for _, v := range found {
			t.Errorf("%s holds, alone, in the fault %q: %s", what.mutation, what.fault(), v)
		}
		if len(found) > 0 {
			(&scene{T: t, lab: l, ctx: t.Context(), began: since}).tell(time.Now().Add(-(now() - since)))
		}
	}
	b.enter(t, l, what, append([]string{what.mutation}, what.covering...))
	for try := range breakTries {
		found, since := b.strike(t, l, what, true)
		if !what.isCaught(found) {
			continue
		}
		r.caught, r.saw = try+1, told(l, found, since)
		return
	}
	t.Errorf("%s in the fault %q: not caught in %d tries, want %q", what.mutation, what.fault(), breakTries, what.rule)
}

// story breaks what nobody can see from outside, as one host alone acts all the
// time: the role machine's own stories have to tell.
func (b *breaking) story(t *testing.T) {
	const told = "TestSwitchover"
	p := proof{layer: layer{mutation: broken.Forwards}, held: 1}
	defer func() { b.proofs = append(b.proofs, p) }()
	for _, mutations := range [][]broken.Mutation{nil, broken.Named(broken.Forwards)} {
		overlay, err := broken.Overlay(root, t.TempDir(), mutations...)
		if err != nil {
			t.Fatal(err)
		}
		out, err := command(t.Context(), "env", "CGO_ENABLED=0", "go", "test", "-C", root, "-count=1", "-overlay", overlay, "-run", "^"+told+"$", "-v", "./supervisor")
		failed := strings.Contains(out, "--- FAIL: "+told)
		switch {
		case mutations == nil && (err != nil || !strings.Contains(out, "--- PASS: "+told)):
			t.Errorf("%s as it is: %v", told, err)
		case mutations != nil && (err == nil || !failed):
			t.Errorf("%s: %s passes (%v)\n%s", broken.Forwards, told, err, out)
		case mutations != nil:
			p.caught, p.saw = 1, "nothing from outside; "+told+" tells another story"
		}
	}
}

// root is that of the tree.
const root = "../.."

// told sums up what was found.
func told(l *lab, found []checker.Violation, since prober.Instant) string {
	var all []string
	for _, v := range found {
		if text := v.Service + ": " + string(v.Rule); v.Rule != checker.Overlap && !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	for _, w := range l.services {
		if d := prober.Doubled(w.Overlaps(since)); d > 0 {
			all = append(all, fmt.Sprintf("%s: two at once for %s", w.name, ms(d)))
		}
	}
	return strings.Join(all, "; ")
}

// strike has the fault hit the primary once and returns what is found since. It
// ends when others have the role, or, where that is wanted, once the rule is seen
// to be broken.
func (b *breaking) strike(t *testing.T, l *lab, what layer, wanted bool) (found []checker.Violation, since prober.Instant) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("the fault takes longer than a minute"))
	defer cancel()
	used := what.used(l)
	from := b.gather(ctx, t, l, used)
	since = now()
	l.probe.Forget(since - time.Second)
	undo, err := what.hit(ctx, l, from)
	if err != nil {
		t.Fatal(err)
	}
	seen := func() (found []checker.Violation) {
		for _, w := range used {
			h := w.history(since, nil, 0)
			h.Late = notedLate
			found = append(found, h.Check()...)
		}
		return found
	}
	var caught, moved prober.Instant
	atMost := 5 * what.ttl
	if what.stays && !wanted {
		atMost = what.ttl + time.Second
	}
	for end := now() + atMost; now() < end; rest(ctx, 50*time.Millisecond) {
		if caught == 0 && wanted && what.isCaught(seen()) {
			caught = now()
		}
		if moved == 0 && !slices.ContainsFunc(used, func(w *watched) bool { return !movedFrom(ctx, w, from) }) {
			moved = now()
		}
		if caught != 0 && now()-caught > 300*time.Millisecond || moved != 0 && now()-moved > 700*time.Millisecond {
			break
		}
	}
	if undo != nil {
		if err := undo(ctx); err != nil {
			t.Log(err)
		}
	}
	if caught == 0 { // another one comes
		if moved == 0 && !what.stays && !wanted {
			t.Errorf("%s: nobody has taken the role from %s", what.fault(), from.name)
		}
		b.gather(ctx, t, l, used)
	}
	return seen(), since
}

// notedLate is longer than a record takes to be seen while etcd is well.
const notedLate = 300 * time.Millisecond

// movedFrom reports whether another host is primary and answers.
func movedFrom(ctx context.Context, w *watched, from *host) bool {
	r, err := w.records(ctx)
	return err == nil && r.primary.Node != "" && r.primary.Node != from.name && w.isServed(r, 0)
}

// isCaught reports whether every service is seen to break the rule.
func (what layer) isCaught(found []checker.Violation) bool {
	return !slices.ContainsFunc(what.services, func(name string) bool {
		return !slices.ContainsFunc(found, func(v checker.Violation) bool { return v.Service == name && v.Rule == what.rule })
	})
}

// used are the services of the lab that the layer is proven with.
func (what layer) used(l *lab) (used []*watched) {
	for _, w := range l.services {
		if slices.Contains(what.services, w.name) {
			used = append(used, w)
		}
	}
	return used
}

// gather waits until services are settled, with one host as the primary of all.
func (b *breaking) gather(ctx context.Context, t *testing.T, l *lab, used []*watched) *host {
	t.Helper()
	var at string
	for _, w := range used {
		p, err := w.settled(ctx, 0)
		if err != nil {
			t.Fatal(err)
		}
		if at == "" {
			at = p.Node
		}
		if p.Node == at {
			continue
		}
		if _, err := l.host(p.Node).run(ctx, "deputy", "switchover", w.name, "--to", at); err != nil {
			t.Fatal(err)
		}
		if _, err := w.settled(ctx, p.Term); err != nil {
			t.Fatal(err)
		}
	}
	return l.host(at)
}

// enter has all hosts run a build, with nothing left of the one before.
func (b *breaking) enter(t *testing.T, l *lab, what layer, mutations []string) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Minute, errors.New("another build takes longer than two minutes to run"))
	defer cancel()
	began := now()
	supervisor, plugins, err := b.build(ctx, mutations)
	if err != nil {
		t.Fatal(err)
	}
	built := now()
	script := "export SYSTEMD_LOG_LEVEL=err\n"
	for _, w := range l.services {
		script += fmt.Sprintf("systemctl stop %s deputy-lease@%s.service || systemctl kill -s KILL %[1]s\nsystemctl reset-failed %[1]s || true\nrm -rf /run/deputy/%[2]s /var/lib/deputy/%[2]s\n", w.unit(), w.name)
	}
	err = l.each(func(h *host) error {
		if out, err := h.run(ctx, "sh", "-c", script); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		for _, w := range l.services {
			text := strings.Replace(w.text, strconv.Quote(brokenTTL.String()), strconv.Quote(what.ttl.String()), 1)
			if w == l.orders {
				text = strings.Replace(text, "interface =", "probe = { count = 0 }, interface =", 1) + what.slow
			}
			if err := h.write(w.file(), fmt.Sprintf(text, "")); err != nil {
				return err
			}
		}
		return errors.Join(
			h.replace("/usr/bin/deputy", filepath.Join(supervisor, "deputy")),
			h.replace("/usr/libexec/deputy/plugins/deputy-plugin-vip", filepath.Join(plugins, "vip")),
			h.replace("/usr/libexec/deputy/plugins/deputy-plugin-guard", filepath.Join(plugins, "guard")),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.client.Delete(ctx, "/deputy/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	var units []string
	for _, w := range what.used(l) {
		units = append(units, w.unit())
	}
	start := func(h *host) error {
		_, err := h.run(ctx, append([]string{"systemctl", "start"}, units...)...)
		return err
	}
	// The first is primary of all.
	if err := start(l.hosts[0]); err != nil {
		t.Fatal(err)
	}
	for _, w := range what.used(l) {
		if _, err := w.until(ctx, 0, w.isServed); err != nil {
			t.Fatal(err)
		}
	}
	var g errgroup.Group
	for _, h := range l.hosts[1:] {
		g.Go(func() error { return start(h) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("without %q: built in %s, entered in %s", mutations, ms(built-began), ms(now()-built))
}

// replace puts another program in the place of one that does not run.
func (h *host) replace(program, by string) error {
	data, err := os.ReadFile(by)
	if err != nil {
		return err
	}
	at := filepath.Join(h.disk(), program)
	return errors.Join(os.Remove(at), os.WriteFile(at, data, 0o755))
}

// build builds what hosts run, with mutations, and returns where the supervisor
// and where the plugins are.
func (b *breaking) build(ctx context.Context, mutations []string) (supervisor, plugins string, err error) {
	var own, theirs []broken.Mutation
	for _, m := range broken.Named(mutations...) {
		if m.Plugins() {
			theirs = append(theirs, m)
		} else {
			own = append(own, m)
		}
	}
	if supervisor, err = b.buildOnce(ctx, own, "./supervisor/deputy"); err == nil {
		plugins, err = b.buildOnce(ctx, theirs, "./plugins/vip", "./plugins/guard")
	}
	return supervisor, plugins, err
}

// buildOnce builds programs, unless that was done before.
func (b *breaking) buildOnce(ctx context.Context, mutations []broken.Mutation, programs ...string) (string, error) {
	key := fmt.Sprint(programs)
	for _, m := range mutations {
		key += ", " + m.Name
	}
	if dir, ok := b.programs[key]; ok {
		return dir, nil
	}
	dir := filepath.Join(b.dir, fmt.Sprint(len(b.programs)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	overlay, err := broken.Overlay(root, dir, mutations...)
	if err != nil {
		return "", err
	}
	args := []string{"CGO_ENABLED=0", "go", "build", "-C", root, "-trimpath", "-ldflags", "-s -w", "-overlay", overlay, "-o", dir}
	_, err = command(ctx, "env", append(args, programs...)...)
	if err == nil {
		b.programs[key] = dir
	}
	return dir, err
}

func (b *breaking) print(w io.Writer) {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "\nsystemd\tlayer taken away\tfault\twithout these as well\talone it holds\tcaught\twhat was seen")
	for _, r := range b.proofs {
		caught := "NEVER"
		if r.caught > 0 {
			caught = fmt.Sprintf("try %d", r.caught)
		}
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%d violations in %d\t%s\t%s\n", r.release, r.mutation, r.fault(), strings.Join(r.covering, ", "), r.violated, r.held, caught, r.saw)
	}
	tab.Flush()
}
