package supervisor_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	. "github.com/deputy-ha/deputy/supervisor/supervisortest"
)

// A scene is a story on virtual time: some machines with one service, what
// befalls them, and the journal that tells it.
type scene struct {
	*testing.T
	journal  *Journal
	cluster  *Cluster
	service  supervisor.Service
	can      map[string][]sdk.Capability // of each part
	machines map[string]*machine
}

// A machine is a node of a scene: its parts, and the process that runs there.
type machine struct {
	scene     *scene
	name      string
	priority  int
	parts     map[string]*Plugin
	escalator *Escalator
	*Node
	member *supervisor.Member
	stop   context.CancelCauseFunc
	ended  chan struct{}
	err    error
}

// story runs a scene on virtual time and compares its journal with the file
// named after the test. Whatever happens, two nodes never act as primary.
func story(t *testing.T, play func(s *scene)) {
	t.Helper()
	stage(t, func(s *scene) {
		play(s)
		synctest.Wait()
		s.journal.Compare(s.T, "testdata/"+strings.TrimPrefix(s.Name(), "Test")+".txt")
	})
}

// stage runs a scene without comparing its journal.
func stage(t *testing.T, play func(s *scene)) {
	t.Helper()
	Bubble(t, func(t *testing.T) {
		s := newScene(t)
		defer s.close()
		s.part("disk")
		s.part("vip")
		play(s)
		synctest.Wait()
		s.journal.NeverTwo(t)
	})
}

// newScene returns a scene with a service that has no parts yet.
func newScene(t *testing.T) *scene {
	j := NewJournal()
	s := &scene{
		T: t, journal: j, cluster: NewCluster(j),
		service: supervisor.Service{
			Name: "db", TTL: 3 * time.Second, Priority: 100,
			OnDemoteFailure: supervisor.Block, OnUnclean: supervisor.UncleanWait, OnBehind: supervisor.BehindRefuse,
		},
		can:      map[string][]sdk.Capability{},
		machines: map[string]*machine{},
	}
	s.cluster.Trip = time.Millisecond
	return s
}

// close ends all that runs.
func (s *scene) close() {
	for _, m := range s.machines {
		m.end()
	}
	s.cluster.Close()
}

// part adds a part to the service; without capabilities it can promote,
// demote, check and renew.
func (s *scene) part(name string, can ...sdk.Capability) *supervisor.Part {
	s.can[name] = can
	s.service.Parts = append(s.service.Parts, supervisor.Part{
		Use: name, Name: name,
		Promote: supervisor.ActPolicy{Timeout: 10 * time.Second},
		Demote:  supervisor.ActPolicy{Timeout: 5 * time.Second},
		Fence:   supervisor.ActPolicy{Timeout: time.Minute},
		Check:   supervisor.CheckPolicy{Interval: time.Second, Timeout: 500 * time.Millisecond, Fall: 3, Rise: 2, StartGrace: 5 * time.Second},
	})
	return &s.service.Parts[len(s.service.Parts)-1]
}

// machine returns the named machine; its parts exist, nothing runs yet.
func (s *scene) machine(name string) *machine {
	m := s.machines[name]
	if m == nil {
		m = &machine{scene: s, name: name, priority: s.service.Priority, parts: map[string]*Plugin{}}
		for _, p := range s.service.Parts {
			plugin := NewPlugin(s.journal, name, p.Name, s.can[p.Name]...)
			plugin.Quiet, plugin.Pace = true, 2*time.Millisecond
			m.parts[p.Name] = plugin
		}
		s.machines[name] = m
	}
	return m
}

// run starts deputy on the named machines, one shortly after the other.
func (s *scene) run(names ...string) *machine {
	for _, name := range names {
		s.machine(name).run()
		s.wait(100 * time.Millisecond)
	}
	return s.machine(names[0])
}

// run starts deputy on the machine.
func (m *machine) run() {
	s := m.scene
	m.Node = s.cluster.Node(m.name)
	m.escalator = &Escalator{Journal: s.journal, Node: m.name}
	setup := m.Setup()
	setup.Service = s.service
	setup.Service.Priority = m.priority
	setup.Elector = m.Elector(s.service.Name, s.service.TTL)
	setup.Escalator = m.escalator
	for _, p := range s.service.Parts {
		setup.Plugins = append(setup.Plugins, m.Plugin(m.parts[p.Name]))
	}
	member, err := supervisor.NewMember(setup)
	if err != nil {
		s.Fatal(err)
	}
	m.member = member
	ctx, stop := m.Context(context.Background())
	ended := make(chan struct{})
	m.stop, m.ended = stop, ended
	go func() {
		defer close(ended)
		m.err = member.Run(ctx)
	}()
}

// guard has the kernel end what the parts do when they are not renewed.
func (m *machine) guard() {
	for _, p := range m.parts {
		p.Guard = m.scene.cluster.Node(m.name).Clock()
	}
}

// end stops deputy on the machine, by force if it must.
func (m *machine) end() {
	if m.ended == nil {
		return
	}
	select {
	case <-m.ended:
	default:
		m.kill()
	}
}

// down stops deputy on the machine with the cause given and waits for its end.
func (m *machine) down(cause error) {
	m.scene.journal.Add(m.name, "deputy is %v", cause)
	m.stop(cause)
	<-m.ended
	m.scene.journal.Add(m.name, "deputy has ended")
}

// kill ends the process at once; what it promoted stays as it is.
func (m *machine) kill() {
	m.Kill()
	<-m.ended
}

// wait lets time pass.
func (s *scene) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// says adds a line of the narrator's.
func (s *scene) says(text string) { s.journal.Add("", "%s", text) }

// is fails the test unless the machine is in the role.
func (m *machine) is(want sdk.Role) {
	m.scene.Helper()
	if got := m.member.Status().Role; got != want {
		m.scene.Errorf("%s is %s, want %s\n%s", m.name, got, want, m.scene.journal)
	}
}

// acts fails the test unless the part acts as primary, or does not.
func (m *machine) acts(part string, want bool) {
	m.scene.Helper()
	if got := m.parts[part].ActsAsPrimary(); got != want {
		m.scene.Errorf("%s acts as primary on %s: %v, want %v\n%s", part, m.name, got, want, m.scene.journal)
	}
}

// order has an operator's side do something.
func (s *scene) order(f func(context.Context, supervisor.Cluster) error) {
	s.Helper()
	if err := f(context.Background(), s.cluster.Operator()); err != nil {
		s.Errorf("an order fails: %v\n%s", err, s.journal)
	}
}

// switchover asks for the role to be moved.
func (s *scene) switchover(to string) {
	s.Helper()
	s.says("an operator asks for a switchover to " + to)
	s.order(func(ctx context.Context, c supervisor.Cluster) error {
		return c.Request(ctx, s.service.Name, supervisor.Reservation{
			ID: "order", To: to, Reason: sdk.ReasonSwitchover, By: "ann", State: supervisor.Asked, For: s.service.Patience(),
		})
	})
}

// powerOff takes a machine's power away.
func (m *machine) powerOff() {
	m.kill()
	m.breakParts()
}

// breakParts has nothing act any more that does without a supervisor.
func (m *machine) breakParts() {
	for _, p := range m.scene.service.Parts {
		if plugin := m.parts[p.Name]; plugin.Description.Can(sdk.CanPromote) {
			plugin.Break(false, "off")
		}
	}
}
