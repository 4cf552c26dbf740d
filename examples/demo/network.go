package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The lab's network, all of it inside the namespaces that the demo makes. The
// addresses are those kept for documentation (RFC 5737).
const (
	bridgeName  = "lab0"
	deviceName  = "eth0" // of each node
	serviceAddr = "192.0.2.10"
	clientAddr  = "192.0.2.1"
	prefixLen   = 24
)

// nodeAddr is the address of the i-th node, from 0.
func nodeAddr(i int) string { return fmt.Sprintf("192.0.2.%d", 11+i) }

// nodeMAC is the hardware address of the i-th node, which it keeps when it is
// turned off and on, as real ones do.
func nodeMAC(i int) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, byte(1 + i)} }

// etcdAddr is the address of the i-th member of etcd, from 0.
func etcdAddr(i int) string { return fmt.Sprintf("192.0.2.%d", 21+i) }

// makeBridge makes the switch of the lab in this process's namespace, with the
// addresses of the client and of etcd on it.
func makeBridge() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	// Without spanning tree, which is off by default, a port forwards at once.
	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs(), MulticastSnooping: &snooping}
	bridge.Name = bridgeName
	// Otherwise it has the lowest address of its ports, another one whenever
	// these change, and its neighbours lose it for seconds.
	bridge.HardwareAddr = net.HardwareAddr{2, 0, 0, 0, 1, 0}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("make the bridge: %w", err)
	}
	for _, host := range []string{clientAddr, etcdAddr(0), etcdAddr(1), etcdAddr(2)} {
		if err := addAddr(netlink.AddrAdd, bridge, host); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("bring up the bridge: %w", err)
	}
	// The kernel keeps what is sent to a neighbour that does not answer, up to
	// a whole socket's buffer, which stops whoever sends. Let it keep one.
	if err := os.WriteFile("/proc/sys/net/ipv4/neigh/"+bridgeName+"/unres_qlen_bytes", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("shorten the queue to neighbours: %w", err)
	}
	return nil
}

func addAddr(add func(netlink.Link, *netlink.Addr) error, link netlink.Link, host string) error {
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(host).To4(), Mask: net.CIDRMask(prefixLen, 32)}}
	if err := add(link, addr); err != nil {
		return fmt.Errorf("add %s to %s: %w", host, link.Attrs().Name, err)
	}
	return nil
}

// A wire connects a node with the bridge.
type wire struct {
	near   netlink.Link    // on the bridge
	inside *netlink.Handle // in the node's namespace
	far    netlink.Link    // there
}

// plug connects the namespace of process pid, gives it the address, and makes
// its side ready before the other.
func plug(name string, i, pid int) (_ *wire, err error) {
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return nil, fmt.Errorf("find the bridge: %w", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = "vb-"+name, bridge.Attrs().Index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: deviceName, PeerHardwareAddr: nodeMAC(i), PeerNamespace: netlink.NsPid(pid)}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("make the wire of %s: %w", name, err)
	}
	w := &wire{}
	defer func() {
		if err != nil {
			err = errors.Join(err, netlink.LinkDel(veth))
			if w.inside != nil {
				w.inside.Close()
			}
		}
	}()
	if w.near, err = netlink.LinkByName(attrs.Name); err != nil {
		return nil, err
	}
	if w.inside, err = handleIn(pid); err != nil {
		return nil, fmt.Errorf("look into %s: %w", name, err)
	}
	if w.far, err = w.inside.LinkByName(deviceName); err != nil {
		return nil, fmt.Errorf("find %s of %s: %w", deviceName, name, err)
	}
	lo, err := w.inside.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	if err := addAddr(w.inside.AddrAdd, w.far, nodeAddr(i)); err != nil {
		return nil, err
	}
	for _, up := range []func() error{
		func() error { return w.inside.LinkSetUp(lo) },
		func() error { return w.inside.LinkSetUp(w.far) },
		func() error { return netlink.LinkSetUp(w.near) },
	} {
		if err := up(); err != nil {
			return nil, fmt.Errorf("bring up the wire of %s: %w", name, err)
		}
	}
	return w, nil
}

// openDoors makes the client ask each node for to past the switch's and its own
// idea of who has that address.
func openDoors(to netip.AddrPort) (*direct, error) {
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return nil, fmt.Errorf("find the bridge: %w", err)
	}
	from, err := netip.ParseAddr(clientAddr)
	if err != nil {
		return nil, err
	}
	var doors []net.HardwareAddr
	for i := range size {
		doors = append(doors, nodeMAC(i))
	}
	return openDirect(bridge.Attrs().Index, from, to, doors)
}

// has reports whether the kernel of the node has an address, be it silent or
// not.
func (w *wire) has(host string) (bool, error) {
	addrs, err := w.inside.AddrList(w.far, netlink.FAMILY_V4)
	if err != nil {
		return false, err
	}
	for _, a := range addrs {
		if a.IP.String() == host {
			return true, nil
		}
	}
	return false, nil
}

// cut takes the carrier away.
func (w *wire) cut() error { return netlink.LinkSetDown(w.near) }

// remove takes the wire away, on both sides. The kernel does so itself, some
// time after the namespace at its end is gone.
func (w *wire) remove() error {
	w.inside.Close()
	if err := netlink.LinkDel(w.near); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove %s: %w", w.near.Attrs().Name, err)
	}
	return nil
}

// handleIn opens netlink in the network namespace of a process. A socket stays
// in the namespace in which it was opened.
func handleIn(pid int) (_ *netlink.Handle, err error) {
	target, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, err
	}
	defer target.Close()
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer home.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return nil, errors.Join(err, back) // and the thread ends with its goroutine, still locked
	}
	runtime.UnlockOSThread()
	return h, err
}
