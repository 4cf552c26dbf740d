package main

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
)

// Check looks whether the node could have the addresses, and whether it has
// them just when it should.
func (v *vip) Check(_ context.Context, role sdk.Role) (sdk.Health, error) {
	unfit := func(err error) (sdk.Health, error) { return sdk.Health{Detail: err.Error()}, nil }
	l, err := v.ready()
	if err != nil {
		return unfit(err)
	}
	now, err := v.look()
	if err != nil {
		return unfit(err)
	}
	if role != sdk.RolePrimary {
		switch err := now.foreign(); {
		case err != nil:
			return unfit(err)
		case len(now.here) > 0:
			return unfit(fmt.Errorf("%s is here although this node is %s", now.here[0], role))
		}
		return sdk.Health{Fit: true, Detail: fmt.Sprintf("%s can come to %s", v, l.name)}, nil
	}
	switch err := v.restless(); {
	case err != nil:
		return unfit(err)
	case !v.inPlace(l, now.here) && len(now.here) == 0:
		return unfit(fmt.Errorf("%s is not here", v))
	case !v.inPlace(l, now.here):
		return unfit(fmt.Errorf("want %s on %s, have %v", v, l.name, now.here))
	case v.Guard && !now.guard.Installed:
		return unfit(errors.New("the guard is gone: somebody has removed its nftables tables (nft flush ruleset? a firewall that reloads?)"))
	case v.Guard && now.guard.Left == 0:
		return unfit(errors.New("the guard has closed: the lease was not renewed"))
	}
	detail := fmt.Sprintf("%s on %s", v, l.name)
	v.mu.Lock()
	if v.rival != nil {
		detail += "; " + v.rival.Error() + ", too"
	}
	v.mu.Unlock()
	return sdk.Health{Fit: true, Detail: detail}, nil
}

// ready returns the interface if addresses could be added to it now.
func (v *vip) ready() (link, error) {
	l, err := v.kernel.link(v.Interface)
	switch {
	case err != nil:
		return l, v.renamed(err)
	case l.part == "bridge" || l.part == "bond" || l.part == "team": // a VRF has its own addresses
		return l, fmt.Errorf("interface %s is a port of a %s, which takes what comes in by it: give the %s's name as interface", l.name, l.part, l.part)
	case v.MonitorLink && l.flags&unix.IFF_UP == 0:
		return l, fmt.Errorf("interface %s is down: ip link set %s up", l.name, l.name)
	case v.MonitorLink && !l.up():
		return l, fmt.Errorf("interface %s has no carrier: its cable, switch port or peer", l.name)
	}
	for _, p := range v.places() {
		if p.Addr().Is6() && disabled(l.name) {
			return l, fmt.Errorf("IPv6 is disabled on %s: sysctl net.ipv6.conf.%s.disable_ipv6=0", l.name, l.name)
		}
	}
	if err := capable("CAP_NET_ADMIN", unix.CAP_NET_ADMIN); err != nil {
		return l, err
	}
	if v.Announce.Count == 0 || !l.announces() {
		return l, nil
	}
	return l, capable("CAP_NET_RAW", unix.CAP_NET_RAW)
}

// capable is an error that tells the cure unless this process has a capability.
func capable(name string, bit uint) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	switch err := unix.Capget(&header, &data[0]); {
	case err != nil:
		return fmt.Errorf("read capabilities: %w", err)
	case data[bit/32].Effective&(1<<(bit%32)) == 0:
		return fmt.Errorf("%s is missing: %s", name, cure(name))
	}
	return nil
}
