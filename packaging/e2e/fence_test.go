package e2e

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/deputy-ha/deputy/packaging/e2e/prober"
	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// TestFence plays unclean losses of a service that has its lost primary fenced, by
// a power switch that really turns hosts off.
func TestFence(t *testing.T) {
	fenced(t, func(s *fenceScene) {
		for _, one := range []struct {
			name string
			play func(s *fenceScene)
		}{
			{"host-frozen", (*fenceScene).hostFrozen},
			{"power-loss", (*fenceScene).powerLoss},
			{"in-peace", (*fenceScene).inPeace},
			{"switch-away", (*fenceScene).switchAway},
			{"switch-dead", (*fenceScene).switchDead},
		} {
			ok := s.Run(one.name, func(t *testing.T) {
				s.lab.play(t, scenario{one.name, func(inner *scene) {
					one.play(&fenceScene{scene: inner, off: s.off})
				}})
			})
			if !ok {
				return // what failed may have left anything behind
			}
		}
	})
}

//go:embed testdata/fence/fence_switch
var fenceAgent string

const switchPassword = "switch-s3cr3t"

// fenced plays in a lab with a switch, and a service that has it used.
func fenced(t *testing.T, play func(s *fenceScene)) {
	r := needHosts(t)[0] // nothing of it is a matter of systemd's version
	f := &figures{}
	defer f.print(os.Stdout)
	inLab(t, r, quick(ttl), f, func(l *lab) {
		off := &fenceSwitch{lab: l}
		if err := off.open(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := off.close(); err != nil {
				t.Error(err)
			}
		}()
		l.orders.text = strings.Replace(l.orders.text, "%s", "on_unclean = \"fence\"\n%s", 1) + off.part()
		s := &fenceScene{&scene{T: t, lab: l, ctx: t.Context(), began: now()}, off}
		if err := s.prepare(); err != nil {
			t.Fatal(err)
		}
		play(s)
	})
}

// A fenceScene is a scene with a power switch.
type fenceScene struct {
	*scene
	off *fenceSwitch
}

// prepare installs and enables everything.
func (s *fenceScene) prepare() error {
	err := s.each(func(h *host) error {
		if err := errors.Join(s.install(s.ctx, h, oldVersion), s.configure(h),
			h.write("/usr/sbin/fence_switch", fenceAgent), h.write("/etc/deputy/credentials/switch", switchPassword+"\n")); err != nil {
			return err
		}
		if _, err := h.run(s.ctx, "chmod", "755", "/usr/sbin/fence_switch"); err != nil {
			return err
		}
		if _, err := h.run(s.ctx, "chmod", "600", "/etc/deputy/credentials/switch"); err != nil {
			return err
		}
		if _, err := h.run(s.ctx, "deputy", "plugin", "validate", "fence", "--service", service); err != nil {
			return err
		}
		return s.enable(s.ctx, h)
	})
	if err == nil {
		_, err = s.orders.settled(s.ctx, 0)
	}
	return err
}

// back boots a host that is off, and waits until all take part.
func (s *fenceScene) back(h *host) {
	s.Helper()
	if err := errors.Join(h.awaitOff(s.ctx), h.freezeAll(false), s.boot(s.ctx, h)); err != nil {
		s.Fatal(err)
	}
	s.primary()
}

// fenced waits until another host serves than the lost one, and fails unless that
// began only after the switch had proven it off.
func (s *fenceScene) fenced(what string, lost *host, before supervisor.Primary, began prober.Instant) {
	s.Helper()
	s.served(before)
	at, _ := s.current()
	first := prober.Instant(0)
	for _, span := range s.orders.Spans(began) {
		if span.Node == at.name && (first == 0 || span.Last() < first) {
			first = span.Last()
		}
	}
	if off := s.off.said(began, "status "+lost.name, "off"); off == 0 || first < off {
		s.Errorf("%s: %s answered, and nobody had seen %s off by then", what, at.name, lost.name)
	}
	s.outage(what, began)
}

// Everything on the primary's host stands still. It is turned off, seen to be off,
// and only then is another promoted.
func (s *fenceScene) hostFrozen() {
	const what = "fenced: host frozen"
	for range runs() {
		from, before := s.primary()
		began := now()
		if err := from.freezeAll(true); err != nil {
			s.Fatal(err)
		}
		s.fenced(what, from, before, began)
		if s.off.said(began, "off "+from.name, "ok") == 0 || from.isOn() {
			s.Errorf("%s: %s is on", what, from.name)
		}
		s.history("fenced: " + from.name + " by fence")
		s.back(from)
	}
	s.bound(what+silent, ttl+time.Second, ttl+3*time.Second)
}

