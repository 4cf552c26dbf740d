package e2e

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/deputy-ha/deputy/packaging/e2e/prober"
)

// The comparison: what others do when the same happens, on the same hosts,
// heard by the same prober. Nothing here judges them; what is measured is in the
// table at the end.

// peersEnv has hosts with peers booted, and no others.
const peersEnv = "DEPUTY_E2E_PEERS"

// A peer is a program that keeps an address on one host of three, set up as its
// manual says.
type peer struct {
	name     string
	packages string // besides those that every host has
	first    int    // the number of its first host
	watches  []peerWatch
	equip    func(h *host, group []*host) error // writes its settings, before the host is turned on
	form     func(s *peerScene)                 // makes a cluster of hosts that are on
	takePart func(s *peerScene) error           // nil when all hosts do
	repair   func(s *peerScene)                 // what an operator does where it does not mend itself
	faults   []peerFault
}

// A peerWatch is an address that a peer keeps.
type peerWatch struct {
	name string
	addr netip.Addr
}

// A peerFault is what happens to the host that has the address.
type peerFault struct {
	name string
	do   func(s *peerScene, h *host)
	hold time.Duration // how long it lasts at least
	undo func(s *peerScene, h *host)
	mute bool // the host answers only after it is undone
}

// peers are all that are compared.
func peers() []*peer { return []*peer{keepalived(), pacemaker(), fencedPacemaker()} }

// release is the one that they are compared on, with what the peer needs.
func (p *peer) release() release { return release{suite: "bookworm", systemd: "252", more: p.packages} }

// preparePeers makes what their hosts need, and nothing of deputy.
func preparePeers(ctx context.Context, dir string) error {
	for _, p := range peers() {
		if err := p.release().makeRoot(ctx); err != nil {
			return err
		}
	}
	return makeAnswer(ctx, dir)
}

//go:embed testdata/peers
var peerFiles embed.FS

// fill returns a file of testdata/peers with its gaps filled.
func fill(name string, with any) (string, error) {
	t, err := template.ParseFS(peerFiles, "testdata/peers/"+name)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, with)
	return b.String(), err
}

func TestPeers(t *testing.T) {
	if os.Getenv(peersEnv) == "" {
		t.Skip("hosts with keepalived and Pacemaker are booted by `make peers` alone")
	}
	needHosts(t)
	f := &figures{}
	t.Cleanup(func() {
		f.print(os.Stdout)
		if err := sweepCgroups(dirPrefix()); err != nil {
			t.Error(err)
		}
	})
	for _, p := range peers() {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel() // they share the switch, and mostly wait
			s := &peerScene{T: t, peer: p, ctx: t.Context()}
			if err := s.open(f); err != nil {
				t.Fatal(errors.Join(err, s.close()))
			}
			defer func() {
				f.note(p.name, "longest time the prober did not ask", ms(s.probe.Held(0)))
				if err := s.close(); err != nil {
					t.Error(err)
				}
			}()
			p.form(s)
			s.settled()
			for _, fault := range p.faults {
				t.Run(fault.name, func(t *testing.T) {
					for range runs() {
						playIn(t, &s.T, &s.ctx, peerRunFor, func() { s.suffer(fault) })
					}
				})
			}
		})
	}
}

// A peerScene is three hosts of a peer.
type peerScene struct {
	*testing.T
	*lab
	peer  *peer
	ctx   context.Context
	power *fenceSwitch // in whose hands the hosts are
}

// peerRunFor is longer than one run takes.
const peerRunFor = 4 * time.Minute

