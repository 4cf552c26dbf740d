package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// fastAddr is the address that keepalived keeps with short times.
func fastAddr() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, 30}) }

// keepalived is VRRP with and without short times, both kept by one process.
func keepalived() *peer {
	return &peer{
		name: "keepalived", packages: "keepalived", first: 0,
		watches: []peerWatch{{"advert_int 1", serviceAddr()}, {"advert_int 0.1", fastAddr()}},
		equip: func(h *host, group []*host) error {
			text, err := fill("keepalived.conf", map[string]any{
				"Name": h.name, "Priority": 150 - 25*slices.Index(group, h), "Default": serviceAddr(), "Fast": fastAddr(),
			})
			return errors.Join(err, h.write("/etc/keepalived/keepalived.conf", text))
		},
		form: func(*peerScene) {},
		takePart: func(s *peerScene) error {
			for _, h := range s.hosts {
				if _, err := h.run(s.ctx, "systemctl", "is-active", "keepalived.service"); err != nil {
					return fmt.Errorf("keepalived: %w", err)
				}
			}
			return nil
		},
		repair: restartKeepalived,
		faults: append([]peerFault{
			{
				name: "switchover", hold: 2 * time.Second,
				do:   func(s *peerScene, h *host) { s.on(h, "systemctl", "stop", "keepalived.service") },
				undo: func(s *peerScene, h *host) { s.on(h, "systemctl", "start", "keepalived.service") },
			},
			{
				name: "main process killed", hold: 6 * time.Second,
				do: func(s *peerScene, h *host) {
					s.on(h, "kill", "-KILL", s.on(h, "systemctl", "show", "-P", "MainPID", "keepalived.service"))
				},
				undo: func(s *peerScene, h *host) { s.on(h, "systemctl", "restart", "keepalived.service") },
			},
			{
				name: "all processes killed", hold: 10 * time.Second,
				do:   func(s *peerScene, h *host) { s.signal(h, "KILL", "keepalived") },
				undo: func(s *peerScene, h *host) { s.on(h, "systemctl", "restart", "keepalived.service") },
			},
			{
				name: "all processes stopped", hold: 10 * time.Second,
				do:   func(s *peerScene, h *host) { s.signal(h, "STOP", "keepalived") },
				undo: func(s *peerScene, h *host) { s.letGoOn(h, "keepalived") },
			},
		}, hostFaults()...),
	}
}

// restartKeepalived starts it again everywhere, so that one host has all
// addresses: the one whose first address is answered.
func restartKeepalived(s *peerScene) {
	s.Helper()
	first := s.hosts[0]
	if all := s.holders(s.services[0]); len(all) > 0 {
		first = all[len(all)-1]
	}
	for _, h := range s.others(first) {
		s.on(h, "systemctl", "stop", "keepalived.service")
	}
	s.on(first, "systemctl", "restart", "keepalived.service")
	s.until(mends, func() bool { return s.holder() == first })
	for _, h := range s.others(first) {
		s.on(h, "systemctl", "start", "keepalived.service")
	}
}
