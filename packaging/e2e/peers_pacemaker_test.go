package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
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
		s.must(s.power.open())
		names := make([]string, 0, size)
		for _, h := range s.hosts {
			names = append(names, h.name)
		}
		text, err := fill("power.xml", map[string]any{"Addr": clientAddr(), "Port": switchPort, "Password": switchPassword, "Hosts": strings.Join(names, " ")})
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
			return errors.Join(err, h.write("/etc/corosync/corosync.conf", conf), h.write("/usr/sbin/fence_switch", fenceAgent))
		},
		form: func(s *peerScene) {
			for _, h := range s.hosts {
				s.on(h, "chmod", "755", "/usr/sbin/fence_switch")
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
				name: "switchover", hold: 5 * time.Second,
				do: func(s *peerScene, h *host) {
					s.on(h, "crm_resource", "--resource", "address", "--move", "--node", s.others(h)[0].name)
				},
				undo: func(s *peerScene, h *host) { s.on(h, "crm_resource", "--resource", "address", "--clear") },
			},
			{
				name: "pacemakerd killed", hold: 8 * time.Second,
				do: func(s *peerScene, h *host) { s.signal(h, "KILL", "pacemakerd") },
			},
			{
				name: "corosync killed", hold: 15 * time.Second,
				do:   func(s *peerScene, h *host) { s.signal(h, "KILL", "corosync") },
				undo: startPacemaker,
			},
			{
				name: "corosync stopped", hold: 10 * time.Second,
				do:   func(s *peerScene, h *host) { s.signal(h, "STOP", "corosync") },
				undo: func(s *peerScene, h *host) { s.letGoOn(h, "corosync") },
			},
			{
				name: "pacemaker-controld stopped", hold: 10 * time.Second,
				do:   func(s *peerScene, h *host) { s.signal(h, "STOP", "pacemaker-controld") },
				undo: func(s *peerScene, h *host) { s.letGoOn(h, "pacemaker-controld") },
			},
		}, hostFaults()...),
	}
}

// allOnline reports what is missing until all hosts are members of one cluster
// that has a quorum.
func allOnline(s *peerScene) error {
	for _, h := range s.hosts {
		if !h.isOn() {
			return fmt.Errorf("%s is off", h.name)
		}
		out, err := h.run(s.ctx, "crm_mon", "--one-shot")
		if err != nil {
			return err
		}
		_, online, _ := strings.Cut(out, "Online:")
		for _, o := range s.hosts {
			if !strings.Contains(online, " "+o.name+" ") {
				return fmt.Errorf("%s is not online for %s: %s", o.name, h.name, out)
			}
		}
		if strings.Contains(out, "partition WITHOUT quorum") {
			return fmt.Errorf("no quorum for %s: %s", h.name, out)
		}
	}
	return nil
}

// startPacemaker starts what an operator finds failed, and what needs it, on a
// host that has not been turned off.
func startPacemaker(s *peerScene, h *host) {
	if h.isOn() {
		_, _ = h.run(s.ctx, "sh", "-c", "systemctl is-active corosync && systemctl is-active pacemaker || timeout 60 systemctl restart corosync pacemaker")
	}
}

// repairPacemaker turns on what is off, starts what does not run, and has
// failures forgotten.
func repairPacemaker(s *peerScene) {
	s.Helper()
	for _, h := range s.hosts {
		if !h.isOn() {
			s.turn(h, true)
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
