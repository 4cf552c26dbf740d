package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
)

// TestFaultsOnEtcd has processes take one role in turns, kills, freezes and
// cuts off them and the members of a real etcd at random, and holds that no
// two of them may ever have acted at one time. DEPUTY_FAULTS tells for how
// long, DEPUTY_SEED which faults. It runs beside no other test of the package:
// a lease of a second is not kept up by a machine that is busy for longer.
func TestFaultsOnEtcd(t *testing.T) {
	d, seed := faultsFor(t, 20*time.Second), faultsSeed(t)
	t.Logf("DEPUTY_SEED=%d", seed)
	s := newFaultStage(t, seed)
	from := bootClock{}.Now()
	stop := s.watchEtcd()
	s.play(d)
	s.settle()
	stop()
	to := bootClock{}.Now()

	var all []acting
	for _, h := range s.holders {
		all = append(all, h.acted(t)...)
	}
	for _, fault := range overlaps(all) {
		t.Error(fault)
	}
	gaps := vacancies(all, from, to)
	var total, led, longest time.Duration
	for _, g := range gaps {
		total, longest = total+g.length(), max(longest, g.length())
		s.say("vacant for %v at %v", g.length(), g.begin)
		for _, able := range s.able {
			d := g.within(able)
			led += d
			if d > tooLong {
				t.Errorf("nobody held the role for %v while etcd had a leader", d)
			}
		}
	}
	t.Logf("%d tenures within %v; vacant %d times, %v in all, %v of it while etcd had a leader, %v at most",
		len(all), to.Sub(from).Round(time.Second), len(gaps), total.Round(time.Millisecond), led.Round(time.Millisecond), longest.Round(time.Millisecond))
	for _, name := range slices.Sorted(maps.Keys(s.done)) {
		t.Logf("%4d times %s", s.done[name], name)
	}
	if len(all) < 2 {
		t.Errorf("%d tenures: nothing was put to the test", len(all))
	}
}

// tooLong is for how long the role may be vacant while it could be taken. Faults
// come faster than leases end, and the machine may be busy, so it is long.
const tooLong = 8 * time.Second

func faultsFor(t *testing.T, usual time.Duration) time.Duration {
	t.Helper()
	s, ok := os.LookupEnv("DEPUTY_FAULTS")
	if !ok {
		return usual
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatalf("read DEPUTY_FAULTS: %v", err)
	}
	return d
}

func faultsSeed(t *testing.T) uint64 {
	t.Helper()
	s, ok := os.LookupEnv("DEPUTY_SEED")
	if !ok {
		return rand.Uint64()
	}
	seed, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("read DEPUTY_SEED: %v", err)
	}
	return seed
}

// A faultStage is a real etcd and processes that take one role in turns, each
// with its own way to etcd.
type faultStage struct {
	*testing.T
	etcd    *etcdtest.Cluster
	holders []*holder
	paths   []*etcdtest.Path
	rng     *rand.Rand
	ttl     time.Duration
	log     *os.File
	done    map[string]int  // how often each fault was played
	able    []stretchOfTime // in which etcd had a leader
}

func newFaultStage(t *testing.T, seed uint64) *faultStage {
	s := &faultStage{
		T:    t,
		etcd: etcdtest.StartT(t, etcdtest.Options{Heartbeat: 50 * time.Millisecond, Election: 250 * time.Millisecond, NoFsync: true}),
		rng:  rand.New(rand.NewPCG(seed, 0)),
		ttl:  time.Second,
		done: make(map[string]int),
	}
	dir := t.TempDir()
	var err error
	if s.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.log.Close()
		if text, err := os.ReadFile(s.log.Name()); err == nil && t.Failed() {
			t.Logf("%s", text)
		}
	})
	for i := range 3 {
		path, err := s.etcd.Path()
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("n%d", i)
		h := &holder{contender: contender{Node: name, Endpoints: path.Endpoints(), Prefix: "/faults", TTL: s.ttl, Dir: filepath.Join(dir, name)}}
		if err := os.Mkdir(h.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s.paths, s.holders = append(s.paths, path), append(s.holders, h)
		s.start(i)
		t.Cleanup(h.kill)
	}
	return s
}

func (s *faultStage) say(format string, args ...any) {
	fmt.Fprintf(s.log, "%s fault: %s\n", time.Now().Format(time.StampMicro), fmt.Sprintf(format, args...))
}

func (s *faultStage) start(i int) {
	if err := s.holders[i].start(s.log); err != nil {
		s.Errorf("start %s: %v", s.holders[i].Node, err)
	}
}

// primary is the node that may act now, and another one when none may.
func (s *faultStage) primary() int {
	now := bootClock{}.Now()
	for i, h := range s.holders {
		if h.actsAt(s, now) {
			return i
		}
	}
	return s.rng.IntN(len(s.holders))
}

// somebody is the primary more often than not.
func (s *faultStage) somebody() int {
	if s.rng.IntN(3) > 0 {
		return s.primary()
	}
	return s.rng.IntN(len(s.holders))
}

// A trouble is one fault while it lasts.
type trouble struct {
	harms string // no two troubles at a time harm the same
	undo  func()
	ends  time.Time
}

