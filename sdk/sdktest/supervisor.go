package sdktest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// A Service is what the fake supervisor is told of the service that the plugin
// is the one part of. All of it has a default, as a definition has.
type Service struct {
	// Name is the service's; "orders" by default.
	Name string
	// Settings are the plugin's, as a definition has them below config.
	Settings map[string]any
	// TTL is the lease's; 4 s by default. All instants of a tenure follow from it.
	TTL time.Duration
	// Node is this node; db1 at 192.0.2.1 by default.
	Node sdk.Peer
	// Others are the other members; db2 and db3 at 192.0.2.2 and .3 by default.
	Others []sdk.Peer
	// Term is the last one known when the story begins; none by default.
	Term sdk.Term
	// StateDir is the part's state directory; one of the test's by default.
	StateDir string

	// Promote, Demote and Fence bound the acts. By default a promote has 30 s and
	// two retries, a planned demote 10 s and two, a fence a minute and one. A
	// forced demote has what is left of the lease.
	Promote, Demote, Fence Policy
	// Check has a primary checked. By default nothing is: see Supervisor.Check.
	Check CheckPolicy
}

// A Policy bounds an act.
type Policy struct {
	Timeout time.Duration // of one attempt; the default's when zero
	Retries int           // further attempts after the first; none by itself when Timeout is given
}

// A CheckPolicy tells how a primary is checked, and what counts.
type CheckPolicy struct {
	Interval   time.Duration // from one answer to the next question; zero: no checks but those asked for
	Timeout    time.Duration // of one; 500 ms by default
	Fall       int           // failures in a row that cost the role; 3 by default
	StartGrace time.Duration // failures do not count so long after the role began, until a first success
}

func (s *Service) fill(dir func() string) {
	or := func(d *time.Duration, standard time.Duration) {
		if *d == 0 {
			*d = standard
		}
	}
	act := func(p *Policy, timeout time.Duration, retries int) {
		if *p == (Policy{}) {
			p.Retries = retries
		}
		or(&p.Timeout, timeout)
	}
	if s.Name == "" {
		s.Name = "orders"
	}
	if s.Node == (sdk.Peer{}) {
		s.Node = sdk.Peer{Node: "db1", Address: "192.0.2.1"}
	}
	if s.Others == nil {
		s.Others = []sdk.Peer{{Node: "db2", Address: "192.0.2.2"}, {Node: "db3", Address: "192.0.2.3"}}
	}
	if s.StateDir == "" {
		s.StateDir = dir()
	}
	or(&s.TTL, 4*time.Second)
	act(&s.Promote, 30*time.Second, 2)
	act(&s.Demote, 10*time.Second, 2)
	act(&s.Fence, time.Minute, 1)
	or(&s.Check.Timeout, 500*time.Millisecond)
	if s.Check.Fall == 0 {
		s.Check.Fall = 3
	}
}

// A Supervisor is a fake one for unit tests: one member of a service whose one
// part is the plugin under test. A test tells it what befalls the node, and it
// calls the plugin as the real one would then, at the real one's instants, by the
// code that Main serves. No etcd, no systemd, no root and no process is needed.
//
// It lives inside testing/synctest's Test, where time is virtual: a minute of
// renewals takes no time, and each instant is exact. A plugin that reckons with
// its lease has to read the time by Host.Now, which is virtual there, too.
//
// Each of its methods that makes something happen returns once that is over; Pass
// lets time go on. All but Pass may be called at the same time, from any goroutine
// of the bubble: Promote in one and Lose in another is how a lease is lost in the
// middle of a promote. Renewals and checks go on beside them: look after a Pass at
// what they change.
//
// What cannot be shown inside of one process: what a plugin does that is frozen,
// or deaf to its context. An act that goes on a second after a real supervisor
// would have killed its process fails the test.
type Supervisor struct {
	t        T
	plugin   sdk.Plugin
	service  Service
	timing   timetable
	about    wire.Description
	log      *slog.Logger
	began    time.Time
	turn     chan struct{} // has one while no step of the story is on
	ended    chan struct{} // closed when the test is over
	stopping chan struct{} // closed by Stop
	tasks    sync.WaitGroup

	mu      sync.Mutex
	process *inside       // nil while there is none
	born    chan struct{} // closed when there is one; replaced
	config  map[string]any
	role    sdk.Role
	seen    sdk.Term // the highest of an act of this supervisor's life
	term    sdk.Term // the last tenure's
	last    tenure
	primary sdk.Peer       // another node that is primary, or the target of a switchover
	follow  sdk.Transition // as the part was asked last
	lease   *lease         // nil when none is held
	acting  bool           // the part may act as primary
	stopped bool
	acts    int
	records []*record
}