// open turns the hosts on, set up, and has the prober ask.
func (s *peerScene) open(f *figures) error {
	dir, r := os.Getenv(insideEnv), s.peer.release()
	s.lab = &lab{release: r, dir: dir, figures: f}
	s.power = &fenceSwitch{lab: s.lab}
	if _, err := s.ask(); err != nil {
		return err
	}
	for _, w := range s.peer.watches {
		at := netip.AddrPortFrom(w.addr, answersPort)
		s.watch(&watched{name: w.name, client: at, at: func(*host) netip.AddrPort { return at }})
	}
	for i := range size {
		s.hosts = append(s.hosts, newHost(hostsDir(dir), r, hostName(s.peer.first+i), s.peer.first+i))
	}
	names := "127.0.0.1 localhost\n"
	for _, h := range s.hosts {
		names += fmt.Sprintf("%s %s\n", h.addr, h.name)
	}
	return s.each(func(h *host) error {
		if err := errors.Join(h.format(answerFile(dir)), h.write("/etc/hosts", names), s.peer.equip(h, s.hosts)); err != nil {
			return err
		}
		return s.boot(s.ctx, h)
	})
}

// close turns everything off, but for what others use.
func (s *peerScene) close() error { return errors.Join(s.power.close(), s.off()) }

// holders are the hosts that answer at an address.
func (s *peerScene) holders(w *watched) (found []*host) {
	for _, h := range s.hosts {
		if last := w.LastAsked(h.name); last != 0 && now()-last < 100*time.Millisecond {
			found = append(found, h)
		}
	}
	return found
}

// holder is the one host that has all addresses; nil when there is none.
func (s *peerScene) holder() (one *host) {
	for _, w := range s.services {
		all := s.holders(w)
		if who, ago := w.Answering(); len(all) != 1 || one != nil && one != all[0] || who != all[0].name || ago > 100*time.Millisecond {
			return nil
		}
		one = all[0]
	}
	return one
}

// until waits for a condition; it reports whether it came true in time.
func (s *peerScene) until(atMost time.Duration, ok func() bool) bool {
	for deadline := now() + atMost; !ok(); time.Sleep(10 * time.Millisecond) {
		if s.ctx.Err() != nil {
			s.Fatal(context.Cause(s.ctx))
		}
		if now() > deadline {
			return false
		}
	}
	return true
}

// rest lets time pass.
func (s *peerScene) rest(d time.Duration) { s.until(d, func() bool { return false }) }

// mends is how long a peer has to become as it was without an operator.
const mends = 15 * time.Second

// settled waits until one host has all addresses and all take part, and stay
// like that; a cluster that does not get there by itself is repaired.
func (s *peerScene) settled() *host {
	s.Helper()
	for try := range 4 {
		var at *host
		var since prober.Instant
		var what error
		if s.until(mends, func() bool {
			h := s.holder()
			if h == nil || h != at {
				at, since = h, now()
				return false
			}
			if now()-since < time.Second {
				return false
			}
			what, since = s.peer.takePart(s), now()
			return what == nil
		}) {
			return at
		}
		s.Logf("not settled (%v): repaired, %d", what, 1+try)
		s.peer.repair(s)
	}
	s.tellPeer()
	s.Fatal("not settled, however often it is repaired")
	return nil
}

// suffer plays a fault once, and notes what was heard.
func (s *peerScene) suffer(f peerFault) {
	s.Helper()
	from := s.settled()
	began := now()
	f.do(s, from)
	s.rest(f.hold - (now() - began))
	answered := s.until(time.Minute, func() bool {
		return !slices.ContainsFunc(s.services, func(w *watched) bool {
			_, ago := w.Answering()
			return ago > 100*time.Millisecond
		})
	})
	// Now, since what a host that was frozen answers late was not answered then.
	all := make([]heard, 0, len(s.services))
	for _, w := range s.services {
		silent, _ := w.Outage(began)
		who, _ := w.Answering()
		all = append(all, heard{watched: w, silent: silent, moved: who != from.name, two: len(s.holders(w)) > 1})
	}
	since := began
	if f.mute {
		since = now()
	}
	if f.undo != nil {
		f.undo(s, from)
	}
	for _, h := range s.hosts {
		if !h.isOn() { // whoever turned it off
			s.turn(h, true)
		}
	}
	mended := s.until(mends, func() bool {
		return !slices.ContainsFunc(s.services, func(w *watched) bool { return len(s.holders(w)) != 1 })
	})
	s.rest(time.Second) // what was on its way has arrived
	for _, h := range all {
		s.note(f, h, answered, mended, since)
	}
	if os.Getenv("DEPUTY_E2E_TELL") != "" {
		s.tellPeer()
	}
	if !mended {
		s.peer.repair(s)
	}
}