// faultKinds are the faults there are: each harms something that is not harmed
// yet, or returns none.
func (s *faultStage) faultKinds() map[string]func() trouble {
	node := func(do func(i int) (undo func())) func() trouble {
		return func() trouble {
			i := s.somebody()
			return trouble{harms: s.holders[i].Node, undo: do(i)}
		}
	}
	leader := func(do func(i int) (undo func())) func() trouble {
		return func() trouble { return trouble{harms: "etcd", undo: do(s.etcd.Leader(s.Context()))} }
	}
	restart := func(members ...int) {
		done := make(chan error)
		for _, m := range members {
			go func() { done <- s.etcd.Member(m).Restart(s.Context()) }()
		}
		for range members {
			if err := <-done; err != nil {
				s.Errorf("restart a member of etcd: %v", err)
			}
		}
	}
	return map[string]func() trouble{
		"holder killed": node(func(i int) func() {
			s.holders[i].kill()
			return func() { s.start(i) }
		}),
		"holder frozen": node(func(i int) func() {
			p := s.holders[i].cmd.Process
			_ = p.Signal(syscall.SIGSTOP)
			return func() { _ = p.Signal(syscall.SIGCONT) }
		}),
		"holder cut off": node(func(i int) func() {
			s.paths[i].Cut()
			return s.paths[i].Heal
		}),
		"etcd leader killed": leader(func(i int) func() {
			s.etcd.Member(i).Kill()
			return func() { restart(i) }
		}),
		"etcd leader stopped": leader(func(i int) func() {
			if err := s.etcd.Member(i).Stop(); err != nil {
				s.Error(err)
			}
			return func() {
				if err := s.etcd.Member(i).Continue(); err != nil {
					s.Error(err)
				}
			}
		}),
		"etcd leader cut off from its peers": leader(func(i int) func() {
			s.etcd.Cut(i)
			return func() { s.etcd.Heal(i) }
		}),
		"etcd leader cut off from its clients": leader(func(i int) func() {
			s.etcd.CutClients(i)
			return func() { s.etcd.Heal(i) }
		}),
		"etcd leader unheard by its peers": leader(func(i int) func() {
			for j := range s.etcd.Size() {
				if j != i {
					s.etcd.CutOneWay(i, j)
				}
			}
			return func() { s.etcd.Heal(i) }
		}),
		"etcd without its majority": leader(func(i int) func() {
			next := (i + 1) % s.etcd.Size()
			s.etcd.Member(i).Kill()
			s.etcd.Member(next).Kill()
			return func() { restart(i, next) }
		}),
	}
}

// play has faults happen, two at a time at most.
func (s *faultStage) play(d time.Duration) {
	var troubles []trouble
	kinds := s.faultKinds()
	names := slices.Sorted(maps.Keys(kinds))
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(time.Duration(s.rng.Int64N(int64(s.ttl / 2))))
		troubles = slices.DeleteFunc(troubles, func(t trouble) bool {
			if time.Now().Before(t.ends) {
				return false
			}
			s.say("over: %s", t.harms)
			t.undo()
			return true
		})
		if len(troubles) == 2 || s.rng.IntN(3) == 0 {
			continue
		}
		name := names[s.rng.IntN(len(names))]
		harmed := func(what string) bool {
			return slices.ContainsFunc(troubles, func(t trouble) bool { return t.harms == what })
		}
		if strings.HasPrefix(name, "etcd") && harmed("etcd") || strings.HasPrefix(name, "holder") && len(troubles) > 0 && !harmed("etcd") {
			continue
		}
		t := kinds[name]()
		// From shorter than a renewal to longer than a lease.
		t.ends = time.Now().Add(time.Duration(s.rng.Int64N(int64(3 * s.ttl))))
		s.say("%s: %s", name, t.harms)
		s.done[name]++
		troubles = append(troubles, t)
	}
	for _, t := range troubles {
		t.undo()
	}
}

// settle waits until somebody may act, with all faults over.
func (s *faultStage) settle() {
	for begin := time.Now(); ; time.Sleep(s.ttl / 10) {
		now := bootClock{}.Now()
		if slices.ContainsFunc(s.holders, func(h *holder) bool { return h.actsAt(s, now) }) {
			return
		}
		if took := time.Since(begin); took > 20*time.Second {
			s.Errorf("nobody has taken the role %v after the last fault", took)
			return
		}
	}
}

// watchEtcd takes note of when etcd has a leader: without one it can do
// nothing, and nobody can do anything about it. The function that it returns
// ends that.
func (s *faultStage) watchEtcd() (stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("only what is known already"))
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		var begin sdk.Instant
		for ended := false; !ended; {
			select {
			case <-tick.C:
			case <-over:
				ended = true
			}
			led, now := s.etcd.Leader(ctx) >= 0, bootClock{}.Now()
			switch {
			case begin == 0 && led:
				begin = now
			case begin != 0 && (!led || ended):
				s.able = append(s.able, stretchOfTime{begin, now})
				begin = 0
			}
		}
	}()
	return func() {
		close(over)
		<-done
	}
}