// A tenure tells of a primary of before.
type tenure struct {
	sdk.Peer
	term     sdk.Term
	resigned bool
}

// NewSupervisor starts a fake supervisor with a plugin, as a real one starts:
// the plugin gets its settings and is demoted, and the node is a standby. When
// the test ends the plugin is ended; it stays promoted if it is.
//
// It ends the test if the settings are not accepted, or if the TTL leaves less
// for a forced demotion than the plugin says that it needs.
func NewSupervisor(t interface {
	T
	Cleanup(f func())
}, p sdk.Plugin, service Service,
) *Supervisor {
	t.Helper()
	service.fill(t.TempDir)
	s := &Supervisor{
		t: t, plugin: p, service: service, timing: timetableOf(service.TTL), began: time.Now(),
		log:  slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
		turn: make(chan struct{}, 1), ended: make(chan struct{}), stopping: make(chan struct{}), born: make(chan struct{}),
		role: sdk.RoleUnknown, term: service.Term, config: service.Settings,
	}
	s.last.term, s.last.resigned = service.Term, true
	s.turn <- struct{}{}
	if err := bubbled(); err != nil {
		t.Fatalf("NewSupervisor: %v", err)
	}
	t.Cleanup(s.end)
	process, err := newInside(p, s.log, s.Now)
	if err != nil {
		t.Fatalf("start the plugin: %v", err)
	}
	s.process = process
	if s.about, err = process.Describe(context.Background()); err != nil {
		t.Fatalf("describe: %v", err)
	}
	if need := s.about.ForcedBound; need > s.timing.forced() {
		t.Fatalf("ttl %s: a forced demotion then has %s, and the plugin needs %s (sdk.ForcedBound): give it a ttl of at least %s",
			service.TTL, s.timing.forced(), need, (need * 100 / 15).Round(time.Millisecond))
	}
	if err := s.configure(process, s.config); err != nil {
		t.Fatalf("settings: %v", err)
	}
	s.mu.Lock()
	s.settle(process)
	s.mu.Unlock()
	s.takeDown(sdk.ReasonStart, errors.New("started"), false)
	return s
}

// Pass lets time go on by d, and everything that is due until then happen. With
// zero it only waits until all that has begun can go no further without time. What
// the test wrote before it, the plugin may read from then on without a lock, and
// what the plugin wrote the test may read after it. One goroutine may call it at a
// time.
func (s *Supervisor) Pass(d time.Duration) {
	// What the test did before comes before whatever is called from now on, and
	// what was called comes before this returns: no test needs locks of its own.
	_ = s.Role()
	time.Sleep(d)
	synctest.Wait()
}

// bubbled tells whether time is virtual here.
func bubbled() (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("it lives on virtual time: call it inside synctest.Test (package testing/synctest)")
		}
	}()
	synctest.Wait()
	return nil
}

// Now is the present time, by the clock that the plugin's Host has: 1000 s since
// boot when the story begins.
func (s *Supervisor) Now() sdk.Instant {
	return epoch.Add(time.Since(s.began))
}

// Role is the member's role now.
func (s *Supervisor) Role() sdk.Role {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.role
}

// Term is the highest term that there was, on any node.
func (s *Supervisor) Term() sdk.Term {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.term
}

// Until is when the lease ends, on the clock of Now; zero when none is held.
func (s *Supervisor) Until() sdk.Instant {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == nil {
		return 0
	}
	return s.lease.until
}

// end ends the plugin, and waits for all that runs.
func (s *Supervisor) end() {
	close(s.ended)
	s.mu.Lock()
	process, l := s.process, s.lease
	s.lease = nil
	s.mu.Unlock()
	if l != nil {
		l.release()
	}
	if process != nil {
		s.drain(process)
		s.destroy(process, errors.New("the test is over"))
	}
	s.tasks.Wait()
}

