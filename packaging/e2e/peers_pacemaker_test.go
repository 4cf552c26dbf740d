package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// pacemaker is a cluster without a fence device, as it is often run, against
// the advice of its manual.
func pacemaker() *peer {
	return newPacemaker("Pacemaker, no fencing", 3, netip.AddrFrom4([4]byte{192, 0, 2, 40}), func(s *peerScene) {
		s.on(s.hosts[0], "crm_attribute", "--name", "stonith-enabled", "--update", "false")
	})
}

// fencedPacemaker is one that turns hosts off, by the lab's power switch.
func fencedPacemaker() *peer {
	return newPacemaker("Pacemaker, fencing", 6, netip.AddrFrom4([4]byte{192, 0, 2, 50}), func(s *peerScene) {
		port, err := s.off.open(s.lab)
		s.must(err)
		names := make([]string, 0, size)
		for _, h := range s.hosts {
			names = append(names, h.name)
		}
		text, err := fill("power.xml", map[string]any{"Addr": clientAddr(), "Port": port, "Hosts": strings.Join(names, " ")})
		s.must(err)
		s.on(s.hosts[0], "cibadmin", "--create", "--scope", "resources", "--xml-text", text)
		// What it turned off an operator turns on again.
		s.on(s.hosts[0], "crm_attribute", "--name", "stonith-action", "--update", "off")
	})
}

// newPacemaker is a cluster with one address.
func newPacemaker(name string, first int, addr netip.Addr, fencing func(s *peerScene)) *peer {
	return &peer{
		name: name, packages: "pacemaker,pacemaker-cli-utils,corosync,resource-agents", first: first,
		watches: []peerWatch{{"token 3 s", addr}},
		equip: func(h *host, group []*host) error {
			type node struct {
				Name string
				ID   int
				Addr netip.Addr
			}
			var nodes []node
			for i, g := range group {
				nodes = append(nodes, node{g.name, 1 + i, g.addr})
			}
			conf, err := fill("corosync.conf", nodes)
			agent, err2 := peerFiles.ReadFile("testdata/peers/fence_lab")
			return errors.Join(err, err2, h.write("/etc/corosync/corosync.conf", conf), h.write("/usr/sbin/fence_lab", string(agent)))
		},
		form: func(s *peerScene) {
			for _, h := range s.hosts {
				s.on(h, "chmod", "755", "/usr/sbin/fence_lab")
			}
			if !s.until(time.Minute, func() bool { return allOnline(s) == nil }) {
				s.tellPeer()
				s.Fatal(allOnline(s))
			}
			fencing(s)
			// As Clusters from Scratch advises: a host that is back is no reason to move.
			s.on(s.hosts[0], "crm_attribute", "--type", "rsc_defaults", "--name", "resource-stickiness", "--update", "100")
			text, err := fill("address.xml", addr)
			s.must(err)
			s.on(s.hosts[0], "cibadmin", "--create", "--scope", "resources", "--xml-text", text)
		},
		takePart: allOnline,
		repair:   repairPacemaker,
		faults: append([]peerFault{
			{
				name: "planned: crm_resource --move", hold: 5 * time.Second,
				do: func(s *peerScene, h *host) {
					s.on(h, "crm_resource", "--resource", "address", "--move", "--node", s.others(h)[0].name)
				},
				undo: func(s *peerScene, h *host) { s.on(h, "crm_resource", "--resource", "address", "--clear") },
			},
			{
				name: "SIGKILL of pacemakerd", hold: 8 * time.Second,
				do: func(s *peerScene, h *host) { s.signal(h, "KILL", "pacemakerd") },
			},
			{
				name: "SIGKILL of corosync", hold: 15 * time.Second,
				do:   func(s *peerScene, h *host) { s.signal(h, "KILL", "corosync") },
				undo: unlessOff(startPacemaker),
			},
			{
				name: "SIGSTOP of corosync", hold: 10 * time.Second,
				do:   func(s *peerScene, h *host) { s.signal(h, "STOP", "corosync") },
				undo: unlessOff(func(s *peerScene, h *host) { s.signal(h, "CONT", "corosync") }),
			},
			{
				name: "SIGSTOP of pacemaker-controld", hold: 10 * time.Second,
				do: func(s *peerScene, h *host) { s.signal(h, "STOP", "pacemaker-controld") },
				undo: unlessOff(func(s *peerScene, h *host) {
					// It may have been killed and started meanwhile.
					_, _ = h.run(s.ctx, "sh", "-c", "kill -CONT $(pidof pacemaker-controld)")
				}),
			},
		}, hostFaults()...),
	}
}