// The power of the primary fails. The switch says that it is off, and nothing has
// to be done.
func (s *fenceScene) powerLoss() {
	const what = "fenced: power loss"
	for range runs() {
		from, before := s.primary()
		began := now()
		if err := from.lose(s.ctx); err != nil {
			s.Fatal(err)
		}
		s.fenced(what, from, before, began)
		if s.off.said(began, "off "+from.name, "ok") != 0 {
			s.Errorf("%s: %s was turned off though it was off", what, from.name)
		}
		s.back(from)
	}
	s.bound(what+silent, ttl+time.Second, ttl+3*time.Second)
}

// Nobody is fenced in a switchover, nor when a supervisor is killed and comes back,
// nor for a clean stop.
func (s *fenceScene) inPeace() {
	began := now()
	from, before := s.primary()
	s.ok(from, "deputy", "switchover", service)
	from, before = s.moved(before)
	pid := s.mainPID(from)
	killed := now()
	s.ok(from, "kill", "-KILL", pid)
	s.awaitNewPID(from, pid)
	s.kept("fenced: SIGKILL of the supervisor", from, uint64(before.Term), killed)
	s.ok(from, "systemctl", "stop", unit)
	s.served(before)
	s.ok(from, "systemctl", "start", unit)
	s.primary()
	for _, c := range s.off.calls(began) {
		if !strings.HasPrefix(c.asked, "status ") {
			s.Errorf("the switch was asked to %s", c.asked)
		}
	}
}

// The switch does not answer. Nobody is promoted, everybody says why; when it
// answers again the service has a primary, without an operator.
func (s *fenceScene) switchAway() {
	from, before := s.primary()
	since := time.Now()
	s.off.hang(true)
	defer s.off.hang(false)
	standby := s.others(from)[0]
	await(s.T, 30*time.Second, "a standby warns before it is needed", func() bool {
		out, err := standby.run(s.ctx, "deputy", "status", service)
		flat := strings.Join(strings.Fields(out), " ")
		return err == nil && strings.Contains(flat, "warning: cannot fence ") && strings.Contains(flat, from.name+": no answer within 2s")
	})
	await(s.T, settleFor, "so does its journal", func() bool {
		return strings.Contains(s.journal(s.ctx, standby, since, 200), "a node could not be fenced now")
	})
	if h, _ := s.current(); h != from {
		s.Fatalf("a switch that is away has moved the role from %s to %v", from.name, h)
	}
	began := now()
	if err := from.lose(s.ctx); err != nil {
		s.Fatal(err)
	}
	await(s.T, 60*time.Second, "all others say why they do not lead", func() bool {
		r, err := s.orders.records(s.ctx)
		if err != nil {
			return false
		}
		if r.primary.Term > before.Term && r.primary.State == sdk.RolePrimary {
			s.Fatalf("%s is primary, and %s was not fenced", r.primary.Node, from.name)
		}
		return !slices.ContainsFunc(s.others(from), func(h *host) bool {
			return !strings.Contains(r.candidates[h.name].Verdict, "fence "+from.name+": fence: ")
		})
	})
	out := s.ok(standby, "deputy", "status", service)
	s.Logf("status:\n%s", out)
	if flat := strings.Join(strings.Fields(out), " "); !strings.Contains(flat, "fence "+from.name+": fence: ") || !strings.Contains(flat, "no primary") && !strings.Contains(flat, "promoting") {
		s.Error("it does not say why")
	}
	if !strings.Contains(s.journal(s.ctx, standby, since, 400), "no answer within 2s") {
		s.Error("the journal does not say why")
	}
	if who, ago := s.orders.Answering(); ago < now()-began-time.Second {
		s.Errorf("%s answered %s ago", who, ago)
	}
	s.off.hang(false)
	mended := now()
	s.served(before)
	s.figures.add(s.systemd, "fenced: a primary after the switch answers again", now()-mended)
	s.back(from)
}

// The switch is dead for good. An operator, who has made sure that the host is off,
// says so.
func (s *fenceScene) switchDead() {
	from, before := s.primary()
	s.off.hang(true)
	defer s.off.hang(false)
	began := now()
	if err := from.lose(s.ctx); err != nil {
		s.Fatal(err)
	}
	await(s.T, 30*time.Second, "somebody has tried to fence it", func() bool { return s.off.said(began, "off "+from.name, "") != 0 })
	rest := s.others(from)
	to := rest[0]
	if out, err := rest[1].run(s.ctx, "deputy", "failover", service, "--to", to.name, "--fenced", rest[1].name); err == nil || !strings.Contains(out, "was not lost as primary") {
		s.Errorf("an operator vouches for a healthy host: %v %s", err, out)
	}
	asked := now()
	var out string
	await(s.T, 60*time.Second, "an operator's failover", func() bool {
		var err error
		// While the one asked for tries to fence it cannot be asked.
		out, err = rest[1].run(s.ctx, "deputy", "failover", service, "--to", to.name, "--fenced", from.name)
		return err == nil
	})
	s.Logf("failover:\n%s", out)
	s.served(before)
	if at, _ := s.current(); at != to {
		s.Errorf("the role is at %s, want %s", at.name, to.name)
	}
	s.figures.add(s.systemd, "fenced: a primary after an operator has vouched", now()-asked)
	s.history("who says that " + from.name + " is down")
	s.off.hang(false)
	s.back(from)
}

