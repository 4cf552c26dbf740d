package netlab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Lab is an Ethernet with hosts.
type Lab struct {
	t      T
	middle *Host // has the switch
	hosts  int
}

// A Host is a network namespace.
type Host struct {
	t    T
	ns   *os.File
	Port string           // of the switch; empty for the switch itself
	MAC  net.HardwareAddr // of eth0
	lab  *Lab
}

const (
	bridge = "br0"
	device = "eth0"
)

// New makes a lab without hosts.
func New(t T) *Lab {
	t.Helper()
	Require(t)
	l := &Lab{t: t}
	l.middle = newHost(t, l)
	l.middle.Must(func() error {
		off := false
		b := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs(), MulticastSnooping: &off}
		b.Name, b.HardwareAddr = bridge, net.HardwareAddr{2, 0, 0, 0, 1, 0}
		if err := netlink.LinkAdd(b); err != nil {
			return fmt.Errorf("make the switch: %w", err)
		}
		return netlink.LinkSetUp(b)
	})
	return l
}

func newHost(t T, l *Lab) *Host {
	t.Helper()
	h := &Host{t: t, lab: l}
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		h.ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { h.ns.Close() })
	h.Must(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return h
}

// Host adds a host with addresses, each with its prefix length, on eth0. It
// answers for them at once.
func (l *Lab) Host(addrs ...string) *Host {
	l.t.Helper()
	h := newHost(l.t, l)
	l.Plug(h, device, addrs...)
	return h
}

// Home is the namespace of this process. A device of it can be plugged.
func (l *Lab) Home() *Host {
	l.t.Helper()
	// Not of the first thread, which another test may have on a host just then.
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		l.t.Fatalf("open the namespace of this process: %v", err)
	}
	l.t.Cleanup(func() { ns.Close() })
	return &Host{t: l.t, ns: ns, lab: l}
}

// Plug connects a new device of a host with the switch.
func (l *Lab) Plug(h *Host, name string, addrs ...string) {
	l.t.Helper()
	l.hosts++
	h.Port = fmt.Sprintf("port%d", l.hosts)
	h.MAC = net.HardwareAddr{2, 0, 0, 0, 0, byte(l.hosts)}
	l.middle.Must(func() error {
		sw, err := netlink.LinkByName(bridge)
		if err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MasterIndex = h.Port, sw.Attrs().Index
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: name, PeerHardwareAddr: h.MAC, PeerNamespace: netlink.NsFd(int(h.ns.Fd()))}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("plug a host in: %w", err)
		}
		return nil
	})
	h.Must(func() error {
		eth, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			if addr.IP.To4() == nil {
				addr.Flags = unix.IFA_F_NODAD
			}
			if err := netlink.AddrAdd(eth, addr); err != nil {
				return fmt.Errorf("add %s: %w", a, err)
			}
		}
		return netlink.LinkSetUp(eth)
	})
	l.t.Cleanup(func() {
		_ = l.middle.Do(func() error {
			link, err := netlink.LinkByName(h.Port)
			if err != nil {
				return err
			}
			return netlink.LinkDel(link)
		})
	})
	l.middle.Must(func() error {
		link, err := netlink.LinkByName(h.Port)
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	})
	h.Must(func() error { return running(name) })
}

// running waits until the kernel has noticed that a device has a carrier,
// which takes it up to a second.
func running(name string) error {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		link, err := netlink.LinkByName(name)
		switch {
		case err != nil:
			return err
		case link.Attrs().OperState == netlink.OperUp:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("%s is %s 10s after it was plugged in", name, link.Attrs().OperState)
		}
	}
}

// SetCarrier plugs the host's cable in or pulls it.
func (h *Host) SetCarrier(up bool) {
	h.t.Helper()
	h.lab.middle.Must(func() error {
		link, err := netlink.LinkByName(h.Port)
		if err != nil {
			return err
		}
		if up {
			return netlink.LinkSetUp(link)
		}
		return netlink.LinkSetDown(link)
	})
}

// Pull pulls the cable from a port of the switch.
func (l *Lab) Pull(port string) {
	l.t.Helper()
	l.middle.Must(func() error {
		link, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(link)
	})
}

// Do runs f on the host: sockets that it opens and processes that it starts
// stay there.
func (h *Host) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

// Must is Do for what has to work.
func (h *Host) Must(f func() error) {
	h.t.Helper()
	if err := h.Do(f); err != nil {
		h.t.Fatalf("%v", err)
	}
}

// Run runs a program on the host and returns what it prints.
func (h *Host) Run(name string, args ...string) string {
	h.t.Helper()
	var out []byte
	h.Must(func() (err error) {
		if out, err = exec.Command(name, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
		}
		return nil
	})
	return string(out)
}

// Set sets a sysctl of the host, such as net/ipv4/ip_forward.
func (h *Host) Set(key, value string) {
	h.t.Helper()
	h.Must(func() error { return os.WriteFile("/proc/sys/"+key, []byte(value), 0o644) })
}

// onThread runs f on a thread of its own, whose namespace f may change.
func onThread(f func() error) error {
	did := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			did <- err
			return
		}
		defer home.Close()
		err = f()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			err = errors.Join(err, back) // the thread ends with this goroutine
		} else {
			runtime.UnlockOSThread()
		}
		did <- err
	}()
	return <-did
}