// drain has a process end what runs, and close, as a supervisor has that stops.
func (s *Supervisor) drain(process *inside) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), grace, errors.New("its grace is over"))
	defer cancel()
	_ = process.Drain(ctx, grace) // what it does not end is killed
}

// The bounds of a process's end.
const (
	grace = time.Second // for an act that is told to end
	late  = 50 * time.Millisecond
)

// destroy kills a process. In a unit test nothing can end what is deaf.
func (s *Supervisor) destroy(process *inside, cause error) {
	process.kill(cause)
	if !process.over(grace) {
		s.t.Errorf("a call of the plugin goes on %s after its context ended (%v): a supervisor kills its process then; have it end with its context", grace, cause)
	}
}

// respawn kills the process of a plugin, unless another is in its place already,
// and starts one.
func (s *Supervisor) respawn(old *inside, cause error) {
	s.mu.Lock()
	same := s.process == old
	if same {
		s.gone()
	}
	s.mu.Unlock()
	if !same {
		return
	}
	s.destroy(old, cause)
	s.spawn()
}

// spawn starts a process in place of one that has ended.
func (s *Supervisor) spawn() {
	if closed(s.ended) {
		return
	}
	process, err := newInside(s.plugin, s.log, s.Now)
	if err == nil {
		s.mu.Lock()
		config := s.config
		s.mu.Unlock()
		err = s.configure(process, config)
	}
	if err != nil {
		s.t.Errorf("start the plugin again: %v", err)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stopped = true
		if !closed(s.born) {
			close(s.born)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(process)
}

// gone takes the process out of force, and returns it. The caller holds mu.
func (s *Supervisor) gone() (process *inside) {
	if process = s.process; process != nil {
		s.process, s.born = nil, make(chan struct{})
	}
	return process
}

// living returns the process, once there is one, or nil when one of the channels
// is closed before, or there will be none.
func (s *Supervisor) living(cut, abort <-chan struct{}) *inside {
	for {
		s.mu.Lock()
		process, born, stopped := s.process, s.born, s.stopped
		s.mu.Unlock()
		if process != nil || stopped {
			return process
		}
		select {
		case <-born:
		case <-cut:
			return nil
		case <-abort:
			return nil
		case <-s.ended:
			return nil
		}
	}
}

// settle puts a configured process in force. The caller holds mu.
func (s *Supervisor) settle(process *inside) {
	s.process = process
	if !closed(s.born) {
		close(s.born)
	}
	if s.can(sdk.CanWatch) && s.service.Check.Interval > 0 {
		s.tasks.Go(func() { s.watch(process) })
	}
}

func (s *Supervisor) configure(process *inside, settings map[string]any) error {
	s.mu.Lock()
	setup := s.setup(settings)
	s.mu.Unlock()
	return process.Configure(context.Background(), setup)
}

// setup is what a process is configured with. The caller holds mu.
func (s *Supervisor) setup(settings map[string]any) wire.Setup {
	return wire.Setup{
		Service: s.service.Name, Node: s.service.Node.Node, Part: s.about.Name, StateDir: s.service.StateDir,
		Config: settings, Term: s.seen,
	}
}

func (s *Supervisor) can(c sdk.Capability) bool { return slices.Contains(s.about.Capabilities, c) }

// step waits until no other step of the story is on, and returns what ends this
// one.
func (s *Supervisor) step() (over func()) {
	<-s.turn // a mutex would not let virtual time go on
	return func() { s.turn <- struct{}{} }
}

// must ends the test unless the member has that role.
func (s *Supervisor) must(what string, roles ...sdk.Role) {
	s.t.Helper()
	s.mu.Lock()
	role, stopped := s.role, s.stopped
	s.mu.Unlock()
	switch {
	case stopped:
		s.t.Fatalf("%s: the supervisor was stopped", what)
	case !slices.Contains(roles, role):
		s.t.Fatalf("%s: the node is %s, and has to be %s\n%s", what, role, roles[0], s.Story())
	}
}

// become changes the role.
func (s *Supervisor) become(role sdk.Role, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.role.CanBecome(role) && s.role != role {
		panic(fmt.Sprintf("the role machine forbids %s -> %s", s.role, role))
	}
	s.role = role
	r := &record{at: time.Since(s.began), role: role, why: why.Error(), term: s.term}
	s.records = append(s.records, r)
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