// history fails unless the history has a text.
func (s *fenceScene) history(want string) {
	s.Helper()
	h := s.hosts[slices.IndexFunc(s.hosts, (*host).isOn)]
	await(s.T, 10*time.Second, "the history has: "+want, func() bool {
		out, err := h.run(s.ctx, "deputy", "history", service)
		return err == nil && strings.Contains(strings.Join(strings.Fields(out), " "), want)
	})
}

// A fenceSwitch turns hosts off for who knows its password, and notes what it is
// asked for.
type fenceSwitch struct {
	lab     *lab
	mu      sync.Mutex // held while a host is turned off or on
	listen  net.Listener
	serving errgroup.Group
	stop    context.CancelFunc

	state sync.Mutex
	deaf  bool
	log   []switched
}

// A switched is something that was asked of the switch, and what it said.
type switched struct {
	at          prober.Instant
	asked, said string
}

const switchPort = 7100

func (p *fenceSwitch) open() (err error) {
	if p.listen, err = net.Listen("tcp4", netip.AddrPortFrom(clientAddr(), switchPort).String()); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	p.serving.Go(func() error {
		for {
			conn, err := p.listen.Accept()
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				return fmt.Errorf("power switch: %w", err)
			}
			p.serving.Go(func() error {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				p.serve(ctx, conn)
				return nil
			})
		}
	})
	return nil
}

func (p *fenceSwitch) close() error {
	if p.listen == nil {
		return nil
	}
	p.stop()
	return errors.Join(p.listen.Close(), p.serving.Wait())
}

// serve answers one question. One that is deaf lets who asks wait.
func (p *fenceSwitch) serve(ctx context.Context, conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	if err != nil {
		return
	}
	password, asked, _ := strings.Cut(strings.TrimSpace(line), " ")
	p.state.Lock()
	deaf := p.deaf
	p.state.Unlock()
	said := ""
	switch {
	case deaf:
	case password != switchPassword:
		said = "denied"
	default:
		said = p.obey(ctx, strings.Fields(asked))
	}
	p.state.Lock()
	p.log = append(p.log, switched{now(), asked, said})
	p.state.Unlock()
	if deaf {
		_, _ = in.ReadByte() // until who asks gives up
		return
	}
	fmt.Fprintln(conn, said)
}

func (p *fenceSwitch) obey(ctx context.Context, words []string) string {
	if len(words) == 1 && words[0] == "monitor" {
		return "ok"
	}
	if len(words) != 2 || p.lab.host(words[1]) == nil {
		return "no such plug"
	}
	h := p.lab.host(words[1])
	p.mu.Lock()
	defer p.mu.Unlock()
	switch words[0] {
	case "status":
		return map[bool]string{true: "on", false: "off"}[h.isOn()]
	case "off":
		if err := h.lose(ctx); err != nil {
			return err.Error()
		}
		return "ok"
	}
	return "no such command"
}

// hang has the switch be silent, or answer again.
func (p *fenceSwitch) hang(yes bool) {
	p.state.Lock()
	defer p.state.Unlock()
	p.deaf = yes
}

// calls are those since an instant.
func (p *fenceSwitch) calls(from prober.Instant) (found []switched) {
	p.state.Lock()
	defer p.state.Unlock()
	for _, c := range p.log {
		if c.at >= from {
			found = append(found, c)
		}
	}
	return found
}

// said is when the switch first answered a question so since an instant, or nothing
// while it is deaf; zero for never.
func (p *fenceSwitch) said(from prober.Instant, asked, answer string) prober.Instant {
	for _, c := range p.calls(from) {
		if c.asked == asked && c.said == answer {
			return c.at
		}
	}
	return 0
}

// part is what the definition has of it.
func (p *fenceSwitch) part() string {
	var nodes []string
	for _, h := range p.lab.hosts {
		nodes = append(nodes, fmt.Sprintf("%s = { plug = %q }", h.name, h.name))
	}
	return fmt.Sprintf(`
[[plugin]]
use   = "fence"
fence = { timeout = "10s", retries = 0 }
[plugin.config]
agent   = "fence_switch"
options = { ip = "%s", ipport = "%d", password = { credential = "switch" } }
nodes   = { %s }
timeout = "2s"
monitor = "3s"
`, clientAddr(), switchPort, strings.Join(nodes, ", "))
}