// heard is what was heard of an address until a fault was undone.
type heard struct {
	*watched
	silent     time.Duration
	moved, two bool // to another host; two hosts answer in the end
}

// note notes what was heard, and how long two answered since an instant.
func (s *peerScene) note(f peerFault, h heard, answered, mended bool, since prober.Instant) {
	s.Helper()
	what, two := h.name+", "+f.name, prober.Doubled(h.Overlaps(since))
	if answered {
		s.figures.add(s.peer.name, what+silent, h.silent)
	} else {
		s.figures.note(s.peer.name, what+": nobody answers", "for more than a minute")
	}
	s.figures.add(s.peer.name, what+": two answer at once for", two)
	role := "stays"
	if h.moved {
		role = "moves"
	}
	if h.two {
		role += ", two until it is mended"
	}
	if !mended {
		role += ", an operator has to put it right"
	}
	s.figures.note(s.peer.name, what+": the role", role)
	s.Logf("%s: %s, nobody for %s, two for %s", what, role, ms(h.silent), ms(two))
}

// on runs a program on a host, which must succeed.
func (s *peerScene) on(h *host, args ...string) string {
	s.Helper()
	out, err := h.run(s.ctx, args...)
	if err != nil {
		s.tellPeer()
		s.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// tellPeer prints what hosts say.
func (s *peerScene) tellPeer() {
	s.Helper()
	for _, h := range s.hosts {
		if !h.isOn() {
			s.Logf("%s is off", h.name)
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		out, err := h.run(ctx, "sh", "-c", "journalctl --no-pager -q -o short-precise -n 60; ip -o addr show dev host0; ps axo pid,stat,args | grep -E 'keepalived|corosync|pacemaker'")
		cancel()
		s.Logf("%s: %s %v", h.name, out, err)
	}
}

// The faults that hit a host, whatever runs on it.

func (s *peerScene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// turn turns a host on or off, while the switch does not.
func (s *peerScene) turn(h *host, on bool) {
	s.Helper()
	s.power.mu.Lock()
	defer s.power.mu.Unlock()
	if !on {
		s.must(h.lose(s.ctx))
		return
	}
	s.must(errors.Join(h.awaitOff(s.ctx), s.boot(s.ctx, h)))
}

// letGoOn undoes a SIGSTOP, unless who was stopped is gone by now: by its
// supervisor, or with its host.
func (s *peerScene) letGoOn(h *host, program string) {
	_, _ = h.run(s.ctx, "sh", "-c", `kill -CONT $(pidof "$1")`, "sh", program)
}

// signal sends a signal to all processes of a program.
func (s *peerScene) signal(h *host, sig, program string) {
	s.Helper()
	s.on(h, "sh", "-c", `kill -"$1" $(pidof "$2")`, "sh", sig, program)
}

// hostFaults are those of hosts and network.
func hostFaults() []peerFault {
	const hold = 10 * time.Second
	mend := func(s *peerScene, h *host) { s.must(s.mend(s.ctx, h)) }
	return []peerFault{
		{
			name: "host frozen with all that it runs", hold: hold, mute: true,
			do:   func(s *peerScene, h *host) { s.must(h.freezeAll(true)) },
			undo: func(s *peerScene, h *host) { s.must(h.freezeAll(false)) },
		},
		{
			name: "power loss", hold: time.Second,
			do: func(s *peerScene, h *host) { s.turn(h, false) },
		},
		{
			name: "partition", hold: hold, undo: mend,
			do: func(s *peerScene, h *host) { s.must(s.cutOff(s.ctx, h, cut{hosts: true})) },
		},
		{
			name: "partition one way, towards the others", hold: hold, undo: mend,
			do: func(s *peerScene, h *host) {
				s.must(s.nft(s.ctx, fmt.Sprintf("add table bridge cut-%s\nadd chain bridge cut-%[1]s forward { type filter hook forward priority 0; }\nadd rule bridge cut-%[1]s forward iifname vb-%[1]s drop\n", h.name)))
			},
		},
	}
}