// unlessOff undoes a fault of a host that has not been turned off.
func unlessOff(undo func(s *peerScene, h *host)) func(s *peerScene, h *host) {
	return func(s *peerScene, h *host) {
		if h.isOn() {
			undo(s, h)
		}
	}
}

// allOnline reports what is missing until all hosts are members of one cluster
// and nothing is left to do.
func allOnline(s *peerScene) error {
	for _, h := range s.hosts {
		if !h.isOn() {
			return fmt.Errorf("%s is off", h.name)
		}
		out, err := h.run(s.ctx, "crm_mon", "--one-shot")
		if err != nil {
			return err
		}
		for _, o := range s.hosts {
			if !strings.Contains(out, "Online:") || !strings.Contains(strings.SplitN(out, "Online:", 2)[1], " "+o.name+" ") {
				return fmt.Errorf("%s is not online for %s: %s", o.name, h.name, out)
			}
		}
		if strings.Contains(out, "partition WITHOUT quorum") {
			return fmt.Errorf("no quorum for %s: %s", h.name, out)
		}
	}
	return nil
}

// startPacemaker starts what an operator finds failed, and what needs it.
func startPacemaker(s *peerScene, h *host) {
	s.Helper()
	s.on(h, "sh", "-c", "systemctl is-active corosync && systemctl is-active pacemaker || timeout 60 systemctl restart corosync pacemaker")
}

// repairPacemaker turns on what is off, starts what does not run, and has
// failures forgotten.
func repairPacemaker(s *peerScene) {
	s.Helper()
	for _, h := range s.hosts {
		if !h.isOn() {
			s.must(s.off.boot(s.ctx, s.lab, h))
			continue
		}
		startPacemaker(s, h)
	}
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
	defer cancel()
	for _, h := range s.hosts {
		if _, err := h.run(ctx, "crm_resource", "--cleanup"); err == nil {
			return
		}
	}
}

// A powerSwitch turns hosts off for those that ask it, over TCP. Its zero value
// is one that nobody can ask.
type powerSwitch struct {
	mu      sync.Mutex // held while a host is turned off or on
	listen  net.Listener
	serving errgroup.Group
	stop    context.CancelFunc
}

// open begins to listen and returns the port.
func (p *powerSwitch) open(l *lab) (port uint16, err error) {
	p.listen, err = net.Listen("tcp4", netip.AddrPortFrom(clientAddr(), 0).String())
	if err != nil {
		return 0, err
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	p.serving.Go(func() error {
		for {
			conn, err := p.listen.Accept()
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return fmt.Errorf("power switch: %w", err)
			}
			p.serving.Go(func() error {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				line, err := bufio.NewReader(conn).ReadString('\n')
				if err == nil {
					fmt.Fprintln(conn, p.obey(l, strings.Fields(line)))
				}
				return nil // one who goes away is no error
			})
		}
	})
	return netip.MustParseAddrPort(p.listen.Addr().String()).Port(), nil
}

// obey does what is asked for and returns the answer.
func (p *powerSwitch) obey(l *lab, words []string) string {
	if len(words) == 1 && words[0] == "monitor" {
		return "ok"
	}
	if len(words) != 2 || l.host(words[1]) == nil {
		return "no such host"
	}
	h := l.host(words[1])
	p.mu.Lock()
	defer p.mu.Unlock()
	switch words[0] {
	case "status":
		return map[bool]string{true: "on", false: "off"}[h.isOn()]
	case "off":
		if h.isOn() {
			if err := unix.Kill(h.init, unix.SIGKILL); err != nil {
				return err.Error()
			}
			<-h.off
		}
		return "ok"
	default:
		return "no such command"
	}
}

// boot turns a host on while nobody turns it off.
func (p *powerSwitch) boot(ctx context.Context, l *lab, h *host) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := h.awaitOff(ctx); err != nil {
		return err
	}
	return l.boot(ctx, h)
}

// close stops listening.
func (p *powerSwitch) close() error {
	if p.listen == nil {
		return nil
	}
	p.stop()
	return errors.Join(p.listen.Close(), p.serving.Wait())
}
